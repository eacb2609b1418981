"""What evidence costs is told before it is begun, where that is much."""

import pytest

from auditor import estimate
from auditor.estimate import announcement, tokens
from auditor.evidence.recipe import chosen
from auditor.records.cards import EvidenceSettings
from auditor.workspace import load_workspace


def settings_of(evidence, *names):
    """Of some lenses, as evidence sets them up."""
    lenses = load_workspace().lenses
    return {name: chosen(lenses[name], evidence.lenses.get(name, {}), {}) for name in names}


ALL = ("differences", "patchscope", "plain_samples", "steering")


def test_what_is_cheap_needs_no_word():
    quickstart = load_workspace().suites["quickstart"].evidence
    lenses = settings_of(quickstart, *ALL)
    decoded, patched, read = tokens(quickstart.texts, lenses)
    assert (decoded, patched, read) == (
        (2 * 8 + 3) * 5 * 24 + 3 * 10 * 2 * 48 + 10 * 48,
        4 * 5 * 3 * 30,
        2 * 256 * 5 + 64 * 24,
    )
    told = estimate.DECODED * decoded + estimate.PATCHED * patched + estimate.READ * read + estimate.REST
    assert told == pytest.approx(estimate.QUICKSTART, rel=0.1)  # so that "N × quickstart's" is what it says
    assert announcement(quickstart.texts, lenses) == ""


def test_only_the_lenses_that_are_run_count():
    quickstart = load_workspace().suites["quickstart"].evidence
    assert tokens(quickstart.texts, settings_of(quickstart, "plain_samples")) == (
        10 * (2 + 1) * 48,
        0,
        0,
    )  # the base's one answer beside the finetune's two


def test_a_suite_without_evidence_says_that_it_means_hours():
    line = announcement(EvidenceSettings().texts, settings_of(EvidenceSettings(), *ALL))
    assert "66 × quickstart's" in line
    assert "449,280 tokens to decode" in line
