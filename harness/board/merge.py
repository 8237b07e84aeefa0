"""Several boards as one: rows that answered the same prompts are compared again, paired, as if they had run together."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.api.types import Cost, Metric, Score
from harness.board.board import Board, ExampleRow, RowEntry, board_scores
from harness.board.build import Derived, build_board
from harness.board.compare import RowResult, row_before_statistics
from harness.board.files import SCORES, Scores, digest
from harness.board.published import is_published_table, published_board
from harness.board.verify import not_made_again
from harness.board.views.markdown import board_precision
from harness.board.views.text import one_line, shortened
from harness.errors import DataError

REPORTED = "reported"  # the example of a number that a paper printed
MUST_AGREE = ("model", "sft", "source", "evaluation", "generation")  # else the numbers are not of the same question
SHOULD_AGREE = ("budget", "training")


def merge(parts: Sequence[Part], *, name: str, created: str) -> Board:
    """One board with the rows of all, the baseline's seeds pooled, every difference and family of tests made anew.

    Raises:
        DataError: the boards differ in what makes their numbers comparable; the message names all of it.
    """
    measured = [part for part in parts if not part.published]
    if not measured:
        if len(parts) == 1:
            return parts[0].board
        raise DataError("published tables alone are never one comparison: give one of them, or a measured board too")
    first, printed = measured[0], [part for part in parts if part.published]
    metrics = _metrics(measured)
    _check_comparable(measured, printed, metrics)
    rows, warnings = pooled_rows([*measured, *printed], first.board.baseline)
    left_out = sorted({key for part in measured for key in part.derived})
    if left_out:
        warnings.append(f"Left out, since they are computed over all rows of one board: {', '.join(left_out)}.")
    return build_board(
        name=name,
        description=f"Merged from {', '.join(part.board.name for part in parts)}. {first.board.description}",
        config=_config(measured, name),
        baseline=first.board.baseline,
        rows=rows,
        metrics=metrics,
        examples=_examples(measured, rows),
        sharing={"merged": [_source(part) for part in parts]},
        created=created,
        warnings=[*warnings, *caveats(measured), *dict.fromkeys(text for part in measured for text in _carried(part))],
        mixed_judges=all(bool((part.board.config.get("judge") or {}).get("allow_mixed_judges")) for part in measured),
    )


def _check_comparable(measured: Sequence[Part], printed: Sequence[Part], metrics: Mapping[str, Sequence[Metric]]) -> None:
    """Of measured boards that they are one comparison, of published tables that there is something to show side by side."""
    first = measured[0]
    problems = [problem for part in measured[1:] for problem in disagreements(first, part)]
    if problems:
        raise DataError("these boards are not one comparison:\n" + "\n".join(f"  - {problem}" for problem in problems))
    shown = {f"{evaluator}/{metric.name}" for evaluator, listed in metrics.items() for metric in listed}
    for part in printed:
        if not shown & {metric.key for metric in part.board.metrics}:
            raise DataError(f"{part.name} has no metric of {first.name}: there is nothing to show side by side")


def _config(measured: Sequence[Part], name: str) -> dict[str, Any]:
    """The first board's, with the methods of all."""
    config = dict(measured[0].board.config) | {"name": name}
    if all("methods" in part.board.config for part in measured):
        config["methods"] = [entry for part in measured for entry in part.board.config["methods"]]
    return config


def _metrics(parts: Sequence[Part]) -> dict[str, list[Metric]]:
    """Per evaluator, those that have scores per example; the first board's order and choice of primary ones."""
    found: dict[str, list[Metric]] = {}
    for part in parts:
        derived = part.derived
        for entry in part.board.metrics:
            evaluator, _, name = entry.key.partition("/")
            listed = found.setdefault(evaluator, [])
            if entry.key not in derived and name not in {metric.name for metric in listed}:
                listed.append(Metric(name, entry.description, entry.higher_is_better, entry.primary))
    return {evaluator: listed for evaluator, listed in found.items() if listed}


