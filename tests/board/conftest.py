"""A board such as a run makes: 12 rows, 2 seeds, 8 metrics, and strings that want to break what shows them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from harness.api.types import Cost, Metric, Score
from harness.board import Board, ExampleRow, RowResult, build_board

NASTY = (
    "x|y`z` <script>alert(1)</script> </script><!-- =1+1 [red]bold[/red] \x1b[31mred\x1b[0m "
    "\u202egnp.exe\u202c & \"q\" 's' **b** _i_"
)
NASTY_LABEL = "evil|[bold]<img src=x onerror=alert(1)>\x1b[31m\u202e`*"

METRICS = {
    "gold": [
        Metric("win_rate", "Share of prompts on which the gold reward prefers the answer to the reference's", primary=True),
        Metric("reward", "Mean gold reward of sampled answers"),
        Metric("correct_items", "Share of the asked-for items that are right"),
    ],
    "format": [Metric("followed", "Share of answers in the format that was asked for", primary=True)],
    "length": [
        Metric("tokens", "Mean answer length in tokens", higher_is_better=None),
        Metric("cut_off", "Share of answers cut off by the length limit", higher_is_better=False),
    ],
    "drift": [
        Metric("kl", "Divergence from the starting model in nats per answer", higher_is_better=False),
        Metric("accuracy", "Share of labelled pairs ranked rightly by the implicit reward"),
    ],
}
# label, data, objective, rounds, kind, strength
ROWS: list[tuple[str, str | None, str | None, int, Any, float]] = [
    ("dpo", "ranked_pairs", "dpo", 1, "measured", 0.10),
    ("self_contrast_16", "self_contrast", "dpo", 1, "measured", 0.16),
    ("self_contrast_4", "self_contrast", "dpo", 1, "measured", 0.12),
    ("only_prompting", "only_prompting", "dpo", 1, "measured", 0.06),
    ("self_refined", "self_refined", "sr_dpo", 1, "measured", 0.13),
    ("simpo", "ranked_pairs", "simpo", 1, "measured", 0.085),
    ("kto", "unpaired", "kto", 1, "measured", 0.03),
    ("iterative_dpo", "sampled_pairs", "dpo", 3, "measured", 0.20),
    ("gold_dpo", "gold_pairs", "dpo", 1, "control", 0.55),
    ("dpo_other_seeds", "ranked_pairs", "dpo", 1, "null", 0.095),
    ("start", None, None, 0, "control", -0.25),
    (NASTY_LABEL, "ranked_pairs", "orpo", 1, "measured", 0.0),
]


def scores_of(strength: float, rng: random.Random, examples: int = 80) -> dict[str, dict[int, list[Score]]]:
    """Scores of one row, two seeds and two samples, better where `strength` is larger; prompts share their difficulty."""
    hard = [random.Random(i).gauss(0, 0.2) for i in range(examples)]
    found: dict[str, dict[int, list[Score]]] = {evaluator: {} for evaluator in METRICS}
    for seed in (1, 2):
        lift = strength + rng.gauss(0, 0.004)
        for evaluator, metrics in METRICS.items():
            found[evaluator][seed] = [
                Score(f"p{i}", metric.name, _value(metric.name, lift - hard[i], rng), sample)
                for i in range(examples)
                for metric in metrics
                for sample in (0, 1)
            ]
    return found


def _value(metric: str, level: float, rng: random.Random) -> float:
    if metric == "tokens":
        return 30 + 40 * level + rng.gauss(0, 4)
    if metric == "kl":
        return abs(12 * level + rng.gauss(0, 1))
    if metric == "reward":
        return 1.5 + 3 * level + rng.gauss(0, 0.3)
    chance = {"cut_off": 0.1, "accuracy": 0.55 + level / 3}.get(metric, 0.5 + level)
    return float(rng.random() < chance)


def make_rows(examples: int = 80) -> list[RowResult]:
    rng = random.Random(7)
    rows = []
    for label, data, objective, rounds, kind, strength in ROWS:
        failed = f"loss became nan at step 12\n{NASTY}" if label == NASTY_LABEL else None
        trained = data is not None
        rows.append(
            RowResult(
                label=label,
                data=data,
                objective=objective,
                rounds=rounds,
                kind=kind,
                scores={} if failed else scores_of(strength, rng, examples),
                costs={
                    seed: Cost(140.0 * (1 + 4 * strength) * rounds, 1_200_000, 250_000) if trained else Cost()
                    for seed in (1, 2)
                },
                budget={"prompts": 512, "pairs": 512 * max(rounds, 1), "updates": 128, "tokens": 1.2e6} if trained else {},
                provenance={
                    "plugin": "alignment-harness 0.1.0",
                    "paper": "2305.18290",
                    "note": NASTY if failed else "as published",
                },
                failed=failed,
                curves={seed: _curve(strength, rng) for seed in (1, 2)} if trained and not failed else {},
            )
        )
    return rows


def _curve(strength: float, rng: random.Random) -> list[dict[str, float]]:
    return [{"step": s, "loss": 0.693 * (1 - strength * s / 64) + rng.gauss(0, 0.01)} for s in range(0, 129, 2)]


def make_examples() -> list[ExampleRow]:
    words = ["the", "river", "carries", "small", "boats", "past", "three", "quiet", "towns", "one", "loud", "market"]
    rng = random.Random(3)

    def answer(label: str, i: int) -> str:
        return (
            NASTY if i == 1 and label == "dpo" else f"1. {' '.join(rng.sample(words, 5))}\n2. {' '.join(rng.sample(words, 5))}"
        )

    return [
        ExampleRow(
            id=f"p{i}",
            prompt=NASTY if i == 1 else f"name two things that float, as a numbered list (question {i})",
            target=None if i % 3 == 2 else "1. a cork\n2. a boat",
            answers={label: answer(label, i) for label, *_ in ROWS[:-1]},
        )
        for i in range(8)
    ]


def make_board(rows: Sequence[RowResult] | None = None, **changes: Any) -> Board:
    arguments: dict[str, Any] = {
        "name": "quickstart",
        "description": "Eight ways to use 512 prompts, from one starting model of 2.6 million parameters.",
        "config": {
            "model": {"path": "sandbox/start", "note": NASTY},
            "seeds": [1, 2],
            "budget": {"prompts": 512, "updates": 128},
            "training": {"learning_rate": 1e-4, "beta": 0.1},
        },
        "baseline": "dpo",
        "rows": make_rows() if rows is None else rows,
        "metrics": METRICS,
        "examples": make_examples(),
        "sharing": {"stages_requested": 118, "stages_run": 71, "stages_reused": 47, "seconds_saved": 2280.0},
        "created": "2025-01-02T03:04:05+00:00",
        "warnings": ["The judge was not asked: no judge is configured.", NASTY],
    }
    return build_board(**(arguments | changes))


@pytest.fixture(scope="session")
def board() -> Board:
    return make_board()


@pytest.fixture(scope="session")
def build() -> Callable[..., Board]:
    """Builds a board with some of its parts changed."""
    return make_board


@pytest.fixture(scope="session")
def starred(board: Board) -> Board:
    """The board with the controls' differences on primary metrics made significant, which two seeds hardly show."""
    return with_stars(board, "gold_dpo", "start")


