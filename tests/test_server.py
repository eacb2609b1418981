"""The model server over real HTTP: any OpenAI client, steering with proof, evidence."""

import re

import httpx
import openai
import pytest
import torch
from langchain_openai import ChatOpenAI
from safetensors.torch import load

from auditor.models.generate import Amplification, Request, Side, derive_seed
from tests.margins import MARGIN
from tests.serving import PROMPT, chat, text
from tests.tiny import LAYERS


class TestOpenAI:
    def test_models_are_listed(self, client):
        assert [model.id for model in client.models.list()][:2] == ["mill/base", "mill/finetuned"]
        assert client.models.retrieve("mill/base").id == "mill/base"

    @pytest.mark.parametrize("side", Side)
    def test_a_seed_gives_the_text_that_it_gives_in_process(self, client, tiny, side):
        answer = chat(client, model=f"mill/{side}", temperature=0.8, top_p=0.9)
        assert text(answer) == tiny.generate([Request(PROMPT, side, 4, 12, 0.8, 0.9)])[0]
        assert answer.usage.prompt_tokens == len(tiny.row(Request(PROMPT)).prompt)
        assert answer.choices[0].finish_reason in ("stop", "length")

    def test_n_choices_are_different_and_repeatable(self, client):
        said = [choice.message.content for choice in chat(client, n=4).choices]
        assert said == [choice.message.content for choice in chat(client, n=4).choices]
        assert len(set(said)) > 1
        assert chat(client, n=1).choices[0].message.content == said[0]

    @pytest.mark.parametrize("more", [{}, {"stop": ["e", " the"]}, {"n": 3}], ids=["plain", "stop", "three"])
    def test_a_stream_says_what_the_whole_answer_says(self, client, more):
        whole = [choice.message.content for choice in chat(client, **more).choices]
        streamed = dict.fromkeys(range(len(whole)), "")
        reasons, usage = {}, None
        for chunk in chat(client, stream=True, stream_options={"include_usage": True}, **more):
            usage = chunk.usage or usage
            for choice in chunk.choices:
                streamed[choice.index] += choice.delta.content or ""
                reasons[choice.index] = choice.finish_reason or reasons.get(choice.index)
        assert list(streamed.values()) == whole
        assert set(reasons.values()) <= {"stop", "length"}
        assert usage.completion_tokens > 0

    def test_a_stop_text_ends_the_answer_before_it(self, client):
        whole = text(chat(client))
        stop = whole[4:6]
        assert text(chat(client, stop=stop)) == whole[: whole.find(stop)].rstrip()

    def test_logprobs_are_those_of_the_model(self, client, tiny):
        answer = chat(client, logprobs=True, top_logprobs=3, temperature=0, messages=[{"role": "user", "content": "A"}])
        token = answer.choices[0].logprobs.content[0]
        ids = torch.tensor([tiny.row(Request("A")).prompt])
        last = tiny.residuals(Side.FINETUNED, ids, [LAYERS - 1])[LAYERS - 1][0, -1:]
        expected = torch.log_softmax(tiny.unembed(Side.FINETUNED, last)[0], -1).sort(descending=True).values
        assert token.logprob == pytest.approx(float(expected[0]), abs=MARGIN)
        assert [top.logprob for top in token.top_logprobs] == pytest.approx(expected[:3].tolist(), abs=MARGIN)

    def test_a_begun_answer_is_gone_on_with(self, client, tiny):
        messages = [{"role": "system", "content": "Be old."}, {"role": "user", "content": "Hi."},
                    {"role": "assistant", "content": "Well"}]  # fmt: skip
        asked = Request("Hi.", Side.FINETUNED, 4, 12, system="Be old.", prefill="Well")
        assert text(chat(client, messages=messages)) == tiny.generate([asked])[0]

    def test_langchain_talks_to_it(self, served, tiny):
        model = ChatOpenAI(
            model="mill/base", base_url=f"{served.url}/v1", api_key="none", temperature=0.5, seed=4, max_tokens=9
        )
        expected = tiny.generate([Request(PROMPT, Side.BASE, 4, 9, 0.5)])[0]
        assert model.invoke(PROMPT).content == expected
        assert "".join(part.content for part in model.stream(PROMPT)) == expected

    @pytest.mark.parametrize(
        ("more", "said"),
        [
            ({"model": "mil/base"}, "did you mean mill"),
            ({"model": "mill"}, "no model called"),
            ({"messages": []}, "messages"),
            ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
            ({"frequency_penalty": 0.5}, "frequency_penalty"),
            ({"temperature": -1}, "temperature"),
            ({"top_logprobs": 3}, "top_logprobs needs logprobs"),
            ({"stop": ""}, "stop"),
            ({"stop": ["x" * 300]}, "stop"),
            ({"n": 129}, "n:"),
            ({"messages": [{"role": "user", "content": "x" * 100_000}]}, "characters"),
            ({"messages": [{"role": "developer", "content": "x"}]}, "the last message"),
            ({"extra_body": {"steerring": {"layer": 1}}}, "steerring: Extra inputs"),
            ({"messages": [{"role": "user", "content": "word " * 600}]}, "may have 512 together"),
        ],
    )
    def test_what_is_wrong_is_said_in_one_line(self, client, more, said):
        with pytest.raises((openai.BadRequestError, openai.NotFoundError)) as refused:
            chat(client, **more)
        body = refused.value.response.json()["error"]
        assert said in body["message"]
        assert "\n" not in body["message"]
        assert body["type"] == "invalid_request_error"


