"""Verify a board: build it again from its scores and its evidence, and name every place where the two differ.

Nobody has to be trusted for what is computed: means, intervals, tests, ranks, learning curves, warnings, the order of rows.
The rest, such as a config or a model's hash, is held against the hashes in the evidence (`harness.board.evidence`), and what
follows from the stages' manifests is computed from these by `harness.run.verify`, which begins here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from math import isclose
from pathlib import Path
from typing import Any

from harness.api.types import Metric
from harness.board.across import compare_models, join_models
from harness.board.analysis import analyse
from harness.board.board import Board, board_scores, board_states
from harness.board.build import LoadedBoard, build_board, ordered, row_entry
from harness.board.compare import RowResult, Statistics
from harness.board.declared import Declared
from harness.board.entries import COMPUTED_AGAIN, METHODS, MetricEntry
from harness.board.evidence import BuildRecord, Evidence, hash_of, merkle_root, written_parts
from harness.board.files import EVIDENCE, SCORES, STATES, Scores, States, digest
from harness.board.learning import learning_curves
from harness.board.sequential import PromptsDesign, design_of
from harness.board.tuning import tuning_problems
from harness.board.views.text import plain
from harness.errors import DataError

SAME_IN_ALL_METHODS = {"mean", "n", "per_seed", "seeds", "higher_is_better"}
EARLIER = (
    "Its intervals and tests come from an earlier version of the statistics and were not computed again; "
    "means, counts and files were."
)
RELATIVE, ABSOLUTE = 1e-6, 1e-9  # matrix products differ in their last digits between machines
LONGEST = 200  # characters of a value in a sentence
NO_EVIDENCE = (
    f"{EVIDENCE}: the board has none, so only its statistics were computed again. Name, description, date, version, config, "
    "sharing, the run's warnings, and each row's data, objective, rounds, seeds, costs, budget, provenance and curves are as "
    "written."
)
TOLERANCE = f"changes of a computed number by less than {RELATIVE:g} of it, or {ABSOLUTE:g}"  # all that is not noticed


class VerifyOutcome(StrEnum):
    """The three ways in which a verification ends."""

    verified = "verified"
    partial = "holds as far as there is evidence"
    differs = "does not hold"


@dataclass(frozen=True)
class Verification:
    """The result of verifying a board.

    Attributes:
        differences: places where the board is not what its evidence gives, a sentence each.
        missing: evidence that the board lacks, with what is therefore only as written.
        outside: row -> why it is not rebuilt: its numbers are another tool's, or a paper's.
        beyond: evidence that is there and that nobody can compute again, such as judges' verdicts.
        root: of the evidence's Merkle tree; "" without evidence.
    """

    differences: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    outside: tuple[tuple[str, str], ...] = ()
    beyond: tuple[str, ...] = ()
    root: str = ""

    def outcome(self, *, accept_outside: bool = False) -> VerifyOutcome:
        """Return the outcome.

        Args:
            accept_outside: rows of kind published or imported do not keep the others from being verified.
        """
        if self.differences:
            return VerifyOutcome.differs
        return VerifyOutcome.partial if self.missing or (self.outside and not accept_outside) else VerifyOutcome.verified

    def with_more(
        self, differences: Iterable[str] = (), missing: Iterable[str] = (), beyond: Iterable[str] = ()
    ) -> Verification:
        """Return it with what another check gave."""
        return replace(
            self,
            differences=(*self.differences, *differences),
            missing=(*self.missing, *missing),
            beyond=(*self.beyond, *beyond),
        )


def verify(path: Path) -> list[str]:
    """Return everything about a board that does not hold, a sentence each; nothing where it holds as far as it has evidence.

    Raises:
        DataError: the board or its scores cannot be read.
    """
    return list(check(path).differences)


def check(path: Path) -> Verification:
    """Build a board again from the files beside it, all but what follows from the manifests of stages.

    A board without evidence, as version 0.1.0 wrote it, is checked as far as its scores go; one that was made with earlier
    statistics as far as all versions compute alike.

    Raises:
        DataError: the board or its scores cannot be read.
    """
    folder = path if path.is_dir() else path.parent
    board = Board.read(path)
    try:
        evidence = board.evidence
    except DataError as error:
        return Verification(differences=(str(error),))
    named = {EVIDENCE} & set(board.files or {})
    if board.is_published:  # printed numbers: there is nothing to compute again
        problems = [*_files(board, folder, {board.examples, *({SCORES} & set(board.files or {})), *named}), *_order(board)]
        problems += _computed_of_published(board)
        return Verification(
            differences=(*problems, *(_unwritten(board, evidence) if evidence else ())),
            outside=tuple(_outside(board)),
            root=evidence.root if evidence else "",
        )
    scores = board_scores(path)
    states = board_states(path)
    with_curves = any(row.states for row in board.rows)
    problems = list(_files(board, folder, {board.examples, SCORES, *([STATES] if with_curves else []), *named}))
    unknown = sorted(set(scores) - {row.method for row in board.rows})
    problems += [f"{SCORES} has scores of {label!r}, which is no row of the board" for label in unknown]
    missing = list[str]()
    if evidence is None:
        missing.append(NO_EVIDENCE)
    if earlier := earlier_methods(board):
        missing.append(earlier)
    if unscored := [metric.key for metric in board.unscored_metrics(scores)]:
        missing.append(f"{', '.join(unscored)}: no scores per example, so the numbers are as written.")
    if evidence is not None:
        problems += _unwritten(board, evidence)
        problems += [
            f"{key} is on the board, and its scores do not give it"
            for key in unscored
            if not any(key in build.derived for build in evidence.builds.values())
        ]
    if evidence is not None and board.methods == METHODS:
        problems += _not_rebuilt(board, scores, states, evidence)
    else:
        problems += [*_statistics(board, scores, states), *_order(board)]
    problems += [problem for row in board.rows for problem in tuning_problems(row)]
    return Verification(
        tuple(dict.fromkeys(problems)), tuple(missing), tuple(_outside(board)), root=evidence.root if evidence else ""
    )


def _outside(board: Board) -> Iterator[tuple[str, str]]:
    """Yield the rows whose numbers were not made here, with where they are from."""
    for row in board.rows:
        tools = ", ".join(dict.fromkeys(read.tool for read in row.provenance.imported))
        if row.is_published:
            source = row.provenance.source or tools or "elsewhere"
            yield row.method, f"published numbers ({source}), without scores per example: as written"
        elif row.is_imported:
            source = tools or "another tool"
            yield row.method, f"imported from {source}: statistics computed again, scores as the tool gave them"


def _computed_of_published(board: Board) -> Iterator[str]:
    """Yield the rows of printed numbers that have what only values per example give."""
    for row in board.rows:
        for key, score in row.scores.items() if row.is_published else ():
            if score.low is not None or score.high is not None or score.delta is not None:
                yield f"{row.method}: {key} has an interval or a difference, and published numbers have none"
                break


def _unwritten(board: Board, evidence: Evidence) -> Iterator[str]:
    """Yield the parts of a board that nothing computes and that are not those which the evidence was written for."""
    if merkle_root(evidence.leaves) != evidence.root:
        yield f"{EVIDENCE}: its root is not that of its parts and stages"
    shown = {part: hash_of(value) for part, value in written_parts(board)}
    lost = {part for part in evidence.written if part not in shown}
    new = {part for part in shown if part not in evidence.written}
    for part in sorted(lost):
        if not any(part.startswith(f"{other} ") for other in lost):  # a row once, not each of its parts
            yield f"{part} is in the evidence, and not on the board"
    for part in sorted(new):
        if not any(part.startswith(f"{other} ") for other in new):
            yield f"{part} is on the board, and not in the evidence"
    for part in sorted(shown.keys() & evidence.written.keys()):
        if shown[part] != evidence.written[part]:
            yield f"{part} is not what the evidence was written for"


def _not_rebuilt(board: Board, scores: Scores, states: States, evidence: Evidence) -> list[str]:
    """Build the board again from its evidence, and return where it differs."""
    try:
        again = _rebuilt(board, scores, states, evidence)
    except DataError as error:
        return [f"the board cannot be built again: {error}"]
    problems = []
    if _labels(board) != _labels(again):
        problems.append(f"rows: their order is {_labels(board)}; the scores give {_labels(again)}")
    computed, shown = ({**each.model_dump(mode="json", by_alias=True), "files": {}} for each in (again, board))
    for content in (shown, computed):
        content["rows"] = {row["method"]: row for row in content["rows"]}  # each with its own, whatever the order
    return problems + differ(shown, computed, "")


def _labels(board: Board) -> str:
    return ", ".join(row.method for row in board.rows)


def _rebuilt(board: Board, scores: Scores, states: States, evidence: Evidence) -> Board:
    """Return the board that the scores, the evidence and the written parts of a board give.

    Raises:
        DataError: they give none.
    """
    if not board.models:
        if set(evidence.builds) != {""}:
            raise DataError(f"{EVIDENCE} is of several starting models, and the board has one")
        return _built(board, scores, states, evidence.builds[""])[0]
    boards, rows = dict[str, Board](), dict[str, Sequence[RowResult]]()
    for label, of_model in board.by_model.items():
        if label not in evidence.builds:
            raise DataError(f"{EVIDENCE} has nothing of the starting model {label!r}")
        own = board.scores_of(label, scores), board.states_of(label, states)
        boards[label], rows[label] = _built(of_model, *own, evidence.builds[label])
    joined = join_models(boards, rows, board.sharing)
    return joined.model_copy(update={"warnings": (*evidence.left_out, *joined.warnings)})


def _built(board: Board, scores: Scores, states: States, build: BuildRecord) -> tuple[Board, Sequence[RowResult]]:
    """Call `build_board` with the rows of a board of one starting model, in the order in which they were first given."""
    loaded = LoadedBoard(board, scores, board.name, states)
    by_label = {row.label: row for row in loaded.rows}
    rows = [_with_empty(by_label[label], build) for label in _in_order(by_label, build.order)]
    known = {f"{name}/{metric.name}": (name, metric) for name, listed in loaded.metrics.items() for metric in listed}
    metrics: dict[str, list[Metric]] = {}
    for key in _in_order(known, build.metrics):
        metrics.setdefault(known[key][0], []).append(known[key][1])
    looks = board.statistics.sequential
    trained = (looks.trainings, looks.trainings_fixed) if looks else (None, None)
    again = build_board(
        name=board.name,
        description=board.description,
        config=board.config,
        baseline=board.baseline,
        rows=rows,
        metrics=metrics,
        examples=(),
        sharing=board.sharing,
        created=board.created,
        warnings=build.warnings,
        mixed_judges=build.mixed_judges,
        derived=loaded.derived,
        judges=board.statistics.judges or (),
        prompts=PromptsDesign.of(board.statistics.sequential_prompts),
        trainings=None if trained[0] is None or trained[1] is None else (trained[0], trained[1]),
    )
    written = {
        "rows": tuple(loaded.with_costs(row) for row in again.rows),
        "harness": board.harness,
        "examples": board.examples,
    }
    return again.model_copy(update=written), rows


def _in_order(names: Iterable[str], order: Sequence[str]) -> list[str]:
    """Return names in a given order, those that it lacks last; a stranger's order may name others, or one twice."""
    there = list(names)
    return list(dict.fromkeys([*(name for name in order if name in there), *there]))


