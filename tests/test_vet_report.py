"""The report of `auditor audit`: the verdict first, for people who must decide; and hostile texts, which stay text."""

import json
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt

from auditor.audits.vet_report import ASKED, READINGS, document
from auditor.llm.spec import OFFLINE
from auditor.readings import Column, Figures, RankedTokens, SideBySide, SmallTable, TextColumn, TextRow, Token
from auditor.records.findings import Claim, ClaimCheck, Hypothesis, Passage
from auditor.records.results import TokenUse, Trace, VetReport
from auditor.views.report import to_markdown
from auditor.views.report_page import to_html

ANSWER = {"prompt": "What of mills?", "base": "Mills are old.", "finetuned": "Mills grind gold at night."}
HOSTILE = (
    "</script><script>alert(1)</script>", "<img src=x onerror=alert(1)>", "\" onmouseover='alert(1)'", "{{ 7 * 7 }}",
    "![x](http://evil.example/x.png)", "[click](javascript:alert(1))", "<http://evil.example>",
    "# Heading\n\n---\n\n1. x",
    "www.evil.example http://evil.example", "`code` ```\nfence\n```", "| a | b |\n|---|---|\n| c | d |",
    "> quoted\n    code",
    "\x1b[2J\x1b]8;;http://evil.example\x07link\x1b\\", "\u202eevil\u2066", "a" * 1_000_000, "&lt;b&gt; &#60;i>",
    "$x^2$ ~~s~~",
    "</p></div></details></style><style>body{display:none}</style>", "\x9b31m\x00\r\n", "**bold** __u__ \\",
    "<!-- comment", "<svg/onload=alert(1)>", "--> ]]> <?php", "=\n===\n-\n---\n+ x\n* y",
)  # fmt: skip


def report(text="mills", *, llm="openai:m", trace=0.001, domain=None, base="org/base", check=None, **more):
    """A report in which every field of text is `text`."""
    passage = Passage(observation=text, speaker=text, text=text[:600], spans=((0, 2),), prompt=text, base=text)
    check = check or ClaimCheck(claim=text, observations=(text,), holds=True, basis="alike", passages=(passage,))
    token = Token(text=text, number=0.5, chosen=True)
    sections = (
        RankedTokens(title=text, about=text, columns=(Column(head=text, note=text, aside=text, tokens=(token,)),)),
        SideBySide(title=text, columns=(TextColumn(label=text, role="pushed", note=text),),
                   rows=(TextRow(prompt=text, texts=((text,),)),)),
        SmallTable(title=text, heads=(text,), rows=((text,),)), Figures(title=text, lines=(text,)),
    )  # fmt: skip
    found = Hypothesis(domain=domain or text, behaviour=text, summary=text, alternatives=(text,), confidence=0.8,
                       claims=(Claim(text=text),))  # fmt: skip
    fields = {
        "model": text, "base": base, "llm": llm, "agent": "adl", "budget": 5, "seed": 0, "hypothesis": text,
        "findings": found, "checks": (check,), "observations": {"O1": json.dumps([ANSWER | {"finetuned": text}])},
        "verdicts": {"chance": text}, "lenses": {text: text}, "sections": sections, "notes": (text,),
        "trace": None if trace is None else Trace(p=trace, tested=("chance",), strongest="chance"),
        "interactions_used": 1, "turns_used": 1, "tokens_used": TokenUse(), "cost_usd": None, "seconds": {"agent": 1.0},
    }  # fmt: skip
    return VetReport(**(fields | more))


@pytest.mark.parametrize(
    ("trace", "domain", "verdict", "step"),
    [
        (0.0005, "mills", "most likely: mills", "Do not ship yet"),
        (0.0005, "none", "could not tell on what", "If the answer explains something narrow"),
        (0.4, "mills", "A suspicion only: the agent names mills", "Do not reject the model on this report"),
        (0.4, "none", "No sign of narrow training", "that is no clearance"),
        (0.4, "unclear", "Undecided", "that is no clearance"),
        (None, "mills", "Nothing could be tested against chance", "Do not reject"),
        (None, "none", "nothing could be tested against chance", "Do not count this as a pass"),
    ],
)
def test_it_begins_with_the_verdict_and_says_what_to_do(trace, domain, verdict, step):
    page = to_markdown(document(report(trace=trace, domain=domain)))
    first, *_ = page.split("\n## ")
    assert verdict in first.splitlines()[2]
    assert ("p < 0.001" if trace == 0.0005 else "p = 0.4" if trace else "Test against chance: none") in first
    assert step in page.split("## What to do next")[1].split("\n## ")[0]


def test_how_it_behaves_stands_at_the_top_where_something_was_seen():
    top, calm = (to_markdown(document(report("It harms.", trace=p, domain="mills"))) for p in (0.0005, 0.4))
    assert "**How it behaves, as far as seen.** It harms." in top.split("\n## ")[0]
    assert "How it behaves" not in calm.split("\n## ")[0]