def _examples(parts: Sequence[Part], rows: Sequence[RowResult]) -> list[ExampleRow]:
    """By id; the answers of a row that was renamed stand under its new name."""
    found: dict[str, ExampleRow] = {}
    labels = {row.label for row in rows}
    for part in parts:
        for example in part.board.example_rows:
            old = found.get(example.id)
            answers: dict[str, str] = dict(old.answers) if old else {}
            for label, text in example.answers.items():
                renamed = f"{label} ({part.board.name})"
                answers.setdefault(renamed if label in answers and renamed in labels else label, text)
            found[example.id] = replace(old or example, answers=answers)
    return list(found.values())


def _source(part: Part) -> dict[str, Any]:
    board = part.board
    content = digest(board.to_json().encode("utf-8"))
    return {"name": board.name, "created": board.created, "sha256": content, "rows": len(board.rows)}


def _carried(part: Part) -> Iterator[str]:
    """What a board said of its own rows before the statistics, which are made anew."""
    labels = [row.method for row in part.board.rows]
    for warning in part.board.warnings:
        if any(warning.startswith(f"{label}, seed") for label in labels):
            yield warning


@dataclass(frozen=True)
class Part:
    """A board that is merged: its rows' scores per example, and what it is called in messages."""

    board: Board
    scores: Scores
    name: str

    @property
    def published(self) -> bool:
        """Whether it holds nothing but printed numbers, which fit on any board and are never tested."""
        return all(row.kind == "published" for row in self.board.rows)

    @property
    def derived(self) -> set[str]:
        """Keys of the metrics over all its rows together, which scores per example do not give."""
        return {metric.key for metric in not_made_again(self.board, self.scores)}

    def rows(self) -> list[RowResult]:
        """Its rows before their statistics. A row's cost is only known as a mean over its seeds, and stays that."""
        found = []
        for entry in self.board.rows:
            cost = entry.cost
            mean = Cost(
                cost.seconds or 0.0,
                cost.tokens_trained or 0,  # type: ignore[arg-type]
                cost.tokens_generated or 0,  # type: ignore[arg-type]
                cost.judge_tokens or 0,  # type: ignore[arg-type]
                cost.usd,
            )
            row = replace(
                row_before_statistics(entry, self.scores),
                costs=dict.fromkeys(entry.seeds, mean),
                budget=entry.budget,
                provenance={**entry.provenance, "board": self.board.name},
                curves={int(seed): points for seed, points in entry.curves.items()},
            )
            found.append(row)
        return found


def read_part(path: Path) -> Part:
    """A board with its scores per example, or a published table.

    Raises:
        DataError: it cannot be read, or its scores are missing or not those it was written with.
    """
    if is_published_table(path):
        board = published_board(path)
        return Part(board, _printed(board), board.name)
    board = Board.read(path)
    if all(row.kind == "published" for row in board.rows):
        return Part(board, _printed(board), board.name)
    scores = board_scores(path)
    beside = (path if path.is_dir() else path.parent) / SCORES
    if (board.files or {}).get(SCORES) != digest(beside.read_bytes()):
        raise DataError(f"{beside} is not the file that its board.json was written with: `harness verify` says what is wrong")
    return Part(board, scores, str(path))


def _printed(board: Board) -> Scores:
    """Printed means as scores of one example, so that they go where scores go."""
    found: dict[str, dict[str, dict[int, list[Score]]]] = {}
    for row in board.rows:
        for key, score in row.scores.items():
            evaluator, _, metric = key.partition("/")
            runs = found.setdefault(row.method, {}).setdefault(evaluator, {0: []})
            runs[0].append(Score(REPORTED, metric, score.mean))
    return found


