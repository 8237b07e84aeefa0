"""Judgments as FastChat writes them, as scores: one example per question and turn, the turns of a question together."""

from __future__ import annotations

from collections.abc import Iterator

from harness import Score
from harness_plugins.evaluators.fastchat import files as fastchat
from harness_plugins.evaluators.fastchat.files import Row

TIE = (("win_rate", 0.5), ("win", 0.0), ("tie", 1.0), ("loss", 0.0))


def question_scores(bench: str, turns: int, row: Row, category: str | None) -> Iterator[Score]:
    """Yield the scores of one judgment of a single answer. The bootstrap draws both turns of a question together.

    Args:
        bench: the evaluator's name.
        turns: of its questions.
    """
    question, turn = f"{bench}:{row['question_id']}", row["turn"]
    read = row["score"] != fastchat.UNREAD
    yield Score(f"{question}:{turn}", "unparsed", float(not read), question=question)
    metrics = ["score", *([f"turn_{turn}"] if turns > 1 else []), *([category] if category else [])]
    for metric in metrics if read else ():
        yield Score(f"{question}:{turn}", metric, float(row["score"]), question=question)


def pair_scores(bench: str, question: int, turn: int, row: Row, opponent: int = 0) -> Iterator[Score]:
    """Yield the scores of one judgment of a pair, for its first model."""
    for metric, value in _outcome(row).items():
        yield _score(bench, question, turn, metric, value, opponent)


def tie_scores(bench: str, question: int, turn: int, opponent: int) -> Iterator[Score]:
    """Yield the scores of two equal answers, which no judge is asked about."""
    for metric, value in TIE:
        yield _score(bench, question, turn, metric, value, opponent)


def _score(bench: str, question: int, turn: int, metric: str, value: float, opponent: int) -> Score:
    name = f"{bench}:{question}"
    return Score(f"{name}:{turn}:pair", metric, value, opponent, name)


def _outcome(row: Row) -> dict[str, float]:
    winners = (row["g1_winner"], row["g2_winner"])
    outcome = fastchat.pair_outcome(row)
    if outcome == "error":
        return {"unparsed": winners.count("error") / 2}
    win, loss = float(outcome == "model_1"), float(outcome == "model_2")
    tie = 1 - win - loss
    return {
        "win_rate": win + 0.5 * tie,
        "win": win,
        "tie": tie,
        "loss": loss,
        "agreement": float(winners[0] == winners[1]),
        "unparsed": 0.0,
    }
