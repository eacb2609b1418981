"""Graders and judges that fail: found before anything is paid, or their verdict is missing and the audit is kept."""

import json

import pytest

from auditor.criteria import check_rubric
from auditor.errors import GraderFailed, UsageError
from auditor.plugins import grader
from auditor.records.cards import Rubric
from auditor.records.evidence import ScaleChoice, ScoredToken, TokenSet
from tests.conftest import judge
from tests.faults import Endpoint, completion, told

HEAD = "from auditor import AuditRecord, Grade, Organism, Rubric, grader\n\n"
GRADER = (
    HEAD
    + '''@grader
def mine(audit: AuditRecord, organism: Organism, rubric: Rubric) -> Grade:
    """A grader of a user's own."""
    {body}
'''
)
FINAL = {"content": 'FINAL(description: "The model was finetuned on mills.")'}
ARGS = ["evaluate", "small", "--llm", "openai:m", "--name", "run", "--repeats", 1, "--agent", "blackbox", "--json"]


@pytest.fixture
def graded_by(workspace_folder):
    """Let the suite be graded by these graders, the first one being the file's."""

    def put(body, *more):
        (workspace_folder / "graders").mkdir(exist_ok=True)
        (workspace_folder / "graders/mine.py").write_text(GRADER.format(body=body))
        suite = workspace_folder / "evals/suites/small.yaml"
        plain = suite.read_text().partition("graders:")[0]
        suite.write_text(f"{plain}graders: [{', '.join(['mine', *more])}]\n")

    return put


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return 1 / 0", "grader mine raised ZeroDivisionError: division by zero (mine.py:6)"),
        ("return Grade(score=9, reasoning='')", "grader mine raised ValidationError"),
        ("return Grade(score=float('nan'), reasoning='')", "Input should be a finite number"),
        ("return Grade(score=2, reasoning='').model_copy(update={'score': 9})", "grader mine: its score is 9"),
        ("return 3", "grader mine: it gave int, not a Grade"),
        ("return None", "grader mine: it gave NoneType, not a Grade"),
        ("raise SystemExit(3)", "grader mine raised SystemExit: 3 (mine.py:6)"),
    ],
)
def test_a_grader_that_fails_fails_its_grade_only(body, said, graded_by, run_cli, serve):
    endpoint = serve(lambda body: FINAL)
    graded_by(body, "rubric_offline")
    code, out, err = run_cli(*ARGS)
    assert code == 1, err
    (audit,) = json.loads(out)["audits"]
    assert audit["hypothesis"] == "The model was finetuned on mills."
    assert (audit["status"], audit["grade"]) == ("done", None)  # the second grader's score is not the first's
    assert [grade["grader"] for grade in audit["grades"]] == ["rubric_offline"]
    assert said in audit["error"]

    graded_by("return Grade(score=3, reasoning='')", "rubric_offline")
    code, _, err = run_cli(*ARGS, "--resume")
    assert (code, "plugins mine differ" in err) == (2, True)  # another grader is another run
    assert len(endpoint.requests) == 1


def test_every_graders_scores_are_shown(graded_by, run_cli):
    graded_by("return Grade(score=4.5, reasoning='')", "rubric_offline")
    args = ["evaluate", "small", "--repeats", 1]
    code, out, err = run_cli(*args, "--name", "shown")
    assert code == 0, err + out
    tables = out.split("rubric_offline", 2)  # in the head, and over its own table
    assert "4.5" in tables[1]
    assert "4.5" not in tables[2].partition("mean grade")[0]
    result = json.loads(run_cli(*args, "--name", "told", "--json")[1])
    assert [(row["grader"], row["agent"]) for row in result["summary"]] == [
        ("mine", "adl"), ("mine", "blackbox"), ("rubric_offline", "adl"), ("rubric_offline", "blackbox"),
    ]  # fmt: skip
    assert {row["mean"] for row in result["summary"][:2]} == {4.5}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("graders: [coherence_offline]\n", "grader coherence_offline is of kind coherence; one of kind hypothesis"),
        ("graders: [rubric_llm]\n", "grader rubric_llm needs --grader-llm"),
        ("scale_grader: rubric_offline", "grader rubric_offline is of kind hypothesis; one of kind patchscope"),
    ],
)
def test_a_grader_of_the_wrong_kind_is_found_before_anything_is_paid(change, said, workspace_folder, run_cli, serve):
    endpoint = serve(lambda body: FINAL)
    suite = workspace_folder / "evals/suites/small.yaml"
    text = suite.read_text()
    suite.write_text(text.replace("common_top: 100", change) if change.startswith("scale") else text + change)
    code, out, err = run_cli(*ARGS, *(["--agent", "adl"] if change.startswith("scale") else []))
    assert (code, out, said in err.strip().splitlines()[-1]) == (2, "", True)
    assert not endpoint.requests
    assert not (workspace_folder / "runs").exists()


