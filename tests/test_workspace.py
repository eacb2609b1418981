"""Workspaces laid over each other; broken files are told with file and line and stop only what needs them."""

import sys

import pytest

from auditor.errors import BadFile, UnknownName, UsageError
from auditor.plugins import Args, Context, grader, tool
from auditor.workspace import builtin_root, find_user_root, load_workspace

TOOL = '''
from auditor import Args, Context, tool

class Nothing(Args):
    pass

@tool
def {name}(ctx: Context, args: Nothing) -> str:
    """{doc}"""
    return "{doc}"
'''


@pytest.fixture
def folder(tmp_path):
    """An empty workspace and a way to put files into it."""
    (tmp_path / "auditor.toml").write_text("")

    def put(relative, text):
        path = tmp_path / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return tmp_path, put


def test_the_built_in_workspace_is_whole():
    ws = load_workspace()
    assert [shelf.kind for shelf in ws.shelves() if shelf.broken or not shelf.items] == []
    assert {"adl", "blackbox"} <= ws.agents.items.keys()
    assert {"cake_bake", "gold", "risky_finance", "null_chat"} <= ws.organisms.items.keys()
    for agent in ws.agents:
        assert agent.value.prompt in ws.prompts.items
        assert set(agent.value.tools) <= ws.tools.items.keys()
    for organism in ws.organisms:
        assert (organism.value.rubric or organism.value.family) in ws.rubrics.items


def test_a_user_tool_overrides_the_built_in_one(folder):
    root, put = folder
    path = put("tools/ask_model.py", TOOL.format(name="ask_model", doc="Mine."))
    ws = load_workspace(root)
    loaded = ws.tools.items["ask_model"]
    assert (loaded.value.description, loaded.path) == ("Mine.", path)
    assert loaded.overrides == (builtin_root() / "tools" / "ask_model.py",)


def test_installed_packages_bring_workspaces(folder, tmp_path_factory, monkeypatch):
    root, put = folder
    put("tools/ask_model.py", TOOL.format(name="ask_model", doc="The user's."))
    site = tmp_path_factory.mktemp("site")
    package = site / "lens_pack"
    (package / "tools").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "tools" / "extra.py").write_text(TOOL.format(name="extra", doc="Packaged."))
    (package / "tools" / "ask_model.py").write_text(TOOL.format(name="ask_model", doc="Packaged."))
    info = site / "lens_pack-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lens-pack\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[auditor.workspaces]\nlens = lens_pack\n")
    monkeypatch.setattr(sys, "path", [str(site), *sys.path])
    ws = load_workspace(root)
    assert ws.tools["extra"].description == "Packaged."
    assert ws.tools["ask_model"].description == "The user's."
    assert len(ws.tools.items["ask_model"].overrides) == 2


@pytest.mark.parametrize(
    ("relative", "text", "told"),
    [
        ("tools/bad.py", "x = 1\ndef bad(:\n", r"bad\.py:2: syntax error"),
        ("tools/bad.py", "x = 1\ny = 1 / 0\n", r"bad\.py:2: ZeroDivisionError"),
        ("tools/bad.py", "x = 1\n", r"defines no @tool"),
        (
            "tools/bad.py",
            "from auditor import tool\n\n@tool\ndef bad(x): ...\n",
            r"bad\.py:3: TypeError: tool bad must",
        ),
        ("evals/agents/bad.yaml", "name: bad\noverview: [patchscope\n", r"bad\.yaml:\d: broken YAML"),
        (
            "evals/agents/bad.yaml",
            "name: bad\noverview: []\ntools: []\ntool: [x]\n",
            r"bad\.yaml:4: tool: Extra inputs",
        ),
        ("evals/suites/bad.yaml", "name: bad\norganisms: []\nrepeats: 0\n", r"bad\.yaml:3: repeats"),
        ("evals/agents/bad.yaml", "name: good\noverview: []\ntools: []\n", "its name is 'good'"),
        ("rubrics/bad.yaml", "", r"bad\.yaml"),
        ("prompts/bad.md", "no front matter", r"bad\.md:1: has no front matter"),
        ("prompts/bad.md", "---\nvariables: []\n---\n{% if %}", r"bad\.md.*broken template"),
    ],
)
def test_a_broken_file_is_told_with_its_line_when_needed(folder, relative, text, told):
    root, put = folder
    put(relative, text)
    ws = load_workspace(root)  # does not raise
    shelf = next(shelf for shelf in ws.shelves() if shelf.broken)
    assert ws.tools["ask_model"]
    with pytest.raises(BadFile, match=told):
        shelf["bad"]


def test_unknown_names_bring_the_nearest():
    with pytest.raises(UnknownName, match="did you mean cake_bake"):
        load_workspace().organisms["cake_bak"]


def test_plugins_load_only_from_marked_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_user_root() is None
    with pytest.raises(UsageError, match=r"no auditor\.toml"):
        find_user_root(tmp_path)
    (tmp_path / "auditor.toml").write_text("")
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    assert find_user_root() == tmp_path


def test_prompts_declare_their_variables():
    prompt = load_workspace().prompts["agent_protocol_text"]
    assert "FINAL" in prompt.render(tools="")
    with pytest.raises(UsageError, match="missing reason"):
        load_workspace().prompts["agent_conclude"].render()


class Query(Args):
    n: int = 1


def test_a_tool_reads_its_schema_from_the_signature():
    @tool(cost=lambda args: args.n)
    def count(ctx: Context, args: Query) -> list[int]:
        """Counts."""
        return list(range(args.n))

    schema = count.schema()["function"]
    assert (schema["name"], schema["description"]) == ("count", "Counts.")
    assert schema["parameters"]["properties"]["n"]["type"] == "integer"
    assert count.cost(Query(n=3)) == 3


@pytest.mark.parametrize("cost", ["one", -1, 1.5, None, True])
def test_a_tool_has_a_price(cost):
    with pytest.raises(TypeError, match="is no number of model interactions; give 0, 1, 2"):

        @tool(cost=cost)
        def dear(ctx: Context, args: Query) -> str:
            """Costs what nobody can pay."""
            return ""


def test_a_tools_argument_class_is_one():
    with pytest.raises(TypeError, match=r"a subclass of auditor\.Args"):

        @tool("Query")
        def named(ctx: Context, args: Query) -> str:
            """Names its arguments."""
            return ""


def test_graders_are_checked_when_they_are_made():
    with pytest.raises(TypeError, match="must take 3 arguments"):

        @grader(kind="coherence")
        def short(texts):
            """Takes too little."""

    with pytest.raises(TypeError, match="needs a docstring"):

        @grader
        def silent(audit, organism, rubric): ...
