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
        assert organism.value.grading in ws.rubrics.items


def test_a_user_tool_overrides_the_built_in_one(folder):
    root, put = folder
    path = put("tools/ask_model.py", TOOL.format(name="ask_model", doc="Mine."))
    ws = load_workspace(root)
    loaded = ws.tools.items["ask_model"]
    assert (loaded.value.description, loaded.path) == ("Mine.", path)
    assert loaded.overrides == (builtin_root() / "tools" / "ask_model.py",)


@pytest.fixture
def site(tmp_path_factory, monkeypatch):
    """An installed package `lens_pack` whose entry point names it, and a way to put files into it."""
    folder = tmp_path_factory.mktemp("site")
    info = folder / "lens_pack-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lens-pack\nVersion: 1\n")

    def put(relative, text):
        path = folder / "lens_pack" / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    put.points_at = lambda name: (info / "entry_points.txt").write_text(f"[auditor.workspaces]\nlens = {name}\n")
    put.points_at("lens_pack")
    put("__init__.py", "")
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
    yield put
    for name in [name for name in sys.modules if name.split(".")[0] == "lens_pack"]:
        del sys.modules[name]


def test_installed_packages_bring_workspaces(folder, site):
    root, put = folder
    put("tools/ask_model.py", TOOL.format(name="ask_model", doc="The user's."))
    site("tools/extra.py", TOOL.format(name="extra", doc="Packaged."))
    site("tools/ask_model.py", TOOL.format(name="ask_model", doc="Packaged."))
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


@pytest.mark.parametrize(
    ("shelf", "name", "relative", "text", "told"),
    [
        ("tools", "ask_model", "tools/ask_model.py", "import os\n1 / 0\n", r"ask_model\.py:2: ZeroDivisionError"),
        ("tools", "ask_model", "tools/mine.py", TOOL.format(name="ask_model", doc="") + "def (\n", r"mine\.py:\d+"),
        ("tools", "ask_model", "tools/quits.py", "import sys\nsys.exit(TOOL)\n@tool(\n cost=2)\ndef ask_model(): ...",
         r"quits\.py:2: NameError"),
        ("graders", "rubric_offline", "graders/rubric_offline.py", "x = 1\n", r"defines no @grader"),
        ("prompts", "agent_system", "prompts/agent_system.md", "Be good.", r"agent_system\.md:1: has no front matter"),
        ("rubrics", "taboo", "rubrics/taboo.yaml", "name: taboo\nfamily: taboo\n", r"taboo\.yaml:1: levels: Field req"),
        ("agents", "adl", "evals/agents/mine.yaml", "name: adl\noverview: []\ntools: []\n", "its name is 'adl'"),
        ("suites", "paper", "evals/suites/paper.yaml", "name: paper\norganisms: [gold]\nrepeats: 0\n", r"yaml:3:"),
        ("organisms", "gold", "evals/organisms/gold/organism.yaml", "name: gold\n", r"organism\.yaml:1: family"),
    ],
)  # fmt: skip
def test_a_broken_override_is_never_replaced_by_what_it_overrides(folder, shelf, name, relative, text, told):
    root, put = folder
    path = put(relative, text)
    ws = load_workspace(root)
    chosen = getattr(ws, shelf)
    assert name not in chosen.items
    assert name not in [*chosen.by_name()]
    assert f"override of {builtin_root()}" in str(chosen.broken[name])
    with pytest.raises(BadFile, match=told):
        chosen[name]
    assert chosen.broken[name].path == path
    assert ws.organisms["null_chat"]


def test_a_good_override_of_a_broken_one_is_used(folder, site):
    root, put = folder
    site("tools/ask_model.py", "1 / 0\n")
    with pytest.raises(BadFile, match=r"ask_model\.py:1: ZeroDivisionError.*override of"):
        load_workspace().tools["ask_model"]
    put("tools/ask_model.py", TOOL.format(name="ask_model", doc="Mine."))
    ws = load_workspace(root)
    assert (ws.tools["ask_model"].description, ws.tools.broken) == ("Mine.", {})
    assert [path.parent.parent.name for path in ws.tools.items["ask_model"].overrides[1:]] == ["lens_pack"]


def test_two_files_of_one_root_may_not_define_the_same(folder):
    root, put = folder
    for stem in ("a", "b"):
        put(f"tools/{stem}.py", TOOL.format(name="count", doc=stem))
    with pytest.raises(BadFile, match=r"b\.py: count is defined in a\.py too"):
        load_workspace(root).tools["count"]


@pytest.mark.parametrize("target", ["nowhere_at_all", "nowhere.at.all", "lens_pack.broken.deeper", "json.decoder"])
def test_an_entry_point_that_cannot_be_read_is_left_out_and_told(site, target):
    site("broken/__init__.py", "raise SystemExit(3)\n")
    site("broken/deeper/__init__.py", "")
    site.points_at(target)
    ws = load_workspace()
    assert ws.tools["ask_model"]
    with pytest.raises(UnknownName, match=rf"no tool called 'extra'.*package lens: its workspace {target} is left out"):
        ws.tools["extra"]


