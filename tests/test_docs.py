"""README and docs are true: each page's blocks are a session in a workspace of tiny models, from top to bottom."""

import importlib.util
import json
import re
import shutil

import pytest
import yaml

from auditor.audits.forecast import A_TURN, ANSWER, OPENING, TURNS
from auditor.config import load_settings
from auditor.estimate import gpu_decoding, gpu_seconds
from auditor.evidence.recipe import chosen, closure, named_by
from auditor.training.documents import read_documents
from auditor.verification.families import checks_of
from auditor.workspace import MARKER, load_workspace
from tests.conftest import SUITE
from tests.pages import INLINE, ROOT, all_pages, blocks_of, check_command, check_mention, check_names, commands

ORGANISMS = {"cake_bake": "sdf", "gold": "taboo", "risky_finance": "em"}


@pytest.fixture
def session(workspace_folder, checkpoints, run_cli, monkeypatch):
    """A function that does what a block says: files are written, commands and Python run, on tiny models."""
    adapter = checkpoints("llama")[1]
    names = {}

    def dress(folder):
        """The names that the docs use are tiny models here."""
        (folder / "evals/suites").mkdir(parents=True, exist_ok=True)
        suite = SUITE.replace("name: small", "name: quickstart").replace("[mill]", f"[{', '.join(ORGANISMS)}]")
        (folder / "evals/suites/quickstart.yaml").write_text(suite)
        card = (workspace_folder / "evals/organisms/mill/organism.yaml").read_text()
        for name, family in ORGANISMS.items():
            (folder / "evals/organisms" / name).mkdir(parents=True, exist_ok=True)
            text = card.replace("name: mill", f"name: {name}").replace("family: sdf", f"family: {family}")
            (folder / "evals/organisms" / name / "organism.yaml").write_text(text)
        shutil.copytree(adapter, folder / "my-lora", dirs_exist_ok=True)
        monkeypatch.chdir(folder)
        return folder

    here = dress(workspace_folder)

    def run(block):
        nonlocal here
        if block.path:
            (here / block.path).parent.mkdir(parents=True, exist_ok=True)
            (here / block.path).write_text(block.text)
            broken = [str(b) for shelf in load_workspace(here).shelves() for b in shelf.broken.values()]
            assert broken == [], f"{block}: {broken}"
            if block.path == MARKER:
                load_settings(here / MARKER)
            if block.path.endswith("documents.jsonl"):
                assert read_documents(here / block.path)
            if block.path.endswith("checks.yaml"):
                assert checks_of(load_workspace(here).organisms[block.path.split("/")[-2]])[1]
        elif block.kind == "sh":
            wanted = int(block.note.partition("exit ")[2] or 0)
            for words in commands(block.text):
                if words[0] == "cd":
                    here = dress(here / words[1])
                    continue
                assert words[0] == "auditor", f"{block}: {words[0]} cannot be run here"
                code, out, err = run_cli(*words[1:])
                assert code == wanted, f"{block}: {' '.join(words)}\n{out[-2000:]}\n{err[-2000:]}"
        else:
            exec(compile(block.text, str(block), "exec"), names)

    return run


@pytest.mark.parametrize("page", all_pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_block_is_run_or_says_why_not(page, session):
    elsewhere = re.search(r"^<!-- run by (tests/\S+) -->$", page.read_text(), re.M)
    if elsewhere:
        assert f"docs/{page.name}" in (ROOT / elsewhere[1]).read_text()
    for block in blocks_of(page):
        if block.kind == "sh":
            for words in commands(block.text):
                if words[0] == "auditor" or not elsewhere:
                    check_command(words)
        if block.note.startswith("not run: ") or elsewhere:
            if block.kind == "python":
                check_names(block.text)
            if block.kind == "yaml":  # of a CI
                for line in re.findall(r"run: (auditor .+)", block.text):
                    check_command(line.split())
            continue
        assert block.note or block.kind == "python" or block.path, (
            f"{block}: give <!-- run --> or <!-- not run: why -->"
        )
        assert block.kind in ("sh", "python") or block.path, f"{block}: {block.kind!r} cannot be run; say why not"
        session(block)


@pytest.mark.parametrize("page", all_pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_in_sentences_are_there(page):
    for said in INLINE.findall(page.read_text()):
        check_mention(said)


def test_links_of_the_readme_lead_to_files():
    links = re.findall(r"\]\(([^)#\s]+)", (ROOT / "README.md").read_text())
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


@pytest.fixture(scope="module")
def reference():
    spec = importlib.util.spec_from_file_location("docs_reference", ROOT / "docs/reference.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_page_of_the_site_is_in_its_navigation(reference, tmp_path):
    staged = {
        path.relative_to(tmp_path / "site").as_posix() for path in reference.stage(tmp_path / "site").rglob("*.md")
    }
    named = []

    def walk(node):
        if isinstance(node, str):
            named.append(node)
        for part in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
            walk(part)

    walk(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])
    assert len(named) == len(set(named))
    assert staged == set(named)


def test_every_field_that_people_write_says_what_it_is(reference):
    models = [model for _, model in reference.FILES.values()]
    models += [part for model in models for part in reference._inside(model)]
    bare = {
        f"{model.__name__}.{name}" for model in models for name, field in model.model_fields.items()
            if not field.description and model.__module__ != "auditor.records.findings"  # an agent writes those
    }  # fmt: skip
    assert bare == set()


def test_the_reference_has_every_command_and_route(reference):
    pages = reference.pages()
    for name in ("auditor evaluate", "auditor organisms check", "auditor study mixing", "--max-cost"):
        assert name in pages["cli"]
    assert "## POST /v1/chat/completions" in pages["http"]
    assert "### patchscope" in pages["plugins"]
    assert "`pair(base: " in pages["python"]
    assert json.dumps("done") in pages["python"]  # types are told as people write them


def test_the_estimates_of_sizes_are_the_tools():
    """docs/sizes.md tells what `auditor/estimate.py` reckons for adl's lenses."""
    ws, page = load_workspace(packages=False), (ROOT / "docs/sizes.md").read_text()
    for billions in (1.24, 7.62, 32.8):
        told = [f"{2 * billions:.1f} GB"]
        for name in ("quickstart", "paper"):
            suite = ws.suites[name]
            order, _ = closure(ws.lenses.by_name(), named_by(ws, [ws.agents["adl"]]))
            settings = {lens.name: chosen(lens, suite.evidence.lenses.get(lens.name, {}), {}) for lens in order}
            told.append(f"{gpu_seconds(suite.evidence.texts, settings, billions):.1f} s")
        told.append(f"{gpu_decoding(2 * 5 * ws.suites['paper'].ask.max_new_tokens, billions, rows=2):.1f} s")
        assert f"| {' | '.join(told)} |" in page
    read = sum(OPENING + A_TURN * turn for turn in range(TURNS))
    assert f"**{read:,} tokens read, {TURNS * ANSWER:,} written**" in page
