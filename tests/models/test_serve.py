"""Our server: the answers of `generate`, by OpenAI's endpoints; what it cannot do it refuses."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import asdict

import pytest

from harness.api.types import Message, Prompt, Sampling
from harness.models.generate import generate
from harness.models.serve import PolicyServer, RequestError
from harness.models.tokenization import ChatTemplate

PROMPT = Prompt(
    "a", (Message("user", "name two fruits ."), Message("assistant", "pear , plum"), Message("user", "name one more ."))
)


@pytest.fixture
def server(tiny) -> PolicyServer:
    return PolicyServer("policy-x", *tiny)


@pytest.fixture
def url(server: PolicyServer) -> Iterator[str]:
    listening = server.listen("127.0.0.1", 0)
    threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield f"http://127.0.0.1:{listening.server_address[1]}"
    listening.shutdown()
    listening.server_close()


def request(**fields):
    return {"model": "policy-x", "max_tokens": 8, **fields}


@pytest.mark.parametrize("sampling", [Sampling(temperature=0, max_tokens=8), Sampling(n=3, max_tokens=8, seed=11)])
def test_answers_are_those_of_generate(server: PolicyServer, sampling: Sampling) -> None:
    template = ChatTemplate(server.tokenizer)
    (expected,) = generate(server.model, server.tokenizer, [PROMPT], sampling)
    asked = request(n=sampling.n, temperature=sampling.temperature, seed=sampling.seed)
    messages = [{"role": message.role, "content": message.content} for message in PROMPT.messages]
    by_ids = server.post("/v1/completions", {**asked, "prompt": template.prompt_ids(PROMPT)})
    by_chat = server.post("/v1/chat/completions", {**asked, "messages": messages})
    assert [choice["text"] for choice in by_ids["choices"]] == [response.text for response in expected]
    assert [choice["message"]["content"] for choice in by_chat["choices"]] == [response.text for response in expected]
    assert [choice["finish_reason"] == "stop" for choice in by_ids["choices"]] == [r.finished for r in expected]
    assert by_ids["usage"]["completion_tokens"] == sum(response.tokens for response in expected)


def test_token_ids_are_told_as_vllm_tells_them(server: PolicyServer) -> None:
    """With each choice of a completion stand the prompt's too; a chat tells those once."""
    ids = ChatTemplate(server.tokenizer).prompt_ids(PROMPT)
    (expected,) = generate(server.model, server.tokenizer, [PROMPT], Sampling(n=3, max_tokens=8, seed=11))
    asked = request(n=3, seed=11, return_token_ids=True)
    completion = server.post("/v1/completions", {**asked, "prompt": ids})
    chat = server.post("/v1/chat/completions", {**asked, "messages": [asdict(message) for message in PROMPT.messages]})
    for answer in (completion, chat):
        assert [tuple(choice["token_ids"]) for choice in answer["choices"]] == [response.ids for response in expected]
    assert [choice["prompt_token_ids"] for choice in completion["choices"]] == [ids] * 3
    assert chat["prompt_token_ids"] == ids and "prompt_token_ids" not in completion
    plain = server.post("/v1/completions", request(prompt=ids))
    assert "token_ids" not in plain["choices"][0] and "prompt_token_ids" not in plain["choices"][0]


@pytest.mark.parametrize("others", [[40], [41, 42]], ids=["as Qwen's", "as Llama 3's"])
def test_every_end_token_of_the_checkpoint_ends_an_answer(server: PolicyServer, others: list[int]) -> None:
    own = ChatTemplate(server.tokenizer).end_id
    server.model.generation_config.eos_token_id = [*others, own]
    stops = server.tokenizer.batch_decode([[end] for end in (own, *others)])
    asked = request(prompt=[4, 5], n=1024, return_token_ids=True, stop=stops, stop_token_ids=[*others, own])
    choices = server.post("/v1/completions", asked)["choices"]
    ended = {choice["token_ids"][-1] for choice in choices if choice["finish_reason"] == "stop"}
    assert ended == {own, *others}
    assert not any({own, *others} & set(choice["token_ids"]) for choice in choices if choice["finish_reason"] == "length")
    with pytest.raises(RequestError, match="the only stop is the end of a turn"):
        server.post("/v1/completions", request(prompt=[4, 5], stop_token_ids=[43]))


def test_the_end_of_a_turn_may_be_asked_for_and_no_other_stop(server: PolicyServer) -> None:
    end = ChatTemplate(server.tokenizer).end_id
    asked = request(prompt=[1, 2], stop=[server.tokenizer.decode([end])], stop_token_ids=[end])
    assert server.post("/v1/completions", asked)
    with pytest.raises(RequestError, match="the only stop is the end of a turn"):
        server.post("/v1/completions", request(prompt=[1, 2], stop="\n"))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"prompt": [1, 2], "stream": True}, "stream = True is not supported"),
        ({"prompt": [1, 2], "logprobs": 3}, "logprobs = 3 is not supported"),
        ({"prompt": [1, 2], "top_k": 5}, "top_k = 5 is not supported"),
        ({"prompt": [1, 2], "model": "other"}, "serves policy-x, not other"),
        ({"prompt": [1, 10**9]}, "a token that the model does not have"),
        ({"prompt": []}, "a prompt of 0 tokens"),
        ({"prompt": [1] * 100_000}, "a prompt of 100000 tokens"),
        ({"prompt": [1], "n": 0}, "greater than or equal to 1"),
        ({}, "prompt"),
    ],
)
def test_what_it_cannot_do_it_refuses(server: PolicyServer, fields, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        server.post("/v1/completions", request(**fields))


def test_over_http_errors_are_json(url: str) -> None:
    from openai import BadRequestError, NotFoundError, OpenAI

    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        assert [model.id for model in client.models.list().data] == ["policy-x"]
        answer = client.completions.create(model="policy-x", prompt=[1, 2, 3], max_tokens=4, n=2, temperature=1, seed=5)
        assert len(answer.choices) == 2
        with pytest.raises(BadRequestError, match="not supported"):
            client.completions.create(model="policy-x", prompt="hi", logprobs=2)
        with pytest.raises(NotFoundError, match="no such endpoint"):
            client.embeddings.create(model="policy-x", input="hi")
