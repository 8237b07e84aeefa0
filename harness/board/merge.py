"""Merge boards: rows that answered the same prompts are compared again, paired, as if they had run together."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from harness.api.types import Metric, Score
from harness.board.board import Board, ExampleRow, RowEntry
from harness.board.build import LoadedBoard, build_board
from harness.board.compare import RowResult
from harness.board.declared import Declared
from harness.board.evidence import StagesEvidence
from harness.board.facts import MergedBoard, Provenance, SharingFacts
from harness.board.files import digest
from harness.board.learning import merged_states
from harness.board.sequential import PromptsDesign, SeedsDesign
from harness.board.views.markdown import board_precision
from harness.board.views.text import one_line, shortened
from harness.errors import DataError

MUST_AGREE = ("model", "sft", "source", "evaluation", "generation")  # else the numbers are not of the same question
SHOULD_AGREE = ("budget", "training")


def merge(boards: Sequence[LoadedBoard], *, name: str, created: str) -> Board:
    """Return one board with the rows of all, the baseline's seeds pooled, every difference and family of tests computed anew.

    Raises:
        DataError: the boards differ in what makes their numbers comparable; the message names all of it.
    """
    measured = [loaded for loaded in boards if not loaded.board.is_published]
    if not measured:
        if len(boards) == 1:
            return boards[0].board
        raise DataError("published tables alone are never one comparison: give one of them, or a measured board too")
    first, printed = measured[0], [loaded for loaded in boards if loaded.board.is_published]
    metrics = _metrics(measured)
    _check_comparable(measured, printed, metrics)
    rows, warnings = pooled_rows([*measured, *printed], first.board.baseline)
    over_rows = sorted({key for loaded in measured for key in _over_rows(loaded)})
    if over_rows:
        warnings.append(f"Left out, since they are computed over all rows of one board: {', '.join(over_rows)}.")
    board = build_board(
        name=name,
        description=f"Merged from {', '.join(loaded.board.name for loaded in boards)}. {first.board.description}",
        config=_config(measured, name),
        baseline=first.board.baseline,
        rows=rows,
        metrics=metrics,
        examples=_examples(measured, rows),
        sharing=SharingFacts(merged=[_merged_board(loaded.board) for loaded in boards]),
        created=created,
        warnings=[
            *warnings,
            *caveats(measured),
            *dict.fromkeys(text for loaded in measured for text in _warnings_about_seeds(loaded)),
        ],
        mixed_judges=all(loaded.board.mixed_judges for loaded in measured),
        prompts=_prompts(measured),
    )
    return board.sealed([run for loaded in measured for run in _runs(loaded, rows)])


def _runs(loaded: LoadedBoard, rows: Sequence[RowResult]) -> Iterator[StagesEvidence]:
    """Yield the evidence of a board's stages, with the labels that its rows have on the merged board."""
    renamed = {row.label: row.label for row in loaded.rows}
    for row in rows:
        label = row.label.partition(f" ({loaded.board.name}")[0]
        if label != row.label and label in renamed and row.provenance.board == loaded.board.name:
            renamed[label] = row.label
    evidence = loaded.board.evidence
    for run in evidence.runs if evidence else ():
        plans = [plan.model_copy(update={"row": None if plan.row is None else renamed.get(plan.row)}) for plan in run.plans]
        yield run.model_copy(update={"plans": tuple(plans)})


def _prompts(measured: Sequence[LoadedBoard]) -> PromptsDesign | None:
    """Return the blocks of prompts that rows of all boards got one after another, up to the last one that any row has."""
    designs = [design for loaded in measured if (design := PromptsDesign.of(loaded.board.statistics.sequential_prompts))]
    if len(designs) < len(measured):
        return None
    return replace(
        max(designs, key=lambda design: len(design.blocks)),
        evaluators=frozenset().union(*(design.evaluators for design in designs)),
    )


def _over_rows(loaded: LoadedBoard) -> set[str]:
    """Return the keys of metrics that are computed over all rows of one board together, such as strengths."""
    fitted = {metric.key for metric in loaded.board.metrics if metric.fit == "rows"}
    return fitted | {item.metric.key for item in loaded.derived}


def _without_fits_over_rows(row: RowResult, loaded: LoadedBoard) -> RowResult:
    """Return a row without the scores that another board's fit would give otherwise."""
    left_out = _over_rows(loaded)
    scores = {
        evaluator: {
            seed: [score for score in run if f"{evaluator}/{score.metric}" not in left_out] for seed, run in runs.items()
        }
        for evaluator, runs in row.scores.items()
    }
    return replace(row, scores=scores)


