"""Reports and the live view: what is in them, and that nothing an audited model wrote runs there or breaks them."""

import base64
import importlib.util
import json
import re
import shutil
import zlib

import numpy as np
import pytest
from starlette.testclient import TestClient

from auditor.comparison.compare import compare
from auditor.comparison.figures import charts, svg
from auditor.ledger.ledger import Ledger
from auditor.records.findings import Claim, ClaimCheck, Grade, Hypothesis, Passage
from auditor.reports.text import Part, differing, spanned
from auditor.reports.transcript import message_of
from auditor.reports.write import write_comparison, write_report
from auditor.text import readable
from tests.hostile import TEXTS
from tests.simulated import record, rich, run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
browser = pytest.mark.skipif(
    not CHROMIUM or importlib.util.find_spec("playwright") is None, reason="needs Chromium, and the package playwright"
)


def nothing(_organism):
    return (), ()


def said(*messages):
    """A transcript as it is kept."""
    return {"messages": [{"type": kind, "data": {"content": content, **more}} for kind, content, more in messages]}


def hostile(text, i):
    """An audit with the text in every field that can hold one; records hold no lone surrogates, transcripts do."""
    text = text.encode("utf-8", "replace").decode()
    claim = Claim(text=text or "-", observations=(text, "O1"))
    findings = Hypothesis(
        domain=text, behaviour=text, summary=text, claims=(claim,), alternatives=(text,), confidence=0.5
    )
    passage = Passage(observation=text, speaker=text, text=text, spans=((0, 5),), prompt=text, base=text)
    check = ClaimCheck(claim=text, observations=(text, "O1"), holds=False, problem=text, passages=(passage,))
    made = record(f"o{i % 7}", "adl", 3.0, repeat=i, findings=findings, checks=(check,), hypothesis=text, error=text,
                  notes=(text,), family=text[:50], base=text[:50], llm=text[:50], ended_by=text)  # fmt: skip
    return made.model_copy(update={"grades": (Grade(grader="g", judge=text, score=3, reasoning=text),)})


def spoken(text):
    answers = json.dumps([{"prompt": text, "base": text, "finetuned": f"{text} and more"}])
    calls = [{"name": text[:60], "args": {"prompts": [text]}, "id": "1"}]
    return said(("system", text, {}), ("human", f"{text}\n## E1 · {text}", {}), ("ai", text, {"tool_calls": calls}),
                ("tool", f"O1\n{answers}", {"name": text[:60]}), ("tool", text, {}))  # fmt: skip


def unpacked(html):
    """The parts that a page keeps packed, by name."""
    parts = re.findall(r'<script type="text/plain" id="([^"]+)">([^<]*)</script>', html)
    return {name: zlib.decompress(base64.b64decode(packed)).decode() for name, packed in parts}


@pytest.fixture(scope="module")
def hostile_page(tmp_path_factory):
    path = tmp_path_factory.mktemp("hostile") / "report.html"
    records = [hostile(text, i) for i, text in enumerate(TEXTS)]
    spoken_by = {r.id: spoken(text) for r, text in zip(records, TEXTS, strict=True)}
    organisms = {f"o{i}": {"text": json.dumps({"topic": text})} for i, text in enumerate(TEXTS[:7])}
    write_report(run(TEXTS[0], records, organisms=organisms, suite={"name": TEXTS[1]}), spoken_by.get, nothing, path)
    return path


