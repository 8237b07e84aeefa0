"""Readers of what AlpacaEval, FastChat and lm-eval leave, for rows beside those measured here."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from harness import DataError, Imported, Importer, Score
from harness_plugins.evaluators import fastchat
from harness_plugins.evaluators.alpaca_eval import AlpacaEval, check_whole, example_name
from harness_plugins.evaluators.alpaca_package import figures
from harness_plugins.evaluators.fastchat_scores import pair_scores, question_scores
from harness_plugins.evaluators.lm_eval_models import short_names
from harness_plugins.evaluators.lm_eval_results import Results
from harness_plugins.evaluators.mt_bench import MtBench, VicunaBench
from harness_plugins.evaluators.shapes import Annotation, checked, parsed

Row = dict[str, Any]
LARGEST_BYTES = 200_000_000  # of annotations, unpacked; those of 805 instructions are five million
UNCONTROLLED = (
    "there is no length-controlled win rate, since it needs the hub's df_gamed.csv and instruction_difficulty.csv: "
    "import with --set difficulty=FOLDER"
)
VICUNA_QUESTIONS = range(1, 81)  # FastChat numbers Vicuna-Bench's questions from 1 and MT-Bench's from 81


class AlpacaImporter(Importer):
    """Annotations of `alpaca_eval` (annotations.json, plain or gzipped), one row per model; figures by the package."""

    name: ClassVar[str] = "alpaca_eval"

    difficulty: str | None = Field(
        None, description="a folder with the hub's df_gamed.csv and instruction_difficulty.csv, for length-controlled win rates"
    )
    official: bool = Field(True, description="whether the instructions must be the 805; false for a set of your own")

    def read(self, paths: Sequence[Path]) -> Iterator[Imported]:
        if self.difficulty is not None and (wrong := AlpacaEval(difficulty=self.difficulty).wrong_files()):
            raise DataError(f"--set difficulty={self.difficulty}: {wrong[0]}")
        for path in paths:
            rows = _annotations(path)
            for model in sorted({row["generator_2"] for row in rows}):
                yield self._model(path, model, [row for row in rows if row["generator_2"] == model])

    def _model(self, path: Path, model: str, rows: list[Row]) -> Imported:
        instructions = [row["instruction"] for row in rows]
        if len(set(instructions)) < len(instructions):
            raise DataError(f"{path}: {model} has two annotations of one instruction: leave those of one annotator")
        if self.official:
            check_whole(instructions, f"{path}, {model}:")
        places = AlpacaEval(difficulty=self.difficulty, official=self.official).placed(instructions, f"{path}, {model}:")
        found = figures(rows, places, Path(self.difficulty) if self.difficulty else None)
        scores = []
        for row in rows:
            example = example_name(row["instruction"])
            read = found.preferences.get(row["instruction"])
            values = {"unparsed": float(read is None), "characters": float(len(row["output_2"])), **(read or {})}
            scores += [Score(example, metric, value) for metric, value in values.items()]
        against = sorted({str(row["generator_1"]) for row in rows})
        judges = sorted({str(row["annotator"]) for row in rows})
        return Imported(
            label=str(model),
            evaluator=AlpacaEval.name,
            metrics=tuple(AlpacaEval(difficulty=self.difficulty).metrics()),
            scores=tuple(scores),
            judge=f"{', '.join(judges)} against {', '.join(against)}",
            facts={AlpacaEval.name: found.summary},
            answers={example_name(row["instruction"]): (row["instruction"], row["output_1"], row["output_2"]) for row in rows},
            warnings=() if self.difficulty is not None else (UNCONTROLLED,),
        )


def _annotations(path: Path) -> list[Row]:
    """Rows of an annotation file."""
    fix = "give the annotations.json that alpaca_eval writes"
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            content = stream.read(LARGEST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read as annotations of alpaca_eval ({error})") from error
    if len(content) > LARGEST_BYTES:
        raise DataError(f"{path} holds more than {LARGEST_BYTES:,} bytes: {fix}")
    rows = parsed(content, str(path), "annotations of alpaca_eval")
    for number, row in enumerate(rows if isinstance(rows, list) else [None], start=1):
        checked(Annotation, row, f"{path}: annotation {number}", fix)
    return list(rows)


class FastChatImporter(Importer):
    """FastChat's judgments (model_judgment/*.jsonl), single or of pairs; what was appended twice counts once."""

    name: ClassVar[str] = "fastchat"

    opponent: str | None = Field(
        None, description="of judgments of pairs: the model that the others met; found if it is in all"
    )
    judge: str | None = Field(None, description="whose judgments, where a file has those of several")

    def read(self, paths: Sequence[Path]) -> Iterator[Imported]:
        for path in paths:
            judgments = self._of_one_judge(path, fastchat.read_judgments(path))
            for bench in (MtBench, VicunaBench):
                rows = [row for row in judgments if (row["question_id"] in VICUNA_QUESTIONS) == (bench is VicunaBench)]
                singles = [row for row in rows if "model" in row]
                for model in sorted({row["model"] for row in singles}):
                    yield self._single(bench, model, [row for row in singles if row["model"] == model])
                yield from self._pairs(path, bench, [row for row in rows if "model" not in row])

    def _of_one_judge(self, path: Path, rows: Sequence[Row]) -> list[Row]:
        """Raises DataError where one answer has the judgments of several judges, whose mean would be nobody's."""
        kept = [row for row in rows if self.judge in (None, str(row["judge"][0]))]
        answers = {(row.get("model"), row.get("model_1"), row.get("model_2"), row["question_id"], row["turn"]) for row in kept}
        if len(answers) == len(kept) and (kept or not rows):
            return kept
        judges = ", ".join(sorted({str(row["judge"][0]) for row in rows}))
        if self.judge is not None and not kept:
            raise DataError(f"{path} has no judgments by {self.judge}: it has those of {judges}")
        fix = f"choose a judge with --set judge=NAME ({judges}), or leave those by one prompt"
        raise DataError(f"{path} has several judgments of one answer: {fix}")

    def _single(self, bench: type[MtBench] | type[VicunaBench], model: str, rows: Sequence[Row]) -> Imported:
        made = bench()
        scores = [
            score for row in rows for score in question_scores(made.name, made.turns, row, _category(bench, row["question_id"]))
        ]
        result = fastchat.single_results(rows)[model]
        shown = {"turn_1": result.first, "turn_2": result.second, "average": result.average, "unparsed": result.unparsed}
        return self._imported(made, model, rows, scores, {"show_result": shown})

    def _pairs(self, path: Path, bench: type[MtBench] | type[VicunaBench], rows: Sequence[Row]) -> Iterator[Imported]:
        if not rows:
            return
        common = set.intersection(*({row["model_1"], row["model_2"]} for row in rows))
        opponent = self.opponent or (min(common) if len(common) == 1 else None)
        if opponent is None:
            raise DataError(f"{path}: say which model the others met, with --set opponent=MODEL ({', '.join(sorted(common))})")
        made = bench(mode=("pair",))
        for model, result in fastchat.pair_results(rows, opponent).items():
            own = [fastchat.turned(row, model) for row in rows if {row["model_1"], row["model_2"]} == {model, opponent}]
            scores = [score for row in own for score in pair_scores(made.name, row["question_id"], row["turn"], row)]
            shown = {"win": result.win, "loss": result.loss, "tie": result.tie, "unparsed": result.unparsed}
            shown |= {"adjusted_win_rate": result.adjusted_win_rate} if result.judged else {}
            yield self._imported(made, model, own, scores, {"show_result": shown, "opponents": {"pair": opponent}})

    def _imported(
        self, made: Any, model: str, rows: Sequence[Row], scores: Sequence[Score], facts: Mapping[str, Any]
    ) -> Imported:
        reported = {score.metric for score in scores}
        metrics = tuple(metric for metric in made.metrics() if metric.name in reported)
        judges = ", ".join(sorted({str(row["judge"][0]) for row in rows}))
        return Imported(model, made.name, metrics, tuple(scores), judge=judges, facts=facts)


