"""Verifiers: whether an answer is right, by a rule and a reference. No model is asked.

GSM8K's and multiple-choice answers are compared by the rules written here, MATH's by the library math-verify (the extra
`verify`), and anything else by a Python function that a config names by its import path.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import logging
import math
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from harness.api.types import Example, Response
from harness.errors import DataError, StageError, did_you_mean

REFERENCE = "reference"  # the entry of an example's metadata that a source's column `reference` fills
RULES = 1  # raise it when a rule of this module marks the same answer otherwise
SECONDS = 5  # that math-verify may take to read or to compare one expression

# A minus after a digit, letter or bracket subtracts; elsewhere it is a sign.
_NUMBER = re.compile(r"(?:(?<![\w)\]])-\s?)?\$?(?:\d[\d,]*(?:\.\d+)?|\.\d+)")
_LETTER = r"\(?\[?\**([A-J])\b(?!['’])"
# Strongest first: the last match of the first pattern that matches is the choice.
_CHOICES = (
    re.compile(r"\b(?:[Aa]nswer|ANSWER)(?:\s+is)?(?:\s*:)?\s*\**\s*" + _LETTER),
    re.compile(r"^\s*" + r"\(?\[?\**([A-J])\**(?:[\])\.:]|\s*$)"),
    re.compile(r"[(\[]([A-J])[)\]]"),
    re.compile(r"(?m)^\s*\**([A-J])\**[.)]?\s*$"),
)
_IMPORT_PATH = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")

Function = Callable[..., Any]


@dataclass(frozen=True)
class Verdict:
    """The mark of one response.

    Attributes:
        value: in [0, 1]; 1 is right.
        read: whether a final answer could be read from the response; True for a function, which does not say.
    """

    value: float
    read: bool = True


class Verifier(BaseModel):
    """Marks an answer from 0 to 1 by a rule and the reference that comes with the data."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    checker: str = Field(
        description="`gsm8k` (the last number), `math` (equal by math-verify), `multiple_choice` (the letter), or a Python "
        "function as `module:function`, called with prompt=, response= and reference="
    )
    reference: Literal["target", "reference"] | None = Field(
        "target",
        description="where the right answer stands: the example's target, or the source's column `reference` "
        "(`source.columns: {reference: …}`); null for a function that needs none",
    )

    @field_validator("checker")
    @classmethod
    def _names_a_checker(cls, checker: str) -> str:
        if checker not in CHECKERS and not _IMPORT_PATH.fullmatch(checker):
            hint = did_you_mean(checker, CHECKERS)
            raise ValueError(f"no checker is called so; {hint.rstrip('?')}, or name a Python function as `module:function`")
        return checker

    @model_validator(mode="after")
    def _has_a_reference(self) -> Verifier:
        if self.reference is None and self.checker in CHECKERS:
            raise ValueError(f"{self.checker} compares with a reference: set `reference` to target or reference")
        return self

    @property
    def needs(self) -> frozenset[str]:
        """Return the features that it asks of a source."""
        return frozenset({self.reference} if self.reference else ())

    @property
    def asks_judge(self) -> bool:
        """Return whether marking asks a judge."""
        return False

    def described(self) -> str:
        """Return what marks, in words."""
        return f"the verifier {self.checker}"

    def problems(self, field: str = "") -> Sequence[tuple[str, str]]:
        """Return what is wrong, before anything runs: (field, fix). A function's module is imported."""
        place = f"{field}.checker" if field else "checker"
        if self.checker == "math" and find_spec("math_verify") is None:
            return [(place, "it needs math-verify: install it with `pip install 'alignment-harness[verify]'`")]
        if self.checker not in CHECKERS:
            try:
                self._function()
            except DataError as error:
                return [(place, str(error))]
        return ()

    def fingerprint(self) -> str:
        """Return what decides its marks beside the fields: rules' version, the library's, or a hash of the function's file."""
        if self.checker == "math":
            return f"math-verify {metadata.version('math-verify')}, rules {RULES}" if find_spec("math_verify") else ""
        if self.checker in CHECKERS:
            return f"rules {RULES}"
        try:
            file = inspect.getsourcefile(inspect.unwrap(self._function()))
        except (DataError, TypeError):  # `problems` tells of the first; the second is a function without Python source
            return ""
        return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:32] if file and Path(file).is_file() else ""

    def reference_of(self, example: Example) -> str | None:
        """Return an example's reference; None where it has none, or none is wanted."""
        if self.reference is None:
            return None
        value = example.target if self.reference == "target" else example.metadata.get(REFERENCE)
        return None if value is None else str(value)

    def verdicts(self, examples: Sequence[Example], responses: Sequence[Sequence[Response]]) -> list[list[Verdict] | None]:
        """Return the verdict on each response, [examples][responses]; None for an example without a reference.

        Raises:
            StageError: no example has a reference, a reference cannot be read, or the function failed.
        """
        references = [self.reference_of(example) for example in examples]
        if self.reference is not None and examples and all(reference is None for reference in references):
            fix = "give the data a target" if self.reference == "target" else "name the column in `source.columns.reference`"
            raise StageError(
                f"the verifier {self.checker!r} compares with a {self.reference}, and none of {len(examples)} examples has one "
                f"({examples[0].prompt.id!r} is the first): {fix}"
            )
        mark = self._marker()
        return [
            None if self.reference is not None and reference is None else [mark(example, item, reference) for item in row]
            for example, row, reference in zip(examples, responses, references, strict=True)
        ]

    def rewards(self, examples: Sequence[Example], responses: Sequence[Sequence[Response]]) -> list[list[float]]:
        """Return `verdicts` as numbers; NaN for the responses of an example without a reference."""
        return [
            [math.nan] * len(row) if verdicts is None else [verdict.value for verdict in verdicts]
            for row, verdicts in zip(responses, self.verdicts(examples, responses), strict=True)
        ]

    def _marker(self) -> Callable[[Example, Response, str | None], Verdict]:
        if self.checker not in CHECKERS:
            return self._by_function(self._function())
        compare = CHECKERS[self.checker]

        def mark(example: Example, response: Response, reference: str | None) -> Verdict:
            assert reference is not None
            try:
                return compare(response.text, reference)
            except DataError as error:
                raise StageError(f"the {self.reference} of example {example.prompt.id!r}: {error}") from error

        return mark

    def _by_function(self, function: Function) -> Callable[[Example, Response, str | None], Verdict]:
        def mark(example: Example, response: Response, reference: str | None) -> Verdict:
            place = f"the verifier {self.checker!r} of example {example.prompt.id!r}"
            try:
                value = function(prompt=example.prompt.text, response=response.text, reference=reference)
            except Exception as error:
                raise StageError(f"{place} failed: {type(error).__name__}: {error}") from error
            try:
                number = float(value)
            except (TypeError, ValueError):
                number = math.nan
            if isinstance(value, str) or not 0 <= number <= 1:  # NaN is in no interval
                raise StageError(f"{place} returned {value!r}: it should be a number from 0 (wrong) to 1 (right), or a bool")
            return Verdict(number)

        return mark

    def _function(self) -> Function:
        """Import the function; its text in a config is never evaluated.

        Raises:
            DataError: there is none, or it does not take the arguments.
        """
        module, _, path = self.checker.partition(":")
        try:
            value: Any = importlib.import_module(module)
        except Exception as error:  # whatever its module raises while it is imported
            fix = f"install {module!r}, or put its folder on PYTHONPATH"
            raise DataError(f"it cannot be imported ({type(error).__name__}: {error}): {fix}") from error
        for name in path.split("."):
            if not hasattr(value, name):
                raise DataError(f"{module!r} has no {path!r}: give a function of that module")
            value = getattr(value, name)
        if not callable(value):
            raise DataError(f"it is a {type(value).__name__}: give a function")
        try:
            inspect.signature(value).bind(prompt="", response="", reference="")
        except (TypeError, ValueError) as error:
            raise DataError(
                f"it cannot be called so ({error}): define it as def {path.split('.')[-1]}(prompt, response, reference)"
            ) from error
        checked: Function = value
        return checked


