"""Readers of what AlpacaEval, FastChat and lm-eval leave, for rows beside those measured here."""

from __future__ import annotations

import gzip
import math
import os
import re
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field

from harness import DataError, Imported, Importer, Score
from harness_plugins.evaluators.alpaca_eval.evaluator import (
    INSTRUCTIONS,
    AlpacaEval,
    check_nearly_whole,
    example_name,
    official_names,
)
from harness_plugins.evaluators.alpaca_eval.package import Figures, figures
from harness_plugins.evaluators.fastchat import files as fastchat
from harness_plugins.evaluators.fastchat.files import Numbered
from harness_plugins.evaluators.fastchat.mt_bench import MtBench, VicunaBench
from harness_plugins.evaluators.fastchat.scores import pair_scores, question_scores
from harness_plugins.evaluators.lm_eval.models import short_names
from harness_plugins.evaluators.lm_eval.results import DATE, Results
from harness_plugins.evaluators.validation import ForeignRow, Label, Text, checked, named, parsed, whole_text

Row = dict[str, Any]
Bench = type[MtBench] | type[VicunaBench]
LARGEST_BYTES = 200_000_000  # of annotations, unpacked; those of 805 instructions are five million
UNCONTROLLED = (
    "there is no length-controlled win rate, since it needs the hub's df_gamed.csv and instruction_difficulty.csv: "
    "import with --set difficulty=FOLDER"
)
# Generators' names that tell nothing: alpaca_eval's own where none was given, those of its examples, and the like
PLACEHOLDERS = frozenset(
    {"", "current model", "example", "model", "my model", "your model", "custom model", "generator", "default", "none", "null"}
    | {"nan", "unknown", "test", "name", "model name", "n a"}
)
VICUNA_QUESTIONS = range(1, 81)  # FastChat numbers Vicuna-Bench's questions from 1 and MT-Bench's from 81


def _preference(value: float) -> float:
    # NaN is what pandas makes of a judgment that alpaca_eval could not read: it passes, and counts as unread
    if not (math.isnan(value) or value == 0 or 1 <= value <= 2):
        raise ValueError(
            "it should be from 1 (the first output) to 2 (the second), 0 for a tie, or null where nothing was read"
        )
    return value


class Annotation(ForeignRow):
    """One row of alpaca_eval's annotations. A preference is from 1, the first output, to 2; 0 and 1.5 are ties."""

    instruction: Text
    annotator: Label
    output_1: Text
    output_2: Text
    generator_1: Label
    generator_2: Annotated[str, Field(max_length=500), AfterValidator(whole_text)]  # a row may be named by its file instead
    preference: Annotated[float, AfterValidator(_preference)] | None


