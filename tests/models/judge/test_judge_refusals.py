"""Questions that a server will not answer, and what it then counts as."""

from __future__ import annotations

from contextlib import closing
from typing import Any

import pytest
from models.judge.bench import Bench, always, answers_in, files_of_answers

from harness.api.types import Message
from harness.errors import StageError
from harness.models.judge.answer_files import OwnFile
from harness.models.server import HttpReply, completion

FILTERED = HttpReply({"error": {"message": "filtered", "code": "content_filter"}}, 400)
DECLINES = {
    "a filter": FILTERED,
    "dashscope": HttpReply({"error": {"message": "inappropriate", "code": "data_inspection_failed"}}, 400),
    "deepseek": HttpReply({"error": {"message": "Content Exists Risk", "type": "invalid_request_error"}}, 400),
    "xai": HttpReply({"code": "no permission", "error": "Content violates usage guidelines. Failed check: BIO"}, 403),
    "openai": HttpReply({"error": {"message": "too long", "code": "context_length_exceeded"}}, 400),
    "llama.cpp": HttpReply({"error": {"code": 400, "message": "too long", "type": "exceed_context_size_error"}}, 400),
    "vllm": HttpReply(
        {"object": "error", "message": "Its maximum context length is 8 tokens.", "type": "BadRequestError"}, 400
    ),
    "sglang": HttpReply({"error": {"message": "longer than the model's context length (8 tokens)"}}, 400),
    "a gateway": HttpReply({"error": {"message": "exceeds the available context size"}}, 413),
}


@pytest.mark.parametrize(
    "bench", [lambda prompt, times, reply=reply: reply for reply in DECLINES.values()], ids=DECLINES, indirect=True
)
def test_a_judge_that_declines_is_an_unparsed_judgment_and_not_asked_again(bench: Bench) -> None:
    judgment = bench.judge().judge([(Message("user", "a"),)], lambda answer: answer.text or None, {})[0]
    assert (judgment.value, judgment.answer.finish) == (None, "declined")
    assert bench.server.asked == {"a": 1}
    assert (bench.spent().calls, bench.spent().tokens) == (1, 0)


@pytest.mark.parametrize(
    "bench",
    [
        lambda *_: HttpReply({"error": {"message": "max_tokens must be positive", "type": "BadRequestError"}}, 400),
        lambda *_: HttpReply({"error": {"message": "the body is too large"}}, 413),
        lambda *_: HttpReply({"error": {"message": "no context length for this key"}}, 401),
        lambda *_: HttpReply({"error": {"message": "the key may not use this model of this context length"}}, 403),
    ],
    indirect=True,
)
def test_a_refusal_of_all_questions_ends_the_evaluation(bench: Bench) -> None:
    with pytest.raises(StageError, match=r"refused \(HTTP 4"):
        bench.judge().judge(*always("a"))


def partly(prompt: str, times: int) -> Any:
    return {"bad": FILTERED, "nameless": HttpReply(completion("[[2]]", "", prompt))}.get(prompt, "[[1]]")


@pytest.mark.parametrize("bench", [partly], indirect=True)
class TestVersions:
    def test_a_declined_answer_is_of_no_version(self, bench: Bench) -> None:
        judge = bench.judge()
        judgments = judge.judge(*always("good", "bad", "nameless"))
        assert [judgment.value for judgment in judgments] == [1, None, 2]
        assert judge.tally.facts()["versions"] == ["judge-2026-01-01"]

    def test_nor_is_one_of_an_older_store_which_has_the_judge_for_it(self, bench: Bench) -> None:
        bench.judge().judge(*always("bad"))
        ((row,), (path,)) = answers_in(bench), files_of_answers(bench.folder / "store")
        path.unlink()
        with closing(OwnFile(path.parent)) as older:
            older.add([{**row, "answer": {**row["answer"], "model": "scripted"}}])
        judge = bench.judge()
        judge.judge(*always("good", "bad"))
        assert judge.tally.facts()["versions"] == ["judge-2026-01-01"]

    def test_a_server_that_never_names_its_model_has_a_version_all_the_same(self, bench: Bench) -> None:
        judge = bench.judge()
        judge.judge(*always("nameless"))
        assert judge.tally.facts()["versions"] == [""]
