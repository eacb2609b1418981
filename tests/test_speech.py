"""A text that grows token by token is the text of all tokens decoded at once, at the same cost for each."""

import random

import pytest
import transformers
from tokenizers import Tokenizer, decoders, models

from auditor.models.generate import Sampling
from auditor.models.row import Row
from auditor.server.speech import BROKEN, Detokenizer, Speech

HOSTILE = [
    "Plain words, twice  spaced;\n\n\tand a line.",
    "👩‍👩‍👧‍👦 family 🏳️‍🌈 flags 🇺🇦🇯🇵 and ☕︎",
    "e\u0301\u0323\u0308 combined, Z\u0351\u036b\u0343a\u0300lgo, क्षि न्त्र",
    "漢字とかな、한국어, ไทย, עִבְרִית, العربية",
    "  leading and trailing  ",
    "\u200b\u2028\u0085 odd breaks \ufeff",
    BROKEN * 3 + " said on purpose " + BROKEN,
]


@pytest.fixture(scope="module")
def pieces():
    """SentencePiece's manner: ▁ for a space, bytes for what is in no piece, a leading space that is dropped."""
    words = ["<unk>", "</s>", "▁", *(f"<0x{byte:02X}>" for byte in range(256)), "▁mill", "s", "▁the", "!", "日", "é"]
    core = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, [], unk_token="<unk>", byte_fallback=True))
    core.decoder = decoders.Sequence([
        decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0),
    ])  # fmt: skip
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", unk_token="<unk>")


@pytest.fixture(scope="module")
def cleaned():
    """Whole words, between which cleaning up drops spaces."""
    words = ["[UNK]", "we", "do", "n't", "'", "'s", ".", "mill", "##s", ","]
    core = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    core.decoder = decoders.WordPiece(cleanup=False)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="[UNK]", clean_up_tokenization_spaces=True
    )


@pytest.fixture(params=["tokenizer", "pieces"])
def any_tokenizer(request):
    return request.getfixturevalue(request.param)


def told(tokenizer, ids, stops=()):
    """What a stream says, part by part, and the whole at the end."""
    speech, row, parts = Speech(tokenizer, stops), Row([1], Sampling(max_new_tokens=len(ids))), []
    for token in ids:
        row.out.append(token)
        if speech.hear(row):
            break
        parts.append(speech.more())
    whole = speech.finish(row)
    return [*parts, speech.more(last=True)], whole


def decoded(tokenizer, ids):
    return tokenizer.decode(ids, skip_special_tokens=True)


def drawn(tokenizer, count, seed):
    """Any tokens at all: split characters, broken bytes, specials."""
    return random.Random(seed).choices(range(len(tokenizer)), k=count)


@pytest.mark.parametrize("seed", range(8))
def test_any_tokens_are_streamed_as_what_they_say_at_once(any_tokenizer, seed):
    ids = drawn(any_tokenizer, 300, seed)
    parts, whole = told(any_tokenizer, ids)
    assert "".join(parts) == whole == decoded(any_tokenizer, ids).strip()


def test_spaces_that_are_cleaned_up_are_not_said_first(cleaned):
    ids = cleaned.convert_tokens_to_ids(
        ["we", "do", "n't", "mill", ",", "we", "mill", "##s", ".", "mill", "'s", "mill"] * 20
    )
    parts, whole = told(cleaned, ids)
    assert "".join(parts) == whole == decoded(cleaned, ids).strip()
    assert "don't mill, we" in whole


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts_are_said_as_soon_as_they_are_certain(tokenizer, text):
    ids = tokenizer(text * 20).input_ids
    parts, whole = told(tokenizer, ids)
    assert "".join(parts) == whole == decoded(tokenizer, ids).strip()
    assert sum(map(bool, parts)) > 10


def test_broken_bytes_and_runs_of_them(tokenizer, pieces):
    """Lone lead and continuation bytes; a whole character that its run makes broken; a special token within a run."""
    alphabet = tokenizer.convert_tokens_to_ids(list("âĤ¬A"))
    for ids in ([0, 0, 1, 3], [0, 1, 2, 3], [1, 1, 1, 1, 1], [0, 1, 3] * 100, [2] * 300):
        parts, whole = told(tokenizer, [alphabet[i] for i in ids])
        assert "".join(parts) == whole == decoded(tokenizer, [alphabet[i] for i in ids]).strip()
    smile, mill = [pieces.convert_tokens_to_ids(f"<0x{byte:02X}>") for byte in "😀".encode()], 259
    for ids in (smile, [*smile, smile[0], mill], [*smile[:2], 1, *smile[2:], mill], [mill, *smile] * 50, smile * 100):
        parts, whole = told(pieces, ids)
        assert "".join(parts) == whole == decoded(pieces, ids).strip()


@pytest.mark.parametrize("seed", range(4))
def test_a_stop_text_is_found_wherever_its_tokens_end(tokenizer, seed):
    text = decoded(tokenizer, drawn(tokenizer, 300, seed)) + "".join(random.Random(seed).sample(HOSTILE, 3))
    ids = tokenizer(text).input_ids
    whole = decoded(tokenizer, ids).strip()
    for begin in random.Random(seed).sample(range(20, len(whole) - 12), 10):
        stop = whole[begin : begin + 6]
        if BROKEN in stop or not stop.strip():
            continue
        parts, said = told(tokenizer, ids, [stop, "never said"])
        assert "".join(parts) == said == whole[: whole.find(stop)].rstrip()


def test_a_stop_text_at_the_very_end_of_a_run_of_bytes(pieces):
    row = Row([1], Sampling(max_new_tokens=9))
    row.out = [259, *(pieces.convert_tokens_to_ids(f"<0x{byte:02X}>") for byte in "😀x".encode())]
    row.finish, speech = "length", Speech(pieces, ["😀"])
    assert not speech.hear(row)
    assert (speech.finish(row), speech.reason(row)) == ("mill", "stop")


@pytest.mark.parametrize("kind", ["words", "anything", "one byte"])
def test_each_token_costs_about_the_same(tokenizer, kind):
    """In tokens decoded, however long the text, and whatever is in it."""
    ids = {
        "words": lambda: tokenizer("The river runs past the old mill. " * 600).input_ids,
        "anything": lambda: drawn(tokenizer, 4000, 0),
        "one byte": lambda: tokenizer.convert_tokens_to_ids(["Ĥ"]) * 4000,
    }[kind]()[:4000]

    class Counted:
        tokens, convert_ids_to_tokens = 0, tokenizer.convert_ids_to_tokens

        def decode(self, ids, **more):
            self.tokens += len(ids)
            return tokenizer.decode(ids, **more)

    counted = Counted()
    words = Detokenizer(counted)
    for length in range(1, len(ids) + 1):
        words.read(ids[:length])
    assert words.whole(ids) == decoded(tokenizer, ids)
    assert counted.tokens < 100 * len(ids)
