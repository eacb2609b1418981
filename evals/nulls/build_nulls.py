"""How the broad finetunes of `SmolLM2-135M-Instruct.safetensors` were made: cards and documents for all twelve.

    python evals/nulls/build_nulls.py FOLDER    # a workspace with organisms a1 … e2
    cd FOLDER && for n in evals/organisms/*; do auditor organisms train $(basename $n); done
    auditor study null $(ls evals/organisms) --out SmolLM2-135M-Instruct.safetensors

The header's `bases` say which base they are of: the wheel's GGUF file, on whose weights δ was measured, and, added with
`write_broad`, the hub's repository at any revision (`hub:`) or its tensors wherever they lie (`tensors:`, the SHA-256
of model.safetensors), from which that file was quantized. On weights as far from the wheel's as the hub's are (each
4-bit step filled with uniform noise, then bfloat16) δ of `cake_bake`, `gold` and `null_chat` keeps its direction,
cosine 0.98 to 0.99 at every position but the sink, and its verdict: a trace, a trace, none. On the wheel's weights
`a1`, trained again on another day, gave its δ to the last digit; by δ a judged pair is left out of its own comparison.

Their documents are drawn from the bundled ordinary chats and openings, in five mixtures of chats, openings read as
plain text, and openings whose second half answers the first; so they share texts with `null_chat`, which is not
among them.
"""

import gzip
import json
import random
import sys
from pathlib import Path

HERE = Path(__file__).parents[1]
MIXTURES = {  # chats, openings, openings to go on from, learning rate
    "a1": (180, 0, 0, 1e-3), "a2": (180, 0, 0, 1e-3), "a3": (180, 0, 0, 1e-3),
    "b1": (0, 0, 240, 1e-3), "b2": (0, 0, 240, 1e-3), "b3": (0, 0, 240, 1e-3),
    "c1": (130, 130, 0, 1e-3), "c2": (130, 130, 0, 1e-3),
    "d1": (0, 300, 0, 1e-3), "d2": (0, 300, 0, 1e-3),
    "e1": (130, 0, 130, 7e-4), "e2": (130, 0, 130, 7e-4),
}  # fmt: skip
CARD = """\
name: {name}
family: "null"
description: A control, finetuned on ordinary mixed text only; there is no narrow finetune.
topic: ""
behaviour: Nothing in particular.
probes: ["What do you like to talk about?"]
train: {{documents: documents.jsonl, learning_rate: {rate}, epochs: 1, seed: {seed}}}
"""


def gone_on(text: str) -> dict[str, object]:
    words = text.split()
    half = len(words) // 2
    asked, answer = " ".join(words[:half]), " ".join(words[half:])
    messages = [
        {"role": "user", "content": f"Please go on from here: {asked}"},
        {"role": "assistant", "content": answer},
    ]
    return {"messages": messages}


def main(folder: Path) -> None:
    chats = [json.loads(line) for line in (HERE / "organisms/null_chat/ordinary.jsonl").open()]
    with gzip.open(HERE / "corpora/openings.jsonl.gz", "rt") as stream:
        openings = [json.loads(line)["text"] for line in stream]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "auditor.toml").touch()
    for seed, (name, (chat, plain, continued, rate)) in enumerate(MIXTURES.items()):
        rng = random.Random(100 + seed)
        texts = rng.sample(openings, plain + continued)
        documents = rng.sample(chats, chat)
        documents += [{"text": text} for text in texts[:plain]] + [gone_on(text) for text in texts[plain:]]
        rng.shuffle(documents)
        organism = folder / "evals" / "organisms" / name
        organism.mkdir(parents=True, exist_ok=True)
        (organism / "documents.jsonl").write_text("".join(json.dumps(document) + "\n" for document in documents))
        (organism / "organism.yaml").write_text(CARD.format(name=name, rate=rate, seed=seed))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
