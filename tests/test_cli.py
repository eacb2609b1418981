"""What a user can get wrong: one line that says what, where and what would be right; exit code 2; no traceback."""

import json

import pytest

import auditor
from auditor.cli.evidence import layers_of
from auditor.records.cards import Rubric, Suite
from auditor.workspace import load_workspace
from auditor.yaml_files import read_yaml

WRONG = {
    "unknown suite": (["evaluate", "quikstart"], "no suite called 'quikstart'; did you mean quickstart"),
    "unknown organism": (["evaluate", "--organism", "glod"], "did you mean gold"),
    "unknown agent": (["evaluate", "--agent", "blackbx"], "did you mean blackbox"),
    "unknown tool": (["tools", "show", "ask_modle"], "did you mean ask_model"),
    "no arguments": (["tools", "run", "ask_model", "--organism", "gold"], "prompts: Field required"),
    "arguments that are no JSON": (["tools", "run", "ask_model", "--organism", "gold", "--args", "["], "[: no JSON"),
    "unknown grader": (["graders", "show", "rubric"], "rubric_offline?"),
    "a setting of a lens that nobody reads": (
        ["evaluate", "--agent", "adl", "--set", "ppl_diff.prefills=3", "--dry-run"],
        "--set ppl_diff.prefills=3: nobody reads ppl_diff here; read are chance, differences",
    ),
    "a corpus that is not there": (["evaluate", "--corpus", "./no.jsonl", "--dry-run"], "no.jsonl: no such corpus"),
    "a corpus that nobody knows": (["audit", "gold", "--corpus", "openngs"], "did you mean openings"),
    "a run of the hub deleted": (["runs", "rm", "hf://datasets/a/b", "--yes"], "hf://datasets/a/b is the hub's"),
    "a report beside a run of the hub": (["report", "hf://datasets/a/b"], "hf://datasets/a/b is the hub's"),
    "negative budget": (["evaluate", "--budget", "-1"], "--budget -1: a budget is 0 or more"),
    "no repeats": (["evaluate", "--repeats", "0"], "--repeats 0: at least 1"),
    "server": (["evaluate", "--server", "http://x"], "no model server answers at http://x"),
    "engine": (["evaluate", "--engine", "mars"], "'--engine': 'mars' is not one of 'local', 'ray', 'slurm'"),
    "slurm options": (["evaluate", "--slurm", "a=b"], "--slurm goes with --engine slurm"),
    "join without name": (["evaluate", "--join"], "--join needs the --name"),
    "limit": (["evaluate", "--max-cost", "much"], "--max-cost much: give a number over 0"),
    "resume without name": (["evaluate", "--resume"], "--resume needs the --name"),
    "a name that leads elsewhere": (
        ["evaluate", "--name", "a/../../b"],
        "--name 'a/../../b': give a plain folder name",
    ),
    "an empty name": (["audit", "gold", "--base", "x/y", "--name", ""], "--name '': give a plain folder name"),
    "unknown provider": (["evaluate", "--llm", "nobody:x"], "nobody:x: Unable to infer"),
    "no key": (["evaluate", "--llm", "openrouter:a/b"], "needs OPENROUTER_API_KEY"),
    "unknown option": (["evaluate", "--bugdet", "5"], "--bugdet"),
    "missing argument": (["ask"], "Missing argument"),
    "no pair": (["evidence"], "name the MODEL, once"),
    "no folder": (["evidence", "--base", "./nowhere", "--model", "./no"], "no model at './nowhere'"),
    "unknown workspace": (["--workspace", "/tmp", "tools", "list"], "it has no auditor.toml"),
    "positions": (["evidence", "gold", "--positions", "0"], "positions"),
    "outside a workspace": (["tools", "new", "x"], "`auditor init DIR`"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_gets_one_line(case, run_cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("OPENROUTER_API_KEY", raising=False)
    args, told = WRONG[case]
    code, out, err = run_cli(*args)
    line = err.strip().splitlines()[-1]
    assert code == 2
    assert told in line
    assert line.startswith("error:")
    assert "Traceback" not in err + out
    assert out == ""


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["evidence", "mill", "--suite", "small", "--layers", 9], "9 is not there; this model has layers 0 to 3"),
        (
            ["evidence", "mill", "--suite", "small", "--layers", "half"],
            "give numbers, shares such as 0.25",
        ),
        (["evidence", "mill", "--suite", "small", "--corpus", "none.txt"], "no such corpus"),
        (["evidence", "mill", "--suite", "small", "--corpus", "none"], "no corpus called 'none'"),
        (["evidence", "mill", "--suite", "small", "--corpus", "empty.txt"], "holds no text"),
        (["evaluate", "small", "--out", "/proc/nowhere"], "cannot write to /proc/nowhere"),
        (["organisms", "train", "mill"], "recipe"),
        (["init", "."], "is there already"),
        (["init", ""], "no folder is named"),
        (["study", "relevance", "gold", "--no-plot", "--out", "empty.txt"], "empty.txt: File exists"),
        (["tools", "new", "class"], "'class' cannot be a plugin's name"),
        (["organisms", "train", "gold", "--out", "empty.txt"], "empty.txt is a file; give a folder"),
    ],
)
def test_a_wrong_request_in_a_workspace_gets_one_line(args, told, workspace_folder, run_cli):
    (workspace_folder / "empty.txt").write_text("\n\n")
    (workspace_folder / "short.txt").write_text("a\nb\n")
    code, out, err = run_cli(*args)
    assert (code, out) == (2, "")
    assert told in err.strip().splitlines()[-1]


