"""Share of domain tokens among the patchscope's top 20: δ beside the mean base and the mean finetuned activation.

    python benchmarks/domain_tokens.py [ORGANISM…]

Domain words are the 100 most frequent content words of the organism's finetuning documents (a content word has
a weight of 0.5 or more against ordinary text). Each source is read at its own best position, sinks left out.
Evidence comes from the cache, with the suite `quickstart`'s settings.
"""

import re
import sys
from collections import Counter
from collections.abc import Sequence

from auditor.runtime import tune_process

tune_process()

from auditor.config import load_settings  # noqa: E402
from auditor.evidence import evidence_for, make_lens  # noqa: E402
from auditor.lens.corpus import read_corpus  # noqa: E402
from auditor.lens.words import Background, as_word, background_of, words_in  # noqa: E402
from auditor.models.embed import load_embedder  # noqa: E402
from auditor.models.load import load_pair  # noqa: E402
from auditor.plugins import GraderContext  # noqa: E402
from auditor.training.documents import Document, read_documents  # noqa: E402
from auditor.types import ScoredToken  # noqa: E402
from auditor.workspace import load_workspace  # noqa: E402

TOP = 20


def text_of(document: Document) -> str:
    return document.text or "\n".join(m.content for m in document.messages if m.role == "assistant")


def domain_words(documents: Sequence[Document], background: Background) -> set[str]:
    counts = Counter(word for d in documents for word in words_in(text_of(d)))
    content = (w for w, _ in counts.most_common() if background.weight(w) >= 0.5 and re.fullmatch(r"[a-z]{3,}", w))
    return {word for word, _ in zip(content, range(100), strict=False)}


def share(tokens: Sequence[ScoredToken], domain: set[str]) -> float:
    return sum(as_word(token.token) in domain for token in tokens[:TOP]) / TOP


def main(names: Sequence[str]) -> None:
    ws, settings = load_workspace(), load_settings()
    texts = read_corpus(ws.corpora["openings"]).texts
    background, embed = background_of(tuple(texts)), load_embedder(settings.embedder)
    print(f"{'organism':16} {'δ':>6} {'base':>6} {'finetuned':>10}   at positions")
    for name in names or ws.suites["bundled"].organisms:
        card = ws.organisms[name]
        assert card.train is not None
        domain = domain_words(read_documents(card.folder / card.train.documents), background)
        pair = load_pair(card.base, card.finetuned, settings, name=name)
        grading = GraderContext(embed, settings, pair, texts)
        sheet = evidence_for(pair, make_lens(ws, pair, ws.suites["quickstart"].evidence, grading)).evidence
        positions = [p for p in sheet.layer(sheet.middle_layer).positions if not p.sink and p.patchscope]
        sources = (
            [(share(p.patchscope.tokens, domain), p.position) for p in positions if p.patchscope],
            [(share(p.patchscope_base, domain), p.position) for p in positions],
            [(share(p.patchscope_finetuned, domain), p.position) for p in positions],
        )
        best = [max(source) for source in sources]
        print(
            f"{name:16} {best[0][0]:6.2f} {best[1][0]:6.2f} {best[2][0]:10.2f}   {[position for _, position in best]}"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
