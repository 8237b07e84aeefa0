"""How rows stand to one another, read off the board: who is compared, who is a reference, what is noise."""

from __future__ import annotations

from typing import Literal

from harness.leaderboard.schema import Board, Delta, MetricEntry, RowEntry
from harness.leaderboard.text import marks, number, p_value, signed

Verdict = Literal["better", "worse", "different", "unclear"]
SURE = 0.05  # an adjusted p-value below this is marked


def is_reference(row: RowEntry) -> bool:
    """Rows that stand beside the ranking: controls, null rows, numbers from elsewhere."""
    return row.kind in ("control", "null", "published")


def ranked(board: Board) -> list[RowEntry]:
    """The rows that compete, best first, failed ones last."""
    return [row for row in board.rows if not is_reference(row)]


def references(board: Board) -> list[RowEntry]:
    return [row for row in board.rows if is_reference(row)]


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
    """The metric without its evaluator where that is enough to tell the board's metrics apart."""
    name = metric.key.partition("/")[2]
    twice = sum(other.key.partition("/")[2] == name for other in board.metrics) > 1
    return metric.key if twice else name


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