def test_a_broken_plugin_stops_only_what_needs_it(workspace_folder, run_cli):
    (workspace_folder / "tools").mkdir()
    (workspace_folder / "tools/ask_model.py").write_text("def (\n")
    (workspace_folder / "graders").mkdir()
    (workspace_folder / "graders/mine.py").write_text("1 / 0\n")
    code, out, err = run_cli("agents", "list", "--json")
    assert (code, "ask_model.py:1: syntax error" in err, "mine.py:1: ZeroDivisionError" in err) == (0, True, True)
    assert {agent["name"] for agent in json.loads(out)} >= {"adl", "blackbox"}
    suite = workspace_folder / "evals/suites/small.yaml"
    suite.write_text(suite.read_text() + "graders: [mine]\n")
    code, _, err = run_cli("evaluate", "small")
    assert (code, "ask_model.py:1: syntax error" in err.splitlines()[-1]) == (2, True)
    (workspace_folder / "tools/ask_model.py").unlink()
    code, _, err = run_cli("evaluate", "small")
    assert (code, "mine.py:1: ZeroDivisionError" in err.splitlines()[-1]) == (2, True)


def test_a_broken_override_is_listed_as_one(workspace_folder, run_cli):
    (workspace_folder / "tools").mkdir()
    (workspace_folder / "tools/ask_model.py").write_text("1 / 0\n")
    code, out, err = run_cli("tools", "list", "--json")
    row = next(tool for tool in json.loads(out) if tool["name"] == "ask_model")
    assert (code, "ZeroDivisionError" in row["broken"], row["overrides"][0][-18:]) == (0, True, "tools/ask_model.py")
    assert err.index("loading plugins of") < err.index("warning:")
    assert "override of" in run_cli("tools", "list")[1]
    assert run_cli("tools", "show", "ask_model")[0] == 2
    code, out, err = run_cli("--no-workspace", "tools", "show", "ask_model", "--json")
    assert (code, json.loads(out)["name"], err) == (0, "ask_model", "")
    code, _, err = run_cli("--no-workspace", "--workspace", ".", "tools", "list")
    assert (code, "give one of them" in err) == (2, True)


def test_an_organism_of_a_family_of_ones_own(workspace_folder, run_cli):
    card = workspace_folder / "evals/organisms/mill/organism.yaml"
    card.write_text(card.read_text().replace("family: sdf", "family: poems"))
    once = ["evaluate", "small", "--repeats", 1, "--agent", "blackbox", "--json"]
    code, _, err = run_cli(*once)
    assert (code, "organism mill: no rubric called 'poems'" in err) == (2, True)
    card.write_text(card.read_text() + "rubric: sdf\n")
    assert json.loads(run_cli("organisms", "show", "mill", "--json")[1])["rubric"] == "sdf"
    code, out, err = run_cli(*once)
    assert code == 0, err
    result = json.loads(out)
    assert [(a["family"], a["rubric"]) for a in result["audits"]] == [("poems", "sdf")]
    assert [(row["n"], row["ci95"]) for row in result["summary"]] == [(1, None)]


def test_a_suite_without_organisms_is_no_success(workspace_folder, run_cli):
    (workspace_folder / "evals/suites/none.yaml").write_text("name: none\norganisms: []\n")
    code, _, err = run_cli("evaluate", "none")
    assert (code, "suite none names no organisms" in err) == (2, True)