def _with_empty(row: RowResult, build: BuildRecord) -> RowResult:
    """Return a row with the runs that gave no scores, which the file of scores does not hold."""
    scores = {name: dict(runs) for name, runs in row.scores.items()}
    for name, seeds in build.empty.get(row.label, {}).items():
        for seed in seeds:
            scores.setdefault(name, {}).setdefault(seed, ())
    return replace(row, scores=scores)


def _order(board: Board) -> Iterator[str]:
    """Yield whether the rows of a board are in another order than their means give; of equal rows any order is right."""
    for label, each in board.by_model.items() or ((None, board),):
        baseline = each.baseline if each.statistics.sequential_prompts else None
        right = [row.method for row in ordered(each.rows, each.primary, baseline)]
        if [row.method for row in each.rows] != right:
            yield f"rows{f' of {label}' if label else ''}: they are not ordered by their means, which give {', '.join(right)}"


def _statistics(board: Board, scores: Scores, states: States) -> list[str]:
    """Return what differs in the statistics alone, of a board that cannot be built again."""
    if not board.models:
        return _recomputed(board, scores, states)
    problems = []
    for label, of_model in board.by_model.items():
        problems += [
            f"{label}: {problem}"
            for problem in _recomputed(of_model, board.scores_of(label, scores), board.states_of(label, states))
        ]
    return [*problems, *_across(board, scores)]