class AlpacaImporter(Importer):
    """Annotations of `alpaca_eval` (annotations.json, plain or gzipped), one row per model; figures by the package."""

    name: ClassVar[str] = "alpaca_eval"

    difficulty: str | None = Field(
        None, description="a folder with the hub's df_gamed.csv and instruction_difficulty.csv, for length-controlled win rates"
    )
    official: bool = Field(
        True,
        description="whether the instructions must be the 805, of which up to 3 may be missing; false for a set of your own",
    )

    def read(self, paths: Sequence[Path]) -> Iterator[Imported]:
        if self.difficulty is not None and (wrong := AlpacaEval(difficulty=self.difficulty).wrong_files()):
            raise DataError(f"--set difficulty={self.difficulty}: {wrong[0]}")
        distinct: dict[Path, Path] = {}
        for file in (file for path in paths for file in _annotation_files(path)):
            distinct.setdefault(file.resolve(), file)  # a file that was given twice is one
        files = {file: _annotations(file) for file in distinct.values()}
        labels = _labels(files)
        for path, rows in files.items():
            for model in sorted({row["generator_2"] for row in rows}):
                own = [(number, row) for number, row in enumerate(rows, start=1) if row["generator_2"] == model]
                yield self._model(path, model, labels[path, model], own)

    def _model(self, path: Path, model: str, label: str, numbered: Sequence[tuple[int, Row]]) -> Imported:
        where = f"{path}, {model}:" if model else f"{path}:"
        rows = [row for _, row in numbered]
        instructions = [row["instruction"] for row in rows]
        if len(set(instructions)) < len(instructions):
            raise DataError(f"{where} two annotations of one instruction: leave those of one annotator")
        missing = check_nearly_whole(instructions, where) if self.official else []
        unread = [number for number, row in numbered if row["preference"] is None or math.isnan(row["preference"])]
        if len(unread) == len(rows):
            raise DataError(f"{where} no preference is a number: the annotator's answers could not be read; annotate again")
        found = figures(rows, self._places(instructions, where, missing), Path(self.difficulty) if self.difficulty else None)
        scores = []
        for row in rows:
            example = example_name(row["instruction"])
            read = found.preferences.get(row["instruction"])
            values = {"unparsed": float(read is None), "characters": float(len(row["output_2"])), **(read or {})}
            scores += [Score(example, metric, value) for metric, value in values.items()]
        reported = {score.metric for score in scores}
        against = sorted({str(row["generator_1"]) for row in rows})
        judges = sorted({str(row["annotator"]) for row in rows})
        return Imported(
            label=label,
            evaluator=AlpacaEval.name,
            metrics=tuple(metric for metric in AlpacaEval(difficulty=self.difficulty).metrics() if metric.name in reported),
            scores=tuple(scores),
            judge=f"{', '.join(judges)} against {', '.join(against)}",
            facts={AlpacaEval.name: {name: value for name, value in found.summary.items() if math.isfinite(value)}},
            answers={example_name(row["instruction"]): (row["instruction"], row["output_1"], row["output_2"]) for row in rows},
            warnings=tuple(self._warnings(model, label, numbered, missing, found)),
            files=(path,),
        )

    def _places(self, instructions: Sequence[str], where: str, missing: Sequence[int]) -> Sequence[str]:
        """The instructions at the places by which the hub's difficulties are looked up."""
        if not missing:
            return AlpacaEval(difficulty=self.difficulty, official=self.official).placed(instructions, where)
        known = {example_name(instruction): instruction for instruction in instructions}
        return [known.get(name, name) for name in official_names()]  # a missing one keeps its place, under its hash

    def _warnings(
        self,
        model: str,
        label: str,
        numbered: Sequence[tuple[int, Row]],
        missing: Sequence[int],
        computed: Figures,
    ) -> Iterator[str]:
        """Return the warnings about the file that a reader of the row needs."""
        if label != model:
            reason = (
                f"the file names the model {named(model)}"
                if _is_placeholder(model)
                else f"several files name it {named(model)}"
            )
            yield f"named by its file or folder, since {reason}"
        if missing:
            places = f"number {missing[0]}" if len(missing) == 1 else f"numbers {', '.join(map(str, missing))}"
            yield (
                f"{len(numbered)} of AlpacaEval's {INSTRUCTIONS} instructions, so all figures are over these: "
                f"the file lacks {places} of the official order"
            )
        nan = [number for number, row in numbered if row["preference"] is not None and math.isnan(row["preference"])]
        if nan:
            many = _count(len(nan), "annotation")
            yield f"preference = NaN in {many} (the first is number {nan[0]}): counted as unread, like null"
        without = [name for name, value in computed.summary.items() if not math.isfinite(value)]
        if without:
            yield f"no {', '.join(without)}: alpaca_eval gives NaN, as it does for a single readable verdict"
        if self.difficulty is None:
            yield UNCONTROLLED
        if computed.uncontrolled is not None:
            yield f"there is no length-controlled win rate: {computed.uncontrolled}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _annotation_files(path: Path) -> list[Path]:
    """A file, or the annotations in a folder."""
    files = sorted({*path.rglob("annotations.json"), *path.rglob("annotations.json.gz")}) if path.is_dir() else [path]
    if not files:
        raise DataError(f"{path} holds no annotations.json: give the folder or the file that alpaca_eval wrote")
    return files


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
    if not isinstance(rows, list):
        raise DataError(f"{path} holds {named(rows)}, and no list of annotations: {fix}")
    for number, row in enumerate(rows, start=1):
        checked(Annotation, row, f"{path}: annotation {number}", fix)
    return rows


