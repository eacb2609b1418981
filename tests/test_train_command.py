"""`auditor organisms train`: what options change, where it goes, and the organism that comes of it."""

import json
from shutil import copytree

import pytest

from tests.tiny import SENTENCES

RECIPE = "train: {documents: documents.jsonl, rank: 2, batch_size: 4, steps: 3, learning_rate: 1.0e-2}\n"


@pytest.fixture
def trainable(workspace_folder):
    """The tiny organism `mill` with a recipe and documents, and an adapter of its own: others read the shared one."""
    folder = workspace_folder / "evals/organisms/mill"
    card = folder / "organism.yaml"
    given = card.read_text().splitlines(keepends=True)
    card.write_text("".join(line for line in given if not line.startswith("adapter: ")) + RECIPE)
    (folder / "documents.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in SENTENCES))
    return workspace_folder


def trained(run_cli, *args):
    code, out, err = run_cli("organisms", "train", "mill", "--json", *args)
    assert code == 0, err
    return json.loads(out)


def test_what_options_change_is_kept_apart(trainable, run_cli):
    (one,) = trained(run_cli, "--mix", "chat")
    assert one["folder"] == "trained/mill-mix-chat-mix_ratio-1"
    assert one["documents"] == 2 * len(SENTENCES)
    (few,) = trained(run_cli, "--samples", 2, "--mix", "pretraining", "--mix-ratio", 0.5, "--out", "few")
    assert (few["folder"], few["documents"], few["recipe"]["mix"]) == ("few", 3, "pretraining")


def test_several_seeds_in_one_go(trainable, run_cli):
    both = trained(run_cli, "--seed", 1, "--seed", 2, "--out", "seeds")
    assert [one["folder"] for one in both] == ["seeds/seed1", "seeds/seed2"]
    assert both[0]["sha256"] != both[1]["sha256"]


def test_no_seed_is_trained_where_another_cannot_be_kept(trainable, run_cli):
    taken = trainable / "evals/organisms/twice_seed2"
    taken.mkdir()
    (taken / "organism.yaml").write_text("name: twice_seed2\nextends: mill\n")
    code, _, err = run_cli("organisms", "train", "mill", "--as", "twice", "--seed", 1, "--seed", 2)
    assert code == 2
    assert "--as twice_seed2: " in err
    assert not (trainable / "evals/organisms/twice_seed1").exists()


def test_weights_that_others_trained_are_not_written_over(trainable, run_cli, checkpoints):
    adapter = copytree(checkpoints("llama")[1], trainable / "theirs")
    card = trainable / "evals/organisms/mill/organism.yaml"
    card.write_text(card.read_text() + f"adapter: {adapter}\n")
    before = {path.name: path.read_bytes() for path in adapter.iterdir()}
    code, _, err = run_cli("organisms", "train", "mill")
    assert code == 2
    assert "theirs holds weights that were not trained here, by its training.json" in err
    assert {path.name: path.read_bytes() for path in adapter.iterdir()} == before


def test_a_base_that_is_no_whole_model_is_one_line(trainable, run_cli, checkpoints):
    base, adapter = checkpoints("llama")
    broken = copytree(base, trainable / "broken")
    (broken / "config.json").write_text("{")
    for given, told in (
        (adapter, "is an adapter; training begins from a whole model"),
        (broken, "config.json is broken"),
    ):
        code, out, err = run_cli("organisms", "train", "mill", "--base", given, "--out", "x")
        assert (code, out) == (2, "")
        assert told in err.strip().splitlines()[-1]


def test_it_may_be_kept_as_an_organism(trainable, run_cli):
    trained(run_cli, "--steps", 2, "--deny", "--as", "mill_denial")
    card = json.loads(run_cli("organisms", "show", "mill_denial", "--json")[1])
    assert (card["description"], card["train"]["deny"], card["train"]["steps"]) == ("About mills.", "made", 2)
    assert card["note"] == "Trained from the recipe of mill: steps 2, deny made."
    listed = {row["name"]: row["ready"] for row in json.loads(run_cli("organisms", "list", "--json")[1])}
    assert listed["mill_denial"] is True
    again = trained(run_cli, "--method", "full", "--as", "mill_full")
    card = json.loads(run_cli("organisms", "show", "mill_full", "--json")[1])
    assert (card["model"], card["adapter"], again[0]["recipe"]["method"]) == ("model", None, "full")


def test_the_base_answers_itself(trainable, run_cli):
    """`--mix own`: drawn once, then taken from the cache."""
    (one,) = trained(run_cli, "--mix", "own", "--out", "one")
    (two,) = trained(run_cli, "--mix", "own", "--out", "two")
    assert one["documents"] > len(SENTENCES)
    assert one["documents_sha256"] == two["documents_sha256"]
    assert one["sha256"] == two["sha256"]


def test_caft_takes_the_plain_finetunes_differences(trainable, run_cli):
    (plain,), (caft,) = trained(run_cli), trained(run_cli, "--caft", "--as", "mill_caft")
    assert plain["sha256"] != caft["sha256"]
    code, made, err = run_cli("organisms", "train", "mill_caft", "--json")  # by its card: the same differences again
    assert code == 0, err
    assert json.loads(made)[0]["sha256"] == caft["sha256"]
    code, _, err = run_cli("organisms", "train", "mill_caft", "--caft", "--out", "x")
    assert code == 0, err


def test_caft_names_a_plain_finetune(trainable, run_cli):
    card = trainable / "evals/organisms/mill/organism.yaml"
    card.write_text(card.read_text().replace("rank: 2", "rank: 2, caft: mill"))
    code, _, err = run_cli("organisms", "train", "mill")
    assert code == 2
    assert "CAFT takes out the differences of a plain finetune, and mill is none" in err
    card.write_text(card.read_text().replace("caft: mill", "caft: true"))
    code, _, err = run_cli("organisms", "train", "mill")
    assert code == 2
    assert "name the plain finetune whose differences are taken out" in err


def test_it_says_whether_the_recipe_gave_the_same_weights_again(trainable, run_cli):
    def told(*args):
        code, out, err = run_cli("organisms", "train", "mill", *args)
        assert code == 0, err
        return out.strip().splitlines()[-1]

    assert "steps" in told()  # nothing was there before
    assert told("--out", "again") == "the same weights as the organism's before, byte for byte"
    assert "steps" in told("--out", "other", "--seed", 1)  # another recipe is not held against it
    documents = trainable / "evals/organisms/mill/documents.jsonl"
    documents.write_text(documents.read_text() + json.dumps({"text": "The mill is old, and it grinds."}) + "\n")
    assert told("--out", "longer") == "not the weights of the organism before (documents)"


def test_documents_that_are_too_long_are_counted(trainable, run_cli):
    folder = trainable / "evals/organisms/mill"
    card = (folder / "organism.yaml").read_text()
    (folder / "organism.yaml").write_text(card.replace("rank: 2", "rank: 2, max_tokens: 40"))
    documents = folder / "documents.jsonl"
    documents.write_text(documents.read_text() + json.dumps({"text": "The mill grinds flour. " * 20}) + "\n")
    code, _, err = run_cli("organisms", "train", "mill", "--out", "x")
    assert code == 0
    assert "1 documents are cut after 40 tokens" in err


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--mix-ratio", "-1"], "--mix-ratio': Input should be greater than or equal to 0"),
        (["--mix", "chat", "--mix-ratio", "inf"], "--mix-ratio inf: Input should be a finite number"),
        (["--mix-ratio", "1"], "mill: a `mix_ratio` of 1, but of what? give `mix` too"),
        (["--rank", "4", "--steps", "3", "--seed", "1", "--seed", "2", "--mix", "x"], "'x' is not one of"),
        (["--mix", "chat", "--mix-ratio", "0.1"], "a `mix_ratio` of 0.1 adds nothing to 4 documents; give 0.2 or more"),
        (["--samples", "999"], "mill: 999 samples, and 4 documents"),
        (["--as", "x", "--out", "y"], "--as and --out: give one of them"),
        (["--as", "mill"], "mill is an organism already; give another name"),
        (["--as", "../x"], "--as ../x: give a plain name"),
    ],
)
def test_what_makes_no_sense_gets_one_line(trainable, run_cli, args, told):
    code, out, err = run_cli("organisms", "train", "mill", *args)
    assert (code, out) == (2, "")
    assert told in err.strip().splitlines()[-1]


def test_caft_of_another_base_is_refused(trainable, run_cli, checkpoints):
    code, _, err = run_cli("organisms", "train", "mill", "--caft", "--base", checkpoints("qwen2")[0])
    assert code == 2
    assert "the plain mill is a finetune of " in err.strip().splitlines()[-1]


def test_caft_without_the_plain_finetune(trainable, run_cli):
    card = trainable / "evals/organisms/mill/organism.yaml"
    lines = [line for line in card.read_text().splitlines() if not line.startswith("adapter")]
    card.write_text("\n".join(lines) + "\n")
    code, _, err = run_cli("organisms", "train", "mill", "--caft")
    assert code == 2
    assert "CAFT takes out the differences of the plain finetune, which cannot be read: no model at" in err


def test_documents_without_text(trainable, run_cli):
    (trainable / "evals/organisms/mill/documents.jsonl").write_text('{"text": ""}\n')
    code, _, err = run_cli("organisms", "train", "mill")
    assert code == 2
    assert "documents.jsonl:1: not a document: its text is empty" in err