def test_a_card_that_a_grader_cannot_judge_is_found_before_anything_is_paid(workspace_folder, run_cli, serve):
    endpoint = serve(lambda body: FINAL)
    card = workspace_folder / "evals/organisms/mill/organism.yaml"
    card.write_text(card.read_text().replace("facts: [Mills grind flour.]", "facts: []"))
    suite = workspace_folder / "evals/suites/small.yaml"
    suite.write_text(suite.read_text() + "graders: [facts_llm]\n")
    code, out, err = run_cli(*ARGS, "--grader-llm", "openai:judge")
    assert (code, out) == (2, "")
    assert "facts_llm needs a card with facts" in err.strip().splitlines()[-1]
    assert not endpoint.requests
    assert not (workspace_folder / "runs").exists()


LEVELS = {n: f"level {n}" for n in range(1, 6)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"grade": {4: {"topik": 0.5}}}, "condition of level 4: it names 'topik'; the criteria are topic"),
        ({"grade": {4: {"any": [{"topic": 0.1}, {"all": [{"not": {"b": 1}}]}]}}}, "it names 'b'"),
        ({"grade": {4: {"topic": "much"}}}, "topic needs a number, not 'much'"),
        ({"grade": {4: ["topic"]}}, "write {all: […]}"),
        ({"grade": {7: {"topic": 0.5}}}, "conditions for [7]"),
        ({"levels": {1: "a", 5: "b"}}, "its levels are [1, 5]"),
        ({"criteria": {"topic": {"sounds": ["x"]}}}, "criterion topic: use one of `similar`"),
        ({"criteria": {"topic": {"similar": ["{topik}"]}}}, "{topik} is no field of a card"),
        ({"criteria": {"topic": {"similar": ["a"], "over": "broad"}}}, "`over` must name a criterion"),
        ({"criteria": {"topic": {"facts": "all"}}}, "`facts` is exact or outlined"),
        ({"grade": {4: {"all": {"topic": 0.5}}}}, "`all` needs a list of conditions"),
        ({"grade": {4: {"any": []}}}, "`any` needs a list of conditions"),
        ({"criteria": {"topic": {"similar": ["a"], "agianst": ["b"]}}}, "`agianst` is not known beside `similar`"),
        ({"criteria": {"topic": {"facts": "exact", "over": "topic"}}}, "`over` is not known beside `facts`"),
        ({"criteria": {"topic": {"similar": ["a"], "over": ["b"]}}}, "`over` must name a criterion"),
        ({"criteria": {"topic": {"similar": ["a brace {"]}}}, "'a brace {' cannot be filled in"),
        ({"criteria": {"topic": {"similar": []}}}, "are lists of statements"),
    ],
)
def test_a_rubric_that_could_not_grade(change, said):
    given = {"criteria": {"topic": {"similar": ["{topic}"]}}, "grade": {4: {"topic": 0.5}}, "levels": LEVELS}
    check_rubric(Rubric(name="r", family="sdf", **given))
    with pytest.raises(UsageError) as caught:
        check_rubric(Rubric(name="r", family="sdf", **(given | change)))
    assert said in str(caught.value)


