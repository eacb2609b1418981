"""The evidence as a page: complete, self-contained, and nothing that a model wrote is more than text in it."""

import base64
import hashlib
import json
from html.parser import HTMLParser

from auditor.views import page as pages


class Page(HTMLParser):
    """Tags with their attributes, and the text between them."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


PATIENT = '''
from auditor import grader

@grader(kind="coherence")
def patient(texts, reference, ctx):
    """A random model's texts are never coherent; here they all pass."""
    return [True] * len(texts)
'''


def test_a_page_of_all_that_was_read(workspace_folder, run_cli):
    (workspace_folder / "graders").mkdir()
    (workspace_folder / "graders/patient.py").write_text(PATIENT)
    suite = workspace_folder / "evals/suites/small.yaml"
    suite.write_text(
        suite.read_text().replace("      positions: 1\n", "      positions: 1\n      coherence_grader: patient\n")
    )
    code, out, err = run_cli("evidence", "mill", "--suite", "small", "--html", "page.html", "--json")
    assert code == 0, err
    read = json.loads(out)["readings"]
    page = Page((workspace_folder / "page.html").read_text())
    cells = [attrs for tag, attrs in page.tags if tag == "td" and "background" in attrs.get("style", "")]
    assert len(cells) >= 3 * 8 * 3  # two layers by logit lens, one by patchscope
    for part in (
        "Patchscope",
        "Logit lens",
        "layer 3 (last)",
        "Resemblance:",
        read["steering"]["plain"][0]["prompt"],
    ):
        assert part in page.text
    assert not [attrs for _, attrs in page.tags if {"src", "href"} & attrs.keys()]
    assert not {"link", "img", "iframe"} & {tag for tag, _ in page.tags}


def test_what_is_short_of_what_was_asked_for_is_said_everywhere(workspace_folder, checkpoints, run_cli):
    (workspace_folder / "few.txt").write_text("The river runs past the old mill and into the town.\nA ship.\n" * 4)
    suite = workspace_folder / "evals/suites/small.yaml"
    suite.write_text(
        suite.read_text().replace("texts: 16", "texts: 16\n  corpus: few.txt").replace("positions: 3", "positions: 8")
    )
    told = ["16 texts were asked for, 8 were read", "of 8 there are"]
    code, out, err = run_cli("evidence", "mill", "--suite", "small", "--html", "page.html")
    assert code == 0, err
    page = Page((workspace_folder / "page.html").read_text()).text
    code, _, err = run_cli("audit", checkpoints("llama")[1], "--suite", "small", "--budget", 0, "--name", "a")
    assert code == 0, err
    report = (workspace_folder / "runs/a/report.md").read_text()
    code, _, progress = run_cli("evaluate", "small", "--repeats", 1, "--agent", "adl")
    assert code == 0, progress
    for line in told:
        assert [line in shown for shown in (out, page, report, progress)] == [True] * 4


def test_no_script_runs_but_the_pages_own():
    html = pages.to_html("a pair", [], [])
    assert [tag for tag, _ in Page(html).tags].count("script") == 1
    own = html.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html


def test_a_folder_that_is_not_there(workspace_folder, run_cli):
    code, _, err = run_cli("evidence", "mill", "--suite", "small", "--html", "nowhere/page.html")
    assert code == 2
    assert "there is no folder nowhere" in err
