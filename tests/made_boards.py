"""A board with everything a page can show, and a second one whose every text wants to be more than text."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from harness.api.types import Cost, Metric, Score
from harness.board import Board, ExampleRow, RowResult, build_board
from harness.board.board import RowEntry, ScoreEntry

EXAMPLES = 10_000
METRICS = {
    "gold": [
        Metric("reward", "Mean gold reward of sampled answers", primary=True),
        Metric("win_rate", "Share of prompts on which the answer beats the reference", primary=True),
    ],
    "length": [Metric("cut_off", "Share of answers cut off by the length limit", higher_is_better=False)],
    "lm_eval": [Metric("sandbox_generation_exact_match", "Share of answers that match exactly")],
}
# label, data, objective, kind, strength; each costs more than the one before; the three with negatives are a sweep
ROWS: tuple[tuple[str, str | None, str | None, Any, float], ...] = (
    ("sft", None, None, "measured", 0.0),
    ("kto", "unpaired", "kto", "measured", 0.02),
    ("simpo", "preference", "simpo", "measured", 0.3),
    ("dpo", "preference", "dpo", "measured", 0.5),
    ("self_contrast[negatives=1]", "self_contrast", "dpo", "measured", 0.2),
    ("self_contrast[negatives=4]", "self_contrast", "dpo", "measured", 0.3),
    ("self_contrast[negatives=16]", "self_contrast", "dpo", "measured", 0.4),
    ("oracle", "best_of_n", "dpo", "control", 0.9),
    ("sft_other_seeds", None, None, "null", 0.005),
    ("elsewhere", None, None, "imported", 0.1),
)
TERMINAL, BIDI = "\x1b[31mred\x1b[0m\x1b]0;title\x07", "\u202egnp.exe\u202c\u200f"
HOSTILE = (
    "<script>window.pwned=1</script></script><img src=x onerror=window.pwned=2><svg onload=window.pwned=3>"
    "</textarea></title></style><!-- [click](javascript:window.pwned=4) ![i](https://example.invalid/i.png) "
    "<a href='javascript:window.pwned=5'>x</a> \"onmouseover=\"window.pwned=6\" x=' {{7*7}} ${window.pwned=7} "
    f"=cmd|'/c calc'!A1 [bold red]x[/] \\input{{x}} \\\\[9em] {TERMINAL} {BIDI} |a|b|"
)
LONG = "[*" + "w" * 99_998  # one line, no place to break; the start wants to be an option of LaTeX's line break


def scores(strength: float, seed: int, metrics: Mapping[str, list[Metric]]) -> dict[str, dict[int, list[Score]]]:
    """Of 60 prompts and two seeds; prompts share their difficulty."""
    rng = random.Random(seed)
    found: dict[str, dict[int, list[Score]]] = {evaluator: {} for evaluator in metrics}
    for number in (0, 1):
        for evaluator, listed in metrics.items():
            found[evaluator][number] = [
                Score(f"p{i}", metric.name, strength + random.Random(i).gauss(0, 0.4) + rng.gauss(0, 0.1))
                for i in range(60)
                for metric in listed
            ]
    return found


def row(
    label: str, data: str | None, objective: str | None, kind: Any, strength: float, seed: int, **changes: Any
) -> RowResult:
    failed = changes.get("failed")
    rng = random.Random(seed)
    steps: list[dict[str, float]] = [
        {"step": s, "loss": 0.7 - strength * s / 200 + rng.gauss(0, 0.01)} for s in range(0, 60, 3)
    ]
    known = {"models": {"0": "ab" * 16}, "dataset": "cd" * 32, "judges": {"gold": {"model": "a-judge"}}}
    return RowResult(
        label=label,
        data=data,
        objective=objective,
        rounds=1 if data else 0,
        kind=kind,
        scores={} if failed else scores(strength, seed, changes.get("metrics", METRICS)),
        costs={s: Cost(20.0 + 9 * seed, 70_000 + seed, 1000 * seed) if data else Cost() for s in (0, 1)},
        budget={"prompts": 512, "updates": 50} if data else {},
        provenance=changes.get("provenance", known),
        failed=failed,
        curves=dict.fromkeys((0, 1), steps) if data and not failed else {},
    )


def published(board: Board) -> Board:
    """The board with a paper's row beside the measured ones."""
    printed = RowEntry(
        method="dpo, as printed",
        data=None,
        objective=None,
        rounds=0,
        kind="published",
        seeds=(),
        scores={"gold/reward": ScoreEntry(mean=0.42, n=0, higher_is_better=True)},
        provenance={"source": "A paper, table 2"},
    )
    return board.model_copy(update={"rows": (*board.rows, printed)})


