"""A pair on a server is the same pair: texts and tensors, and bad bodies refused."""

import pytest
import torch

from auditor.errors import UsageError
from auditor.models.generate import Amplification, Request, Side, Steering
from auditor.models.remote import connect
from tests.margins import MARGIN
from tests.serving import PROMPT
from tests.tiny import SENTENCES, WIDTH

VECTORS = {"shape": [1, WIDTH], "data": "AAAA" * (WIDTH * 4 // 3) + "AAA="}


@pytest.fixture(scope="module")
def remote(served, settings):
    return connect(served.url, "mill", settings)


class TestRemotePair:
    def test_it_is_the_same_pair(self, remote, tiny):
        for name in ("fingerprint", "dtype", "n_layers", "d_model", "note"):
            assert getattr(remote, name) == getattr(tiny, name)
        assert remote.tokenizer(PROMPT).input_ids == tiny.tokenizer(PROMPT).input_ids
        assert remote.tokenizer.chat_template == tiny.tokenizer.chat_template

    def test_a_tokenizer_whose_files_were_cut_is_fetched_again(self, served, settings, tmp_path, tiny):
        conf = settings.model_copy(update={"cache_dir": tmp_path})
        connect(served.url, "mill", conf)
        (file,) = tmp_path.glob("tokenizers/*/chat_template.jinja")
        file.write_text(file.read_text()[:-30])
        assert connect(served.url, "mill", conf).tokenizer.chat_template == tiny.tokenizer.chat_template

    def test_texts_are_the_same(self, remote, tiny):
        push = Steering(1, torch.randn(WIDTH, generator=torch.Generator().manual_seed(0)))
        asked = [
            Request(p, side, i, 8 + i, 0.9, 0.95, i % 2 == 0, None if i % 3 else push, "Be old." if i else "")
            for i, p in enumerate(SENTENCES) for side in Side
        ] + [Request(p, chat=False, max_new_tokens=6, verbatim=True) for p in SENTENCES]  # fmt: skip
        asked.append(Request("And then?", max_new_tokens=6, history=(("A mill?", "It is old."), ("Why?", "So."))))
        assert remote.generate(asked) == tiny.generate(asked)

    def test_amplified_texts_and_how_likely_they_are(self, remote, tiny):
        asked = [
            Request(p, Side.FINETUNED, i, 8, 0.9, 0.95, user_turn=i > 1, amplify=Amplification(i, 0.1 + i / 10))
            for i, p in enumerate(SENTENCES)
        ]
        theirs, ours = (pair.amplified(asked) for pair in (remote, tiny))
        assert [found.text for found in theirs] == remote.generate(asked) == [found.text for found in ours]
        for found, expected in zip(theirs, ours, strict=True):
            assert (found.finetuned, found.base) == pytest.approx((expected.finetuned, expected.base), rel=MARGIN)
            assert found.finetuned > found.base

    def test_tensors_are_the_same(self, remote, tiny):
        ids = torch.tensor([tiny.tokenizer(PROMPT).input_ids[:6]] * 3)
        vectors = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(1))
        rows, learned = [[5, 6, 7, 8], [9, 8, 7]], [[False, True, True, True], [True, True, False]]
        for side in Side:
            asked = [Request(p, system="Be old.", prefill="It ", verbatim=True) for p in SENTENCES]
            asked.append(Request("The to", user_turn=True))
            said = [" is so.", "is", "", "was, then.", "wn"]
            assert remote.said_nll(side, asked, said) == tiny.said_nll(side, asked, said)
            theirs, ours = (pair.residuals(side, ids, [0, 2]) for pair in (remote, tiny))
            assert all(torch.equal(theirs[layer], ours[layer]) for layer in (0, 2))
            assert torch.equal(remote.unembed(side, vectors), tiny.unembed(side, vectors))
            theirs, ours = (list(pair.patched_logits(side, ["a → a\n?", "b?"], 1, vectors)) for pair in (remote, tiny))
            assert all(torch.equal(a, b) for x, y in zip(theirs, ours, strict=True) for a, b in zip(x, y, strict=True))
            assert remote.mean_nll(side, [*SENTENCES, "x"]) == tiny.mean_nll(side, [*SENTENCES, "x"])
            theirs, ours = (list(pair.pushed_logits(side, rows, 1, vectors)) for pair in (remote, tiny))
            assert all(torch.equal(a, b) for a, b in zip(theirs, ours, strict=True))
            theirs, ours = (pair.swapped_nll(side, rows, learned, 1, vectors) for pair in (remote, tiny))
            assert all(torch.equal(a, b) for a, b in zip(theirs, ours, strict=True))

    @pytest.mark.parametrize(
        ("method", "body"),
        [
            ("residuals", {"side": "base", "layers": [99], "ids": [[1, 2]]}),
            ("residuals", {"side": "base", "layers": [1], "ids": [[1, 1 << 40]]}),
            ("residuals", {"side": "base", "layers": [1], "ids": [[1], [1, 2]]}),
            ("unembed", {"side": "base", "vectors": {"shape": [1, WIDTH + 1], "data": "AAAA" * (WIDTH + 1)}}),
            ("unembed", {"side": "base", "vectors": {"shape": [1, WIDTH], "data": "not base64!"}}),
            ("residuals", {"side": "base", "layers": [1], "ids": [[1] * 600]}),
            ("patched", {"side": "base", "layer": 1, "prompts": [""], "vectors": VECTORS}),
            ("patched", {"side": "base", "layer": 1, "prompts": ["a" * 100_000], "vectors": VECTORS}),
            ("residuals", {"side": "base", "layers": [1], "ids": [[1, 2], [3, -1]]}),
            ("residuals", {"side": "base", "layers": [1] * 1001, "ids": [[1, 2]]}),
            ("residuals", {"side": "base", "layers": [1], "ids": [[]]}),
            ("swapped", {"host": "base", "layer": 1, "rows": [[1, 2]], "learned": [[True]], "vectors": VECTORS}),
            ("swapped", {"host": "base", "layer": 1, "rows": [[1, 999]], "learned": [[True] * 2], "vectors": VECTORS}),
            ("said", {"side": "base", "requests": [{"prompt": "a"}], "texts": ["b", "c"]}),
            ("said", {"side": "base", "requests": [{"prompt": "a"}], "texts": ["b" * 100_000]}),
            ("pushed", {"side": "base", "layer": 9, "rows": [[1, 2]], "vectors": VECTORS}),
            ("pushed", {"side": "base", "layer": 1, "rows": [[1, 999]], "vectors": VECTORS}),
            ("pushed", {"side": "base", "layer": 1, "rows": [[]], "vectors": VECTORS}),
            ("generate", {"requests": [{"prompt": "a"}] * 1025}),
            ("generate", {"requests": [{"prompt": "a", "steering": 0}]}),
            ("generate", {"requests": [{"prompt": "a", "max_new_tokens": 10**9}]}),
            ("generate", {"requests": [{"prompt": "a", "amplify": {"alpha": -1}}]}),
            ("generate", {"requests": [{"prompt": "a", "side": "base", "amplify": {"alpha": 1}}]}),
            ("generate", {"requests": [{"prompt": "a", "prefill": "b", "user_turn": True}]}),
            ("nll", {"side": "third", "texts": ["a"]}),
        ],
    )
    def test_malformed_bodies_are_refused(self, served, method, body):
        assert served.post(f"/v1/pairs/mill/{method}", body).status_code == 400

    def test_an_unknown_organism_is_named(self, served, settings):
        with pytest.raises(UsageError, match="did you mean mill"):
            connect(served.url, "mil", settings)
