"""The `openai` backend against a scripted server: no answer lost, none doubled, whatever the server does."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from fake_server import FakeServer
from models.judge.scripted import FakeClock

from harness import ChatTemplate, ModelClient, Response, RetryPolicy, Sampling, StageError
from harness.models.client import Clock
from harness_plugins.backends.asking import Asking, request_seed, share_out
from harness_plugins.backends.openai import OpenAIBackend, server_version

SENDS = ("ids", "text", "chat")
FOUR = Sampling(n=4, max_tokens=9, seed=3)


def generate(fake: FakeServer, policy, prompts, sampling=FOUR, **fields):
    backend = OpenAIBackend(base_url=fake.url, **{"retries": 0, "engine": "1.2.3", **fields})
    with backend.session(policy) as ask:
        return ask(prompts, sampling)


def test_n_choices_are_asked_for_at_once(policy, prompts) -> None:
    with FakeServer().running() as fake:
        seen: list[tuple[int, int]] = []
        with OpenAIBackend(base_url=fake.url, engine="1.2.3").session(policy) as ask:
            answers = ask(prompts, FOUR, lambda done, total: seen.append((done, total)))
    assert [len(row) for row in answers] == [4, 4, 4]
    assert len({response.text for row in answers for response in row}) == 12
    assert len(fake.asked) == 3 and all(body["n"] == 4 for _, body in fake.asked)
    assert seen[-1] == (12, 12) and [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert not policy.loaded


def test_a_server_that_ignores_n_is_asked_again_and_it_is_remembered(policy, prompts) -> None:
    with FakeServer(knows_n=False).running() as fake:
        backend = OpenAIBackend(base_url=fake.url, engine="1.2.3")
        with backend.session(policy) as ask:
            first, again = ask(prompts, FOUR), ask(prompts, FOUR)
        assert [body.get("n", 1) for _, body in fake.asked].count(4) == 1
    assert first == again
    assert [len(row) for row in first] == [4, 4, 4]
    assert len({response.text for row in first for response in row}) == 12
    assert fake.answered == 24


def test_a_server_that_refuses_n_is_asked_one_by_one(policy, prompts) -> None:
    with FakeServer(refuses_n=True).running() as fake:
        refusing = generate(fake, policy, prompts)
    with FakeServer(knows_n=False).running() as fake:
        ignoring = generate(fake, policy, prompts)
    assert refusing == ignoring


def test_answers_depend_on_the_seed_and_not_on_the_order_of_replies(policy, prompts) -> None:
    with FakeServer().running() as fake:
        many = [generate(fake, policy, prompts * 5, concurrency=count) for count in (1, 16)]
        other = generate(fake, policy, prompts * 5, replace(FOUR, seed=4))
    assert many[0] == many[1] != other
    assert many[0][0] != many[0][3], "the same prompt twice has other random numbers"
    assert len({request_seed(0, place, start) for place in range(50) for start in range(50)}) == 2500


class Memory:
    """Chunks in memory; a copy is what the next process finds."""

    def __init__(self, responses=None, state: bytes = b"") -> None:
        self.responses, self.state = dict(responses or {}), state

    def add(self, responses, state: bytes = b"") -> None:
        assert not self.responses.keys() & responses.keys()
        self.responses |= responses
        self.state = state


@pytest.mark.parametrize("server", [{}, {"knows_n": False}, {"refuses_n": True}], ids=["n", "ignores n", "refuses n"])
def test_what_was_answered_is_not_asked_again(policy, prompts, server: dict) -> None:
    """The server breaks down in the middle; the next process has another session, and asks for the missing prompts alone."""
    asked = [*prompts, *prompts]
    with FakeServer(**server).running() as fake:
        whole = generate(fake, policy, asked)
        backend = OpenAIBackend(base_url=fake.url, engine="1.2.3", retries=0, concurrency=1)
        chunks, per_prompt = Memory(), 1 if not server else 4
        fake.faults = [""] * (2 * per_prompt + (server == {"refuses_n": True})) + ["500"] * 99
        with pytest.raises(StageError), backend.session(policy) as ask:
            ask(asked, FOUR, chunks=chunks)
        assert chunks.responses == {place: whole[place] for place in (0, 1)}
        fake.faults, fake.asked, fake.answered = [], [], 0
        seen: list[tuple[int, int]] = []
        with backend.session(policy) as ask:
            again = Memory(chunks.responses, chunks.state)
            assert ask(asked, FOUR, lambda done, total: seen.append((done, total)), again) == whole
        assert (len(fake.asked), fake.answered) == (4 * per_prompt, 4 * per_prompt)
        assert seen[-1] == (24, 24) and seen[0][0] > 8
        assert dict(sorted(again.responses.items())) == dict(enumerate(whole))


def test_answers_to_single_samples_go_on_too(policy, prompts) -> None:
    one = replace(FOUR, n=1)
    with FakeServer().running() as fake:
        whole = generate(fake, policy, prompts, one)
        fake.asked = []
        with OpenAIBackend(base_url=fake.url, engine="1.2.3").session(policy) as ask:
            assert ask(prompts, one, None, Memory({1: whole[1]})) == whole
            assert len(fake.asked) == 2
            assert ask(prompts, one, None, Memory(enumerate(whole))) == whole
            assert len(fake.asked) == 2


FAULTS = ["429", "500", "broken", "stall", "dropped", "empty"]


@pytest.mark.parametrize("knows_n", [True, False])
def test_no_answer_is_lost_or_doubled_by_faults(policy, prompts, knows_n: bool) -> None:
    with FakeServer(knows_n=knows_n).running() as fake:
        undisturbed = generate(fake, policy, prompts)
        answered, clock = fake.answered, FakeClock()
        fake.faults, fake.asked = [*FAULTS, "", *FAULTS], []
        client = ModelClient(fake.url, None, RetryPolicy(21, timeout_seconds=1.0), clock=Clock(clock.now, clock.sleep))
        with client.running() as runner:
            template = ChatTemplate(policy.tokenizer)
            asking = Asking(client, runner, "policy-test", template, "ids", "openai", 2, policy.stop_ids)
            assert asking.generate(prompts, FOUR) == undisturbed
        assert fake.answered == 2 * answered
        assert len(clock.slept) >= 2 * len(FAULTS)
        obeyed = [wait for wait in clock.slept if wait == pytest.approx(3.0, abs=1e-9)]
        assert len(obeyed) >= 2, "Retry-After is obeyed"


def test_waits_grow_and_the_last_problem_is_told() -> None:
    clock = FakeClock()
    with FakeServer(faults=["500"] * 4).running() as fake:
        client = ModelClient(fake.url, "secret", RetryPolicy(4, 5.0), clock=Clock(clock.now, clock.sleep))
        with (
            client.running() as runner,
            pytest.raises(StageError, match=r"failed 4 times \(HTTP 500: because of Bearer \(the key\)\)") as raised,
        ):
            runner.run(client.complete("/completions", {"prompt": "hi", "model": "m"}))
    first, second, third = clock.slept
    assert 0.25 <= first <= 0.5 <= second <= 1.0 <= third <= 2.0
    assert "secret" not in str(raised.value), "a server that repeats the key must not bring it into a log"


def test_a_refused_request_is_not_asked_again(policy, prompts) -> None:
    with FakeServer(faults=["400"]).running() as fake:
        with pytest.raises(StageError, match=r"refused \(HTTP 400: because of"):
            generate(fake, policy, prompts[:1], Sampling(n=1), retries=9)
        assert len(fake.asked) == 1


@pytest.mark.parametrize(
    ("finish", "finished"), [("stop", True), ("eos_token", True), ("length", False), ("content_filter", False)]
)
def test_finished_is_the_servers_reason(policy, prompts, finish: str, finished: bool) -> None:
    with FakeServer(finish=finish).running() as fake:
        rows = generate(fake, policy, prompts)
    assert {response.finished for row in rows for response in row} == {finished}


def test_text_is_kept_and_tokens_are_the_servers(policy, prompts) -> None:
    with FakeServer().running() as fake:
        (response,) = generate(fake, policy, prompts[:1], Sampling(n=1, temperature=0))[0]
        several = generate(fake, policy, prompts[:1])[0]
    assert response.text.startswith("ß 日本 🙂 ") and response.text == response.text.strip()
    assert response.tokens == 7
    assert sum(other.tokens for other in several) == 4 * 7


def test_tokens_that_the_server_tells_are_decoded_here(policy, prompts) -> None:
    template = ChatTemplate(policy.tokenizer)
    words = policy.tokenizer("pear , plum", add_special_tokens=False)["input_ids"]
    with FakeServer(tells_ids=(*words, template.end_id)).running() as fake:
        (response,) = generate(fake, policy, prompts[:1], Sampling(n=1), dialect="vllm")[0]
    assert (response.text, response.tokens) == ("pear , plum", len(words) + 1)
    assert response.ids == (*words, template.end_id) and template.is_as_sampled(response)
    assert fake.asked[0][1]["stop_token_ids"] == [template.end_id] and fake.asked[0][1]["return_token_ids"]


@pytest.mark.parametrize("others", [[40], [41, 42]], ids=["as Qwen's", "as Llama 3's"])
def test_servers_are_told_every_end_token(policy, prompts, others: list[int], several_ends) -> None:
    ends = several_ends(policy, others)
    words = [policy.tokenizer.decode([end]) for end in ends]
    with FakeServer(tells_ids=(50, 51, others[-1])).running() as fake:
        for dialect in ("openai", "vllm"):
            for send in ("ids", "text", "chat"):
                rows = generate(fake, policy, prompts[:1], Sampling(n=1), dialect=dialect, send=send)
    openai, vllm = ([body for _, body in fake.asked[part]] for part in (slice(0, 3), slice(3, 6)))
    assert [body.get("stop") for body in openai] == [words, words, None]
    assert [body.get("stop_token_ids") for body in vllm] == [list(ends)] * 3
    assert rows[0][0].ids == (50, 51, others[-1]) and rows[0][0].finished
    assert rows[0][0].text == policy.tokenizer.decode([50, 51])


def test_an_end_that_the_server_leaves_out_is_the_template_s(policy, prompts) -> None:
    end = ChatTemplate(policy.tokenizer).end_id
    for finish, ids in (("stop", (50, 51, end)), ("length", (50, 51))):
        with FakeServer(tells_ids=(50, 51), finish=finish).running() as fake:
            (response,) = generate(fake, policy, prompts[:1], Sampling(n=1), dialect="vllm")[0]
        assert (response.ids, response.tokens) == (ids, 2)


@pytest.mark.parametrize("ids", [(50, 10**6), (50, -1), (50, True), (50, "a"), (1.5,)], ids=str)
def test_tokens_that_the_policy_does_not_have_are_not_taken(policy, prompts, ids: tuple) -> None:
    with FakeServer(tells_ids=ids).running() as fake:
        (response,) = generate(fake, policy, prompts[:1], Sampling(n=1), dialect="vllm")[0]
    assert response.ids is None and response.text.startswith("ß 日本")


def test_tokens_of_a_model_of_the_server_s_own_are_taken_only_where_it_reads_ours(policy, prompts) -> None:
    """Its chat template, or its tokenizer of our text, may be another's."""
    with FakeServer(tells_ids=(50, 51)).running() as fake:
        one = {send: generate(fake, policy, prompts[:1], Sampling(n=1), dialect="vllm", model="m", send=send) for send in SENDS}
    assert {send: rows[0][0].ids is not None for send, rows in one.items()} == {"ids": True, "text": False, "chat": False}
    assert one["chat"][0][0].text.startswith("ß 日本")
    assert "stop_token_ids" not in fake.asked[2][1]


