"""docs/hub.md, run from top to bottom against a hub of ours."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

from tests.conftest import SUITE
from tests.hub_users import TOKEN
from tests.local_hub import asked_by_this_process, serving
from tests.test_hub_pairs import content, named

PAGE = Path(__file__).parent.parent / "docs/hub.md"


def test_every_block_runs(run_cli, workspace_folder, checkpoints, monkeypatch, tmp_path):
    blocks = re.findall(r"^```(sh|python)\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    assert len(blocks) >= 5
    base, adapter = map(content, checkpoints("llama"))
    many = {f"runs/two/{name}": body for name, body in named(adapter, "lab/base").items()}
    whole = base | {"README.md": b"---\nbase_model: lab/base\n---\n"}
    (workspace_folder / "evals/suites/quickstart.yaml").write_text(SUITE.replace("name: small", "name: quickstart"))
    with serving({"lab/base": base, "lab/adapters": many, "lab/whole": whole}) as hub:
        hub.tokens = {TOKEN: {"name": "me", "orgs": ["lab"], "role": "write"}}
        asked_by_this_process(monkeypatch, hub, tmp_path / "hub")
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr("typer.confirm", lambda *_args, **_more: True)
        assert run_cli("evaluate", "small", "--name", "mine", "--repeats", 1, "--budget", 0)[0] == 0
        for kind, text in blocks:
            if kind == "python":
                ran_python(text, hub.url, tmp_path)
                continue
            for line in text.splitlines():
                program, *args = shlex.split(line, comments=True)
                code, _, err = run_cli(*args)
                assert (program, code in ((0, 1) if args[0] == "gate" else (0,))) == ("auditor", True), f"{line}\n{err}"
        assert set(hub.datasets) == hub.private == {"lab/results", "lab/two-audit"}
        assert "refs/pr/1" in hub.versions[id(hub.repos), "lab/adapters"]


def ran_python(text, url, folder):
    own = {"HF_ENDPOINT": url, "HF_HUB_OFFLINE": "0", "HF_HOME": str(folder / "hf"), "HF_HUB_DISABLE_XET": "1"}
    told = subprocess.run(
        [sys.executable, "-c", text], env=os.environ | own, capture_output=True, text=True, timeout=120
    )
    assert told.returncode == 0, told.stderr