def _category(bench: type[Any], question: int) -> str | None:
    """MT-Bench's questions come in blocks of ten, one per category in this order; Vicuna-Bench's file alone knows its own."""
    place = (question - 81) // 10
    return bench.categories[place] if bench is MtBench and 0 <= place < len(bench.categories) else None


class LmEvalImporter(Importer):
    """What lm-eval's `--output_path` holds: results_*.json, and samples_*.jsonl of `--log_samples`, by which to pair."""

    name: ClassVar[str] = "lm_eval"

    tasks: tuple[str, ...] = Field(
        (), description="only these tasks and groups; all that are in no group, and all groups, if none"
    )

    def read(self, paths: Sequence[Path]) -> Iterator[Imported]:
        found: dict[str, Results] = {}
        for file in (file for path in paths for file in _result_files(path)):
            results = Results.read(file)
            found.setdefault(results.model, results).add(results)
        labels = short_names(found)
        for model, results in sorted(found.items()):
            yield from results.imported(self.tasks, labels[model])


def _result_files(path: Path) -> Iterable[Path]:
    """Oldest first: what a later run measured again stands."""
    files = sorted(path.rglob("results_*.json"), key=lambda file: file.name) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path} holds no results_*.json: give the folder of lm-eval's --output_path")
    return files