def test_the_indentation_of_an_answer_stays(policy, prompts) -> None:
    with FakeServer(words="   x = 1").running() as fake:
        (response,) = generate(fake, policy, prompts[:1], Sampling(n=1))[0]
    assert response.text.startswith("   x = 1") and response.ids is None


def test_prompts_are_sent_as_our_tokens_our_text_or_messages(policy, prompts) -> None:
    template = ChatTemplate(policy.tokenizer)
    ids = template.prompt_ids(prompts[1])
    with FakeServer().running() as fake:
        for send in ("ids", "text", "chat"):
            generate(fake, policy, [prompts[1]], send=send)
    (path, by_ids), (_, by_text), (chat_path, by_chat) = fake.asked
    assert (path, chat_path) == ("/v1/completions", "/v1/chat/completions")
    assert by_ids["prompt"] == ids
    assert policy.tokenizer(by_text["prompt"])["input_ids"] == ids
    assert [turn["role"] for turn in by_chat["messages"]] == ["user", "assistant", "user"]
    assert by_ids["stop"] == [policy.tokenizer.decode([template.end_id])] and "stop" not in by_chat
    assert (by_ids["max_tokens"], by_ids["temperature"], by_ids["top_p"]) == (9, 1.0, 1.0)


def test_the_key_comes_from_the_environment_and_stays_out_of_the_fields(policy, prompts) -> None:
    policy.secrets = {"MY_KEY": "sk-hidden"}
    with FakeServer().running() as fake:
        generate(fake, policy, prompts[:1], api_key_variable="MY_KEY")
        assert fake.keys == {"Bearer sk-hidden"}
        policy.secrets = {}
        with pytest.raises(StageError, match="MY_KEY is not set"):
            generate(fake, policy, prompts[:1], api_key_variable="MY_KEY")
    assert "sk-hidden" not in OpenAIBackend(base_url=fake.url, api_key_variable="MY_KEY").model_dump_json()