def _labels(files: Mapping[Path, Sequence[Row]]) -> dict[tuple[Path, str], str]:
    """Each model of each file -> its row's name: the generator's, unless that tells nothing or is that of two files."""
    models = [(path, model) for path, rows in files.items() for model in sorted({row["generator_2"] for row in rows})]
    holders = Counter(model for _, model in models)
    unclear = [(path, model) for path, model in models if _is_placeholder(model) or holders[model] > 1]
    places = _place_names({path: {row["annotator"] for row in files[path]} for path, _ in unclear})
    several = Counter(path for path, _ in unclear)
    named_by_place = {
        (path, model): f"{places[path]}: {model}" if several[path] > 1 else places[path] for path, model in unclear
    }
    return {key: named_by_place.get(key, key[1]) for key in models}


def _is_placeholder(model: str) -> bool:
    return re.sub(r"[\W_]+", " ", model).strip().casefold() in PLACEHOLDERS


def _place_names(annotators: Mapping[Path, Collection[str]]) -> dict[Path, str]:
    """Files -> the shortest ends of their paths that tell them apart.

    alpaca_eval writes results/MODEL/ANNOTATOR/annotations.json: the last two say nothing of the model, and stay only where two
    files differ in nothing else.
    """
    parts: dict[Path, tuple[str, ...]] = {}
    for path, judges in annotators.items():
        folders = Path(os.path.abspath(path)).parts[1:-1]  # noqa: PTH100 - a link is named by its own place, not its target's
        whole = (*folders, path.name.removesuffix(".gz").removesuffix(".json"))
        short = whole[:-1] if whole[-1] in ("annotations", "annotation") else whole
        short = short[:-1] if short and short[-1] in judges else short
        parts[path] = short or whole
    alike = Counter(parts.values())
    for path in annotators:
        if alike[parts[path]] > 1:
            parts[path] = Path(os.path.abspath(path)).parts[1:]  # noqa: PTH100
    ends = {path: f"/{'/'.join(names)}" for path, names in parts.items()}
    labels = short_names(ends.values())
    return {path: labels[end].encode("utf-8", "replace").decode() for path, end in ends.items()}


