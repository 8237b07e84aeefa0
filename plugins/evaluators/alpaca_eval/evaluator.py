"""AlpacaEval 2 and 1 through their own package: its annotator configs, prompts, parsers, win rates and length-controlled GLM.

Ours are the judge's client, the check that the set is whole, and where the hub's two files come from.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field, model_validator

from harness import (
    UNREAD_METRICS,
    DataError,
    EvaluationTask,
    Evaluator,
    Example,
    Metric,
    Paper,
    Prompt,
    Questions,
    Sampling,
    Score,
    UnavailableError,
    parse_json,
    read_text,
)
from harness_plugins.evaluators.alpaca_eval.package import REASONS, Row, annotate, annotator_size, figures
from harness_plugins.evaluators.shown import Shown
from harness_plugins.evaluators.validation import named

INSTRUCTIONS = 805
MOST_MISSING = 3  # of published sets: the judge's server refused or dropped these, and alpaca_eval leaves such rows out
# SHA-256 of the official instructions as JSON: in their order, and sorted.
IN_ORDER = "e4356cd997a280afd66c7dd3f9d44a151d2e94a3d4c2b67ab5d364a14404ae26"
AS_A_SET = "bd368f61b8bbce3c3a9a8d485fdd6b2b89d8483e40f4cd0986312021cde469cb"
# The hub's files, of dataset tatsu-lab/alpaca_eval: how their published SHA-256 begins and ends.
DIFFICULTY = {"df_gamed.csv": ("97aeec3f", "fd674d"), "instruction_difficulty.csv": ("e28d875b", "0a18b")}
ORDER = "alpaca_eval_gpt4_baseline.json"  # of that data set too: its instructions are in the order of the difficulties
UNCONTROLLED = f"absent: it needs the hub's {' and '.join(DIFFICULTY)}; give their folder as `difficulty`"
MARKERS = ("<|im_start|>", "<|im_end|>")  # of the package's prompt format: they may not come from a policy


class AlpacaEval(Evaluator):
    """AlpacaEval 2: win rate against a reference model's answers by an annotator of the `alpaca_eval` package.

    `win_rate` weighs each verdict by the judge's probability, as the package does; its interval is the board's, and the
    package's own figures with their standard errors are in the row's provenance. The length-controlled win rate needs
    the two files that the package would fetch from the hub; they are never fetched here.
    """

    name = "alpaca_eval"
    version: ClassVar[int] = 3
    judged: ClassVar[bool] = True
    reads_split: ClassVar[bool] = False
    paper: ClassVar[Paper | None] = Paper(
        "Length-Controlled AlpacaEval: A Simple Way to Debias Automatic Evaluators", "2404.04475"
    )

    published: ClassVar[str] = "alpaca_eval_gpt4_baseline.json"  # the hub's file with the reference model's outputs

    reference: str = Field(
        "data/alpaca_eval_gpt4_baseline.json", description="the reference model's outputs, the package's JSON"
    )
    annotator: str = Field(
        "weighted_alpaca_eval_gpt4_turbo", description="one of the package's annotators, or a folder of your own"
    )
    difficulty: str | None = Field(
        None,
        description="a folder with the hub's df_gamed.csv and instruction_difficulty.csv, for the length-controlled win rate",
    )
    check_hashes: bool = Field(True, description="whether those files must be the published ones")
    official: bool = Field(True, description="whether the instructions must be the 805; false for a set of your own")
    temperature: float = Field(0.0, ge=0, le=2, description="of the policy's answers")
    max_tokens: int = Field(2048, ge=1, description="the longest answer, in tokens")
    judge: dict[str, Any] = Field(default_factory=dict, description="changed fields of the config's `judge` section")

    def metrics(self) -> Sequence[Metric]:
        controlled = Metric(
            "length_controlled_win_rate",
            "win rate at equal length, by the package's GLM",
            primary=True,
            fit="run",
            bounds=(0, 1),
        )
        return (
            *((controlled,) if self.difficulty is not None else ()),
            Metric(
                "win_rate",
                "mean preference for the row over the reference, 0 to 1",
                primary=self.difficulty is None,
                bounds=(0, 1),
            ),
            Metric("discrete_win_rate", "share of verdicts for the row; a tie is half", bounds=(0, 1)),
            Metric("characters", "length of the answer", higher_is_better=None, bounds=(0, None)),
            *UNREAD_METRICS,
        )

    def problems(self) -> Sequence[tuple[str, str]]:
        found = []
        if not Path(self.reference).is_file():
            found.append(("reference", f"there is no such file: download {self.published} of tatsu-lab/alpaca_eval"))
        if self.difficulty is not None:
            found += [("difficulty", fix) for fix in self.wrong_files()]
        return found

    def absent(self) -> Collection[str]:
        """Return the reference where it is not there, and a folder `difficulty` that does not exist."""
        given = {"reference": Path(self.reference).is_file(), "difficulty": self._has_folder}
        return [field for field, here in given.items() if not here]

    @property
    def _has_folder(self) -> bool:
        return self.difficulty is None or Path(self.difficulty).is_dir()

    def fingerprint(self) -> str:
        """Return a hash of the files' contents and of the package's version, which brings the prompts."""
        from importlib import metadata

        with contextlib.suppress(metadata.PackageNotFoundError):
            version = metadata.version("alpaca_eval")
            files = [
                Path(self.reference),
                *(Path(self.difficulty) / name for name in DIFFICULTY if self.difficulty is not None),
            ]
            files += (
                sorted(path for path in Path(self.annotator).rglob("*") if path.is_file())
                if Path(self.annotator).is_dir()
                else []
            )
            hashes = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files if path.is_file()]
            return hashlib.sha256("\n".join([version, *hashes]).encode()).hexdigest()[:32]
        return ""

    def benchmark_prompts(self, shipped: Path | None = None) -> Sequence[Prompt]:
        return [Prompt.of(example_name(text), text) for text in _instructions(Path(self.reference))]

    def asks(self, examples: Sequence[Example], opponents: int) -> Questions | None:
        """None before the reference outputs and the annotator are there."""
        size = annotator_size(self.annotator)
        if size is None or not Path(self.reference).is_file():
            return None
        rows, (prompt, answer) = self._reference(), size
        tokens = sum(len((row["instruction"] + row["output"]).encode()) + prompt + self.max_tokens for row in rows)
        return Questions(len(rows), tokens, answer)

    def evaluate(self, task: EvaluationTask) -> Iterable[Score]:
        reference = self._reference()
        prompts = [Prompt.of(f"alpaca_eval:{number}", row["instruction"]) for number, row in enumerate(reference)]
        answers = task.respond_to(prompts, Sampling(1, self.temperature, max_tokens=self.max_tokens))
        outputs = [
            {"instruction": row["instruction"], "output": _unmarked(answer.text), "generator": task.label}
            | {name: row[name] for name in ("dataset",) if name in row}
            for row, (answer,) in zip(reference, answers, strict=True)
        ]
        _write(task.files / "model_outputs.json", outputs)
        annotations, reasons, words = annotate(task, self.annotator, reference, outputs)
        _write(task.files / "annotations.json", annotations)
        computed = figures(annotations, self.placed([row["instruction"] for row in reference], self.reference), self._hub())
        task.note("alpaca_eval", computed.summary)
        if self.difficulty is None:
            task.note("length_controlled_win_rate", UNCONTROLLED)
        shown = Shown()
        for row, other in zip(outputs, reference, strict=True):
            example, preferred = example_name(row["instruction"]), computed.preferences.get(row["instruction"])
            shown.answer(example, row["instruction"], row["output"], other["output"])
            if row["instruction"] in words:
                verdict = "not read" if preferred is None else f"preferred by {preferred['win_rate']:.1%}"
                shown.judgment(example, verdict, words[row["instruction"]])
        shown.write(task.files)
        for row in outputs:
            example = example_name(row["instruction"])
            yield Score(example, "characters", float(len(row["output"])))
            yield Score(example, "unparsed", float(row["instruction"] not in computed.preferences))
            # Two equal outputs are a tie that nobody is asked about.
            values = reasons.get(row["instruction"], dict.fromkeys(REASONS, 0.0)) | computed.preferences.get(
                row["instruction"], {}
            )
            for metric, value in values.items():
                yield Score(example, metric, value)
        if computed.uncontrolled is not None:
            raise UnavailableError(computed.uncontrolled)

    def _reference(self) -> list[Row]:
        """The reference outputs.

        Raises:
            DataError: it cannot be read, or is not the whole set.
        """
        try:
            rows = parse_json(read_text(Path(self.reference)), self.reference)
            instructions = [str(row["instruction"]) for row in rows]
            assert all(isinstance(row["output"], str) and row["generator"] for row in rows)
        except (KeyError, TypeError, AssertionError) as error:
            fix = "it should be a JSON list of instruction, output and generator"
            raise DataError(f"reference = {self.reference!r} cannot be read ({error}): {fix}") from error
        if len(set(instructions)) < len(instructions):
            raise DataError(f"{self.reference}: an instruction occurs twice, and verdicts are looked up by instruction")
        if self.official:
            check_whole(instructions, self.reference)
            self.placed(instructions, self.reference)
        return list(rows)

    def placed(self, instructions: Sequence[str], where: str) -> Sequence[str]:
        """The instructions at the places by which the hub's difficulties are looked up.

        Raises:
            DataError: they are in another order, and no file says the official one.
        """
        if self.difficulty is None or not self.official or instructions_hash(instructions) == IN_ORDER:
            return instructions
        path = Path(self.difficulty) / ORDER
        official = _instructions(path) if path.is_file() else []
        if instructions_hash(official) == IN_ORDER:
            return official
        raise DataError(
            f"{where} has AlpacaEval's instructions in another order, and the hub's difficulties are by position: "
            f"put the hub's {ORDER}, which has theirs, into {self.difficulty}"
        )

    def _hub(self) -> Path | None:
        if self.difficulty is None:
            return None
        folder = Path(self.difficulty)
        if not self.official and self.check_hashes:
            raise DataError("difficulty: the hub's files are about the official instructions, and `official` is false")
        if wrong := self.wrong_files():
            raise DataError(f"difficulty = {self.difficulty!r}: {wrong[0]}")
        return folder

    def wrong_files(self) -> list[str]:
        """Return the problems with the hub's files in `difficulty`, each with its fix."""
        if not self._has_folder:
            names = " and ".join(DIFFICULTY)
            return [f"no such folder: make it, with {names} of the hub's tatsu-lab/alpaca_eval, or leave `difficulty` out"]
        found, folder = [], Path(self.difficulty or ".")
        for name, (begins, ends) in DIFFICULTY.items():
            if not (folder / name).is_file():
                fix = f"download it from https://huggingface.co/datasets/tatsu-lab/alpaca_eval/resolve/main/{name}"
                found.append(f"it has no {name}: {fix}, or leave `difficulty` out")
                continue
            digest = hashlib.sha256((folder / name).read_bytes()).hexdigest()
            if self.check_hashes and not (digest.startswith(begins) and digest.endswith(ends)):
                fix = "download it again, or set check_hashes to false"
                found.append(f"{name} has SHA-256 {digest}, and the published file {begins}…{ends}: {fix}")
        return found