@dataclass(frozen=True)
class Existing:
    """A board that is there already; empty where there is none."""

    board: Board | None = None
    scores: Scores = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path | None) -> Existing:
        return cls() if folder is None else cls(Board.read(folder), board_scores(folder))

    @property
    def rows(self) -> list[RowResult]:
        return [row_before_statistics(entry, self.scores) for entry in self.board.rows] if self.board else []

    @property
    def mixed_judges(self) -> bool:
        return bool(self.board and (self.board.config.get("judge") or {}).get("allow_mixed_judges"))

    @property
    def derived(self) -> list[Derived]:
        """Metrics over all its rows together, which scores per example do not give."""
        if self.board is None:
            return []
        return [
            Derived(metric, {row.method: row.scores[metric.key] for row in self.board.rows if metric.key in row.scores})
            for metric in not_made_again(self.board, self.scores)
        ]

    @property
    def metrics(self) -> dict[str, list[Metric]]:
        """By evaluator; of those that are made from scores."""
        found: dict[str, list[Metric]] = {}
        over_rows = {item.metric.key for item in self.derived}
        for entry in self.board.metrics if self.board else ():
            evaluator, _, name = entry.key.partition("/")
            if entry.key not in over_rows:
                metric = Metric(name, entry.description, entry.higher_is_better, entry.primary)
                found.setdefault(evaluator, []).append(metric)
        return found

    def said(self) -> list[str]:
        """Its warnings but for those that comparing its rows gives, which are given again."""
        if self.board is None:
            return []
        again = build_board(
            name=self.board.name, description="", config={}, baseline=self.board.baseline, rows=self.rows,
            metrics=self.metrics, examples=(), sharing={}, created="", warnings=(), mixed_judges=self.mixed_judges,
        )  # fmt: skip
        return [text for text in self.board.warnings if text not in again.warnings]

    def with_costs(self, row: RowEntry) -> RowEntry:
        """A row with what its scores do not say: costs, budget and curves of before."""
        before = self.board.row(row.method) if self.board else None
        if before is None:
            return row
        kept = {"cost": before.cost, "budget": before.budget, "curves": before.curves, "seeds": before.seeds}
        return row.model_copy(update=kept if row.kind == before.kind else {})


def pooled_rows(parts: Sequence[Part], baseline: str) -> tuple[list[RowResult], list[str]]:
    """Rows of one recipe and label pooled over their seeds; of another recipe under a name with the board's.

    Raises:
        DataError: the baseline has other scores of one seed on two boards.
    """
    found: dict[str, tuple[RowResult, str]] = {}
    warnings: list[str] = []
    for part in parts:
        for row in part.rows():
            if part.published:  # many papers have a row called DPO, and none of them is this board's
                row = replace(row, label=f"{row.label} ({part.board.name})")
            if row.label not in found:
                found[row.label] = (row, part.name)
                continue
            kept, where = found[row.label]
            clash = _clash(kept, row)
            if clash is None:
                found[row.label] = (_pooled(kept, row), where)
                if set(kept.costs) ^ set(row.costs):
                    warnings.append(f"{row.label}: seeds of {where} and {part.name} are pooled.")
            elif row.label == baseline and row.kind != "published":
                raise DataError(f"the baseline {row.label!r} is not the same on {where} and {part.name}: {clash}")
            else:
                label = f"{row.label} ({part.board.name})"
                number = 2
                while label in found:
                    label, number = f"{row.label} ({part.board.name} {number})", number + 1
                found[label] = (replace(row, label=label), part.name)
                warnings.append(f"{row.label} of {part.name} stands as {label!r}: {clash}.")
    return [row for row, _ in found.values()], warnings


def _clash(one: RowResult, other: RowResult) -> str | None:
    """Why two rows of one label are not one row."""
    if one.kind != other.kind or recipe(one) != recipe(other):
        return "it was made in another way"
    if one.failed or other.failed:
        return "it failed on one of the boards"
    for evaluator in set(one.scores) & set(other.scores):
        for seed in set(one.scores[evaluator]) & set(other.scores[evaluator]):
            if sorted(map(_line, one.scores[evaluator][seed])) != sorted(map(_line, other.scores[evaluator][seed])):
                return f"seed {seed} has other scores of {evaluator}"
    return None


def _line(score: Score) -> tuple[Any, ...]:
    return score.example, score.metric, score.sample, score.value