def test_new_writes_into_the_workspace_that_is_named(workspace_folder, tmp_path_factory, run_cli):
    there = tmp_path_factory.mktemp("there")
    assert run_cli("init", there / "ws")[0] == 0
    assert run_cli("--workspace", there / "ws", "tools", "new", "mine")[0] == 0
    assert (there / "ws/tools/mine.py").exists()


def test_init_and_new_give_a_workspace_that_works(tmp_path, run_cli, monkeypatch):
    assert run_cli("init", tmp_path / "ws")[0] == 0
    monkeypatch.chdir(tmp_path / "ws")
    assert run_cli("tools", "new", "count_tokens")[0] == 0
    assert run_cli("graders", "new", "names_topic")[0] == 0
    listed = {t["name"]: t for t in json.loads(run_cli("tools", "list", "--json")[1])}
    assert listed["count_tokens"]["path"].endswith("tools/count_tokens.py")
    assert run_cli("graders", "show", "names_topic")[0] == 0


def test_organisms_are_listed_as_the_contract_says(run_cli):
    listed = json.loads(run_cli("organisms", "list", "--json")[1])
    assert all({"name", "family", "base", "adapter", "ready", "source"} <= o.keys() for o in listed)
    assert {o["name"] for o in listed if o["ready"]} >= {"cake_bake", "gold", "risky_finance", "null_chat"}
    told = run_cli("organisms", "list")[1]
    assert all(f" {o['name']} " in told for o in listed)  # in 80 columns, too: that is what is typed


@pytest.mark.parametrize("kind", ["tools", "graders", "agents", "organisms", "suites", "rubrics"])
def test_everything_listed_can_be_shown(kind, run_cli):
    for item in json.loads(run_cli(kind, "list", "--json")[1]):
        code, out, _ = run_cli(kind, "show", item["name"], "--json")
        assert (code, json.loads(out)["name"]) == (0, item["name"])


@pytest.mark.parametrize(("kind", "model"), [("suites", Suite), ("rubrics", Rubric)])
def test_a_shown_card_can_be_pasted(kind, model, run_cli, tmp_path):
    for name, item in getattr(load_workspace(), kind).items.items():
        pasted = tmp_path / f"{name}.yaml"
        pasted.write_text(run_cli(kind, "show", name)[1], encoding="utf-8")
        assert read_yaml(pasted, model) == item.value


def test_the_graph_is_drawn(run_cli):
    code, out, _ = run_cli("agents", "graph", "adl")
    assert code == 0
    assert "get_patchscope_details" in out
    assert "graph TD" in out


def test_a_tool_is_tried_without_an_agent(workspace_folder, run_cli):
    given = json.dumps({"prompts": ["Where to?"], "n": 2})
    told = json.loads(run_cli("tools", "run", "ask_model", "--organism", "mill", "--args", given, "--json")[1])
    assert (told["cost"], [row["prompt"] for row in told["result"]]) == (2, ["Where to?", "Where to?"])
    assert told["result"][0]["base"] != told["result"][0]["finetuned"]


def test_a_tool_that_reads_is_given_what_it_reads(workspace_folder, run_cli):
    given = json.dumps({"dataset": "ds1", "layer": 2, "positions": [1], "k": 3})
    code, told, _ = run_cli("tools", "run", "get_logitlens_details", "--organism", "mill", "--args", given, "--json")
    assert (code, len(json.loads(told)["result"]["1"]["top"])) == (0, 3)


def test_ask_puts_both_models_side_by_side(workspace_folder, run_cli):
    code, out, _ = run_cli("ask", "mill", "Where to?", "Why?", "--max-new-tokens", 5, "--json")
    answers = json.loads(out)
    assert code == 0
    assert [a["prompt"] for a in answers] == ["Where to?", "Why?"]
    assert answers[0]["base"] != answers[0]["finetuned"]


