"""A lens with a null, for tests of the gate: how far residuals are apart, against prepared finetunes."""

import torch

from auditor.methods.nulls import Nulls, write_nulls
from auditor.models.weights import resolve

LENS = '''
"""How far the residuals are apart."""
from auditor import Figures, LensContext, ModelPair, RankedTokens, Reading, Record, lens
from auditor.methods.nulls import prediction
from auditor.models.generate import Side
from auditor.readings import Basis, Column, Token
import torch

class DriftSettings(Record):
    tokens: int = 4

class Drift(Reading):
    corpus_bound = False
    far: float
    tested: float | None = None
    others: int = 0

    @property
    def p(self):
        return self.tested

    @property
    def basis(self):
        return None if self.tested is None else Basis(finetunes=self.others)

    @property
    def trace(self):
        return {"far": torch.tensor(self.far)}

    def held_against(self, pair, ctx, nulls):
        others = nulls.traces["far"].tolist()
        return self.model_copy(update={"tested": prediction(self.far, others), "others": len(others)})

    def show(self):
        words = tuple(Token(text=word) for word in (" mill", " [red]flour", " bread"))
        return [RankedTokens(title="Drift", tested=True, about="Residuals apart.", places="framing",
                             columns=(Column(head="plain text", tokens=words),)),
                Figures(title="Drift", lines=(f"apart by {self.far:.2f}",))]

@lens
def drift(pair: ModelPair, ctx: LensContext, settings: DriftSettings) -> Drift:
    """How far the last layer's residuals are apart."""
    ids = torch.tensor([pair.tokenizer("The river runs past the mill").input_ids[:settings.tokens]])
    last = pair.n_layers - 1
    base, tuned = (pair.residuals(side, ids, [last])[last] for side in Side)
    return Drift(far=float((tuned - base).norm() / base.norm()))
'''


def add_drift(folder, base, settings, usual=0.0, count=8):
    """The lens in a workspace, and `count` finetunes of `base` without a subject that are about `usual` apart."""
    (folder / "tools").mkdir(exist_ok=True)
    (folder / "tools" / "drift.py").write_text(LENS)
    (folder / "evals" / "nulls").mkdir(parents=True, exist_ok=True)
    spread = usual + 1e-3 * torch.arange(count)
    nulls = Nulls("drift", resolve(str(base), settings).sources, {"far": spread}, {"tokens": 4})
    write_nulls(folder / "evals" / "nulls" / "tiny.drift.safetensors", nulls)