class AlpacaEval1(AlpacaEval):
    """AlpacaEval's first version: win rate against text-davinci-003 by GPT-4's ranking of both answers.

    The instructions are those of `alpaca_eval`; reference, annotator and scale are its own, so its numbers have their own key.
    Self-Contrast (arXiv 2404.00604, Table 1) reports it. It has no length-controlled win rate.
    """

    name = "alpaca_eval_1"
    version: ClassVar[int] = 1
    paper: ClassVar[Paper | None] = Paper(
        "AlpacaFarm: A Simulation Framework for Methods that Learn from Human Feedback", "2305.14387"
    )
    published: ClassVar[str] = "alpaca_eval.json"

    reference: str = Field("data/alpaca_eval.json", description="text-davinci-003's outputs, the package's JSON")
    annotator: str = Field("alpaca_eval_gpt4", description="one of the package's annotators, or a folder of your own")

    @model_validator(mode="after")
    def _has_no_difficulties(self) -> AlpacaEval1:
        if self.difficulty is not None:
            raise ValueError("AlpacaEval 1 has no length-controlled win rate: leave `difficulty` out, or take alpaca_eval")
        return self


def check_whole(instructions: Sequence[str], where: str) -> None:
    """Refuse a part of the official set, or another set.

    Raises:
        DataError: says which.
    """
    if len(instructions) != INSTRUCTIONS:
        raise DataError(
            f"{where} has {len(instructions)} instructions and AlpacaEval {INSTRUCTIONS}: a part of it gives no AlpacaEval "
            "win rate; take the whole file, or set `official` to false for a set of your own"
        )
    if instructions_hash(sorted(instructions)) != AS_A_SET:
        raise DataError(f"{where} has {INSTRUCTIONS} instructions, but not AlpacaEval's; set `official` to false for your own")