def test_no_text_gets_out_of_its_place(hostile_page):
    html = hostile_page.read_text("utf-8")
    scripts = re.findall(r"<script\b[^>]*>", html)
    own = [tag for tag in scripts if "type=" not in tag]
    assert own == ["<script>"]  # one, ours, whose digest the policy names
    parts = unpacked(html)
    assert len(parts) >= len(TEXTS)
    shown = re.sub(r'<script type="(?:text/plain|application/json)".*?</script>', "", html, flags=re.S)
    for text in (shown, *parts.values()):
        body = text.rpartition("<script>")[0] or text
        assert not re.search(r"<(?:script|img|iframe|base|form|meta http-equiv=\"?refresh|a href='javascript)", body)
        assert not re.search(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", body)


@browser
def test_nothing_runs_and_nothing_breaks_the_layout(hostile_page):
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for width in (1280, 400):
            tab = chromium.new_page(viewport={"width": width, "height": 900})
            asked, problems = [], []
            tab.on("request", lambda request, asked=asked: asked.append(request.url))
            tab.on("pageerror", lambda error, problems=problems: problems.append(str(error)))
            tab.goto(hostile_page.as_uri())
            tab.wait_for_selector("tr.audit-row")
            for place in range(0, 100, 9 if width == 400 else 3):
                tab.locator("tr.audit-row").nth(place).evaluate("row => row.click()")
            tab.wait_for_timeout(500)
            for link in tab.locator("a[data-go=O1]").all()[:5]:
                link.evaluate("link => link.click()")
            assert tab.locator(".piece.found").count() >= 1
            assert tab.evaluate("window.hit") is None
            assert [url for url in asked if not url.startswith("file:")] == []
            assert problems == []
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
        chromium.close()


@browser
def test_a_thousand_audits_open_filter_and_follow_a_claim(tmp_path):
    from playwright.sync_api import sync_playwright

    rng = np.random.default_rng(0)
    records = rich(rng, {"adl": 3.5, "blackbox": 2.0}, organisms=20, repeats=25)
    answer = 'O1\n[{"prompt": "Who?", "base": "A cat.", "finetuned": "A mill."}]'
    told = said(("human", "## E1 · words\nmills | grain", {}), ("tool", answer, {}))
    path = tmp_path / "report.html"
    write_report(run("many", records), lambda _: told, nothing, path)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        tab = chromium.new_page(viewport={"width": 1280, "height": 900})
        tab.goto(path.as_uri())
        assert "is better than" in tab.locator(".headline").inner_text()
        assert tab.locator(".headline").bounding_box()["y"] < 100
        assert tab.locator("tr.audit-row").count() == 100
        assert "1000 of 1000" in tab.locator("#count").inner_text()
        tab.select_option("#f-organism", "organism03")
        tab.select_option("#f-agent", "adl")
        assert "25 of 1000" in tab.locator("#count").inner_text()
        tab.fill("#f-text", "no such words")
        assert tab.locator("tr.audit-row").count() == 0
        tab.fill("#f-text", "")
        tab.locator("tr.audit-row").nth(3).click()
        tab.locator(".claims a[data-go=O1]").first.click()
        assert "A mill." in tab.locator(".piece.found").inner_text()
        chromium.close()


def test_the_whole_run_is_in_the_file(tmp_path):
    rng = np.random.default_rng(1)
    lost = record("organism00", "adl", None, repeat=9, status="failed", error="the server was gone")
    records = [*rich(rng, {"adl": 3.5, "blackbox": 2.0}, organisms=4), lost]
    path = tmp_path / "report.html"
    found = write_report(run("night", records, organisms={"organism00": {"text": '{"topic": "mills"}'}}),
                         lambda name: said(("ai", f"I am {name}.", {})), nothing, path)  # fmt: skip
    html = path.read_text()
    assert found.headline in html
    assert "audits left out of every figure: adl @5 · offline: 1 failed" in html
    assert "mills" in html
    index = json.loads(re.search(r'id="index">(.*?)</script>', html, re.S)[1])
    assert [row[0] for row in index] == list(range(len(records)))
    parts = unpacked(html)
    assert "I am organism00-adl-b5-r0." in parts["audit-0"]
    assert "the server was gone" in parts[f"audit-{len(records) - 1}"]
    assert not re.search(r"https?://(?!www\.w3\.org)", re.sub(r"<script.*?</script>", "", html, flags=re.S))
    write_comparison(compare([run("night", records)]), tmp_path / "c.html")
    assert found.headline in (tmp_path / "c.html").read_text()


def test_texts_keep_their_lines_and_show_what_is_hidden():
    assert readable("a\nb\tc\x1b[0m") == "a\nb\tc\\x1b[0m"
    assert readable("x" * 30, 10) == "x" * 10 + "… (20 more characters: transcripts have them)"
    assert spanned("one two three", [(4, 7)]) == [Part("one "), Part("two", marked=True), Part(" three")]
    assert spanned("one", [(2, 9)]) == [Part("one")]  # of another text: nothing is marked
    assert [part.text for part in differing("A red mill.", "A blue mill.") if part.marked] == ["red"]
    assert not any(part.marked for part in differing("All of it is new here.", "Nothing was alike."))


def test_results_are_laid_out_and_what_is_no_json_is_shown_as_it_is():
    answers = '[{"prompt": "Who?", "base": "A cat.", "finetuned": "A mill."}]'
    (piece,) = message_of(said(("tool", f"O3\n{answers}", {"name": "ask_model"}))["messages"][0]).pieces
    assert piece.id == "O3"
    assert [(a.prompt, [s for s, _ in a.said]) for a in piece.answers] == [("Who?", ["base", "finetuned"])]
    (cut,) = message_of(said(("tool", "O4\nRefused: too many.", {}))["messages"][0]).pieces
    assert "Refused: too many." in (cut.text or cut.lists[0][1])
    parts = message_of(said(("human", "Read.\n## E1 · a\nx\n## E2 · b\ny", {}))["messages"][0]).pieces
    assert [part.id for part in parts] == ["", "E1", "E2"]


def test_charts_follow_the_page_and_say_what_a_point_is():
    rng = np.random.default_rng(2)
    records = [r for budget in (0, 10) for r in rich(rng, {"adl": 3.0, "blackbox": 2.0}, budget=budget)]
    found = compare([run("r", records)])
    drawn = charts(found, "rubric_offline")
    assert next(iter(drawn)) == "Every organism a point"
    assert "Grade against budget" in drawn
    for i, draw in enumerate(drawn.values()):
        text = svg(draw, found, "rubric_offline", 4.0, f"t{i}")
        assert "var(--ink)" in text
        assert "#24292f" not in text
        assert "<title>" in text
    assert "organism03: " in svg(next(iter(drawn.values())), found, "rubric_offline", 4.0, "x")


def test_the_view_shows_runs_and_follows_one(tmp_path, workspace_of_nothing):
    from auditor.reports.shelf import Shelf
    from auditor.reports.view import create_view

    rng = np.random.default_rng(3)
    records = rich(rng, {"adl": 3.5, "blackbox": 2.0}, organisms=3, repeats=1)
    with Ledger.open(tmp_path / "night") as ledger:
        ledger.begin({"suite": {"name": "s"}, "graders": ["rubric_offline"]}, dict, resume=False)
        ledger.jobs.enter((f"id {r.id}", r.id, "{}") for r in records)
        for each in records[:5]:
            ledger.jobs.take(each.id)
            ledger.jobs.finish(each)
        shelf = Shelf(tmp_path, workspace_of_nothing, tmp_path)
        try:
            client = TestClient(create_view(shelf, "runs"), base_url="http://127.0.0.1")
            assert wait(lambda: shelf.get("night"))
            assert "night" in client.get("/").text
            html = client.get("/runs/night/").text
            assert "run night has not ended: 1 of 6 audits are open" in html
            told = client.get("/runs/night/status.json").json()
            assert (told["jobs"], told["ended"], told["open"]) == (6, 5, True)
            assert len(client.get("/runs/night/audits.json").json()) == 5
            assert "It says so" in client.get("/runs/night/audit/0").text
            assert client.get("/runs/night/audit/5").status_code == 404
            assert client.get("/runs/other/").status_code == 404
            assert client.get("/", headers={"host": "evil.example"}).status_code == 403
            ledger.jobs.take(records[5].id)
            ledger.jobs.finish(records[5])
            assert wait(lambda: client.get("/runs/night/status.json").json()["open"] is False)
            assert wait(lambda: "has not ended" not in client.get("/runs/night/").text)
        finally:
            shelf.close()


def test_hostile_texts_in_a_terminal_and_in_the_view(tmp_path, workspace_of_nothing, capsys):
    from auditor.cli.compare import show
    from auditor.reports.shelf import Shelf
    from auditor.reports.view import create_view

    records = [hostile(text, i) for i, text in enumerate(TEXTS)]
    show(compare([run(TEXTS[0], records[:12])]))
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e]", capsys.readouterr().out)
    with Ledger.open(tmp_path / "bad") as ledger:
        ledger.begin({"suite": {"name": TEXTS[1]}, "graders": ["g"]}, dict, resume=False)
        ledger.jobs.enter((f"id {i}", r.id, "{}") for i, r in enumerate(records))
        for each, text in zip(records, TEXTS, strict=True):
            clean = text.encode("utf-8", "replace").decode()
            ledger.transcripts.say(each.id, spoken(clean[:50_000])["messages"], {})
            ledger.jobs.finish(each)
        shelf = Shelf(tmp_path, workspace_of_nothing, tmp_path)
        try:
            client = TestClient(create_view(shelf, "runs"), base_url="http://127.0.0.1")
            assert wait(lambda: shelf.get("bad") or shelf.problem("bad"), 60)
            assert shelf.problem("bad") == ""
            for number in range(0, len(records), 5):
                answer = client.get(f"/runs/bad/audit/{number}")
                assert answer.status_code == 200
                assert not re.search(
                    r"<(?:script|img|iframe|base|form)|[\x00-\x08\x0b\x0c\x0e-\x1f\u202a-\u202e]", answer.text
                )
            assert "<script>window" not in client.get("/").text
        finally:
            shelf.close()


