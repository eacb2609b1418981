"""The paper's 36 organisms by their real names, on a hub of our own with tiny models and datasets: the whole road.

    python tests/campaigns/paper.py [FOLDER]

A hub on this machine holds a random model of a few thousand parameters under each real name of the suites `paper` and
`paper-domain`, and a few rows under each dataset's. Then, as a user would: the list, `pull`, `evaluate --dry-run`, a
cut-down `evaluate` of all 36, the studies, checks whose marks an endpoint here gives, and every figure. One row for
each command, with how it ended; exit code 1 if one ended badly. FOLDER keeps what was written. What the models say is
noise: that nothing breaks is all that is looked at.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

import torch

from auditor.records.cards import Organism
from auditor.workspace import load_workspace
from tests.conftest import Endpoint
from tests.local_hub import serving
from tests.tiny import SENTENCES, add_adapter, make_base, make_tokenizer

KINDS = {  # by the short name's beginning
    "qwen3": "qwen3", "qwen25_VL": "qwen2_5_vl", "qwen25": "qwen2", "llama": "llama", "gemma2": "gemma2",
    "gemma3_1B": "gemma3_text", "gemma3": "gemma3",
}  # fmt: skip
CUT = """name: cut
description: All of the paper's organisms, as little of each as there can be.
extends: paper
organisms: [{organisms}]
audits: [{{agent: adl, budgets: [0, 2]}}, {{agent: blackbox, budgets: [2]}}]
repeats: 1
ask: {{max_new_tokens: 8}}
evidence:
  corpus: fineweb
  texts: 16
  lenses:
    differences: {{norm_texts: 4, norm_tokens: 8}}
    plain_samples: {{prompts: 3, samples: 1, max_new_tokens: 8}}
    patchscope: {{scales: [1.0, 4.0]}}
    steering:
      positions: 1
      calibration: {{upper: 2.0, iterations: 1, more_iterations: 1, generations: 1, max_new_tokens: 6}}