def test_a_server_of_another_checkpoint_or_version_is_refused(policy, prompts) -> None:
    with FakeServer(models=("policy-other",)).running() as fake:
        with pytest.raises(StageError, match=r"serves policy-other, and this stage needs policy-test"):
            generate(fake, policy, prompts)
        assert len(generate(fake, policy, prompts, model="policy-other")) == 3
        with pytest.raises(StageError, match=r"is 1\.2\.3, and the plan was made for 'vllm 9'"):
            generate(fake, policy, prompts, model="policy-other", engine="vllm 9")


def test_the_engine_is_asked_for_while_planning() -> None:
    with FakeServer().running() as fake:
        backend = OpenAIBackend(base_url=fake.url)
        assert (backend.fingerprint(), list(backend.problems())) == ("1.2.3", [])
    assert server_version(fake.url) == ""


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        ({}, "base_url", "exactly one"),
        ({"base_url": "http://x/v1", "command": "serve"}, "base_url", "exactly one"),
        ({"base_url": "localhost:8000"}, "base_url", "http://"),
        ({"base_url": "http://127.0.0.1:9/v1"}, "engine", "tells its version"),
        ({"command": "serve {folder}"}, "command", "lacks {name} and {port}"),
        ({"command": "serve {folder} {name} {port}"}, "engine", "part of every key"),
    ],
)
def test_what_cannot_work_is_said_while_planning(fields, field: str, words: str) -> None:
    ((where, fix),) = OpenAIBackend(**fields).problems()
    assert where == field and words in fix