def check_nearly_whole(instructions: Sequence[str], where: str) -> list[int]:
    """Return the places, from 1, of the official instructions that a published set lacks; none where it is whole.

    Raises:
        DataError: the set lacks more than published ones do, or holds instructions that are not AlpacaEval's.
    """
    if not INSTRUCTIONS - MOST_MISSING <= len(instructions) < INSTRUCTIONS:
        check_whole(instructions, where)
        return []
    names = [example_name(instruction) for instruction in instructions]
    official = official_names()
    if strange := [number for number, name in enumerate(names) if name not in set(official)]:
        raise DataError(
            f"{where} has {len(names)} instructions, and {len(strange)} of them are not AlpacaEval's (the first is "
            f"{named(instructions[strange[0]])}): set `official` to false for a set of your own"
        )
    return [place for place, name in enumerate(official, start=1) if name not in set(names)]


def official_names() -> list[str]:
    """The official instructions' names on boards, in their order. The file holds hashes; the texts are not ours to ship."""
    path = Path(__file__).with_name("alpaca_instructions.json")
    return [f"alpaca_eval:{digest}" for digest in json.loads(path.read_text(encoding="utf-8"))]


def _instructions(path: Path) -> list[str]:
    try:
        return [str(row["instruction"]) for row in parse_json(read_text(path), str(path))]
    except (KeyError, TypeError) as error:
        raise DataError(f"{path} cannot be read ({error}): download it again from tatsu-lab/alpaca_eval") from error


def instructions_hash(instructions: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(instructions), ensure_ascii=False).encode()).hexdigest()


def example_name(instruction: str) -> str:
    """An instruction's name on boards; the same in whatever order a file has them."""
    return f"alpaca_eval:{hashlib.sha256(instruction.encode()).hexdigest()[:12]}"


def _unmarked(text: str) -> str:
    """An answer without the marks that begin and end messages in the package's prompts: a policy cannot speak for the user."""
    for marker in MARKERS:
        text = text.replace(marker, marker.replace("|", " "))
    return text


def _write(path: Path, rows: Sequence[Row]) -> None:
    path.write_text(json.dumps(list(rows), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