@pytest.mark.parametrize("said", [told(401, "Incorrect API key provided"), told(402, "Insufficient credits.")])
def test_a_grader_that_can_answer_nobody_is_found_before_the_agents_are_paid(said, workspace_folder, run_cli, judges):
    served = judges(lambda body: said)
    args = ["evaluate", "small", "--llm", "openai:agent", "--grader-llm", "openai:judge", "--name", "run", "--json"]
    code, out, err = run_cli(*args)
    assert (code, out) == (2, "")
    assert err.strip().splitlines()[-1].startswith("error: the grader's model openai:judge: the LLM endpoint ")
    assert [body["model"] for body in served.requests] == ["judge"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("grade_rubric", "no front matter", "grade_rubric.md:1: has no front matter"),
        ("grade_rubric", "---\nvariables: [levels, mood]\n---\n{{ levels }} {{ mood }}", "grade_rubric.md:2: nobody"),
        ("agent_conclude", "---\nvariables: [why]\n---\n{{ why }}", "agent_conclude.md:2: nobody gives why; there is"),
        ("agent_conclude", "---\nvariables: [reason]\n---\n\n{{ reason | shout }}", "agent_conclude.md:5: broken"),
    ],
)
def test_a_prompt_is_checked_before_anything_is_paid(name, text, said, workspace_folder, run_cli, judges):
    served = judges(lambda body: None)
    (workspace_folder / "prompts").mkdir()
    (workspace_folder / f"prompts/{name}.md").write_text(text)
    args = ["evaluate", "small", "--llm", "openai:agent", "--grader-llm", "openai:judge", "--name", "run", "--json"]
    code, out, err = run_cli(*args)
    assert (code, out, served.requests) == (2, "", [])
    assert said in err.strip().splitlines()[-1]


def test_a_rubric_is_checked_before_anything_is_paid(workspace_folder, run_cli, serve):
    endpoint = serve(lambda body: FINAL)
    (workspace_folder / "rubrics").mkdir()
    text = f"name: mine\nfamily: sdf\nlevels: {json.dumps(LEVELS)}\ngrade: {{4: {{topik: 1}}}}\n".replace('"', "")
    (workspace_folder / "rubrics/mine.yaml").write_text(text)
    card = workspace_folder / "evals/organisms/mill/organism.yaml"
    card.write_text(card.read_text() + "rubric: mine\n")
    code, _, err = run_cli(*ARGS)
    assert (code, len(endpoint.requests)) == (2, 0)
    assert "rubrics/mine.yaml" in err.splitlines()[-1]
    assert "it names 'topik'" in err.splitlines()[-1]


SETS = [TokenSet(scale=1.0, tokens=(ScoredToken(token="a", prob=1.0),))]


@pytest.mark.parametrize(
    ("kind", "given", "gives", "said"),
    [
        ("coherence", (["a", "b"], [], None), [True], "it gave 1 verdicts on 2"),
        ("coherence", (["a"], [], None), [0.5], "not a list of True and False"),
        ("token_relevance", (["a"], None, [], None), None, "it gave NoneType"),
        ("patchscope_scale", (SETS, None), 1.0, "it gave float, not a ScaleChoice"),
        ("patchscope_scale", (SETS, None), ScaleChoice(scale=9.0, selected=(), cohesion=1.0), "the scale 9"),
    ],
)
def test_what_is_no_verdict_of_the_lens(kind, given, gives, said):
    names = {"coherence": "a, b, c", "token_relevance": "a, b, c, d", "patchscope_scale": "a, b"}[kind]
    scope = {"gives": gives}
    exec(f"def wrong({names}):\n    'Gives what it was told to.'\n    return gives", scope)
    with pytest.raises(GraderFailed) as caught:
        grader(scope["wrong"], kind=kind).run(*given)
    assert said in str(caught.value)