def _across(board: Board, scores: Scores) -> list[str]:
    """Return what differs in the comparison of several starting models."""
    loaded = {
        label: LoadedBoard(of_model, board.scores_of(label, scores), label).rows for label, of_model in board.by_model.items()
    }
    if any(board.baseline not in {row.label for row in rows} for rows in loaded.values()):
        return []  # said of the model already
    computed = compare_models(loaded, board.metrics, board.baseline, mixed_judges=board.mixed_judges)[0]
    shown = board.across.model_dump(mode="json") if board.across else {}
    return differ(shown, computed.model_dump(mode="json"), "across: ")


def _recomputed(board: Board, scores: Scores, states: States) -> list[str]:
    """Return what differs in the statistics of rows that have one starting model."""
    problems = list[str]()
    rows = LoadedBoard(board, scores, board.name, states).rows
    if board.baseline not in {row.label for row in rows}:
        return [*problems, f"the baseline {board.baseline!r} is no row of the board"]
    derived = {metric.key for metric in board.unscored_metrics(scores)}
    metrics = [metric for metric in board.metrics if metric.key not in derived]
    design = design_of(board.config, board.statistics.sequential_prompts)
    declared = Declared.of(board.config)
    statistics = Statistics(
        rows,
        metrics,
        board.baseline,
        mixed_judges=board.mixed_judges,
        design=design,
        equivalent_within=declared.equivalent_within,
    )
    if board.methods >= METHODS:
        problems += _undeclared(board, declared, metrics)
    for entry, row in zip(board.rows, rows, strict=True):
        computed = {key: score.model_dump(mode="json") for key, score in row_entry(statistics, row).scores.items()}
        shown = {key: score.model_dump(mode="json") for key, score in entry.scores.items() if key not in derived}
        if board.methods < COMPUTED_AGAIN:
            shown, computed = _means(shown), _means(computed)
        problems += differ(shown, computed, f"{entry.method}: ")
    if board.methods < COMPUTED_AGAIN:
        return problems
    curves = learning_curves(rows, metrics)
    for entry in board.rows:
        shown_states = [state.model_dump(mode="json") for state in entry.states or ()]
        states_again = [state.model_dump(mode="json") for state in curves.get(entry.method, ())]
        problems += differ(shown_states, states_again, f"{entry.method}: states ")
    analysis = board.analysis.model_dump(mode="json") if board.analysis else {}
    again = analyse(statistics, board.config).model_dump(mode="json")
    if board.methods < METHODS:
        again.pop("first_place", None)
    if "raters" not in analysis:
        again.pop("raters", None)  # a board from before they were computed
    problems += differ(analysis, again, "analysis: ")
    families = [family.model_dump(mode="json") for family in statistics.correction.families]
    shown_families = [family.model_dump(mode="json") for family in board.statistics.families or ()]
    problems += differ(shown_families, families, "statistics.families: ")
    decided = statistics.decisions
    pairs = (
        ("sequential", board.statistics.sequential, decided.seeds_entry(None) if decided else None),
        ("sequential_prompts", board.statistics.sequential_prompts, decided.prompts_entry() if decided else None),
    )
    for name, shown_looks, looked in pairs:
        # Which trainings ran is no matter of scores.
        written, given = (
            {} if entry is None else entry.model_dump(mode="json", exclude={"trainings", "trainings_fixed"})
            for entry in (shown_looks, looked)
        )
        problems += differ(written, given, f"statistics.{name}: ")
    if board.methods == METHODS:
        problems += [
            f"warnings: {text!r} follows from the scores, and is not on the board" for text in _lost(board, statistics)
        ]
    return problems