def _check_comparable(
    measured: Sequence[LoadedBoard], printed: Sequence[LoadedBoard], metrics: Mapping[str, Sequence[Metric]]
) -> None:
    """Refuse measured boards that are not one comparison, and published tables that share no metric with them."""
    first = measured[0]
    problems = [problem for loaded in measured[1:] for problem in disagreements(first, loaded)]
    if problems:
        raise DataError("these boards are not one comparison:\n" + "\n".join(f"  - {problem}" for problem in problems))
    shown = {f"{evaluator}/{metric.name}" for evaluator, listed in metrics.items() for metric in listed}
    for loaded in printed:
        if not shown & {metric.key for metric in loaded.board.metrics}:
            raise DataError(f"{loaded.name} has no metric of {first.name}: there is nothing to show side by side")


def _config(measured: Sequence[LoadedBoard], name: str) -> dict[str, object]:
    """Return the first board's config with the methods of all."""
    config: dict[str, object] = {**measured[0].board.config, "name": name}
    if all("methods" in loaded.board.config for loaded in measured):
        config["methods"] = [entry for loaded in measured for entry in loaded.board.config["methods"]]
    if any(SeedsDesign.of(loaded.board.config) != SeedsDesign.of(config) for loaded in measured):
        # p-values of looks hold only where all rows were looked at by one rule.
        config["seeds"] = sorted({seed for loaded in measured for row in loaded.board.rows for seed in row.seeds})
    return config


def _metrics(boards: Sequence[LoadedBoard]) -> dict[str, list[Metric]]:
    """Return by evaluator the metrics with scores per example; the first board's order and choice of primary ones."""
    merged: dict[str, list[Metric]] = {}
    for loaded in boards:
        for evaluator, metrics in loaded.metrics.items():
            listed = merged.setdefault(evaluator, [])
            known = {metric.name: place for place, metric in enumerate(listed)}
            listed += [metric for metric in metrics if metric.name not in known and metric.fit != "rows"]
            for metric in metrics:  # boards of earlier versions state no bounds
                if metric.name in known and listed[known[metric.name]].bounds == (None, None):
                    listed[known[metric.name]] = replace(listed[known[metric.name]], bounds=metric.bounds)
    return merged


def _examples(boards: Sequence[LoadedBoard], rows: Sequence[RowResult]) -> list[ExampleRow]:
    """Return the examples by id; a renamed row's answers, and judges' words on them, stand under its new name."""
    merged: dict[str, ExampleRow] = {}
    labels = {row.label for row in rows}
    for loaded in boards:
        for example in loaded.board.example_rows:
            old = merged.get(example.id)
            answers: dict[str, str] = dict(old.answers) if old else {}
            judged = dict(old.judged) if old else {}
            for label, text in example.answers.items():
                renamed = f"{label} ({loaded.board.name})"
                name = renamed if label in answers and renamed in labels else label
                if name not in answers:
                    answers[name] = text
                    judged |= {name: example.judged[label]} if label in example.judged else {}
            merged[example.id] = replace(old or example, answers=answers, judged=judged)
    return list(merged.values())


def _merged_board(board: Board) -> MergedBoard:
    content = digest(board.to_json().encode("utf-8"))
    return MergedBoard(name=board.name, created=board.created, sha256=content, rows=len(board.rows))


def _warnings_about_seeds(loaded: LoadedBoard) -> Iterator[str]:
    """Yield a board's warnings about single seeds of its rows, which comparing the rows again does not give."""
    labels = [row.method for row in loaded.board.rows]
    for warning in loaded.board.warnings:
        if any(warning.startswith(f"{label}, seed") for label in labels):
            yield warning