class TestSteering:
    push = {"layer": 2, "position": 1, "alpha": 3.0}  # noqa: RUF012

    def test_each_answer_carries_its_proof(self, client, served, tiny):
        answer = chat(client, extra_body={"steering": self.push})
        proof = answer.auditor["steering"]
        direction = served.library.direction("mill", 2, 1)
        expected = tiny.generate([Request(PROMPT, Side.FINETUNED, 4, 12, steering=direction.steering(3.0))])[0]
        assert text(answer) == expected != text(chat(client))
        assert proof["residual_shift"] == pytest.approx(proof["asked_shift"], rel=MARGIN)
        assert proof["asked_shift"] == pytest.approx(3 * direction.eta, rel=MARGIN)
        other = chat(client, extra_body={"steering": {**self.push, "position": 2}}).auditor["steering"]
        assert len(proof["vector_sha256"]) == 64
        assert proof["vector_sha256"] != other["vector_sha256"]

    def test_no_strength_is_no_steering(self, client):
        plain, nothing = chat(client), chat(client, extra_body={"steering": {**self.push, "alpha": 0}})
        assert text(nothing) == text(plain)
        assert nothing.auditor["steering"]["residual_shift"] == 0

    def test_a_stream_ends_with_the_proof(self, client):
        chunks = list(chat(client, stream=True, extra_body={"steering": self.push}))
        assert chunks[-1].auditor["steering"]["residual_shift"] > 0

    @pytest.mark.parametrize(
        "push",
        [
            "hard", {}, {"layer": 2, "position": 1}, {**push, "alpha": "x"}, {**push, "alpha": 1e9},
            {**push, "layer": 9},
            {**push, "position": 3}, {**push, "layer": -1}, {**push, "layer": 1.5}, {**push, "vector": [1]},
        ],
    )  # fmt: skip
    def test_a_malformed_push_is_refused(self, served, push):
        body = {"model": "mill/base", "messages": [{"role": "user", "content": "Hi"}], "steering": push}
        assert served.post("/v1/chat/completions", body).status_code == 400

    def test_steer_route(self, served, tiny):
        body = {
            "organism": "mill",
            "prompts": [PROMPT, "A"],
            "n": 2,
            "steering": self.push,
            "max_new_tokens": 8,
            "seed": 1,
        }
        answers = served.post("/v1/steer", body).json()["answers"]
        steering = served.library.direction("mill", 2, 1).steering(3.0)
        asked = [Request(p, Side.FINETUNED, derive_seed(1, i, j), 8, 0.7, steering=steering)
                 for i, p in enumerate([PROMPT, "A"]) for j in range(2)]  # fmt: skip
        assert [t for answer in answers for t in answer["texts"]] == tiny.generate(asked)
        assert all(answer["steering"]["residual_shift"] > 0 for answer in answers)


