"""GSM8K by GSM8K-eval's rule: the number that is read from an answer, and the task as lm-eval runs it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness_plugins.evaluators import LmEval
from harness_plugins.evaluators.lm_eval.engine import quiet_and_offline
from harness_plugins.evaluators.lm_eval.own.gsm8k_eval import answer
from harness_plugins.evaluators.lm_eval.tasks import Finder

FIRST = (
    "Q: There are 15 trees in the grove. Grove workers will plant trees in the grove today. "
    "After they are done, there will be 21 trees. How many trees did the grove workers plant today?\n"
    "A: There are 15 trees originally. Then there were 21 trees after some more were planted. "
    "So there must have been 21 - 15 = 6. The answer is 6.\n\nQ: If there are 3 cars"
)


@pytest.mark.parametrize(
    ("completion", "number"),
    [
        (" She has 9 eggs. 9 * 2 = 18. The answer is 18.", "18"),
        (" THE ANSWER IS $1,250.50 in all, of 3.", "1250.50"),
        (" The answer is 7.\n\nQ: Another\nA: The answer is 8.", "7"),  # the first flag; what follows is another question's
        (" 5 + 4 = 9 and then 10.", "10"),  # no flag: the last number
        (" It falls by -3", "-3"),
        (" The answer is unknown; 12 is not.", "12"),
        (" The answer is unknown.", "[invalid]"),
        ("", "[invalid]"),
    ],
)
def test_the_number_of_an_answer(completion: str, number: str) -> None:
    assert answer(completion) == number


def test_the_task_asks_with_eight_worked_examples_and_marks_the_number(tmp_path: Path) -> None:
    data = tmp_path / "openai" / "gsm8k" / "main"
    data.mkdir(parents=True)
    rows = [{"question": f"How many are {number}?", "answer": f"So many.\n#### {number}"} for number in ("1,018", "7")]
    (data / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with quiet_and_offline():
        task = Finder(None, str(tmp_path), tmp_path / "cache").named(["gsm8k_eval"])["tasks"]["gsm8k_eval"]
        document, other = task.eval_docs
        prompt = task.fewshot_context(document, 8)
        task.build_all_requests()
    assert prompt.startswith(FIRST)
    assert prompt.count("\nA: ") == 8 and prompt.endswith("The answer is 8.\n\nQ: How many are 1,018?\nA:")
    assert [request.args[1] | {"until": None} for request in task.instances] == [
        {"do_sample": False, "max_gen_toks": 256, "until": None}
    ] * 2
    for request, text in zip(task.instances, ("It is 1,018.", "The answer is 8."), strict=True):
        request.resps = [text]
    task.apply_filters()
    scores = [
        task.process_results(doc, [request.filtered_resps["gsm8k-eval"]])["exact_match"]
        for doc, request in zip((document, other), task.instances, strict=True)
    ]
    assert scores == [1.0, 0.0]


def test_the_evaluator_takes_the_task_by_name() -> None:
    evaluator = LmEval(tasks=("gsm8k_eval",), report=("gsm8k_eval/exact_match",), apply_chat_template=False)
    (metric,) = evaluator.metrics()
    assert (metric.name, metric.primary, evaluator.templated) == ("gsm8k_eval/exact_match", True, False)