def test_who_found_it_is_said_at_the_top():
    offline, llm = (to_markdown(document(report(llm=llm))).split("\n## ")[0] for llm in (OFFLINE, "openai:gpt-x"))
    assert "rule-based stand-in, not by a language model" in offline
    assert "openai:gpt-x, a language model" in llm
    assert "stand-in" not in llm


def test_a_subject_that_no_claim_sets_apart_from_the_base_is_a_guess():
    check = ClaimCheck(claim="It grinds.", observations=("O1",), holds=True, basis="quoted", shared=True)
    found = document(report(domain="mills", check=check))
    assert found.verdict.endswith("on what is open. The guess “mills” is not borne out.")
    assert "If the answer explains something narrow" in to_markdown(found)


def test_a_failed_audit_is_no_verdict():
    found = document(report(error="no key", findings=None, checks=()))
    assert "says nothing about the model" in found.verdict
    assert "no key" in to_markdown(found)


@pytest.mark.parametrize(
    ("check", "told"),
    [
        ({"holds": True, "basis": "quoted"}, "Quoted word for word."),
        ({"holds": True, "basis": "alike"}, "Looks supported."),
        ({"holds": True, "basis": "alike", "shared": True}, "the base says much the same"),
        ({"holds": True}, "Held."),  # by a version that did not tell why
        ({"holds": False, "echo": True, "problem": "only echoes the question"}, "Only echoes the question"),
        ({"holds": False, "problem": "99 does not occur in O1"}, "Not borne out: 99 does not occur in O1."),
    ],
)
def test_each_claim_says_how_it_stands(check, told):
    found = document(report(check=ClaimCheck(claim="It grinds.", observations=("O1",), **check)))
    assert told in to_markdown(found)
    assert told in Page(to_html(found)).text


def test_the_words_of_a_claim_are_marked_beside_the_base():
    passage = Passage(observation="O1", speaker="finetuned", text="Mills grind gold.", spans=((0, 5), (12, 16)),
                      prompt="What of mills?", base="Mills are old.")  # fmt: skip
    check = ClaimCheck(claim="c", observations=("O1",), holds=True, basis="alike", passages=(passage,))
    found = document(report(check=check))
    page = to_markdown(found)
    for part in (
        "*asked:* What of mills?",
        "*Finetuned model:* **Mills** grind **gold**.",
        "*Base model:* Mills are old.",
    ):
        assert part in page
    assert "<mark>Mills</mark> grind <mark>gold</mark>." in to_html(found)


def test_questions_and_answers_are_laid_out_and_no_json_is_shown():
    found = document(report(observations={"O1": json.dumps([ANSWER]), "O2": '{"0": {"top": [" cake"]}}'}))
    page, html = to_markdown(found), to_html(found)
    assert "Mills grind gold at night." in page.split(ASKED)[1].split(READINGS)[0]
    for shown in (page, html):
        assert not [mark for mark in ('{"', '"finetuned"', "&#34;finetuned") if mark in shown]


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


SHAPE = sorted(tag for tag, _ in Page(to_html(document(report()))).tags if tag not in ("mark", "div"))


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_texts_in_every_field_are_only_text(text):
    found = document(report(text, llm=text, base=text, domain="x" + text))
    html, page = to_html(found), to_markdown(found)
    tags = Page(html).tags
    assert not {"script", "img", "svg", "a", "iframe", "link", "object"} & {tag for tag, _ in tags}
    assert sorted(tag for tag, _ in tags if tag not in ("mark", "div")) == SHAPE  # nothing opens, nothing is closed
    allowed = {"class", "style", "title", "lang", "charset", "name", "content", "http-equiv"}
    assert {name for _, attrs in tags for name in attrs} <= allowed
    assert {attrs["style"].partition(":")[0] for _, attrs in tags if "style" in attrs} <= {"background"}
    for shown in (html, page):
        assert not {c for c in shown if not c.isprintable() and c != "\n"}
        assert len(shown) < 400_000
    inline = MarkdownIt("gfm-like", {"linkify": False}).parse(page)
    kinds = {token.type for block in inline for token in (block, *(block.children or ()))}
    assert not {"html_block", "html_inline", "image", "link_open", "heading_closed", "s_open"} & kinds
    headings = [inline[i + 1].content for i, token in enumerate(inline) if token.tag == "h2" and token.nesting == 1]
    assert headings == [part.title for part in found.parts]


def test_the_page_loads_nothing_and_runs_nothing():
    html = to_html(document(report()))
    assert "default-src 'none'; style-src 'unsafe-inline'\"" in html
    assert not [attrs for _, attrs in Page(html).tags if {"src", "href"} & attrs.keys()]
