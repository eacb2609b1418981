"""What a reading costs is what its pair's models were given to read."""

import pytest
import torch

from auditor.evidence.counted import Counted
from auditor.models.engine import HookEngine
from auditor.models.generate import Amplification, Request, Side
from auditor.models.host import Variant
from auditor.models.pair import NLL_TOKENS
from tests.tiny import LAYERS, SENTENCES, WIDTH

VECTORS = torch.ones(3, WIDTH)
ROWS = [[5, 6, 7, 8], [9, 10], [11, 12, 13]]
LONG = " ".join(SENTENCES * 8)


@pytest.fixture
def read(monkeypatch):
    """Tokens without padding that the blocks of each model read from now on."""
    found, now = dict.fromkeys(Side, 0), [Side.BASE]
    forward, run = HookEngine.forward, Variant.run

    def counted(engine, inputs, *, start=0, **more):
        if start < LAYERS:  # not the unembedding alone
            mask = inputs.get("attention_mask")
            found[now[0]] += inputs["input_ids"].numel() if mask is None else int(mask.sum())
        return forward(engine, inputs, start=start, **more)

    def chosen(variant, job):
        now[0] = Side.FINETUNED if variant.adapter else Side.BASE
        return run(variant, job)

    monkeypatch.setattr(HookEngine, "forward", counted)
    monkeypatch.setattr(Variant, "run", chosen)
    return found


@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize(
    ("method", "args"),
    [
        ("residuals", (torch.tensor([row[:2] for row in ROWS]), [1, 2])),
        ("unembed", (VECTORS,)),
        ("patched_logits", (["a → a\n?", "b → b and more?"], 1, VECTORS)),
        ("pushed_logits", (ROWS, 1, VECTORS)),
        ("swapped_nll", (ROWS, [[False, True, False, True], [True, False], [False, False, True]], 1, VECTORS)),
        ("mean_nll", ([*SENTENCES, "x", "", LONG],)),
        (
            "said_nll",
            ([Request("Why?", system="Be old."), Request("The mill", chat=False), Request("No.")], [" So.", " is", ""]),
        ),
    ],
)
def test_forward_passes(tiny, read, side, method, args):
    assert len(tiny.tokenizer(LONG).input_ids) > NLL_TOKENS
    counted = Counted(tiny)
    list(getattr(counted, method)(side, *args))
    assert counted.tokens == {each: tokens for each, tokens in read.items() if tokens}
    assert sum(read.values()) or method == "unembed"


@pytest.mark.parametrize(
    "more", [{}, {"system": "Be old.", "prefill": "Well"}, {"chat": False}, {"user_turn": True}], ids=str
)
def test_texts(tiny, more):
    """A prompt with its template and all that is put into it, and what was said."""
    request = Request("What turns here?", Side.FINETUNED, 3, 8, verbatim=True, **more)
    counted = Counted(tiny)
    [text] = counted.generate([request])
    said = len(tiny.tokenizer(text, add_special_tokens=False).input_ids)
    row = tiny.row(request)
    assert counted.tokens == {Side.FINETUNED: len(row.prompt) + said}
    amplified = Counted(tiny)
    [found] = amplified.amplified([Request("Why?", Side.FINETUNED, 3, 8, amplify=Amplification(1.0))])
    assert amplified.tokens[Side.BASE] == amplified.tokens[Side.FINETUNED] > len(tiny.row(Request("Why?")).prompt)
    assert found.text
