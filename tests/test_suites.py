"""Suites that extend others: what is merged, what is replaced, and where a mistake is said to be."""

import pytest

from auditor.errors import BadFile
from auditor.workspace import load_workspace


@pytest.fixture
def suites(tmp_path):
    """A function that reads suites from their files' texts, by name."""
    (tmp_path / "auditor.toml").touch()
    folder = tmp_path / "evals/suites"
    folder.mkdir(parents=True)

    def read(**texts):
        for name, text in texts.items():
            (folder / f"{name}.yaml").write_text(f"name: {name}\n{text}")
        return load_workspace(tmp_path).suites

    return read


def test_what_a_suite_does_not_say_is_what_the_other_one_says(suites):
    made = suites(
        mine="extends: quickstart\ndescription: Mine.\nrepeats: 1\nagents: [adl]\n"
        "evidence:\n  texts: 64\n  lenses: {plain_samples: {prompts: 4}}\n"
    )
    mine, quick = made["mine"], made["quickstart"]
    assert (mine.name, mine.description, mine.repeats, mine.agents) == ("mine", "Mine.", 1, ("adl",))
    assert (mine.organisms, mine.ask) == (quick.organisms, quick.ask)
    assert mine.evidence.texts == 64
    assert mine.evidence.lenses == quick.evidence.over({"plain_samples": {"prompts": 4}}).lenses


def test_bundled_is_quickstart_with_more(suites):
    made = suites()
    assert made["bundled"].evidence == made["quickstart"].evidence
    assert "null_chat" in made["bundled"].organisms


def test_an_override_may_extend_what_it_overrides(suites):
    made = suites(quickstart="extends: quickstart\nrepeats: 9\n", more="extends: quickstart\nbudgets: [1]\n")
    assert (made["quickstart"].repeats, made["more"].repeats, made["more"].evidence.texts) == (9, 9, 256)


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        (
            {"a": "extends: b\n", "b": "extends: a\n"},
            r"a\.yaml:2: extends: it goes round in a circle over a\.yaml, b\.",
        ),
        ({"a": "extends: a\n"}, r"a\.yaml:2: extends: it names itself, and overrides no suite"),
        ({"a": "\nextends: quikstart\n"}, r"a\.yaml:3: extends: no suite called 'quikstart'; did you mean quickstart"),
        ({"a": "extends: [b]\n"}, r"a\.yaml:2: extends: no suite called"),
        ({"a": "extends: b\n", "b": "organisms: [gold\n"}, r"a\.yaml:2: extends: .*b\.yaml:\d: broken YAML"),
        ({"a": "extends: b\n", "b": "organisms: []\nrepeats: 0\n"}, r"b\.yaml:3: repeats"),
        (
            {"a": "extends: quickstart\nevidence: {lenses: {plain_samples: {prompts: 0}}}\n"},
            r"a\.yaml:3: evidence: lenses: plain_samples\.prompts: Input should be greater",
        ),
        ({"a": "extends: quickstart\nevidence: {steering: {prompts: 0}}\n"}, "give `lenses: {steering: "),
        ({"a": "extends: quickstart\nevidense: {}\n"}, r"a\.yaml:3: evidense: Extra inputs"),
        ({"a": "extends: quickstart\nrepeats: 1\nrepeats: 5\n"}, r"a\.yaml:4: broken YAML: repeats is given twice"),
    ],
)
def test_a_mistake_is_told_with_its_line(suites, texts, told):
    made = suites(**texts)
    assert made["quickstart"]
    with pytest.raises(BadFile, match=told):
        made["a"]


@pytest.mark.parametrize(
    ("evidence", "told"),
    [
        ("steering: {positions: 0}", r"steering\.positions.*greater than or equal to 1"),
        ("plain_samples: {temperature: -1}", r"plain_samples\.temperature"),
        ("plain_samples: {max_new_tokens: 0}", r"plain_samples\.max_new_tokens"),
        ("steering: {calibration: {temperature: -0.1}}", r"steering\.calibration\.temperature"),
        ("steering: {calibration: {max_new_tokens: 0}}", r"steering\.calibration\.max_new_tokens"),
        ("patchscope: {scales: []}", r"patchscope\.scales"),
        ("patchscope: {scales: [1, 0]}", r"patchscope\.scales"),
    ],
)
def test_evidence_of_nothing_is_refused(suites, evidence, told):
    with pytest.raises(BadFile, match=rf"a\.yaml:3: .*{told}"):
        suites(a=f"extends: quickstart\nevidence: {{lenses: {{{evidence}}}}}\n")["a"]