def pooled_rows(boards: Sequence[LoadedBoard], baseline: str) -> tuple[list[RowResult], list[str]]:
    """Return rows of one recipe and label pooled over their seeds; of another recipe under a name with the board's.

    Raises:
        DataError: the baseline has other scores of one seed on two boards.
    """
    pooled: dict[str, tuple[RowResult, str]] = {}
    warnings: list[str] = []
    for loaded in boards:
        for row in loaded.rows:
            row = _without_fits_over_rows(row, loaded)
            row = replace(row, provenance=_updated(row.provenance, board=loaded.board.name))
            if loaded.board.is_published:  # many papers have a row called DPO, and none of them is this board's
                row = replace(row, label=f"{row.label} ({loaded.board.name})")
            if row.label not in pooled:
                pooled[row.label] = (row, loaded.name)
                continue
            kept, origin = pooled[row.label]
            clash = _clash(kept, row, added=loaded.board.statistics.sequential_prompts is not None)
            if clash is None:
                pooled[row.label] = (_pooled(kept, row), origin)
                if set(kept.costs) ^ set(row.costs):
                    warnings.append(f"{row.label}: seeds of {origin} and {loaded.name} are pooled.")
            elif row.label == baseline and not row.is_published:
                raise DataError(f"the baseline {row.label!r} is not the same on {origin} and {loaded.name}: {clash}")
            else:
                label = f"{row.label} ({loaded.board.name})"
                number = 2
                while label in pooled:
                    label, number = f"{row.label} ({loaded.board.name} {number})", number + 1
                pooled[label] = (replace(row, label=label), loaded.name)
                warnings.append(f"{row.label} of {loaded.name} stands as {label!r}: {clash}.")
    return [row for row, _ in pooled.values()], warnings


def _clash(one: RowResult, other: RowResult, *, added: bool) -> str | None:
    """Return why two rows of one label are not one row; None where they are.

    Args:
        added: prompts were added to rows, so that one of the two may have fewer of them.
    """
    if one.kind != other.kind or recipe(one) != recipe(other):
        return "it was made in another way"
    if one.failed or other.failed:
        return "it failed on one of the boards"
    for evaluator in set(one.scores) & set(other.scores):
        for seed in set(one.scores[evaluator]) & set(other.scores[evaluator]):
            lines = [sorted(map(_line, row.scores[evaluator][seed])) for row in (one, other)]
            if added:
                both = set.intersection(*({line[0] for line in listed} for listed in lines))
                lines = [[line for line in listed if line[0] in both] for listed in lines]
            if lines[0] != lines[1]:
                return f"seed {seed} has other scores of {evaluator}"
    return None


def _line(score: Score) -> tuple[str, str, int, float]:
    return score.example, score.metric, score.sample, score.value


def _updated(provenance: Provenance, **facts: object) -> Provenance:
    return Provenance.read({**provenance, **facts})


def _pooled(one: RowResult, other: RowResult) -> RowResult:
    scores: dict[str, dict[int, Sequence[Score]]] = {}
    for row in (other, one):
        for evaluator, runs in row.scores.items():
            kept = scores.setdefault(evaluator, {})
            for seed, listed in runs.items():  # of one that both have, that with more prompts
                kept[seed] = max(listed, kept.get(seed, ()), key=len)
    models = {**other.provenance.models, **one.provenance.models}
    return replace(
        one,
        scores=scores,
        costs={**other.costs, **one.costs},
        curves={**other.curves, **one.curves},
        states=merged_states(one.states, other.states),
        provenance=_updated(other.provenance, **{**one.provenance, **({"models": models} if models else {})}),
    )


def recipe(row: RowResult | RowEntry | None) -> object:
    """Return what makes two rows one method, whatever their seeds: data, objective, rounds and recorded facts."""
    if row is None:
        return None
    kept = ("method", "model", "rounds", "seed_offset", "backend", "checkpoint", "served", "source", "table")
    return row.data, row.objective, row.rounds, {key: row.provenance[key] for key in kept if key in row.provenance}


def _evaluators(board: Board) -> dict[str, Any]:
    """Return the evaluators of a board's config, by label."""
    return {entry.get("label") or entry.get("name"): entry for entry in board.config.get("evaluators", ())}