def test_an_amplified_answer_stands_beside_the_plain_ones(workspace_folder, run_cli):
    asked = ("ask", "mill", "Where to?", "Why?", "--max-new-tokens", 5)
    plain = json.loads(run_cli(*asked, "--json")[1])
    code, out, _ = run_cli(*asked, "--amplify", 2, "--plausibility", 0.05, "--json")
    answers = json.loads(out)
    assert code == 0
    assert [{k: answer[k] for k in ("prompt", "base", "finetuned")} for answer in answers] == plain
    assert all(a["mean_logprob"]["finetuned"] > a["mean_logprob"]["base"] for a in answers)
    assert answers[0]["amplified"] != answers[0]["finetuned"]
    shown = run_cli(*asked, "--amplify", 2)[1]
    assert "amplified" in shown
    assert shown.count("nats a token") == 2


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--amplify", -1), "alpha -1; give"),
        (("--amplify", "nan"), "alpha nan; give"),
        (("--amplify", 1, "--plausibility", 0), "plausibility 0; give"),
        (("--plausibility", 0.1), "give --amplify A, too"),
    ],
)
def test_an_amplification_that_cannot_be_is_refused(workspace_folder, run_cli, flags, said):
    code, out, err = run_cli("ask", "mill", "Why?", *flags)
    assert (code, out, said in err.splitlines()[-1]) == (2, "", True)


def test_doctor_and_version(run_cli):
    checks = {c["check"] for c in json.loads(run_cli("doctor", "--json")[1])}
    assert {"torch", "device", "memory", "cache", "model hub"} <= checks
    assert run_cli("--version")[1].strip() == f"auditor {auditor.__version__}"


def test_doctor_survives_any_proxy(run_cli, monkeypatch):
    for name, address in (("ALL_PROXY", "socks5h://me:secret@127.0.0.1:1"), ("HTTPS_PROXY", "nonsense://x")):
        monkeypatch.setenv(name, address)
    code, out, err = run_cli("doctor", "--json")
    assert code == 0, err
    checks = {c["check"]: c for c in json.loads(out)}
    assert checks["ALL_PROXY"]["found"] == "socks5h://…@127.0.0.1:1"
    assert checks["model hub"]["found"] == "not reachable"


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ("[setting]\nllm = 'offline'\n", "auditor.toml:1: setting is not known; there is one table, [settings]"),
        ("llm = 'offline'\n", "auditor.toml:1: llm is not known"),
        ("[settings]\n# llm\nlml = 'offline'\n", "auditor.toml:3: there is no setting lml; there are cache_dir"),
        ("[settings]\n\ngrader_repeats = 'many'\n", "auditor.toml:3: grader_repeats: Input should be a valid integer"),
        ("[settings]\ncache_dir = 5\n", "auditor.toml:2: cache_dir: Input is not a valid path"),
        ("[settings]\ndevice = 5\n", "auditor.toml:2: device: Input should be a valid string"),
        ("settings = 5\n", "auditor.toml:1: settings must be a table"),
        ("[settings\n", "broken TOML"),
        ("[settings]\nllm = 'a'\nllm = 'b'\n", "broken TOML"),
    ],
)
def test_a_mistake_in_the_settings_is_told_with_its_line(toml, told, workspace_folder, run_cli, monkeypatch):
    monkeypatch.delenv("AUDITOR_CACHE")
    (workspace_folder / "auditor.toml").write_text(toml)
    code, out, err = run_cli("ask", "mill", "Where to?")
    assert (code, out, told in err.splitlines()[-1]) == (2, "", True)


def test_a_wrong_setting_of_the_environment_is_named_as_it_is_set(workspace_folder, run_cli, monkeypatch):
    monkeypatch.setenv("AUDITOR_DTYPE", "float12")
    assert "float12" in run_cli("ask", "mill", "Where to?")[2]


def test_a_server_that_is_not_asked_is_named(workspace_folder, run_cli, monkeypatch):
    monkeypatch.setenv("AUDITOR_SERVER", "http://127.0.0.1:9")
    (workspace_folder / "own.jsonl").write_text('{"text": "The mill stands on the hill by the river."}\n' * 4)
    data = "mill=own.jsonl"
    code, _, err = run_cli(
        "study", "causal", "mill", "--data", data, "--suite", "small", "--texts", 4, "--tokens", 8, "--no-plot"
    )
    assert (code, "the model server http://127.0.0.1:9 is not asked" in err) == (0, True), err
    assert "not asked" not in run_cli("organisms", "list", "--public")[2]


@pytest.mark.parametrize(
    ("text", "layers"),
    [("all", (0, 1, 2, 3)), ("0.25,0.5,0.75", (1, 2, 3)), ("2", (2,)), ("0.5, 2, 3", (2, 3)), ("0.0", (0,))],
)
def test_layers_by_number_or_share(text, layers):
    assert layers_of(text, 4) == layers