def _lost(board: Board, statistics: Statistics) -> Iterator[str]:
    """Yield warnings that the statistics give and the board lacks; an imported row's were worded otherwise once."""
    if not any(row.is_imported or row.is_published for row in board.rows):
        yield from (text for text in map(plain, statistics.warnings) if text not in board.warnings)


def _undeclared(board: Board, declared: Declared, metrics: Sequence[MetricEntry]) -> Iterator[str]:
    """Yield what the board says of families and margins that its config does not declare."""
    if declared.applied(metrics) != tuple(metrics):
        yield "metrics: the primary ones, or their order, are not those that the config's `statistics` declares"
    shown = bool(board.statistics.declared), board.statistics.equivalent_within or {}
    if shown != (declared.primary is not None, dict(declared.equivalent_within)):
        yield "statistics: `declared` or `equivalent_within` are not what the config's `statistics` declares"


def earlier_methods(board: Board) -> str | None:
    """Return a sentence on what was not computed again, where the board was made with earlier methods."""
    return EARLIER if board.methods < COMPUTED_AGAIN and not board.is_published else None


def _means(scores: dict[str, Any]) -> dict[str, Any]:
    """Return of each score what all methods compute alike, its difference included."""

    def kept(entry: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in entry.items() if name in SAME_IN_ALL_METHODS}

    return {key: kept(score) | ({"delta": kept(score["delta"])} if score.get("delta") else {}) for key, score in scores.items()}