def disagreements(first: LoadedBoard, other: LoadedBoard) -> Iterator[str]:
    """Yield the reasons why two boards are not one comparison, a sentence each."""
    a, b = first.board, other.board
    if a.baseline != b.baseline:
        yield f"{other.name}: its baseline is {b.baseline!r}, that of {first.name} is {a.baseline!r}"
    else:
        one, two = (recipe(board.row(board.baseline)) for board in (a, b))
        if one != two:
            yield f"{other.name}: its baseline {b.baseline!r} was made in another way (see `provenance`)"
    for key in MUST_AGREE:
        if _compared(a.config.get(key)) != _compared(b.config.get(key)):
            yield f"{other.name}: {key} is {_short(b.config.get(key))}, in {first.name} {_short(a.config.get(key))}"
    models = [{model for row in board.rows if (model := _model(row))} for board in (a, b)]
    if models[0] and models[1] and models[0] != models[1]:
        yield f"{other.name}: the starting model is another one, by its provenance"
    asked = [_evaluators(board) for board in (a, b)]
    for name in sorted(set(asked[0]) & set(asked[1])):
        if asked[0][name] != asked[1][name]:
            yield f"{other.name}: evaluator {name} has other fields than in {first.name}"
    judges = [_judge(board) for board in (a, b)]
    if judges[0] and judges[1] and judges[0] != judges[1]:
        yield f"{other.name}: the judge is {_short(judges[1])}, in {first.name} {_short(judges[0])}"
    added = [loaded.board.statistics.sequential_prompts for loaded in (first, other)]
    if all(added) and any(one != two for one, two in zip(*(entry.blocks for entry in added if entry), strict=False)):
        yield f"{other.name}: its prompts were added in other blocks than those of {first.name}"
    known = {metric.key: metric for metric in a.metrics}
    for metric in b.metrics:
        before = known.get(metric.key, metric)
        if before.higher_is_better != metric.higher_is_better:
            yield f"{other.name}: {metric.key} does not point the same way as in {first.name}"
        if metric.bounds and before.bounds and metric.bounds != before.bounds:
            bounds = [_short(entry.bounds) for entry in (metric, before)]
            yield f"{other.name}: {metric.key} is bounded by {bounds[0]}, in {first.name} by {bounds[1]}"
        if before.fit != metric.fit and "rows" not in (before.fit, metric.fit):  # those of all rows are left out
            old, new = (other.name, first.name) if metric.fit is None else (first.name, other.name)
            yield f"{old}: its scores of {metric.key} are no pseudo-values, those of {new} are: make {old} again"
    prompts = [{example.id: example.prompt for example in board.example_rows} for board in (a, b)]
    if any(prompts[0][name] != prompts[1][name] for name in set(prompts[0]) & set(prompts[1])):
        yield f"{other.name}: examples of one id have other prompts than in {first.name}"


def _compared(section: object) -> object:
    """Return a section of a config without what adds to a board and changes none of its scores."""
    if not isinstance(section, Mapping):
        return section
    return {name: value for name, value in section.items() if name not in ("during", "during_evaluators")}


def caveats(boards: Sequence[LoadedBoard]) -> Iterator[str]:
    """Yield warnings about differences between the boards that do not forbid a merge."""
    first = boards[0]
    designs = [SeedsDesign.of(loaded.board.config) for loaded in boards]
    if any(designs) and len(set(designs)) > 1:
        names = ", ".join(loaded.name for loaded, design in zip(boards, designs, strict=True) if design)
        yield f"{names}: seeds were added where they decide, and these tests take their number as given: p is too small."
    for loaded in boards[1:]:
        for key in SHOULD_AGREE:
            if loaded.board.config.get(key) != first.board.config.get(key):
                value, other = (_short(item.board.config.get(key)) for item in (loaded, first))
                yield f"{key} is {value} in {loaded.name}, {other} in {first.name}: rows of the two had different settings."
        if Declared.of(loaded.board.config) != Declared.of(first.board.config):
            value, other = (_short(item.board.config.get("statistics")) for item in (loaded, first))
            yield f"statistics is {value} in {loaded.name}, {other} in {first.name}: its families and margins hold."
        types = [board_precision(item.board) for item in (first, loaded)]
        if all(types) and types[0] != types[1]:
            yield f"{loaded.name}: {types[1]}; {first.name}: {types[0]}."
        versions = [item.board.sharing.versions for item in (first, loaded)]
        if loaded.board.harness.get("version") != first.board.harness.get("version") or versions[0] != versions[1]:
            yield f"{loaded.name} and {first.name} were made with different versions of the harness or its libraries."


def _model(row: RowEntry) -> str:
    """Return the starting model of a row that was measured, as text to compare; empty where it is not known."""
    model = row.provenance.model
    return "" if row.is_published or not model else json.dumps(model.model_dump(mode="json"), sort_keys=True)


def _judge(board: Board) -> dict[str, object] | None:
    judge = board.config.get("judge")
    if not isinstance(judge, Mapping):
        return None
    return {key: judge.get(key) for key in ("model", "name", "base_url", "temperature", "max_tokens", "seed")}


def _short(value: object) -> str:
    return shortened(one_line(json.dumps(value, sort_keys=True, default=str)), 90)
