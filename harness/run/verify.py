"""Verify a whole board: its statistics from its scores, and its scores, costs, curves and facts from its stages' manifests.

The first is `harness.board.verify.check`. The second is here, and no file of a store is needed for it: a stage's manifest has
the SHA-256 of each file that it made, and those of scores and training logs are written again from what the board shows.
Nothing is trained, no model is loaded and no plugin of the board is looked up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

from harness.api.types import Score
from harness.board.board import Board, board_scores, board_states
from harness.board.build import mean_cost, thinned
from harness.board.entries import CostEntry, RowEntry
from harness.board.evidence import Evidence, PlanEvidence, StageEvidence
from harness.board.facts import Provenance
from harness.board.files import Scores, States
from harness.board.verify import Verification, check, differ
from harness.errors import HarnessError
from harness.run.costs import measure_sharing
from harness.run.evidence import HISTORY, SCORE_LINES, RecordedRun, hash_of_lines, hash_of_scores
from harness.run.graph import SERVED
from harness.run.results import MeasuredFacts

FROM_STAGES = frozenset({"models", "judges", "notes", "data"})  # of a row's provenance


def verification(path: Path) -> Verification:
    """Verify a board with everything that lies beside it.

    Raises:
        DataError: the board or its scores cannot be read.
    """
    checked = check(path)
    board = Board.read(path)
    if checked.differences and not checked.root:  # its evidence is none
        return checked
    evidence = board.evidence
    if evidence is None or board.is_published:
        return checked
    try:
        runs = [RecordedRun.of(run) for run in evidence.runs]
        differences = [problem for run in runs for problem in _of_stages(run)]
        differences += _of_scores(board, board_scores(path), board_states(path), runs)
        differences += [problem for row in board.rows for problem in _of_row(row, runs)]
        differences += _of_sharing(board, evidence, runs)
    except (HarnessError, ArithmeticError, LookupError, ValueError, TypeError, AttributeError, RecursionError) as error:
        # Evidence is a stranger's: a manifest that is none must not end the verification.
        differences = [f"the stages of the evidence cannot be read: {error}"]
    return checked.with_more(differences, _without_stages(board, runs if not differences else []), _beyond(evidence))


def _of_stages(run: RecordedRun) -> Iterator[str]:
    """Yield the stages whose key is not that of what they were asked, or whose log is not the file that they made."""
    for key in run.wrong_keys():
        yield f"stage {_title(run, key)}: its key is not the hash of its payload and inputs"
    for key, stage in run.evidence.stages.items():
        if stage.history is not None and hash_of_lines(stage.history) != stage.files.get(HISTORY):
            yield f"stage {_title(run, key)}: its training log is not the file that its manifest names"


def _title(run: RecordedRun, key: str) -> str:
    title = run.evidence.stages[key].title if key in run.evidence.stages else ""
    return f"{title or 'without a title'} ({key})"


def _of_scores(board: Board, scores: Scores, states: States, runs: Sequence[RecordedRun]) -> Iterator[str]:
    """Yield the evaluations whose scores on the board are not the file that their manifest names."""
    fitted = {metric.key for metric in board.metrics if metric.fit == "rows"}  # added after the evaluation
    shown = {row.method for row in board.rows if row.failed is None}
    for run in runs:
        for plan in run.evidence.plans:
            if plan.row not in shown:
                continue
            of_row = scores.get(plan.row, {})
            for name, keys in plan.evaluations.items():
                listed = [score for score in of_row.get(name, {}).get(plan.seed, ()) if f"{name}/{score.metric}" not in fitted]
                yield from _evaluation(run, f"{plan.row}, seed {plan.seed}, {name}", keys, listed, bool(of_row.get(name)))
            for _, _, _, position, evaluations in plan.states:
                of_state = states.get(position, {}).get(plan.row, {})
                for name, key in evaluations.items():
                    where = f"{plan.row}, seed {plan.seed}, {name} at {position:.4g}"
                    yield from _evaluation(
                        run, where, [key], of_state.get(name, {}).get(plan.seed, ()), bool(of_state.get(name))
                    )


def _evaluation(run: RecordedRun, where: str, keys: Sequence[str], scores: Sequence[Score], has_scores: bool) -> Iterator[str]:
    """Yield whether an evaluation's scores, over all its blocks of prompts, are those of its manifests.

    Args:
        has_scores: the row has scores of this evaluator at any seed; it has none where one seed's evaluation failed.
    """
    stages = [run.evidence.stages.get(key) for key in keys]
    if not has_scores and any(stage is None or not stage.manifest for stage in stages):
        return
    first = 0
    for key, stage in zip(keys, stages, strict=True):
        if stage is None or SCORE_LINES not in stage.files:
            yield f"{where}: the evidence has no manifest of the stage that gave these scores"
            return
        if stage.scores is None:
            return  # its file mixes integers and other numbers: it cannot be written again
        part = scores[first : first + stage.scores]
        first += stage.scores
        if hash_of_scores(part, stage.integers) != stage.files[SCORE_LINES]:
            yield f"{where}: the scores are not those that stage {_title(run, key)} gave"


def _of_row(row: RowEntry, runs: Sequence[RecordedRun]) -> Iterator[str]:
    """Yield what differs between a row and what its stages' manifests give: costs, budget, curves, and facts of its data."""
    own = [[result for result in run.seeds if result.plan.label == row.method] for run in runs]
    seeds = [listed for listed in own if listed]
    if row.failed is not None or not seeds:
        return
    facts = [MeasuredFacts.of(listed, trained=not row.is_as_it_is) for listed in reversed(seeds)]
    # A merged row has each board's mean cost at its seeds, and what the first board says of it.
    costs = [(mean_cost(each.costs), seed) for each in facts for seed in each.costs]
    yield from differ(
        row.cost.model_dump(mode="json"),
        mean_cost(facts[-1].costs).model_dump(mode="json") if len(facts) == 1 else _pooled(costs),
        f"{row.method}: cost ",
        "the stages give",
    )
    yield from differ(dict(row.budget), facts[-1].budget, f"{row.method}: budget ", "the stages give")
    curves = {str(seed): thinned(points) for each in facts for seed, points in each.curves.items()}
    yield from differ(row.curves, curves, f"{row.method}: curves ", "the stages give")
    shown = row.provenance.model_dump(mode="json")
    given = Provenance.read(facts[-1].provenance).model_dump(mode="json")
    given["models"] = {seed: model for each in facts for seed, model in each.provenance["models"].items()}
    yield from differ(
        {name: value for name, value in shown.items() if name in FROM_STAGES},
        given,
        f"{row.method}: provenance ",
        "the stages give",
    )
    yield from _of_components(row, chain.from_iterable(run.evidence.plans for run in runs), runs)


