"""`auditor card`: a block of a model's card, printed, in a file, and in a repository of the hub."""

import json

import pytest

from tests.hub_users import CARD, audited, by_hand, error_of, hub_with_users


@pytest.fixture
def hub(monkeypatch, tmp_path):
    with hub_with_users(monkeypatch, tmp_path / "hub") as hub:
        yield hub


@pytest.fixture
def audit(workspace_folder, run_cli, serve, checkpoints):
    return audited(workspace_folder, checkpoints("llama")[1], run_cli, serve)


class TestABlockOfAModelsCard:
    def test_says_what_was_found_by_whom_and_what_that_cannot_tell(self, hub, audit, run_cli):
        code, out, err = run_cli("card", audit)
        assert code == 0, err
        assert out.startswith("<!-- auditor:begin -->\n## Audit\n\nAudited with auditor `0.1.0` ")
        assert out.endswith("<!-- auditor:end -->\n")
        for part in ("- **Verdict.** ", "- **Model.** `…/llama-adapter`, loaded from `tensors:",
                     "- **Base.** `…/llama`, loaded from `tensors:", "- **What the lenses read it as",
                     "`openai:m`, a language model (agent `adl`, 1 of 1 questions to the model; 0 of its 1 claims",
                     "- **What this cannot tell.** Not what was trained in", "nobody graded it."):  # fmt: skip
            assert part in out
        assert "none above chance (p = 1).** Tested against chance by `chance`." in out
        assert "- **What the lenses read it as (no more than chance would show).**\n  - " in out
        assert "https://evil" not in out
        assert "<img" not in out.replace("\\<img", "")

    def test_has_a_p_value_where_there_is_one(self, hub, audit, run_cli):
        report = json.loads((audit / "report.json").read_text())
        (audit / "report.json").write_text(json.dumps(report | {"trace": None}))
        out = run_cli("card", audit)[1]
        assert "**Test against chance: none.** There is no p-value. Nothing could be tested" in out
        assert "(untested)" in out
        report["trace"] = {"p": 0.02, "tested": ["chance", "ppl_diff"], "strongest": "chance"}
        (audit / "report.json").write_text(json.dumps(report))
        out = run_cli("card", audit)[1]
        tested = "Tested against chance by `chance`, `ppl_diff` (the least p of 2 tests, times 2)."
        assert f"- **Evidence that something narrow was trained in: moderate (p = 0.02).** {tested}" in out

    def test_goes_into_a_models_card_by_a_pull_request_and_leaves_the_rest(self, hub, audit, run_cli):
        code, out, err = run_cli("card", audit, "--push", "lab/model", "--yes")
        assert code == 0, err
        assert out.splitlines()[-1] == f"{hub.url}/lab/model/discussions/1"
        assert "is that the same model?" in err  # it was audited from a folder here
        assert hub.repos["lab/model"]["README.md"] == CARD
        _, files = hub.versions[id(hub.repos), "lab/model"]["refs/pr/1"]
        page = files["README.md"]
        assert page.startswith(CARD + b"\r\n<!-- auditor:begin -->\r\n")
        assert page.count(b"\n") == page.count(b"\r\n") + CARD.count(b"\n") - CARD.count(b"\r\n")
        assert files["config.json"] == b"{}"

    def test_is_replaced_between_its_markers_byte_for_byte(self, hub, audit, run_cli):
        before, after = b"---\nlicense: mit\n---\n# \xc3\xbc\nA\r\n", b"\n\n  tail \r\nx"
        old = b"<!-- auditor:begin -->\nold\n<!-- auditor:end -->"
        hub.repos["lab/model"]["README.md"] = before + old + after
        for _ in range(2):
            code, out, err = run_cli("card", audit, "--push", "lab/model", "--yes", "--commit")
            assert code == 0, err
        assert "its README.md has this block already" in out
        new = hub.repos["lab/model"]["README.md"]
        assert new.startswith(before + b"<!-- auditor:begin -->\r\n## Audit")
        assert new.endswith(b"<!-- auditor:end -->" + after)
        assert b"\nold" not in new

    def test_goes_into_a_file_and_names_the_dataset_it_was_pushed_to(self, hub, audit, run_cli, tmp_path):
        assert run_cli("push", audit, "me/audit", "--yes")[0] == 0
        page = tmp_path / "README.md"
        page.write_bytes(b"# \xff\n")
        code, _, err = run_cli("card", audit, "--to", page)
        assert code == 0, err
        assert page.read_bytes().startswith(b"# \xff\n\n<!-- auditor:begin -->\n## Audit")
        linked = f"- **Results and readings.** [me/audit]({hub.url}/datasets/me/audit) (private)\n"
        assert linked.encode() in page.read_bytes()

    def test_goes_where_there_is_no_card_and_to_those_who_may_only_read(self, hub, audit, run_cli, monkeypatch):
        code, out, err = run_cli("card", audit, "--push", "other/model", "--yes")
        assert (code, f"{hub.url}/other/model/discussions/1" in out) == (0, True), err
        _, files = hub.versions[id(hub.repos), "other/model"]["refs/pr/1"]
        assert files["README.md"].startswith(b"<!-- auditor:begin -->\n## Audit")
        code, _, err = run_cli("card", audit, "--push", "other/model", "--yes", "--commit")
        assert (code, "the hub does not let you write to other/model" in error_of(err)) == (2, True)

    def test_is_refused_where_the_card_was_changed_meanwhile(self, hub, audit, run_cli, monkeypatch):
        from auditor.cli import card

        monkeypatch.setattr(card, "consent", lambda *_a, **_k: by_hand("lab/model", {"README.md": b"new"}, "model"))
        code, _, err = run_cli("card", audit, "--push", "lab/model", "--commit")
        assert (code, "lab/model was changed meanwhile" in error_of(err)) == (2, True), err
        assert hub.repos["lab/model"]["README.md"] == b"new"

    def test_is_no_marker_itself_whatever_a_model_says(self, audit, run_cli, tmp_path):
        report = json.loads((audit / "report.json").read_text())
        evil = "x\n<!-- auditor:end -->\n# Safe\n`<script>alert(1)</script>`\n| a | [b](javascript:1)"
        report["findings"]["domain"] = report["about"] = evil
        for section in report["sections"]:
            section["title"] = evil
            for column in section.get("columns", ()):
                for token in column.get("tokens", ()):
                    token["text"] = evil
        (audit / "report.json").write_text(json.dumps(report))
        page = tmp_path / "page.md"
        for _ in range(2):
            code, _, err = run_cli("card", audit, "--to", page)
            assert code == 0, err
        lines = page.read_text().split("\n")
        assert lines.count("<!-- auditor:end -->") == 1
        assert not any(line.startswith(("# Safe", "<", "|")) for line in lines[1:-2])

    @pytest.mark.parametrize(
        ("page", "args", "said"),
        [
            (b"<!-- auditor:begin -->\n", (), "it has to hold <!-- auditor:begin --> and"),
            (b"<!-- auditor:end -->\n<!-- auditor:begin -->\n", (), "once each, in this order"),
            (CARD, ("--push", "lab/nothing"), "lab/nothing is no model on the hub"),
            (b"# \xff", (), "its README.md is not UTF-8"),
            (CARD, ("--push", "lab/gated"), "lab/gated is gated: accept its licence at"),
            (CARD, ("--commit",), "--commit goes with --push ORG/MODEL"),
        ],
    )  # fmt: skip
    def test_what_stands_in_the_way_is_one_line(self, hub, audit, run_cli, page, args, said):
        hub.repos["lab/model"]["README.md"] = page
        hub.repos["lab/gated"], hub.doors["lab/gated"] = {"README.md": CARD}, (403, "GatedRepo")
        more = () if args == ("--commit",) else ("--push", "lab/model", "--yes", *args)
        code, _, err = run_cli("card", audit, *more, *args)
        assert (code, said in error_of(err)) == (2, True), err
        assert not any("/commit/" in path for path in hub.written)

    def test_is_of_audits_only(self, audit, run_cli):
        (audit / "report.json").unlink()
        assert "it has no report.json; give the folder of an `auditor audit`" in error_of(run_cli("card", audit)[2])