def test_what_will_be_loaded_is_told_before_it_runs(folder, site):
    root, put = folder
    put("tools/mine.py", TOOL.format(name="mine", doc="Mine.") + "import builtins\nbuiltins.told.append('runs')\n")
    put("graders/_helper.py", "")
    site("graders/theirs.py", "")
    import builtins

    builtins.told = told = []
    load_workspace(root, tell=told.append)
    assert told[1:] == [f"loading plugins of {root}: tools/mine.py", "runs"]
    assert told[0].endswith("lens_pack: graders/theirs.py")
    assert [name for name, _ in load_workspace(packages=False).roots] == ["built-in"]
    del builtins.told


CARD = "name: {name}\nfamily: {family}\ndescription: Something.\n"


@pytest.mark.parametrize(
    ("card", "told"),
    [
        (CARD.format(name="no", family="sdf"), r"yaml:1: name: `no` without quotes is a truth value in YAML"),
        (CARD.format(name="12", family="sdf"), r"yaml:1: name: `12` without quotes is a number in YAML; write '12'"),
        (CARD.format(name="2024-01-01", family="sdf"), r"yaml:1: name: `2024-01-01` without quotes is a date"),
        (CARD.format(name="~", family="sdf"), r"yaml:1: name: `~` without quotes is nothing in YAML"),
        (CARD.format(name="a/b", family="sdf"), r"yaml:1: name: 'a/b' cannot be a name"),
        (CARD.format(name="a b", family="sdf"), r"yaml:1: name: 'a b' cannot be a name"),
        (CARD.format(name=".x", family="sdf"), r"yaml:1: name: '.x' cannot be a name"),
        (CARD.format(name="other", family="sdf"), r"its name is 'other', but its folder is called 'x'"),
        (CARD.format(name="x", family="yes"), r"yaml:2: family: `yes` without quotes"),
        (CARD.format(name="x", family="sdf") + "facts: One fact.\n", r"yaml:4: facts: give a list"),
        (CARD.format(name="x", family="sdf") + "train: {rank: eight}\n", r"yaml:4: train\.rank: Input should be"),
        (
            CARD.format(name="x", family="sdf") + "rubric: sfd\n",
            r"yaml:4: rubric: there is no rubric 'sfd'; known: dom",
        ),
        (CARD.format(name="x", family="sdf") + "topic: a: b\n", r"yaml:4: broken YAML"),
        ("", r"yaml:1: file: Input should be"),
        ("- name: x\n", r"yaml:1: file: Input should be"),
        ("name: x\nfamily: sdf\ndescription: A\x00.\n", r"yaml: cannot be read"),
    ],
)
def test_what_is_wrong_with_a_card_is_told_with_its_line(folder, card, told):
    root, put = folder
    put("evals/organisms/x/organism.yaml", card)
    with pytest.raises(BadFile, match=told):
        load_workspace(root).organisms["x"]


def test_a_card_may_have_any_family_and_any_rubric(folder):
    root, put = folder
    put("evals/organisms/A.1/organism.yaml", CARD.format(name="A.1", family="poems") + "rubric: em\n")
    put("evals/organisms/b/organism.yaml", CARD.format(name="b", family="null"))
    put("evals/organisms/'12'/organism.yaml".replace("'", ""), CARD.format(name="'12'", family="hatred"))
    cards = load_workspace(root).organisms
    assert [cards[name].grading for name in ("A.1", "b", "12")] == ["em", "null", "hatred"]
    assert cards["b"].family == "null"


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("budgets: [5, -1]", r"yaml:3: budgets\.1: Input should be greater"),
        ("agents: [adl, adl]", r"yaml:3: agents: adl is there twice"),
        ("budgets: 5", r"yaml:3: budgets: give a list"),
    ],
)
def test_a_suite_that_makes_no_sense(folder, line, told):
    root, put = folder
    put("evals/suites/x.yaml", f"name: x\norganisms: [gold]\n{line}\n")
    with pytest.raises(BadFile, match=told):
        load_workspace(root).suites["x"]


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


@pytest.mark.parametrize("name", ["think", "conclude", "unknown_tool", "größe", "a" * 65])
def test_a_tools_name_is_one_that_the_graph_and_every_endpoint_take(name):
    def run(ctx: Context, args: Query) -> str:
        """Has a name."""
        return ""

    run.__name__ = name
    with pytest.raises(TypeError, match=f"a tool cannot be called {name}"):
        tool(run)


def test_graders_are_checked_when_they_are_made():
    with pytest.raises(TypeError, match="there is no kind 'essay'; use hypothesis, coherence,"):
        grader(kind="essay")

    with pytest.raises(TypeError, match="must take 3 arguments, not 1"):

        @grader(kind="coherence")
        def short(texts):
            """Takes too little."""

    with pytest.raises(TypeError, match="must take 3 or 4 arguments, not 5"):

        @grader
        def long(audit, organism, rubric, ctx, more):
            """Takes too much."""

    with pytest.raises(TypeError, match="needs a docstring"):

        @grader
        def silent(audit, organism, rubric): ...