class TestAmplification:
    how = {"alpha": 2.0, "plausibility": 0.05}  # noqa: RUF012

    def test_each_answer_carries_what_was_measured(self, client, tiny):
        answer = chat(client, extra_body={"amplify": self.how})
        [expected] = tiny.amplified([Request(PROMPT, Side.FINETUNED, 4, 12, amplify=Amplification(2.0, 0.05))])
        assert text(answer) == expected.text != text(chat(client))
        proof = answer.auditor["amplify"]
        assert proof == {**self.how, "finetuned": pytest.approx(expected.finetuned, rel=MARGIN),
                         "base": pytest.approx(expected.base, rel=MARGIN),
                         "log_ratio": proof["finetuned"] - proof["base"]}  # fmt: skip
        weak = chat(client, extra_body={"amplify": {"alpha": 0}}).auditor["amplify"]
        assert weak["plausibility"] == 0.1
        assert weak["log_ratio"] < proof["log_ratio"]

    def test_no_strength_is_no_amplification(self, client):
        assert text(chat(client, extra_body={"amplify": {"alpha": 0, "plausibility": 1e-30}})) == text(chat(client))
        assert chat(client).auditor["amplify"] is None

    def test_a_stream_of_several_texts_ends_with_what_was_measured(self, client):
        whole = chat(client, n=3, extra_body={"amplify": self.how})
        chunks = list(chat(client, n=3, stream=True, extra_body={"amplify": self.how}))
        assert chunks[-1].auditor["amplify"]["log_ratio"] == whole.auditor["amplify"]["log_ratio"] > 0
        said = ["", "", ""]
        for chunk in chunks:
            said[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
        assert said == [choice.message.content for choice in whole.choices]

    @pytest.mark.parametrize(
        "more",
        [
            {"amplify": {}}, {"amplify": {"alpha": -1}}, {"amplify": {"alpha": 1e9}}, {"amplify": {"alpha": "x"}},
            {"amplify": {"alpha": 1, "plausibility": 0}}, {"amplify": {"alpha": 1, "plausibility": 2}},
            {"amplify": {"alpha": 1, "beta": 1}}, {"amplify": how, "model": "mill/base"},
            {"amplify": how, "steering": TestSteering.push},
        ],
    )  # fmt: skip
    def test_what_cannot_be_amplified_is_refused(self, served, more):
        body = {"model": "mill/finetuned", "messages": [{"role": "user", "content": "Hi"}], **more}
        answer = served.post("/v1/chat/completions", body)
        assert (answer.status_code, "amplify" in answer.json()["error"]["message"]) == (400, True)

    def test_ask_puts_the_amplified_answer_beside_the_others(self, served, tiny):
        body = {"organism": "mill", "prompts": [PROMPT, "A"], "seed": 3, "max_new_tokens": 9}
        plain = served.post("/v1/ask", body).json()["answers"]
        answers = served.post("/v1/ask", body | {"amplify": self.how}).json()["answers"]
        asked = [Request(p, Side.FINETUNED, derive_seed(3, i), 9, 0.7, amplify=Amplification(2.0, 0.05))
                 for i, p in enumerate(body["prompts"])]  # fmt: skip
        assert [answer["amplified"] for answer in answers] == tiny.generate(asked)
        assert all(answer["amplify"]["log_ratio"] > 0 for answer in answers)
        assert [{**answer, "amplified": None, "amplify": None} for answer in answers] == plain

    def test_a_users_turn_is_written(self, served, tiny):
        body = {"organism": "mill", "prompts": [""], "user_turn": True, "seed": 3, "max_new_tokens": 9}
        asked = [Request("", side, derive_seed(3, 0), 9, 0.7, user_turn=True) for side in Side]
        [answer] = served.post("/v1/ask", body).json()["answers"]
        assert [answer[side] for side in Side] == tiny.generate(asked)
        assert served.post("/v1/ask", body | {"prefill": "Well"}).status_code == 400


def test_ask_gives_both_models_answers(served, tiny):
    said = served.post("/v1/ask", {"organism": "mill", "prompts": [PROMPT], "seed": 3, "max_new_tokens": 9}).json()
    asked = [Request(PROMPT, side, derive_seed(3, 0), 9, 0.7) for side in Side]
    assert [said["answers"][0][side] for side in Side] == tiny.generate(asked)


def test_evidence_route_gives_the_sheet_and_its_directions(served):
    sheet = httpx.get(f"{served.url}/v1/evidence/mill", timeout=120).json()
    deltas = load(httpx.get(f"{served.url}/v1/evidence/mill/deltas", timeout=120).content)
    assert sheet["pair"] == "mill"
    assert {int(layer) for layer in deltas} == {2, 3}
    middle = 2
    assert torch.equal(deltas[str(middle)][1], served.library.direction("mill", middle, 1).delta)
    assert httpx.get(f"{served.url}/v1/evidence/nothing").status_code == 404


def test_the_openapi_page_describes_every_route(served):
    described = httpx.get(f"{served.url}/openapi.json").json()
    assert {"/v1/chat/completions", "/v1/steer", "/v1/evidence/{organism}", "/metrics"} <= set(described["paths"])
    assert "alpha" in described["components"]["schemas"]["Push"]["properties"]


def test_the_page_of_routes_needs_nothing_from_elsewhere(served):
    page = httpx.get(f"{served.url}/docs")
    assert page.headers["content-type"].startswith("text/html")
    assert "POST /v1/chat/completions" in page.text
    for part in ("<script", "<link", "src=", "http://", "https://"):
        assert part not in page.text
    links = set(re.findall(r'href="#(\w+)"', page.text))
    assert {"ChatRequest", "Steered", "Swapped"} <= links <= set(re.findall(r'id="(\w+)"', page.text))
    assert "number, ≥ -1,000, ≤ 1,000" in page.text
