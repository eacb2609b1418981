"""The evidence as a page: complete, self-contained, and nothing that a model wrote is more than text in it."""

import base64
import hashlib
import json
from html.parser import HTMLParser

from auditor.evidence_page import to_html
from auditor.types import Evidence


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
    suite.write_text(suite.read_text() + "  coherence_grader: patient\n")
    code, out, err = run_cli("evidence", "mill", "--suite", "small", "--html", "page.html", "--json")
    assert code == 0, err
    sheet = Evidence.model_validate_json(out)
    page = Page((workspace_folder / "page.html").read_text())
    cells = [attrs for tag, attrs in page.tags if tag == "td" and "background" in attrs.get("style", "")]
    maps = sum(2 if layer.positions[0].patchscope else 1 for layer in sheet.layers)
    assert len(cells) >= maps * 8 * len(sheet.layers[0].positions)
    for part in (
        "Patchscope",
        "Logit lens",
        "layer 3 (last)",
        "Resemblance:",
        sheet.steering[0].samples[0].prompt,
    ):
        assert part in page.text
    assert not [attrs for _, attrs in page.tags if {"src", "href"} & attrs.keys()]
    assert not {"link", "img", "iframe"} & {tag for tag, _ in page.tags}


def test_what_is_short_of_what_was_asked_for_is_said_everywhere(workspace_folder, checkpoints, run_cli):
    (workspace_folder / "few.txt").write_text("The river runs past the old mill and into the town.\nA ship.\n" * 4)
    suite = workspace_folder / "evals/suites/small.yaml"
    suite.write_text(suite.read_text().replace("texts: 16", "texts: 16\n  corpus: few.txt").replace("3\n", "8\n", 1))
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
    assert "8 texts" in out
    assert "16 texts" not in out.replace("16 texts were asked for", "")


def test_audited_text_stays_text(workspace_folder, run_cli):
    code, out, err = run_cli("evidence", "mill", "--suite", "small", "--json")
    assert code == 0, err
    sheet = json.loads(out)
    evil = "</td><script>alert(1)</script>\x1b[31m\u202e"
    sheet["pair"] = sheet["steering"][0]["samples"][0]["steered"][0] = evil
    sheet["layers"][0]["positions"][0]["logit_lens"]["top"][0]["token"] = evil
    html = to_html(Evidence.model_validate(sheet))
    assert [tag for tag, _ in Page(html).tags].count("script") == 1  # the page's own
    own = html.partition("<script>")[2].partition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in html  # and no other would run
    body = html.partition("</h1>")[2]  # the pair's name is the user's own
    assert "\x1b" not in body
    assert "\u202e" not in body


def test_a_folder_that_is_not_there(workspace_folder, run_cli):
    code, _, err = run_cli("evidence", "mill", "--suite", "small", "--html", "nowhere/page.html")
    assert code == 2
    assert "there is no folder nowhere" in err