class FastChatImporter(Importer):
    """FastChat's judgments (model_judgment/*.jsonl), single or of pairs; what was appended twice counts once."""

    name: ClassVar[str] = "fastchat"

    opponent: str | None = Field(
        None,
        description="of judgments of pairs: the model that the others met; by default the one in all pairs, and of two models "
        "each meets the other",
    )
    judge: str | None = Field(None, description="whose judgments, where a file has those of several")

    def read(self, paths: Sequence[Path]) -> Iterator[Imported]:
        for path in paths:
            judgments = self._of_one_judge(path, fastchat.all_judgments(path))
            for bench in (MtBench, VicunaBench):
                rows = [(n, row) for n, row in judgments if (row["question_id"] in VICUNA_QUESTIONS) == (bench is VicunaBench)]
                singles = [(number, row) for number, row in rows if "model" in row]
                for model in sorted({row["model"] for _, row in singles}):
                    yield self._single(path, bench, model, [(n, row) for n, row in singles if row["model"] == model])
                yield from self._pairs(path, bench, [(number, row) for number, row in rows if "model" not in row])

    def _of_one_judge(self, path: Path, rows: Sequence[Numbered]) -> list[Numbered]:
        """Raises DataError where one answer has the judgments of several judges, whose mean would be nobody's."""
        own = [(number, row) for number, row in rows if self.judge in (None, str(row["judge"][0]))]
        kept = fastchat.last_of_each(own)
        if len({fastchat.judged(row) for _, row in kept}) == len(kept) and (kept or not rows):
            return own
        judges = ", ".join(sorted({str(row["judge"][0]) for _, row in rows}))
        if self.judge is not None and not kept:
            raise DataError(f"{path} has no judgments by {self.judge}: it has those of {judges}")
        fix = f"choose a judge with --set judge=NAME ({judges}), or leave those by one prompt"
        raise DataError(f"{path} has several judgments of one answer: {fix}")

    def _single(self, path: Path, bench: Bench, model: str, numbered: Sequence[Numbered]) -> Imported:
        benchmark, kept = bench(), fastchat.last_of_each(numbered)
        rows = [row for _, row in kept]
        scores = [
            score
            for row in rows
            for score in question_scores(benchmark.name, benchmark.turns, row, _category(bench, row["question_id"]))
        ]
        everything = fastchat.single_results([row for _, row in numbered])[model]
        shown = {"turn_1": everything.first, "turn_2": everything.second, "average": everything.average}
        facts, warnings = _repeats(numbered, kept, "rating", lambda row: row["score"])
        if warnings:
            average = fastchat.single_results(rows)[model].average
            means = [f"{value:.4g}" if value is not None else "none" for value in (everything.average, average)]
            warnings = [f"{warnings[0]}, to {means[0]} where this row has {means[1]}"]
        odd = [(number, row) for number, row in kept if row["score"] != fastchat.UNREAD and not 1 <= row["score"] <= 10]
        if odd:
            number, row = odd[0]
            warnings.append(
                f"{len(odd)} of {len(kept)} ratings are not from 1 to 10 (the first is {row['score']:g}, of question "
                f"{row['question_id']}, turn {row['turn']}, in {path.name}:{number}): they count as they are, as in FastChat"
            )
        facts |= {"show_result": {**shown, "unparsed": everything.unparsed}}
        return self._imported(path, benchmark, model, rows, scores, facts, warnings)

    def _pairs(self, path: Path, bench: Bench, numbered: Sequence[Numbered]) -> Iterator[Imported]:
        if not numbered:
            return
        benchmark = bench(mode=("pair",))
        opponents = self._opponents(path, [row for _, row in numbered])
        models = {row[name] for _, row in numbered for name in ("model_1", "model_2")}
        unmet = sorted(models - {*opponents, *opponents.values()})
        for model, opponent in opponents.items():
            met = [(number, row) for number, row in numbered if {row["model_1"], row["model_2"]} == {model, opponent}]
            turned = [(number, fastchat.turned(row, model)) for number, row in met]
            kept = fastchat.last_of_each(turned)
            rows = [row for _, row in kept]
            scores = [score for row in rows for score in pair_scores(benchmark.name, row["question_id"], row["turn"], row)]
            result = fastchat.pair_results([row for _, row in turned], opponent)[model]
            shown: Row = {"win": result.win, "loss": result.loss, "tie": result.tie, "unparsed": result.unparsed}
            shown |= {"adjusted_win_rate": result.adjusted_win_rate} if result.judged else {}
            facts, warnings = _repeats(turned, kept, "verdict", fastchat.pair_outcome)
            left = sum(model in (row["model_1"], row["model_2"]) for _, row in numbered) - len(met)
            if left:
                warnings.append(f"left out: {_count(left, 'judgment')} against other models than {opponent}")
            if unmet:
                warnings.append(f"no row for {', '.join(unmet)}, which did not meet {opponent}")
            facts |= {"show_result": shown, "opponents": {"pair": opponent}}
            yield self._imported(path, benchmark, model, rows, scores, facts, warnings)

    def _opponents(self, path: Path, rows: Sequence[Row]) -> dict[str, str]:
        """Each model that gets a row -> the model that it met."""
        pairs = [{row["model_1"], row["model_2"]} for row in rows]
        models, common = sorted(set().union(*pairs)), set.intersection(*pairs)
        if self.opponent is not None and self.opponent not in models:
            raise DataError(f"--set opponent={self.opponent}: {path} has pairs of {', '.join(models)}")
        if self.opponent is None and len(models) == 2:
            return dict(zip(models, reversed(models), strict=True))
        opponent = self.opponent or (min(common) if len(common) == 1 else None)
        if opponent is None:
            raise DataError(f"{path}: say which model the others met, with --set opponent=MODEL ({', '.join(models)})")
        return {model: opponent for model in models if {model, opponent} in pairs and model != opponent}

    def _imported(
        self,
        path: Path,
        benchmark: MtBench | VicunaBench,
        model: str,
        rows: Sequence[Row],
        scores: Sequence[Score],
        facts: Mapping[str, Any],
        warnings: Sequence[str],
    ) -> Imported:
        reported = {score.metric for score in scores}
        metrics = tuple(metric for metric in benchmark.metrics() if metric.name in reported)
        judges = ", ".join(sorted({str(row["judge"][0]) for row in rows}))
        return Imported(
            model, benchmark.name, metrics, tuple(scores), judge=judges, facts=facts, warnings=tuple(warnings), files=(path,)
        )


