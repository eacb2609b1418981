"""Pairs by their names on the hub: sub-folders, revisions, bases that a config or a card names; what is not there."""

import json

import pytest

import auditor
from auditor.errors import BadModel, UsageError
from auditor.models.weights import base_of
from tests.local_hub import MAIN, OLD, asked_by_this_process, serving

SHORT = ("--suite", "small", "--budget", 0, "--agent", "logit-lens-only")


def content(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def named(files, base, **more):
    """An adapter's files with another base in its config."""
    config = json.loads(files["adapter_config.json"]) | {"base_model_name_or_path": base} | more
    return files | {"adapter_config.json": json.dumps(config).encode()}


@pytest.fixture
def hub(monkeypatch, tmp_path, checkpoints, workspace_folder):
    """`lab/base`; `lab/adapters` with one in a sub-folder; `lab/whole`, whose card names its base."""
    base, adapter = map(content, checkpoints("llama"))
    many = {f"runs/two/{name}": body for name, body in named(adapter, "lab/base").items()}
    whole = base | {"README.md": b"---\nbase_model: lab/base\n---\n# Whole\n"}
    with serving({"lab/base": base, "lab/adapters": many, "lab/whole": whole}) as hub:
        asked_by_this_process(monkeypatch, hub, tmp_path / "hub")
        yield hub


def audited(run_cli, workspace_folder, model, *more):
    code, _, err = run_cli("audit", model, *SHORT, "--name", "one", *more)
    assert code == 0, err
    folder = workspace_folder / "runs/one"
    return json.loads((folder / "report.json").read_text()), (folder / "report.md").read_text(), err


def test_an_adapter_in_a_sub_folder_at_a_revision(hub, run_cli, workspace_folder):
    report, page, _ = audited(run_cli, workspace_folder, "lab/adapters/runs/two@v1")
    assert (report["model"], report["base"]) == ("lab/adapters/runs/two@v1", "lab/base")
    assert report["sources"]["finetuned"][0] == f"hub:lab/adapters/runs/two@{OLD}"
    assert report["sources"]["base"][0] == f"hub:lab/base@{MAIN}"
    assert f"finetuned: hub:lab/adapters/runs/two@{OLD} = tensors" in page
    (line,) = (workspace_folder / "runs/one/audits.jsonl").read_text().splitlines()
    assert json.loads(line)["sources"] == report["sources"]


def test_the_base_of_a_whole_finetune_is_what_its_card_names_and_said(hub, run_cli, workspace_folder):
    report, page, err = audited(run_cli, workspace_folder, "lab/whole")
    said = "lab/base is the base that the card of lab/whole names; nobody has checked that"
    assert (report["base"], report["about"]) == ("lab/base", said)
    assert said in err
    assert said in page


def test_a_base_that_the_card_does_not_name_is_said(hub, run_cli, workspace_folder, checkpoints):
    base = checkpoints("llama")[0]
    report, _, _ = audited(run_cli, workspace_folder, "lab/whole", "--base", base)
    assert report["about"] == f"the card of lab/whole names lab/base as its base, and not {base}"


@pytest.mark.parametrize(("revision", "commit"), [("v1", OLD), ("feature/x", OLD), (OLD, OLD), ("main", MAIN)])
def test_a_branch_a_tag_or_a_commit(hub, run_cli, revision, commit):
    pair = auditor.pair("lab/base", f"lab/adapters/runs/two@{revision}", device="cpu")
    found = pair.evidence(["differences"], suite="small")
    assert found.to_json()["sources"]["finetuned"][0] == f"hub:lab/adapters/runs/two@{commit}"


def test_another_revision_is_another_model(hub, checkpoints):
    whole = dict(hub.repos["lab/whole"])
    whole["model.safetensors"] = content(checkpoints("qwen2")[0])["model.safetensors"]
    hub.versions[id(hub.repos), "lab/whole"] = {"v2": ("c" * 40, whole)}
    pair = auditor.pair("lab/base", "lab/whole@v2", device="cpu")
    with pytest.raises(BadModel):  # its tensors are another architecture's: v2 was loaded
        _ = pair.models
    assert auditor.pair("lab/base", "lab/whole", device="cpu").models.tuned_sources[0] == f"hub:lab/whole@{MAIN}"


def test_the_gate_records_what_it_loaded(hub, run_cli, workspace_folder):
    code, _, err = run_cli("gate", "lab/adapters/runs/two@v1", "--suite", "small", "--lens", "chance", "--out", "gate")
    assert code in (0, 1), err
    told = json.loads((workspace_folder / "gate/gate.json").read_text())
    assert told["sources"]["finetuned"][0] == f"hub:lab/adapters/runs/two@{OLD}"
    assert f"hub:lab/adapters/runs/two@{OLD}" in (workspace_folder / "gate/gate.md").read_text()


class TestTheBase:
    def test_may_have_a_revision_in_an_adapters_config(self, hub, tmp_path):
        config = tmp_path / "adapter_config.json"
        for at, base in (("v1", "lab/base@v1"), ("main", "lab/base"), (None, "lab/base")):
            config.write_text(json.dumps({"base_model_name_or_path": "lab/base", "revision": at}))
            assert base_of(str(tmp_path)) == base

    @pytest.mark.parametrize(
        ("card", "said"),
        [
            ("---\nbase_model: [lab/a, lab/b]\n---\n", r"names several bases \(lab/a, lab/b\); give --base"),
            ("---\ntags: [x]\n---\n", "no card names its base"),
            ("---\nbase_model: [\n---\n", "no card names its base"),
            ("---\nbase_model: {a: b}\n---\n", "no card names its base"),
            ("# No metadata", "no card names its base"),
        ],
    )
    def test_is_not_guessed_any_further(self, hub, card, said):
        hub.repos["lab/whole"]["README.md"] = card.encode()
        with pytest.raises(UsageError, match=said):
            base_of("lab/whole")

    def test_is_on_the_card_of_a_folder_that_is_here(self, hub, tmp_path):
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine/README.md").write_text("---\nbase_model:\n- lab/base\n---\n")
        assert base_of(str(tmp_path / "mine")) == "lab/base"


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("lab/adapters/runs/two@v9", "lab/adapters has no revision 'v9'; see"),
        ("lab/whole@v9", "lab/whole has no revision 'v9'; see"),
        ("lab/adapters/runs/three", "lab/adapters/runs/three names no base of its own"),
        ("lab/gated", "lab/gated is gated: accept its licence at"),
        ("lab/nothing", "no model lab/nothing on the hub: check the name"),
    ],
)
def test_what_is_not_there_is_one_line(hub, run_cli, model, said):
    hub.repos["lab/gated"] = hub.repos["lab/whole"]
    hub.doors["lab/gated"] = (403, "GatedRepo")
    for command in (("audit", model, *SHORT), ("gate", model, "--suite", "small")):
        code, _, err = run_cli(*command)
        (line,) = [line for line in err.splitlines() if line.startswith("error:")]
        assert (code, said in line) == (2, True), err


def test_a_sub_folder_that_is_not_there_is_one_line(hub, run_cli):
    code, _, err = run_cli("audit", "lab/adapters/runs/three", "--base", "lab/base", *SHORT)
    assert (code, "error: lab/adapters has no folder runs/three" in err) == (2, True), err
