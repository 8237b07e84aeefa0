"""What `harness plan` says that judges may cost: bounds that what is really asked stays under."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from harness import Example, Prompt, Questions
from harness.api.registry import Registry
from harness.config import resolve
from harness.run.estimates.judge import JudgeEstimate, judge_estimates
from harness.run.plan import plan
from harness_plugins.evaluators import AlpacaEval, MtBench, PairwiseJudge
from harness_plugins.evaluators.pairwise_judge import SYSTEM, TEMPLATE

DATA = os.environ.get("HARNESS_REFERENCE_DATA")
EXAMPLES = [Example(Prompt.of("a", "why ?"), "because"), Example(Prompt.of("b", "how ?"), "so")]
FRAME = len(SYSTEM) + len(TEMPLATE.format(question="", answer_a="", answer_b=""))


def test_pairs_count_both_orders_every_opponent_and_every_sample() -> None:
    evaluator = PairwiseJudge(opponent="all", n=2, max_tokens=10)
    assert evaluator.asks(EXAMPLES, 3) == Questions(2 * 2 * 3 * 2, 2 * 2 * 3 * 2 * (FRAME + 5 + 10 + 10))
    target = PairwiseJudge(opponent="target", max_tokens=10)
    assert target.asks(EXAMPLES, 0) == Questions(4, 2 * (2 * (FRAME + 5 + 10) + len("because") + len("so")))


@pytest.mark.skipif(DATA is None, reason="HARNESS_REFERENCE_DATA is not set")
def test_mt_bench_counts_turns_and_both_modes() -> None:
    folder = Path(DATA or ".") / "mt_bench"
    files = {
        "questions": str(folder / "question.jsonl"),
        "prompts": str(folder / "judge_prompts.jsonl"),
        "references": str(folder / "reference_answer_gpt-4.jsonl"),
    }
    single = MtBench(**files, max_tokens=100).asks((), 0)
    both = MtBench(**files, max_tokens=100, mode=("single", "pair")).asks((), 1)
    assert single is not None and both is not None
    assert (single.calls, both.calls) == (160, 480)
    asked = [len(json.loads(line)["user_prompt"]) for line in (folder / "gpt-4_single.jsonl").read_text().splitlines()]
    assert single.tokens > 160 * (sum(asked) / len(asked) / 4)  # a token is about four letters of these real questions
    assert MtBench(questions="none.jsonl").asks((), 0) is None


def test_alpaca_eval_takes_the_annotators_own_limit(tmp_path: Path) -> None:
    path = tmp_path / "reference.json"
    path.write_text(json.dumps([{"instruction": "abc", "output": "defg", "generator": "g"}] * 1))
    asked = AlpacaEval(reference=str(path), official=False, max_tokens=50).asks((), 0)
    assert asked is not None
    assert (asked.calls, asked.answer_tokens) == (1, 1)
    assert asked.tokens > 7 + 50
    assert AlpacaEval(reference="none.json").asks((), 0) is None


@pytest.fixture
def raw(tiny_checkpoint: Path) -> dict[str, Any]:
    return {
        "name": "a",
        "source": {"name": "sandbox", "sft": 8, "train": 8, "tuning": 4, "heldout": 4},
        "model": {"path": str(tiny_checkpoint)},
        "methods": ["sft", "dpo"],
        "budget": {"prompts": 4},
        "judge": {"model": "m", "max_tokens": 20, "price": {"input": 1000, "output": 2000}},
        "evaluators": [{"name": "pairwise_judge", "max_tokens": 10}],
        "seeds": [0, 1],
        "baseline": "sft",
    }


def test_an_estimate_is_over_rows_and_seeds_that_are_left(raw: dict[str, Any]) -> None:
    comparison = resolve(raw, Registry.load())
    graph = plan(comparison)
    (found,) = judge_estimates(comparison, graph, (), EXAMPLES)
    each = 2 * (FRAME + 5 + 10 + 10)  # both orders of one example
    calls, tokens = 2 * 4 * 4, 2 * 4 * 2 * each  # asked twice, four evaluations, two examples in both orders
    assert (found.evaluations, found.calls, found.tokens) == (4, calls, tokens + 20 * calls)
    assert found.usd == pytest.approx(tokens / 1000 + 20 * calls / 500)
    assert found.line().startswith(f"judge m: pairwise_judge asks it {calls} times at most, ")
    assert found.line().endswith("at the config's prices")
    judged = [stage.key for stage in graph if "judge" in stage.payload]
    assert judge_estimates(comparison, graph, judged, EXAMPLES) == []
    (half,) = judge_estimates(comparison, graph, judged[:2], EXAMPLES)
    assert half.calls == calls // 2


def test_what_does_not_say_is_said() -> None:
    line = JudgeEstimate("mt_bench", "gpt-4", 2).line()
    assert line == "judge gpt-4: mt_bench asks it and does not say how much; judge.max_usd limits what it may cost"