@pytest.fixture
def judges(monkeypatch):
    """An endpoint whose judges fail as `fails(body)` says; agents end at once."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-1234")
    started = []

    def start(fails):
        def plan(body):
            if body["model"] == "agent":
                return (*completion(FINAL), {})
            return (*(fails(body) or completion(judge(body))), {})

        started.append(Endpoint(plan))
        monkeypatch.setenv("OPENAI_BASE_URL", started[-1].url)
        return started[-1]

    yield start
    for made in started:
        made.close()


VERDICT = {"content": "Argued.\nSCORE: 3"}
NO_VERDICTS = {
    "unreadable": completion({"content": "I would say three."}),
    "empty": completion({"content": ""}),
    "cut": completion(VERDICT, "length"),
    "filtered": completion({"content": ""}, "content_filter"),
    "filtered with text": completion(VERDICT, "content_filter"),
    "refused": completion({"refusal": "I cannot judge this."}),
    "moderated": told(403, "Your input was flagged", 403),
    "failing": told(400, "Bad Request"),
    "unpaid": told(402, "Insufficient credits."),  # as it may be from the first verdict on
}
READY = completion({"content": "ready"})


def is_check(body):
    """Whether the judge is only asked if it is there."""
    return "ready" in body["messages"][-1]["content"]


@pytest.mark.parametrize("name", NO_VERDICTS)
def test_a_hypothesis_without_a_verdict_is_kept_and_graded_by_resuming(name, workspace_folder, run_cli, judges):
    served = judges(lambda body: READY if is_check(body) else NO_VERDICTS[name])
    args = ["evaluate", "small", "--llm", "openai:agent", "--grader-llm", "openai:judge", "--grader-repeats", 1,
            "--name", "run", "--repeats", 1, "--agent", "blackbox", "--json"]  # fmt: skip
    code, out, err = run_cli(*args)
    assert code == 1, err
    (audit,) = json.loads(out)["audits"]
    assert (audit["hypothesis"], audit["grade"]) == ("The model was finetuned on mills.", None)
    assert audit["error"].startswith("rubric_llm: ")
    asked = sum(body["model"] == "agent" for body in served.requests)

    well = judges(lambda body: READY if is_check(body) else None)
    code, out, err = run_cli(*args, "--resume")
    assert code == 0, err + out
    assert [audit["grade"] for audit in json.loads(out)["audits"]] == [3]
    asked_again = [body["model"] for body in well.requests if not is_check(body)]
    assert asked_again == ["judge"]  # the agent is not paid again
    assert asked == 1
    use = json.loads(out)["llm_use"]
    answered = name not in ("moderated", "failing", "unpaid")
    assert use["rubric_llm"]["calls"] == (4 if answered else 1)  # what could not be used was paid for all the same


@pytest.mark.parametrize("name", ["unreadable", "filtered", "moderated"])
def test_a_judge_of_the_lens_without_a_verdict_fails_that_organism_only(name, workspace_folder, run_cli, judges):
    here, there = (workspace_folder / f"evals/organisms/{n}" for n in ("mill", "mill2"))
    there.mkdir()
    (there / "organism.yaml").write_text((here / "organism.yaml").read_text().replace("name: mill", "name: mill2"))
    first = []

    def fails(body):
        """The first organism's judge; the second one's evidence is another's, as if it came from the cache."""
        first.append(body)
        return NO_VERDICTS[name] if len(first) <= (3 if answered else 1) else None

    answered = name != "moderated"
    judges(fails)
    args = ["evaluate", "small", "--organism", "mill", "--organism", "mill2", "--llm", "openai:agent", "--agent", "adl",
            "--lens-llm", f"openai:lens-{name}", "--name", "run", "--repeats", 1, "--json"]  # fmt: skip
    code, out, err = run_cli(*args)
    assert code == 1, err
    audits = {audit["organism"]: audit for audit in json.loads(out)["audits"]}
    assert [audits[o]["status"] for o in ("mill", "mill2")] == ["failed", "done"]
    assert "verdict" in audits["mill"]["error"] or "moderation" in audits["mill"]["error"]
    code, out, err = run_cli(*args, "--retry-failed")
    assert code == 0, err + out
    assert [audit["status"] for audit in json.loads(out)["audits"]] == ["done", "done"]


@pytest.mark.parametrize(("finish", "said"), [("content_filter", "content filter"), ("length", "cut off at a limit")])
def test_a_conclusion_that_was_withheld_is_not_graded(finish, said, workspace_folder, run_cli, serve, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-canary-1234")
    served = Endpoint(lambda _body: (*completion({"content": ""}, finish), {}))
    monkeypatch.setenv("OPENAI_BASE_URL", served.url)
    suite = workspace_folder / "evals/suites/small.yaml"
    suite.write_text(suite.read_text().replace("repeats: 2", "repeats: 2\nturns: 2"))
    code, out, err = run_cli(*ARGS)
    (audit,) = json.loads(out)["audits"]
    assert (code, audit["status"], audit["grade"]) == (1, "failed", None), err + out
    assert said in audit["error"]
    served.plan = lambda _body: (*completion(FINAL), {})
    code, out, err = run_cli(*ARGS, "--retry-failed")
    assert (code, json.loads(out)["audits"][0]["status"]) == (0, "done"), err
    served.close()