def _pooled(costs: Sequence[tuple[CostEntry, int]]) -> dict[str, float]:
    """Return the mean over seeds of the mean costs that boards had; the first board's where two have a seed."""
    by_seed = {seed: cost.model_dump(mode="json") for cost, seed in costs}
    names = {name for cost in by_seed.values() for name in cost}
    return {name: sum(cost.get(name, 0.0) for cost in by_seed.values()) / len(by_seed) for name in names}


def _of_components(row: RowEntry, plans: Iterator[PlanEvidence], runs: Sequence[RecordedRun]) -> Iterator[str]:
    """Yield the rounds whose data builder or objective is not the one that the stages were asked for."""
    stages: dict[str, StageEvidence] = {key: stage for run in runs for key, stage in run.evidence.stages.items()}
    for plan in plans:
        if plan.row != row.method:
            continue
        for number, round_ in enumerate(row.provenance.rounds):
            for what, keys, field in (("data", plan.groups, "builder"), ("objective", plan.training, "objective")):
                component = round_.data if what == "data" else round_.objective
                stage = stages.get(keys[number]) if number < len(keys) else None
                asked = (stage.payload or {}).get(field) if stage else None
                if component is None or stage is None or len(keys) != len(row.provenance.rounds):
                    continue
                shown = component.model_dump(mode="json")
                if isinstance(asked, dict):
                    yield from differ(shown, asked, f"{row.method}: round {number + 1} {what} ", "its stage was asked for")


def _of_sharing(board: Board, evidence: Evidence, runs: Sequence[RecordedRun]) -> Iterator[str]:
    """Yield what differs in the counts and seconds that rows shared, on a board that one run wrote."""
    if len(runs) != 1 or board.sharing.merged or board.sharing.stages_requested is None:
        return
    given = measure_sharing(runs[0].with_trials, runs[0].store, runs[0].ran).as_dict()
    shown = board.sharing.model_dump(mode="json")
    yield from differ(
        {name: value for name, value in shown.items() if name in given}, _plain(given), "sharing ", "the stages give"
    )


def _plain(value: Any) -> Any:
    """Return nested values with lists in the place of tuples, as JSON holds them."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _without_stages(board: Board, runs: Sequence[RecordedRun]) -> Iterator[str]:
    """Yield the rows that were measured here and of which the evidence has no stages."""
    planned = {row.label for run in runs for row in run.graph.rows}
    bare = [row.method for row in board.rows if row.is_evaluated_here and row.failed is None and row.method not in planned]
    if bare:
        yield (f"{', '.join(bare)}: no manifests of stages, so scores, costs, budget, curves and provenance are as written.")


def _beyond(evidence: Evidence) -> Iterator[str]:
    """Yield the evidence that no computation repeats: verdicts, answers of served models, and scores of trials."""
    stages = [stage for run in evidence.runs for stage in run.stages.values() if stage.payload]
    judged = sum("judge" in (stage.payload or {}) for stage in stages)
    served = sum(any(key.startswith(SERVED) for key in stage.inputs.values()) for stage in stages)
    trials = sum(plan.row is None for run in evidence.runs for plan in run.plans)
    if judged:
        yield f"{judged} stages hold a judge's verdicts, which no second run repeats."
    if served:
        yield f"{served} stages hold answers of a model that a server has."
    if trials:
        yield f"{trials} trials of settings: their scores are as written; their stages are in the evidence."