def test_tokens_are_shared_out_whole() -> None:
    assert share_out(10, [1, 1, 2]) == [2, 3, 5]
    assert share_out(3, [0, 0]) == [2, 1]
    assert all(sum(share_out(total, [3, 1, 4, 1, 5])) == total for total in range(30))


def test_requests_run_side_by_side(policy, prompts) -> None:
    """No request is answered before four are there."""
    with FakeServer(meeting=threading.Barrier(4, timeout=20)).running() as fake:
        rows = generate(fake, policy, [*prompts, prompts[0]], Sampling(n=1), concurrency=4)
    assert len(rows) == fake.answered == 4


@pytest.mark.parametrize("faults", [["filtered"], ["empty", "empty"]])
def test_what_a_filter_declines_is_an_empty_answer_and_ends_no_run(policy, prompts, faults) -> None:
    with FakeServer(faults=[*faults]).running() as fake:
        rows = generate(fake, policy, prompts, retries=3, concurrency=1)
    assert rows[0] == [Response("", finished=False, tokens=0)] * 4
    assert [len(row) for row in rows] == [4, 4, 4]
    assert all(response.text and response.finished for row in rows[1:] for response in row)
    assert len(fake.asked) == len(faults) + 2  # asked once more where no choice came, and then kept


def test_a_failure_with_a_status_of_200_is_asked_again(policy, prompts) -> None:
    with FakeServer(faults=["failed"]).running() as fake:
        rows = generate(fake, policy, prompts, retries=3, concurrency=1)
    assert [len(row) for row in rows] == [4, 4, 4]
    assert all(response.text for row in rows for response in row) and len(fake.asked) == 4


MESSAGES = {
    "null": ({"message": None}, ("", False)),
    "null content": ({"message": {"role": "assistant", "content": None}}, ("", False)),
    "a refusal": ({"message": {"role": "assistant", "content": None, "refusal": "no"}}, ("", False)),
    "a filter": ({"message": {"role": "assistant", "content": "pl"}, "finish_reason": "content_filter"}, ("pl", False)),
    "parts": ({"message": {"role": "assistant", "content": [{"type": "text", "text": "pl"}, "um"]}}, ("plum", True)),
    "a thought apart": (
        {"message": {"role": "assistant", "content": "plum", "reasoning_content": "hm"}},
        ("<think>hm</think>plum", True),
    ),
    "an open thought apart": (
        {"message": {"role": "assistant", "content": None, "reasoning": "hm"}, "finish_reason": "length"},
        ("<think>hm", False),
    ),
}


@pytest.mark.parametrize("kind", MESSAGES)
def test_odd_messages_are_read(policy, prompts, kind) -> None:
    choice, expected = MESSAGES[kind]
    with FakeServer(choice=choice).running() as fake:
        rows = generate(fake, policy, prompts[:1], Sampling(max_tokens=9), send="chat")
    assert [(response.text, response.finished) for response in rows[0]] == [expected]