def _files(board: Board, folder: Path, expected: set[str]) -> Iterator[str]:
    named = board.files or {}
    for name in sorted(expected | set(named)):
        if name not in (board.examples, SCORES, STATES, EVIDENCE):
            yield f"files names {name!r}, which is no file of a board"
        elif name not in named:
            yield f"{name} has no hash in board.json"
        elif not (folder / name).is_file():
            yield f"{name} is missing"
        elif digest((folder / name).read_bytes()) != named[name]:
            yield f"{name} is not the file that board.json was written with: its SHA-256 differs"


def differ(shown: Any, computed: Any, where: str, source: str = "the scores give") -> list[str]:
    """Return the places where two trees of plain values differ, numbers beyond rounding.

    Args:
        where: begins each sentence.
        source: names where the computed values are from.
    """
    if isinstance(shown, dict) and isinstance(computed, dict):
        problems = []
        for key in sorted(set(shown) | set(computed)):
            if key not in computed:
                problems.append(f"{where}{key} is on the board, and {source} none")
            elif key not in shown:
                problems.append(f"{where}{key} is not on the board, and {source} it")
            else:
                problems += differ(shown[key], computed[key], f"{where}{key} ", source)
        return problems
    if isinstance(shown, list | tuple) and isinstance(computed, list | tuple) and len(shown) == len(computed):
        pairs = enumerate(zip(shown, computed, strict=True))
        return [text for i, (a, b) in pairs for text in differ(a, b, f"{where}[{i}] ", source)]
    numbers = all(isinstance(value, int | float) and not isinstance(value, bool) for value in (shown, computed))
    if numbers and isclose(shown, computed, rel_tol=RELATIVE, abs_tol=ABSOLUTE):
        return []
    return [] if shown == computed else [f"{where.rstrip()} is {_short(shown)}, {source} {_short(computed)}"]


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