def examples(count: int) -> list[ExampleRow]:
    """Examples of three methods; one in a thousand says where it is, and a judge has words for each tenth."""
    return [
        ExampleRow(
            id=f"p{i}",
            prompt=f"question {i}: name two things that float" + (" and mention pumice" if i % 1000 == 777 else ""),
            target="a cork and a boat" if i % 2 else None,
            answers={label: f"{label} answers {i}" for label in ("sft", "dpo", "kto")},
            judged={"dpo": [{"evaluator": "pairwise", "verdict": "A", "words": f"clearer, verdict {i}"}]}
            if i % 10 == 0
            else {},
        )
        for i in range(count)
    ]


def made(rows: list[RowResult], shown: list[ExampleRow], **changes: Any) -> Board:
    arguments: dict[str, Any] = {
        "name": "browser",
        "description": "A board made up for the browser.",
        "config": {"model": {"name": "sandbox"}, "budget": {"prompts": 512}},
        "baseline": "sft",
        "metrics": METRICS,
        "sharing": {"stages_requested": 1300, "stages_run": 700, "seconds_saved": 80.0, "command": "harness compare made-up"},
        "created": "2025-01-02T03:04:05+00:00",
        "warnings": ["No judge is configured."],
    }
    return build_board(rows=rows, examples=shown, **(arguments | changes))


def full_board() -> Board:
    rows = [row(*given, seed=i) for i, given in enumerate(ROWS)]
    rows.append(row("broken", "preference", "orpo", "measured", 0.0, 99, failed="loss became nan at step 12"))
    return published(made(rows, [])).with_examples(examples(EXAMPLES))


def hostile_board() -> Board:
    """Every place that takes a text from elsewhere has a hostile one: names, examples, judges, warnings, provenance, config."""
    labels, texts = ("sft", HOSTILE, LONG), (HOSTILE, LONG, f"{HOSTILE}\n{LONG}")
    metrics = {"gold": [Metric("reward", HOSTILE, primary=True)], "e<b>": [Metric("m", LONG)]}
    known = {HOSTILE: LONG, "note": HOSTILE, "dataset": HOSTILE, "judges": {HOSTILE: {"model": HOSTILE}}}
    rows = [
        row(label, HOSTILE, HOSTILE, "measured", 0.2 * i, i, metrics=metrics, provenance=known)
        for i, label in enumerate(labels)
    ]
    rows.append(row("broken", LONG, "orpo", "measured", 0.0, 3, failed=f"{HOSTILE}\n{LONG}", provenance=known))
    judged = {HOSTILE: [{"evaluator": HOSTILE, "verdict": HOSTILE, "words": HOSTILE + LONG}]}
    return made(
        rows,
        [
            ExampleRow(name, text, text, dict.fromkeys(labels, text), judged)
            for name, text in zip((HOSTILE, "p0", "p1"), texts, strict=True)
        ],
        name=HOSTILE,
        description=f"{HOSTILE} {LONG}",
        metrics=metrics,
        warnings=[HOSTILE, LONG],
        config={HOSTILE: LONG, "model": {"name": HOSTILE}},
        sharing={"command": HOSTILE, "data": {"kept": {HOSTILE: 3}}},
    )