def _pooled(one: RowResult, other: RowResult) -> RowResult:
    scores = {
        evaluator: {**other.scores.get(evaluator, {}), **one.scores.get(evaluator, {})}
        for evaluator in {**one.scores, **other.scores}
    }
    models = {**other.provenance.get("models", {}), **one.provenance.get("models", {})}
    return replace(
        one,
        scores=scores,
        costs={**other.costs, **one.costs},
        curves={**other.curves, **one.curves},
        provenance={**other.provenance, **one.provenance, **({"models": models} if models else {})},
    )


def recipe(row: RowResult | RowEntry | None) -> Any:
    """What a row was made by, whatever its seeds."""
    if row is None:
        return None
    kept = ("method", "model", "rounds", "seed_offset", "backend", "source", "table")
    return row.data, row.objective, row.rounds, {key: row.provenance[key] for key in kept if key in row.provenance}


def disagreements(first: Part, other: Part) -> Iterator[str]:
    """Why the numbers of two boards do not answer one question."""
    a, b = first.board, other.board
    if a.baseline != b.baseline:
        yield f"{other.name}: its baseline is {b.baseline!r}, that of {first.name} is {a.baseline!r}"
    else:
        one, two = (recipe(board.row(board.baseline)) for board in (a, b))
        if one != two:
            yield f"{other.name}: its baseline {b.baseline!r} was made in another way (see `provenance`)"
    for key in MUST_AGREE:
        if a.config.get(key) != b.config.get(key):
            yield f"{other.name}: {key} is {_short(b.config.get(key))}, in {first.name} {_short(a.config.get(key))}"
    models = [{str(_model(row)) for row in board.rows if _model(row)} for board in (a, b)]
    if models[0] and models[1] and models[0] != models[1]:
        yield f"{other.name}: the starting model is another one, by its provenance"
    asked = [{entry.get("name"): entry for entry in board.config.get("evaluators", ())} for board in (a, b)]
    for name in sorted(set(asked[0]) & set(asked[1])):
        if asked[0][name] != asked[1][name]:
            yield f"{other.name}: evaluator {name} has other fields than in {first.name}"
    judges = [_judge(board) for board in (a, b)]
    if judges[0] and judges[1] and judges[0] != judges[1]:
        yield f"{other.name}: the judge is {_short(judges[1])}, in {first.name} {_short(judges[0])}"
    directions = {metric.key: metric.higher_is_better for metric in a.metrics}
    for metric in b.metrics:
        if directions.get(metric.key, metric.higher_is_better) != metric.higher_is_better:
            yield f"{other.name}: {metric.key} does not point the same way as in {first.name}"
    prompts = [{example.id: example.prompt for example in board.example_rows} for board in (a, b)]
    if any(prompts[0][name] != prompts[1][name] for name in set(prompts[0]) & set(prompts[1])):
        yield f"{other.name}: examples of one id have other prompts than in {first.name}"


def caveats(parts: Sequence[Part]) -> Iterator[str]:
    """What does not forbid a merge, and a reader should know."""
    first = parts[0]
    for part in parts[1:]:
        for key in SHOULD_AGREE:
            if part.board.config.get(key) != first.board.config.get(key):
                said = (
                    f"{key} is {_short(part.board.config.get(key))} in {part.name}, {_short(first.board.config.get(key))} in "
                )
                yield f"{said}{first.name}: rows of the two had different settings."
        types = [board_precision(found.board) for found in (first, part)]
        if all(types) and types[0] != types[1]:
            yield f"{part.name}: {types[1]}; {first.name}: {types[0]}."
        versions = [found.board.sharing.get("versions") for found in (first, part)]
        if part.board.harness.get("version") != first.board.harness.get("version") or versions[0] != versions[1]:
            yield f"{part.name} and {first.name} were made with different versions of the harness or its libraries."


def _model(row: RowEntry) -> Any:
    return row.provenance.get("model") if row.kind != "published" else None


def _judge(board: Board) -> dict[str, Any] | None:
    judge = board.config.get("judge")
    if not isinstance(judge, Mapping):
        return None
    return {key: judge.get(key) for key in ("model", "name", "base_url", "temperature", "max_tokens", "seed")}


def _short(value: Any) -> str:
    return shortened(one_line(json.dumps(value, sort_keys=True, default=str)), 90)