def with_stars(board: Board, *methods: str) -> Board:
    """The board with significant differences of these rows on the primary metrics."""

    def sure(score: Any) -> Any:
        delta = score.delta.model_copy(
            update={"p_adjusted": 1e-4, "low": score.delta.mean - 1e-3, "high": score.delta.mean + 1e-3}
        )
        return score.model_copy(update={"delta": delta})

    primary = {metric.key for metric in board.primary}
    rows = tuple(
        row.model_copy(update={"scores": {k: sure(s) if k in primary else s for k, s in row.scores.items()}})
        if row.method in methods
        else row
        for row in board.rows
    )
    return board.model_copy(update={"rows": rows})


@pytest.fixture(scope="session")
def mark() -> Callable[..., Board]:
    """Makes differences of some rows significant."""
    return with_stars


@pytest.fixture(scope="session")
def few_rows() -> Callable[..., tuple[list[RowResult], dict[str, list[Metric]]]]:
    """Make some rows on few examples, with the metrics of some evaluators, for boards that are computed often."""

    def make(
        labels: Sequence[str], evaluators: Sequence[str], examples: int = 6
    ) -> tuple[list[RowResult], dict[str, list[Metric]]]:
        rows = [
            replace(row, scores={name: runs for name, runs in row.scores.items() if name in evaluators})
            for row in make_rows(examples)
            if row.label in labels or row.failed
        ]
        return rows, {name: METRICS[name] for name in evaluators}

    return make


@pytest.fixture
def rows() -> list[RowResult]:
    return make_rows(examples=20)


@pytest.fixture
def nasty() -> str:
    return NASTY


@pytest.fixture(scope="session")
def examples() -> list[ExampleRow]:
    return make_examples()