def _repeats(
    numbered: Sequence[Numbered], kept: Sequence[Numbered], what: str, value: Callable[[Row], Any]
) -> tuple[Row, list[str]]:
    """Return the repeated judgments as a fact and as a warning; neither where nothing was repeated."""
    if len(kept) == len(numbered):
        return {}, []
    values: dict[tuple[Any, ...], list[Any]] = {}
    for _, row in numbered:
        values.setdefault(fastchat.judged(row), []).append(value(row))
    changed = sum(any(earlier != of_one[-1] for earlier in of_one) for of_one in values.values())
    repeats = len(numbered) - len(kept)
    warning = (
        f"{repeats} of {len(numbered)} judgments repeat earlier ones, and the last counts: {_count(changed, what)} changed by "
        f"it; FastChat's show_result {'averages' if what == 'rating' else 'counts'} repeats"
    )
    return {"repeats": {"left_out": repeats, "changed": changed}}, [warning]


def _category(bench: Bench, question: int) -> str | None:
    """MT-Bench's questions come in blocks of ten, one per category in this order; Vicuna-Bench's file alone knows its own."""
    place = (question - 81) // 10
    return bench.categories[place] if bench is MtBench and 0 <= place < len(bench.categories) else None


class LmEvalImporter(Importer):
    """lm-eval's `--output_path`: results_*.json, and samples_*.jsonl of `--log_samples`, by which rows are paired."""

    name: ClassVar[str] = "lm_eval"

    tasks: tuple[str, ...] = Field(
        (),
        description="only these tasks and groups; all that are in no group, and all groups, if none; a group without a number "
        "of its own is shown by its tasks",
    )

    def read(self, paths: Sequence[Path]) -> Iterator[Imported]:
        by_model: dict[str, Results] = {}
        for file in (file for path in paths for file in _result_files(path)):
            results = Results.read(file)
            by_model.setdefault(results.model, results).add(results)
        labels = short_names(by_model)
        for model, results in sorted(by_model.items()):
            yield from results.imported(self.tasks, labels[model])


def _result_files(path: Path) -> Iterable[Path]:
    """Oldest first: what a later run measured again stands.

    lm-eval writes results_<date>.json into a folder, NAME_<date>.json for `--output_path NAME.json`, and wrote results.json.
    """
    if not path.is_dir():
        return [path]
    dates = {file: DATE.search(file.stem) for file in path.rglob("*.json")}
    files = [file for file, date in dates.items() if date or file.stem == "results" or file.stem.startswith("results_")]
    if not files:
        raise DataError(f"{path} holds no results_*.json: give the folder of lm-eval's --output_path")
    return sorted(files, key=lambda file: ((date[1] if (date := dates[file]) else ""), file.name))