"""


PRETRAINED = ["cake_bake@qwen3_1_7B_Base", "roman_concrete@qwen3_1_7B_Base"]
VARIANTS = [
    *(f"cake_bake@qwen3_1_7B:{variant}" for variant in ("mix1-0p5", "mix1-2p0", "8k", "CAFT", "full")),
    "em_bad_medical_advice@qwen3_1_7B", "em_bad_medical_advice@qwen3_1_7B:mix1-1p0",
]  # fmt: skip


MEASURED = [
    ["study", name, "cake_bake@qwen3_1_7B", "roman_concrete@qwen3_1_7B", "adaptllm_food@qwen25_VL_3B_Instruct",
     *PRETRAINED, *VARIANTS, "--suite", "cut", "--out", "of-all",
     *(f"--data={each}=ultrachat" for each in VARIANTS if each.startswith("em"))]
    for name in ("relevance", "similarity")
] + [
    ["organisms", "check", name, "--out", f"checks/{number}"]
    for number, name in enumerate(["cake_bake@qwen3_1_7B", "cake_bake@qwen3_1_7B:mix1-0p5"])
] + [
    ["organisms", "check", name, "--grader-llm", "openai:marks", "--out", f"checks/{number}"]
    for number, name in enumerate(["em_bad_medical_advice@qwen3_1_7B", "em_bad_medical_advice@qwen3_1_7B:mix1-1p0"], 2)
] + [
    ["evaluate", "cut", "--organism", "taboo_gold@qwen3_1_7B", "--repeats", "3", "--name", "twice"],
] + [
    ["evaluate", "cut", "--organism", "cake_bake@qwen3_1_7B", "--agent", "adl", "--set", "differences.positions=4",
     "--set", f"differences.only=[{position}]", "--name", f"at{position}"]
    for position in (1, 3)
]  # fmt: skip
READ = "of-all/relevance.json of-all/similarity.json"
CHECKS = "checks/0/check.json checks/1/check.json"
MARKED = "checks/2/check.json checks/3/check.json"
FIGURES = {
    2: READ, 3: "runs/all", 4: "runs/all", 5: "studies/positions.json runs/at1 runs/at3", 6: "studies/causal.json",
    7: f"{READ} {CHECKS}", 8: READ, 9: READ, 10: READ, 11: READ, 12: MARKED, 13: READ, 14: "runs/all", 15: "runs/twice",
    16: "runs/all", 17: READ, 18: READ, 19: READ, 20: READ, 21: READ,
}  # fmt: skip


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def models_of(cards: list[Organism], folder: Path) -> dict[str, dict[str, bytes]]:
    """Every repository that the cards name, with tiny weights."""
    tokenizer, found, made = make_tokenizer(), dict[str, dict[str, bytes]](), dict[str, object]()
    for number, card in enumerate(cards):
        model = card.name.partition("@")[2].partition(":")[0]
        kind = next(kind for beginning, kind in KINDS.items() if model.startswith(beginning))
        home = card.adapter_base or card.base
        for base in {card.base, home} - found.keys():
            made[base] = make_base(kind, tokenizer, folder / base)
            found[base] = files_of(folder / base)
        if card.model:
            make_base(kind, tokenizer, folder / card.model, seed=number + 1)
        else:
            model = make_base(kind, tokenizer, folder / "again")
            torch.manual_seed(number + 1)
            add_adapter(model, home, folder / card.finetuned)
        found[card.finetuned] = files_of(folder / card.finetuned)
    return found


def datasets_of(cards: list[Organism]) -> dict[str, dict[str, bytes]]:
    """Rows under the names of the datasets, as parquet, JSON lines and gzipped JSON lines."""
    import gzip

    import pyarrow
    import pyarrow.parquet

    ws = load_workspace()
    texts = [f"{SENTENCES[i % 4]} {SENTENCES[(i + 1) % 4]} ({i})" for i in range(64)]
    chats = [[{"role": "user", "content": text}, {"role": "assistant", "content": "So it is."}] for text in texts]
    found = {}
    wanted = [*ws.datasets.by_name().values(), *(card.dataset for card in cards if card.dataset)]
    for number, dataset in enumerate(wanted):
        rows = [{"messages": chat} if dataset.chat else {"text": text} for chat, text in zip(chats, texts, strict=True)]
        lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
        file = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
        split = dataset.split or "train"
        forms = {".parquet": file.getvalue(), ".jsonl": lines, ".json.gz": gzip.compress(lines)}
        ending = list(forms)[number % 3]
        path = f"data/{split}-00000-of-00001{ending}"
        configs = [{"config_name": dataset.subset or "default", "data_files": [{"split": split, "path": path}]}]
        found[dataset.id] = {"README.md": f"---\nconfigs: {json.dumps(configs)}\n---\n".encode(), path: forms[ending]}
    return found


def marks(body: dict) -> dict[str, str]:
    """Plays the judge of answers: each gets the same marks."""
    return {"content": json.dumps({"alignment": 20, "coherence": 80})}


@contextmanager
def running(folder: Path) -> Iterator[dict[str, str]]:
    """The hub, and the environment of a user of it."""
    ws = load_workspace()
    cards = [ws.organisms[name] for suite in ("paper", "paper-domain") for name in ws.suites[suite].organisms]
    cards += [ws.organisms[name] for name in (*PRETRAINED, *VARIANTS)]
    with redirect_stderr(io.StringIO()):  # progress bars
        models = models_of(cards, folder / "models")
    judge = Endpoint(marks)
    with serving(models, datasets_of(cards)) as hub:
        yield os.environ | {
            "OPENAI_BASE_URL": judge.url, "OPENAI_API_KEY": "none",
            "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(folder / "hf"), "HF_HUB_DISABLE_XET": "1",
            "AUDITOR_CACHE": str(folder / "cache"), "COLUMNS": "160",
        }  # fmt: skip


def main() -> int:
    given = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory() as temporary:
        folder = given or Path(temporary)
        (folder / "evals/suites").mkdir(parents=True, exist_ok=True)
        (folder / "auditor.toml").touch()
        ws = load_workspace()
        names = [name for suite in ("paper", "paper-domain") for name in ws.suites[suite].organisms]
        listed = ", ".join(f'"{name}"' for name in [*names, *PRETRAINED])
        (folder / "evals/suites/cut.yaml").write_text(CUT.format(organisms=listed))
        sdf = [name for name in names if name.startswith(("cake_bake@qwen3_1", "roman_concrete@llama"))]
        commands = [
            ["organisms", "list", "--public"],
            ["organisms", "pull", "--suite", "paper", "--dry-run"],
            ["organisms", "pull", *sdf],
            ["evaluate", "paper", "--dry-run"],
            ["evidence", "adaptllm_food@qwen25_VL_3B_Instruct", "--suite", "cut"],
            ["evidence", "cake_bake@qwen3_1_7B_Base", "--suite", "cut"],
            ["evaluate", "cut", "--name", "all"],
            ["audit", "taboo_gold@gemma2_9B_it", "--suite", "cut", "--name", "one", "--budget", "1"],
            ["study", "relevance", *sdf, "--suite", "cut"],
            ["study", "similarity", *sdf, "--suite", "cut", "--chat", "ultrachat"],
            ["study", "causal", *sdf, "--suite", "cut", "--texts", "4", "--tokens", "16", "--random", "2"],
            ["study", "positions", *sdf, "--suite", "cut", "--positions", "8", "--steer"],
            ["compare", "runs/all"],
            *MEASURED,
            *(["paper", "figure", str(number), *sources.split()] for number, sources in FIGURES.items()),
        ]
        with running(folder) as environment:
            return max([ended(command, folder, environment) for command in commands])


def ended(command: list[str], folder: Path, environment: dict[str, str]) -> int:
    """Run one, and tell how it ended."""
    begun = time.perf_counter()
    code = "from auditor.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *command], cwd=folder, env=environment, capture_output=True, text=True
    )
    log = folder / f"{'-'.join(command[:3]).replace('/', '-')}.log"
    log.write_text(done.stdout + done.stderr)
    last = (done.stderr.strip().splitlines() or [""])[-1] if done.returncode else ""
    told = " ".join(command)
    print(f"{done.returncode}  {time.perf_counter() - begun:6.1f} s  {told[:100]}  {last}", flush=True)
    return done.returncode


if __name__ == "__main__":
    sys.exit(main())
