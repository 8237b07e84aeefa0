"""One evaluation that meets every odd reply of a judge's server: the other answers are kept, and no number is another's."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest
from models.judge.scripted import ScriptedJudge
from test_judged_comparison import Lab

from harness.models.server import HttpReply, completion

pytestmark = pytest.mark.slow  # two comparisons with a judge

EXAMPLES = 20
THOUGHT = "They want [[A]] if A is better, [[B]] if B is, [[C]] if neither is."


def choice(finish: str = "stop", **message: Any) -> HttpReply:
    body = completion("", "judge-2026-01-01", "a question")
    body["choices"][0] = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish}
    return HttpReply(body)


def without_choices(choices: Any) -> HttpReply:
    return HttpReply({**completion("", "judge-2026-01-01", "a question"), "choices": choices})


FILTERED = {"error": {"message": "filtered", "code": "content_filter"}}
DECLINED = {
    "no choices": without_choices([]),
    "null choices": without_choices(None),
    "null message": without_choices([{"index": 0, "message": None, "finish_reason": "stop"}]),
    "null content": choice(content=None),
    "a refusal": choice(content="[[A]]", refusal="I cannot."),
    "a refusal as a part": choice(content=[{"type": "refusal", "refusal": "I cannot."}]),
    "a filter in the middle": choice("content_filter", content="[[A]] is"),
    "a filter with status 400": HttpReply(FILTERED, 400),
    "a filter with status 200": HttpReply(FILTERED),
}
CUT_OFF = {
    "within a thought": choice("length", content=f"<think>{THOUGHT}"),
    "within a thought kept apart": choice("length", content=None, reasoning_content=THOUGHT),
    "after a verdict that it may take back": choice("length", content="[[A]] at first sight, but"),
    "an open thought that is said to be finished": choice(content=f"<think>{THOUGHT}"),
    "a server that was stopped": choice("abort", content="[[A]]"),
}
READABLE = {  # to be filled with the verdict
    "a thought": lambda verdict: choice(content=f"<think>{THOUGHT}</think>{verdict}"),
    "a thought without its beginning": lambda verdict: choice(content=f"{THOUGHT}</think>\n{verdict}"),
    "a thought kept apart": lambda verdict: choice(content=verdict, reasoning_content=THOUGHT),
    "parts of text": lambda verdict: choice(content=[{"type": "text", "text": "It is "}, {"type": "text", "text": verdict}]),
    "a thought as a part": lambda verdict: choice(
        content=[{"type": "thinking", "thinking": [{"type": "text", "text": THOUGHT}]}, {"type": "text", "text": verdict}]
    ),
}


class OddJudge:
    """Gives every question a verdict; the first one about each of the first pairs gets it, or none, in an odd way."""

    def __init__(self, odd: bool) -> None:
        self.left = [*DECLINED, *CUT_OFF, *READABLE] if odd else []
        self.pairs: set[str] = set()
        self.kinds: dict[str, str] = {}
        self.lock = threading.Lock()

    def __call__(self, prompt: str, times: int) -> Any:
        verdict = f"[[{'ABC'[hashlib.sha256(prompt.encode()).digest()[0] % 3]}]]"
        pair = "".join(sorted(prompt))  # the same in both orders
        with self.lock:
            if pair not in self.pairs and self.left:
                self.kinds[prompt] = self.left.pop()
            self.pairs.add(pair)
        kind = self.kinds.get(prompt, "")
        return READABLE[kind](verdict) if kind in READABLE else (DECLINED | CUT_OFF).get(kind, verdict)


def lab(folder: Path, url: str, checkpoint: Path) -> Lab:
    folder.mkdir()
    config = {
        "name": "judged",
        "source": {"name": "sandbox", "sft": 16, "train": 16, "tuning": 8, "heldout": EXAMPLES},
        "model": {"path": str(checkpoint)},
        "sft": None,
        "budget": {"prompts": 8},
        "methods": ["sft"],
        "judge": {"model": "odd", "base_url": url, "name": "test", "price": {"input": 0, "output": 0}},
        "evaluators": [{"name": "pairwise_judge", "opponent": "target", "max_tokens": 8}],
        "seeds": [0],
        "baseline": "sft",
    }
    return Lab(folder, config)


@pytest.fixture(scope="module")
def runs(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, Lab, OddJudge, ScriptedJudge]]:
    """The comparison with a judge of plain replies, and the same with odd ones among them."""
    root = tmp_path_factory.mktemp("odd")
    odd = OddJudge(odd=True)
    with ScriptedJudge(OddJudge(odd=False)).serving() as plain, ScriptedJudge(odd).serving() as served:
        labs = lab(root / "plain", plain.url, tiny_checkpoint), lab(root / "odd", served.url, tiny_checkpoint)
        for each in labs:
            each.run("out")
        yield *labs, odd, served


def scores(run: Lab, metric: str) -> dict[str, float]:
    rows = parquet.read_table(run.folder / "out" / "scores.parquet").to_pylist()
    return {row["example"]: row["value"] for row in rows if row["metric"] == metric}


def test_every_odd_reply_was_met(runs: tuple[Lab, Lab, OddJudge, ScriptedJudge]) -> None:
    *_, odd, served = runs
    assert odd.left == [] and len(odd.pairs) == EXAMPLES
    for prompt, kind in odd.kinds.items():  # what is declined is asked once, what is cut off once more
        assert served.asked[prompt] == (2 if kind in CUT_OFF else 1), kind


def test_the_numbers_are_those_of_the_other_answers(runs: tuple[Lab, Lab, OddJudge, ScriptedJudge]) -> None:
    plain, odd, *_ = runs
    unread = {example for example, value in scores(odd, "unparsed").items() if value}
    assert len(unread) == len(DECLINED) + len(CUT_OFF)
    for metric in ("win_rate", "win", "tie", "loss", "agreement", "first"):
        expected = {example: value for example, value in scores(plain, metric).items() if example not in unread}
        assert len(expected) == EXAMPLES - len(unread) >= len(READABLE)
        assert scores(odd, metric) == expected
        row = odd.board("out").row("sft")
        assert row is not None
        assert row.scores[f"pairwise_judge/{metric}"].mean == pytest.approx(sum(expected.values()) / len(expected))


def test_the_board_counts_what_was_declined_and_what_was_cut_off(runs: tuple[Lab, Lab, OddJudge, ScriptedJudge]) -> None:
    plain, odd, *_ = runs
    board = odd.board("out")
    row = board.row("sft")
    assert row is not None
    judge = row.provenance["judges"]["pairwise_judge"]
    assert (judge["declined"], judge["cut_off"]) == (len(DECLINED), len(CUT_OFF))
    assert (judge["unparsed"], judge["judgments"]) == (len(DECLINED) + len(CUT_OFF), 2 * EXAMPLES)
    assert judge["versions"] == ["odd (judge-2026-01-01)"]
    for metric, count in (("declined", len(DECLINED)), ("cut_off", len(CUT_OFF))):
        assert row.scores[f"pairwise_judge/{metric}"].mean == pytest.approx(count / (2 * EXAMPLES))
    warning = (
        "sft: 14 of 40 judgments of pairwise_judge could not be read (9 declined; 5 cut off, asked twice (abort, length, "
        "open thought): raise judge.max_tokens); they are not scored"
    )
    assert warning in board.warnings
    assert [text for text in plain.board("out").warnings if "could not be read" in text] == []


def test_nothing_is_asked_or_paid_for_again(runs: tuple[Lab, Lab, OddJudge, ScriptedJudge]) -> None:
    _, odd, _, served = runs
    before = dict(served.asked)
    other = '[["<think>", "</think>"], ["<mine>", "</mine>"]]'  # read again by other delimiters, from what is kept
    odd.run("again", "--set", "judge.max_calls=0", "--set", f"judge.reasoning_delimiters={other}")
    assert dict(served.asked) == before
    first, second = odd.board("out").row("sft"), odd.board("again").row("sft")
    assert first is not None and second is not None
    assert second.scores == first.scores