def check_number(response: str, reference: str) -> Verdict:
    """Compare final numbers, as GSM8K is scored: after the last `####`, else in the last \\boxed{}, else the last of the text.

    Raises:
        DataError: the reference has no number.
    """
    if (right := final_number(reference)) is None:
        raise DataError(f"{_shortened(reference)} has no number: `gsm8k` compares numbers, so choose another checker")
    answer = final_number(response)
    return Verdict(float(answer == right), answer is not None)


def final_number(text: str) -> Decimal | None:
    """Return the number that a text ends on; None where it has none. Thousands' commas and $ do not count."""
    text = text.replace("−", "-").replace("\\$", "$")
    for part in (text.rpartition("####")[2] if "####" in text else "", boxed(text) or "", text):
        if numbers := _NUMBER.findall(part):
            return Decimal(re.sub(r"[,$\s]", "", numbers[-1]))
    return None


def boxed(text: str) -> str | None:
    """Return the content of the last complete \\boxed{…} of a text; None where there is none."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    begin, depth = start + len("\\boxed{"), 1
    for place in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[place], 0)
        if depth == 0:
            return text[begin:place]
    return None


def check_choice(response: str, reference: str) -> Verdict:
    """Compare the letters chosen, A to J.

    A response's letter is in its last \\boxed{}, after "answer" or "answer is", at its beginning, in brackets, or alone on a
    line: the first of these that it has.

    Raises:
        DataError: the reference has no letter.
    """
    if (right := chosen_letter(reference)) is None:
        fix = "`multiple_choice` needs a letter from A to J, as in `B` or `(B) text`"
        raise DataError(f"{_shortened(reference)} names no choice: {fix}")
    answer = chosen_letter(response)
    return Verdict(float(answer == right), answer is not None)


def chosen_letter(text: str) -> str | None:
    """Return the letter that a text chooses; None where it chooses none."""
    content = (boxed(text) or "").removeprefix("\\text{").strip("{}() .")
    if re.fullmatch("[A-J]", content):
        return content
    for pattern in _CHOICES:
        if letters := pattern.findall(text):
            return str(letters[-1])
    return None


def check_math(response: str, reference: str) -> Verdict:
    """Compare expressions by math-verify: \\boxed{}, LaTeX between dollars, or the last number of a text.

    A comparison that takes longer than `SECONDS` counts as wrong.

    Raises:
        DataError: math-verify is not installed, or cannot read the reference.
    """
    try:
        from math_verify import parse, verify
    except ImportError as error:
        raise DataError("`math` needs math-verify: pip install 'alignment-harness[verify]'") from error
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)  # a warning of a time limit quotes the whole response
    # Its time limit is a signal, which only a process's main thread can wait for.
    seconds = SECONDS if threading.current_thread() is threading.main_thread() else None
    whole = reference if "\\boxed" in reference or "$" in reference else f"${reference}$"
    right = parse(whole, parsing_timeout=seconds)
    if not right:
        raise DataError(f"math-verify reads no answer in {_shortened(reference)}: write it as LaTeX, or in \\boxed{{}}")
    answer = parse(response, parsing_timeout=seconds)
    return Verdict(float(bool(answer) and verify(right, answer, timeout_seconds=seconds)), bool(answer))


def _shortened(text: str) -> str:
    return repr(text if len(text) <= 60 else f"{text[:60]}…")


CHECKERS: dict[str, Callable[[str, str], Verdict]] = {
    "gsm8k": check_number,
    "math": check_math,
    "multiple_choice": check_choice,
}
