"""Verifiers: the built-in rules, functions by import path, and what is refused."""

from __future__ import annotations

import importlib
import math
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from harness import Example, Prompt, Response, StageError, Verdict, Verifier
from harness.models import verifier as module
from harness.models.verifier import check_choice, check_number, chosen_letter, final_number

FUNCTIONS = """
import math
calls = []
def right(prompt, response, reference): return response == reference
def short(prompt, response, reference): return 1 / len(response)
def fails(prompt, response, reference): raise KeyError("no such unit")
def no_number(prompt, response, reference): return math.nan
def words(prompt, response, reference): return "1"
def nothing(prompt, response, reference): return None
def large(prompt, response, reference): return 7
def other_arguments(completions): return 1.0
not_a_function = 3
"""


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A module `marking` of Python functions, in a folder that imports look into."""
    file = tmp_path / "marking.py"
    file.write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.invalidate_caches()
    monkeypatch.delitem(module.importlib.sys.modules, "marking", raising=False)  # type: ignore[attr-defined]
    return file


def example(id: str, target: str | None = None, **metadata: Any) -> Example:
    return Example(Prompt.of(id, "question"), target, metadata=metadata)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3 + 4 = 7, so 7 boxes.\n#### 1,234", "1234"),
        ("It costs $18.00.", "18"),
        (r"so \boxed{12} apples, and not 13", "12"),
        ("The sum is −4", "-4"),
        ("5-3", "3"),
        ("9 - 3 = 6", "6"),
        ("about .5 cups", "0.5"),
        ("#### nothing after 3", "3"),
        ("no number", None),
        ("", None),
    ],
)
def test_the_number_that_an_answer_ends_on(text: str, number: str | None) -> None:
    value = final_number(text)
    assert (value is None) if number is None else value == module.Decimal(number)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The answer is (B).", "B"),
        ("Answer: C", "C"),
        ("The correct answer is **D**, and not A.", "D"),
        ("B", "B"),
        ("B. because of this", "B"),
        ("First I thought (A), but it is (C)", "C"),
        (r"\boxed{\text{A}}", "A"),
        ("It follows.\nE", "E"),
        ("A cat sat on the mat", None),
        ("The answer is Aristotle", None),
        ("", None),
    ],
)
def test_the_letter_that_an_answer_chooses(text: str, letter: str | None) -> None:
    assert chosen_letter(text) == letter


def test_right_wrong_and_unread() -> None:
    assert check_number("so 7.0 apples", "3 + 4 = 7\n#### 7") == Verdict(1.0)
    assert check_number("so 8", "#### 7") == Verdict(0.0)
    assert check_number("I do not know", "#### 7") == Verdict(0.0, read=False)
    assert check_choice("The answer is (B)", "B") == Verdict(1.0)
    assert check_choice("(A)", "(B) text") == Verdict(0.0)
    assert check_choice("neither", "B") == Verdict(0.0, read=False)


def test_a_reference_that_cannot_be_read_names_its_example() -> None:
    for checker, wanted in (("gsm8k", "has no number"), ("multiple_choice", "names no choice")):
        with pytest.raises(StageError, match=f"the target of example 'a': 'many' {wanted}"):
            Verifier(checker=checker).verdicts([example("a", "many")], [[Response("7")]])


def test_the_reference_is_the_target_or_the_column() -> None:
    examples = [example("a", "long text 1", reference="7"), example("b", "long text 2")]
    responses = [[Response("7"), Response("1")], [Response("2")]]
    assert Verifier(checker="gsm8k").rewards(examples, responses) == [[0.0, 1.0], [1.0]]
    by_column = Verifier(checker="gsm8k", reference="reference")
    assert by_column.verdicts(examples, responses) == [[Verdict(1.0), Verdict(0.0)], None]
    marked = by_column.rewards(examples, responses)
    assert marked[0] == [1.0, 0.0] and math.isnan(marked[1][0])
    assert (Verifier(checker="gsm8k").needs, by_column.needs) == ({"target"}, {"reference"})


def test_without_any_reference_nothing_is_marked() -> None:
    for reference, fix in (
        ("target", "give the data a target"),
        ("reference", r"name the column in `source\.columns\.reference`"),
    ):
        with pytest.raises(StageError, match=rf"none of 1 examples has one \('a' is the first\): {fix}"):
            Verifier(checker="gsm8k", reference=reference).verdicts([example("a")], [[Response("7")]])


def test_a_function_marks_by_keyword(functions: Path) -> None:
    verifier = Verifier(checker="marking:right")
    assert not verifier.problems()
    assert verifier.rewards([example("a", "yes")], [[Response("yes"), Response("no")]]) == [[1.0, 0.0]]
    assert Verifier(checker="marking:short", reference=None).rewards([example("a")], [[Response("four")]]) == [[0.25]]
    first = verifier.fingerprint()
    functions.write_text(f"{FUNCTIONS}\n# changed\n")
    assert len(first) == 32 and verifier.fingerprint() != first


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("fails", "failed: KeyError: 'no such unit'"),
        ("no_number", "returned nan: it should be a number from 0"),
        ("words", "returned '1'"),
        ("nothing", "returned None"),
        ("large", "returned 7: it should be a number from 0"),
    ],
)
def test_a_function_that_fails_names_itself_and_the_example(functions: Path, function: str, message: str) -> None:
    with pytest.raises(StageError, match=rf"the verifier 'marking:{function}' of example 'a' {message}"):
        Verifier(checker=f"marking:{function}").verdicts([example("a", "yes")], [[Response("yes")]])


@pytest.mark.parametrize(
    ("checker", "fix"),
    [
        ("no_such_module_at_all:f", "cannot be imported (ModuleNotFoundError"),
        ("marking:missing", "'marking' has no 'missing'"),
        ("marking:not_a_function", "it is a int: give a function"),
        ("marking:other_arguments", "define it as def other_arguments(prompt, response, reference)"),
        ("os:system", "it cannot be called so"),
    ],
)
def test_a_function_is_checked_before_anything_runs(functions: Path, checker: str, fix: str) -> None:
    ((field, problem),) = Verifier(checker=checker).problems("reward")
    assert field == "reward.checker" and fix in problem


def test_the_text_of_a_checker_is_never_evaluated() -> None:
    for text in ("gsm9k", "lambda: 1", "os:system('true')", "module:", "a b:c", "__import__('os')"):
        with pytest.raises(ValidationError, match="no checker is called so"):
            Verifier(checker=text)
    with pytest.raises(ValidationError, match="gsm8k compares with a reference"):
        Verifier(checker="gsm8k", reference=None)


def test_math_without_its_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    monkeypatch.setitem(module.importlib.sys.modules, "math_verify", None)  # type: ignore[attr-defined]
    ((field, fix),) = Verifier(checker="math").problems()
    assert field == "checker" and "pip install 'alignment-harness[verify]'" in fix
    with pytest.raises(StageError, match=r"alignment-harness\[verify\]"):
        Verifier(checker="math").verdicts([example("a", "1")], [[Response("1")]])


@pytest.mark.skipif(find_spec("math_verify") is None, reason="needs the extra `verify`")
def test_math_compares_expressions() -> None:
    verifier = Verifier(checker="math")
    references = [example("a", r"\frac{1}{2}"), example("b", r"hence \boxed{x^2+1}"), example("c", "14")]
    answers = [[Response("the answer is $0.5$"), Response("$3$")], [Response(r"\boxed{1+x^2}")], [Response("words")]]
    assert verifier.verdicts(references, answers) == [
        [Verdict(1.0), Verdict(0.0)],
        [Verdict(1.0)],
        [Verdict(0.0, read=False)],
    ]
    assert "math-verify" in verifier.fingerprint()
