"""The command line as a person expects it: examples that hold, names that a TAB completes, files to begin with."""

import shlex

import pytest
import typer

from auditor.cli.app import app
from auditor.cli.completing import NAMES, complete_names
from auditor.cli.examples import EXAMPLES
from auditor.cli.templates import CARDS, PLUGINS
from tests.pages import command_of


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_is_one_of_its_command(name):
    for line in EXAMPLES[name]:
        _, _, args = line.rpartition("auditor ")
        assert command_of(shlex.split(args)) == name


def commands(group, prefix=""):
    for name, command in group.commands.items():
        yield from commands(command, f"{prefix}{name} ") if hasattr(command, "commands") else [f"{prefix}{name}"]


def test_every_command_has_an_example(run_cli):
    assert set(commands(typer.main.get_command(app))) == EXAMPLES.keys()
    told = run_cli("audit", "--help")[1]
    assert all(line in told for line in EXAMPLES["audit"])


LOADING = ["evaluate", "audit", "evidence", "ask", "gate", "serve", "mcp", "worker", "grade", "tools run",
           "organisms train", "organisms check", "study relevance", "study mixing", "study null"]  # fmt: skip


@pytest.mark.parametrize("name", LOADING)
def test_what_loads_models_takes_a_device_and_a_dtype(name):
    command = typer.main.get_command(app)
    for part in name.split():
        command = command.commands[part]
    assert {"device", "dtype"} <= {parameter.name for parameter in command.params}


def test_the_device_is_used_and_not_sent_to_a_server(workspace_folder, run_cli):
    code, _, err = run_cli("ask", "mill", "Hi", "--device", "cuda:7")
    assert (code, "cuda:7" in err.splitlines()[-1]) == (2, True)
    code, _, err = run_cli("ask", "mill", "Hi", "--dtype", "float8")
    assert (code, "dtype 'float8' is not known" in err) == (2, True)
    code, _, err = run_cli("ask", "mill", "Hi", "--server", "http://x", "--device", "cpu")
    assert (code, "--device with --server" in err) == (2, True)
    assert run_cli("ask", "mill", "Hi", "--max-new-tokens", 2)[0] == 0  # nothing of it stays


def test_graders_can_be_named(workspace_folder, run_cli):
    code, _, err = run_cli("evaluate", "small", "--grader", "rubric_ofline")
    assert (code, "did you mean rubric_offline" in err) == (2, True)
    code, _, err = run_cli("evaluate", "small", "--grader", "rubric_llm")
    assert (code, "grader rubric_llm needs --grader-llm" in err) == (2, True)


@pytest.mark.parametrize("kind", [*PLUGINS, *CARDS])
def test_what_new_writes_works_as_it_is(kind, workspace_folder, run_cli):
    code, out, err = run_cli(kind, "new", "my_own")
    assert (code, f"`auditor {kind} show my_own`" in out.replace("\n", " ")) == (0, True), err
    code, out, err = run_cli(kind, "show", "my_own")
    assert (code, "my_own" in out) == (0, True), err
    code, _, err = run_cli(kind, "new", "my_own")
    assert (code, "is there already; nothing was changed" in err) == (2, True)
    code, _, err = run_cli(kind, "new", "../own")
    assert (code, "cannot be a" in err) == (2, True)


@pytest.mark.parametrize(("kind", "name"), [("agents", "adl"), ("organisms", "mill"), ("suites", "small")])
def test_what_show_prints_can_be_pasted(kind, name, workspace_folder, run_cli):
    code, out, err = run_cli(kind, "show", name)
    assert code == 0, err
    before = run_cli(kind, "show", name, "--json")[1]
    run_cli(kind, "new", name if kind == "agents" else "other")
    place = workspace_folder / CARDS[kind][0].format(name=name)
    place.write_text(out)
    after = run_cli(kind, "show", name, "--json")[1]
    assert [line for line in after.splitlines() if '"adapter"' not in line] == [
        line for line in before.splitlines() if '"adapter"' not in line
    ]


def completed(*args):
    """What a TAB offers behind these words."""
    complete_names(app)
    command, words = typer.main.get_command(app), list(args)
    while words[0] in getattr(command, "commands", {}):
        command = command.commands[words.pop(0)]
    option = words[0] if words[0].startswith("-") else None
    parameter = next(p for p in command.params if (option in p.opts if option else p.param_type_name == "argument"))
    return [item.value for item in parameter.shell_complete(command.make_context("x", [], resilient_parsing=True),
                                                            words[-1])]  # fmt: skip


def test_a_tab_completes_names_and_runs_no_plugin(workspace_folder):
    (workspace_folder / "tools").mkdir()
    (workspace_folder / "tools/own.py").write_text("raise SystemExit(9)\n\n@tool(cost=1)\ndef my_own_tool(ctx): ...\n")
    (workspace_folder / "runs/mine").mkdir(parents=True)
    assert completed("evidence", "mil") == ["mild_medical", "mill"]
    assert completed("evaluate", "sm") == ["small"]
    assert completed("evaluate", "--agent", "blackb") == ["blackbox", "blackbox-scaffolded"]
    assert completed("organisms", "show", "gol") == ["gold"]
    assert completed("tools", "show", "my") == ["my_own_tool"]
    assert completed("show", "m") == ["mine"]
    (workspace_folder / "sp ace").mkdir()
    (workspace_folder / "tools/broken.py").symlink_to("nowhere.py")
    assert completed("audit", f"{workspace_folder}/ru") == [f"{workspace_folder}/runs/"]
    assert completed("audit", "./ru") == ["./runs/"]
    assert completed("audit", "sp") == ["sp ace/"]
    assert completed("audit", "nowhere/x") == []
    assert {"patchscope", "amplified"} <= set(NAMES["lenses"]())
