"""How rows stand to one another, read off the board: who is compared, who is a reference, what is noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from harness.board.board import Board, Delta, MetricEntry, PowerEntry, RankEntry, RowEntry, ScoreEntry
from harness.board.views.text import marks, number, p_value, signed

Verdict = Literal["better", "worse", "different", "unclear"]
LEADING = 0.95  # a first place in fewer of the bootstrap draws may be another row's
SURE = 0.05  # an adjusted p-value below this is marked


def is_reference(row: RowEntry) -> bool:
    """Rows that stand beside the ranking: controls, null rows, numbers from elsewhere."""
    return row.kind in ("control", "null", "published")


def ranked(board: Board) -> list[RowEntry]:
    """The rows that compete, best first, failed ones last; on a board of published rows alone, those."""
    competing = [row for row in board.rows if not is_reference(row)]
    return competing or [row for row in board.rows if row.kind == "published"]


def references(board: Board) -> list[RowEntry]:
    competing = {row.method for row in ranked(board)}
    return [row for row in board.rows if row.method not in competing]


def noise_floor(board: Board, key: str) -> float | None:
    """What a change of seeds alone could show: the larger bound, in size, of the null rows' intervals.

    None without a null row, and where the null rows equal the baseline whatever the seeds (an interval of 0 to 0).
    """
    nulls = [delta for row in board.rows if row.kind == "null" and (delta := delta_of(row, key))]
    return max((abs(bound) for delta in nulls for bound in (delta.low, delta.high)), default=0.0) or None


def delta_of(row: RowEntry, key: str) -> Delta | None:
    score = row.scores.get(key)
    return None if score is None else score.delta


def is_sure(delta: Delta) -> bool:
    """Whether a difference stands: p < 0.05 after correction, an interval over seeds and prompts without 0, above the noise.

    The test alone is not enough: it takes the trained models as given, so two trainings of one method can differ 'surely'.
    """
    corrected = delta.p_adjusted is not None and delta.p_adjusted < SURE
    return corrected and not delta.low <= 0 <= delta.high and not delta.below_noise


def mark(delta: Delta) -> str:
    """Asterisks for a difference that stands, ≈ for one below the noise floor, nothing for any other."""
    if delta.below_noise:
        return "≈"
    return marks(delta.p_adjusted) if is_sure(delta) else ""


def verdict(delta: Delta, metric: MetricEntry) -> Verdict:
    """What may be said of a difference."""
    if not is_sure(delta):
        return "unclear"
    if metric.higher_is_better is None:
        return "different"
    return "better" if (delta.mean > 0) == metric.higher_is_better else "worse"


def short_name(board: Board, metric: MetricEntry) -> str:
    """The metric without its evaluator where that is enough: no other is called so, and no row comes from other evaluators."""
    name = metric.key.partition("/")[2]
    twice = sum(other.key.partition("/")[2] == name for other in board.metrics) > 1
    apart = any(metric.key not in row.scores for row in board.rows if row.kind == "imported")
    return metric.key if twice or apart else name


@dataclass(frozen=True)
class Answer:
    """Which row is best on the first primary metric, by how much, and how sure that is.

    Attributes:
        row: the first of the rows that compete.
        second: the one after it, with its score; None where it competes alone.
        rank: of the first row over bootstrap draws, where the board tells.
        won: share of the examples on which the first is better than the second, ties half, where the board tells.
        tests: how many were corrected together with the one against the baseline.
    """

    metric: MetricEntry
    row: RowEntry
    score: ScoreEntry
    second: tuple[RowEntry, ScoreEntry] | None
    rank: RankEntry | None
    won: float | None
    tests: int | None

    @property
    def delta(self) -> Delta | None:
        return self.score.delta

    @property
    def verdict(self) -> str:
        """Of the difference from the baseline, and of the first place where that is less sure."""
        if self.delta is None or not is_sure(self.delta):
            return "not sure"
        return "sure" if self.rank is None or self.rank.first >= LEADING else "sure of the difference, not of the first place"


def answer(board: Board) -> Answer | None:
    """None where no row that competes has a score on the first primary metric."""
    metric = board.primary[0] if board.primary else None
    leaders = [row for row in ranked(board) if metric is not None and metric.key in row.scores]
    if metric is None or not leaders:
        return None
    first, second = leaders[0], leaders[1] if len(leaders) > 1 else None
    families = board.statistics.families or ()
    return Answer(
        metric=metric,
        row=first,
        score=first.scores[metric.key],
        second=None if second is None else (second, second.scores[metric.key]),
        rank=board.analysis.ranking.get(metric.key, {}).get(first.method) if board.analysis else None,
        won=None if second is None else _won(board, metric, first.method, second.method),
        tests=next((family.tests for family in families if metric.key in family.metrics), None),
    )


def _won(board: Board, metric: MetricEntry, first: str, second: str) -> float | None:
    matrix = board.analysis.wins.get(metric.key) if board.analysis else None
    if matrix is None or not {first, second} <= set(matrix.methods):
        return None
    return matrix.shares[matrix.methods.index(first)][matrix.methods.index(second)]


def power(board: Board, key: str) -> PowerEntry | None:
    """What the comparison could see of a metric, where the board tells."""
    return board.analysis.power.get(key) if board.analysis else None


def summary(board: Board) -> str:
    """The first row of the ranking in one sentence, with what keeps it from being sure."""
    leaders = [row for row in ranked(board) if board.primary and board.primary[0].key in row.scores]
    if not leaders:
        return "No row has a score on the first primary metric."
    leader, metric = leaders[0], board.primary[0]
    score = leader.scores[metric.key]
    said = f"{leader.method} has the best {metric.key}: {number(score.mean)}"
    if leader.method == board.baseline:
        return f"{said}; it is the baseline."
    delta = score.delta
    if delta is None:
        return f"{said}."
    said += f", {signed(delta.mean)} against {board.baseline} ({signed(delta.low)} to {signed(delta.high)})"
    if delta.below_noise:
        return f"{said}. That is less than what a change of seeds alone could show."
    if delta.p_adjusted is None:
        return f"{said}."
    sure = "The difference holds" if is_sure(delta) else "That is not a sure difference"
    return f"{said}. {sure}: {p_value(delta.p_adjusted)} after correction."