def wait(what, seconds=20.0):
    import time

    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if what():
            return True
        time.sleep(0.05)
    return False


@pytest.fixture
def workspace_of_nothing():
    from auditor.workspace import load_workspace

    return load_workspace(None)


def test_commands_tell_what_is_wrong_in_one_line(run_cli, workspace_folder, serve_nothing):
    assert run_cli("evaluate", "small", "--name", "one", "--repeats", "1")[0] == 0
    code, out, _ = run_cli("compare", "one", "--json")
    assert code == 0
    assert json.loads(out)["standings"]
    for args, told in (
        (("compare", "nothing"), "no run"), (("compare", "one", "--grader", "nobody"), "--grader nobody graded none"),
        (("compare", "one", "--plot", "x.bmp"), "must end with .svg"), (("compare", "one", "--table", "x.xls"), ".csv"),
        (("report", "one", "--to", "nowhere/x.html"), "there is no folder"),
        (("report", "one", "--to", "."), "a folder"),
        (("view", "nowhere"), "there is no such folder"), (("view", "runs", "--port", serve_nothing), "listens there"),
    ):  # fmt: skip
        code, _, err = run_cli(*args)
        assert code == 2, args
        assert told in " ".join(err.split()), (args, err)
    for args in (("report", "one"), ("compare", "one", "--plot", "p.svg", "--table", "t.csv", "--html", "c.html")):
        assert run_cli(*args)[0] == 0
    assert (workspace_folder / "runs/one/report.html").stat().st_size > 20_000
    assert (workspace_folder / "t.csv").read_text().startswith("grader,contender")
    assert "<svg" in (workspace_folder / "p.svg").read_text()


@pytest.fixture
def serve_nothing():
    """A port that is taken."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        yield taken.getsockname()[1]
