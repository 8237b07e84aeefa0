"""Whether the board's statistics hold what they say, in simulation: coverage of every interval, errors of every test.

    python benchmarks/calibration.py --quick          about ten minutes on one core
    python benchmarks/calibration.py                  the figures of docs/statistics.md: 24 minutes of processor time

Boards of nine rows with equal true means are simulated and handed to the functions that a comparison calls. The grid is
1, 2, 3 and 5 seeds × 40, 200 and 805 prompts × kinds of scores × rows that are equally restless, or one of them ten times as
restless as the others. With one seed the target is that training's own mean. The permutation test over prompts, which has to
reject too, is left out: it can only make errors rarer. Results go to `benchmarks/results/calibration.json`, and `make docs`
writes them into docs/statistics.md.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from harness.board.statistics import Components, noise_floor
from harness.board.statistics.best import may_be_best, pairs, rank_sets
from harness.board.statistics.correction import OWN_ALPHA, both
from harness.board.statistics.intervals import score_intervals, t_intervals, two_sided
from harness.board.statistics.noise import equivalence_p
from harness.board.statistics.power import design_detectable, design_power
from harness.board.statistics.sequential import Rule, State, decide
from harness.board.statistics.variance import Error, Errors, Spread, errors, mean_squares, pooled, with_pseudo_questions
from harness.run.strengths import pseudo_strengths
from harness_plugins.evaluators.alpaca_eval.glm import Glm

Floats = NDArray[np.float64]
RESULTS = Path(__file__).with_name("results") / "calibration.json"
ROWS, RESTLESS, ALPHA = 9, 10.0, 0.05
SEEDS, PROMPTS, KINDS = (1, 2, 3, 5), (40, 200, 805), ("normal", "skewed", "binary 3 %", "binary 20 %", "ties")
CELLS_AT_ONCE = 3_000_000

# Standard deviations in units of that between prompts: of a seed for all rows, of a seed for one row, of a prompt for one
# row, of one answer. A binary score has them on the scale of its latent normal, where the seeds' are a third as large: ten
# times more would take a share of 3 % anywhere between 0 and 1.
COMMON, OWN, ROW_PROMPT, REST = 0.1, 0.1, 0.2, 0.7
OF_BINARY = 0.3
SKEW = 0.75  # σ of the log-normal that skewed scores come from; its skewness is 3.3


@dataclass(frozen=True)
class Boards:
    """Simulated boards.

    Attributes:
        values: [boards, rows, seeds, prompts].
        targets: [boards, rows], what an interval of the row's mean should cover: the true mean, or with one seed the
            training's own.
        proportion: whether the scores are 0 and 1.
    """

    values: Floats
    targets: Floats
    proportion: bool


def simulate(
    rng: np.random.Generator,
    boards: int,
    seeds: int,
    prompts: int,
    kind: str,
    *,
    restless: float = 1.0,
    row_prompt: float = ROW_PROMPT,
) -> Boards:
    """Boards of `ROWS` rows with equal true means; the last row is `restless` times as restless as the others.

    With one seed the rows' trainings are equal too: a board of one seed compares trainings.
    """
    part = OF_BINARY if kind.startswith("binary") else 1.0
    own = np.full(ROWS, part * OWN if seeds > 1 else 0.0)
    own[-1] *= restless
    draw = partial(_skewed, rng) if kind == "skewed" else rng.standard_normal
    effects = part * COMMON * rng.standard_normal((boards, 1, seeds, 1))
    effects = effects + own[:, None, None] * rng.standard_normal((boards, ROWS, seeds, 1))
    score = effects + draw((boards, 1, 1, prompts)) + row_prompt * draw((boards, ROWS, 1, prompts))
    score += REST * draw((boards, ROWS, seeds, prompts))
    inside = np.sqrt(1 + row_prompt**2 + REST**2)  # of the score, given the seed
    whole = np.sqrt(inside**2 + (part * COMMON) ** 2 + own**2)[:, None, None]
    of_training = effects[:, :, 0, 0]  # with one seed
    if kind in ("normal", "skewed"):
        return Boards(score, of_training if seeds == 1 else np.zeros((boards, ROWS)), proportion=False)
    if kind == "ties":
        target = special.ndtr((of_training - 0.5) / inside) - special.ndtr((-0.5 - of_training) / inside)
        return Boards(np.clip(np.round(score), -1, 1), target if seeds == 1 else np.zeros((boards, ROWS)), proportion=False)
    share = float(kind.split()[1]) / 100
    limit = special.ndtri(1 - share) * whole
    target = special.ndtr((of_training - limit[:, 0, 0]) / inside) if seeds == 1 else np.full((boards, ROWS), share)
    return Boards((score > limit).astype(np.float64), target, proportion=True)


def _skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Log-normal numbers with mean 0 and variance 1."""
    spread = np.exp(SKEW**2)
    return (np.exp(SKEW * rng.standard_normal(shape)) - np.sqrt(spread)) / np.sqrt(spread * (spread - 1))


def covers(bounds: tuple[Floats, Floats], target: Floats | float) -> NDArray[np.bool_]:
    return (bounds[0] <= target) & (target <= bounds[1])


def grid_cell(seed: int, boards: int, seeds: int, prompts: int, kind: str, restless: float) -> dict[str, list[float]]:
    """Hits of each statement, one number per board (a share of the board's rows, or 0 and 1)."""
    rng = np.random.default_rng([seed, seeds, prompts, KINDS.index(kind), int(restless)])
    hits: dict[str, list[Floats]] = {}

    def note(name: str, values: Floats) -> None:
        hits.setdefault(name, []).append(np.asarray(values, dtype=np.float64))

    size = max(1, CELLS_AT_ONCE // (ROWS * seeds * prompts))
    for start in range(0, boards, size):
        board = simulate(rng, min(size, boards - start), seeds, prompts, kind, restless=restless)
        x, goal = board.values, board.targets
        means, squares = x.mean(axis=(2, 3)), mean_squares(x)
        spread = pooled(x.mean(axis=3)) if seeds > 1 else None
        shared = (spread[0][:, None], spread[1][:, None]) if spread else ()
        found = errors(squares, *shared, interval=True)
        if board.proportion:
            bounds = score_intervals(means, found.size, found.freedom, prompts)
        else:
            bounds = t_intervals(means, found.size, found.freedom, found.skew)
        hit = covers(bounds, goal)
        note("mean", hit.mean(axis=1))
        if restless > 1:
            note("mean of the restless row", hit[:, -1])
        # differences from the first row
        gap, target = x[:, 1:] - x[:, :1], goal[:, 1:] - goal[:, :1]
        shared, gate, difference, bounds = difference_tests(gap, spread, board.proportion)
        hit = covers(bounds, target)
        note("difference", hit.mean(axis=1))
        if restless > 1:
            note("difference of the restless row", hit[:, -1])
        t = [np.divide(difference, e.size, out=np.zeros_like(difference), where=e.size > 0) for e in (shared, gate)]
        note("stars", (both(two_sided(t[0], shared.freedom), two_sided(t[1], gate.freedom)) < ALPHA).any(axis=1))
        compared = pairs(x)
        may = may_be_best(compared)
        note("may be best", ~may[:, 0])
        low, high = rank_sets(compared)
        note("ranks", ((low == 1) & (high == ROWS)).mean(axis=1))
        if spread and restless == 1:
            note("noise floor", _within_floor(simulate(rng, len(x), seeds, prompts, kind, row_prompt=0.0).values))
            note("equivalence", _false_equivalence(difference, shared))
    return {name: np.concatenate(parts).tolist() for name, parts in hits.items()}


def difference_tests(
    gap: Floats, spread: tuple[Floats, Floats, Floats, Floats] | None, proportion: bool
) -> tuple[Errors, Errors, Floats, tuple[Floats, Floats]]:
    """Errors of the two tests, the differences, and their intervals, as the board makes them."""
    squares = mean_squares(gap)
    own = errors(squares)
    variance = (spread[2][:, None], spread[3][:, None]) if spread else ()
    shared = errors(squares, *variance, always=True) if spread else own
    means = gap.mean(axis=(2, 3))
    table = with_pseudo_questions(gap) if proportion else gap
    wide = errors(mean_squares(table), *variance, interval=True)
    return shared, own, means, t_intervals(table.mean(axis=(2, 3)), wide.size, wide.freedom)


def _within_floor(x: Floats) -> Floats:
    """Whether a further training of the baseline differs by less than the floor that the other rows tell."""
    seeds = x.shape[2]
    inside = []
    for board in x:
        _, _, variance, freedom = pooled(board[:-1].mean(axis=2))
        null, fresh = (float((board[row] - board[0]).mean()) for row in (1, len(board) - 1))
        floor = noise_floor(Spread(float(variance), float(freedom)), [null], seeds)
        assert floor is not None
        inside.append(abs(fresh) <= floor.size)
    return np.array(inside, dtype=np.float64)


def _false_equivalence(difference: Floats, error: Errors) -> Floats:
    """Whether rows whose true difference is the margin itself are called equivalent."""
    margin = 3.0 * float(np.median(error.size))
    shifted = difference[:, 0] + margin
    found = zip(shifted, error.size[:, 0], error.freedom[:, 0], strict=True)
    return np.array(
        [equivalence_p(mean, Error(size, freedom), margin) < ALPHA for mean, size, freedom in found], dtype=np.float64
    )


def power_cell(seed: int, boards: int, seeds: int, prompts: int, own: float) -> dict[str, list[float]]:
    """How often a difference is found that `design_detectable` says is found 80 % of the time."""
    rng = np.random.default_rng([seed, seeds, prompts, round(1000 * own)])
    own = own if seeds > 1 else 0.0
    parts = Components(2 * own**2, 2 * ROW_PROMPT**2, 2 * REST**2, seeds, prompts, ROWS - 1.0)
    alpha = ALPHA / (ROWS - 1)
    difference = design_detectable(parts, alpha=alpha)
    hits = []
    size = max(1, CELLS_AT_ONCE // (ROWS * seeds * prompts))
    for start in range(0, boards, size):
        count = min(size, boards - start)
        x = own * rng.standard_normal((count, ROWS, seeds, 1)) + ROW_PROMPT * rng.standard_normal((count, ROWS, 1, prompts))
        x = x + REST * rng.standard_normal((count, ROWS, seeds, prompts))
        spread = pooled(x.mean(axis=3)) if seeds > 1 else None
        shared, gate, means, _ = difference_tests(x[:, 1:2] - x[:, :1], spread, proportion=False)
        t = [(means + difference) / e.size for e in (shared, gate)]
        hits.append(((two_sided(t[0], shared.freedom) < alpha) & (two_sided(t[1], gate.freedom) < OWN_ALPHA))[:, 0])
    assert abs(design_power(difference, parts, alpha=alpha) - 0.8) < 1e-6
    return {"power": np.concatenate(hits).astype(float).tolist()}


def length_controlled_cell(seed: int, boards: int, seeds: int, prompts: int) -> dict[str, list[float]]:
    """Five equal models under AlpacaEval's GLM without its penalty, with the file of difficulties made up."""
    difficulty = np.random.default_rng(0).standard_normal(prompts)
    gamed_length = np.tanh(np.random.default_rng(1).standard_normal(2 * prompts))
    gamed = np.stack([gamed_length, np.tile(difficulty, 2), np.zeros(2 * prompts)], axis=1)
    gamed_share = special.expit(0.6 * gamed[:, 0] + 0.4 * gamed[:, 1])
    weights = np.concatenate([np.full(2 * prompts, 0.1), np.ones(prompts)])
    rows, own = 5, 0.15 if seeds > 1 else 0.0
    hits: dict[str, list[float]] = {"length-controlled difference": [], "length-controlled stars": []}
    for board in range(boards):
        rng = np.random.default_rng([seed, seeds, prompts, board])
        hard = 0.6 * rng.standard_normal(prompts)
        table = np.empty((rows, seeds, prompts))
        for row, number in product(range(rows), range(seeds)):
            length = rng.standard_normal(prompts)
            features = np.stack([np.tanh(length / length.std(ddof=1)), difficulty, np.ones(prompts)], axis=1)
            worth = own * rng.standard_normal() + 0.5 * rng.standard_normal(prompts) + hard
            chance = special.expit(worth + 0.5 * features[:, 0] + 0.5 * difficulty)
            verdict = np.where(rng.random(prompts) < chance, 0.95, 0.05)
            targets = np.concatenate([gamed_share, verdict])
            glm = Glm(np.concatenate([gamed, features]), targets, weights, length, penalty=np.zeros(3))
            table[row, number] = glm.pseudo_values(float(glm.win_rates(np.ones((1, prompts)))[0]))
        spread = pooled(table[None].mean(axis=3)) if seeds > 1 else None
        shared, gate, means, bounds = difference_tests((table[1:] - table[:1])[None], spread, proportion=False)
        hits["length-controlled difference"].append(float(covers(bounds, 0.0).mean()))
        p = both(two_sided(means / shared.size, shared.freedom), two_sided(means / gate.size, gate.freedom))
        hits["length-controlled stars"].append(float((p < ALPHA).any()))
    return hits


def strengths_cell(seed: int, boards: int, seeds: int, prompts: int) -> dict[str, list[float]]:
    """Eight equal rows that all meet each other."""
    rows, own = 8, 0.15 if seeds > 1 else 0.0
    hits: dict[str, list[float]] = {"strength": [], "strength stars": []}
    for board in range(boards):
        rng = np.random.default_rng([seed, seeds, prompts, board])
        worth = own * rng.standard_normal((rows, seeds, 1)) + 0.5 * rng.standard_normal((rows, 1, prompts))
        worth = worth + 0.3 * rng.standard_normal((rows, seeds, prompts))
        wins = np.zeros((seeds, prompts, rows, rows))
        for i, j in zip(*np.triu_indices(rows, 1), strict=True):
            won = rng.random((seeds, prompts)) < special.expit(worth[i] - worth[j])
            wins[:, :, i, j], wins[:, :, j, i] = won, ~won
        table = np.moveaxis(pseudo_strengths(wins, 0), -1, 0)
        spread = pooled(table[None].mean(axis=3)) if seeds > 1 else None
        shared, gate, means, bounds = difference_tests(table[None, 1:], spread, proportion=False)
        hits["strength"].append(float(covers(bounds, 0.0).mean()))
        p = both(two_sided(means / shared.size, shared.freedom), two_sided(means / gate.size, gate.freedom))
        hits["strength stars"].append(float((p < ALPHA).any()))
    return hits


# Differences from the baseline in gold reward: those of the quickstart's board, which has seven rows within 0.25 of its best,
# and a board of twelve rows with fewer near-ties. The standard deviations are the quickstart's.
SEQUENTIAL = {
    "null": np.zeros(12),
    "restless": np.zeros(12),
    "quickstart": np.array(
        [0.0, 0.97, 0.95, 0.89, 0.83, 0.80, 0.75, 0.74, 0.56, 0.42, 0.38, 0.35, 0.20, 0.08, 0.01, -0.01, -0.03]
    ),
    "few near-ties": np.array([0.0, 0.97, 0.75, 0.6, 0.5, 0.42, 0.35, 0.3, 0.02, 0.01, -0.01, -0.03]),
}
WITH_DIFFERENCES = ("quickstart", "few near-ties")
MOST, MOST_PROMPTS = 8, 805
EQUAL_POWER = 6  # seeds of the fixed design that finds as much as 2 to 8 seeds added where they decide
FOUND = 0.2  # differences from this size on count as there to be found


def sequential_cell(seed: int, boards: int, which: str) -> dict[str, list[float]]:
    """Seeds added where they decide, beside fixed designs on the same boards."""
    fixed = (5, 6, 7, MOST) if which in WITH_DIFFERENCES else (MOST,)
    rules = {"until decided": Rule.of_seeds(2, MOST)} | {f"{seeds} seeds": Rule((seeds,)) for seeds in fixed}
    rng = np.random.default_rng([seed, list(SEQUENTIAL).index(which)])
    hits = beside_fixed_designs(rng, boards, which, rules, MOST, 200, "trainings per row")
    if which in WITH_DIFFERENCES:
        rng = np.random.default_rng([seed, 2, list(SEQUENTIAL).index(which)])
        for start in range(0, boards, 50):
            x = gold_rewards(rng, min(50, boards - start), which, EQUAL_POWER, 200)
            for name, values in known_beforehand(x, SEQUENTIAL[which] >= FOUND).items():
                hits.setdefault(f"verdicts known beforehand: {name}", []).extend(values.astype(float).tolist())
    return hits


def known_beforehand(x: Floats, real: NDArray[np.bool_]) -> dict[str, Floats]:
    """What one who knew all verdicts of a fixed design would train to reach them by the same tests.

    A row gets seeds until the tests of a fixed design decide it, looks cost no level, and a row that the last seed would not
    decide stops at two. No rule that looks at the data can need fewer trainings at the power of that design.

    Args:
        x: [boards, rows, seeds, prompts], all that the fixed design would train.
    """
    boards, rows, most = x.shape[:3]
    differs, excluded = np.full((boards, rows), most + 1), np.full((boards, rows), most + 1)
    for seeds in range(most, 1, -1):
        state, _ = run_sequentially(x[:, :, :seeds], Rule((seeds,)))
        differs[state.significant], excluded[~state.may_be_best] = seeds, seeds
    found, may = differs <= most, excluded > most
    differs, excluded = np.where(found, differs, 2), np.where(may, 2, excluded)
    needed = np.maximum(differs, excluded)
    needed[:, 0] = np.maximum(differs[:, 1:].max(axis=1), excluded[:, 0])  # the baseline stands beside every row
    best = np.where(may, x.mean(axis=(2, 3)), -np.inf).argmax(axis=1)  # and so does the row that excludes others
    at = np.arange(boards), best
    needed[at] = np.maximum(needed[at], excluded.max(axis=1))
    return {
        "trainings per row": needed.mean(axis=1),
        "differences found": found[:, real].mean(axis=1),
        "rows that may be best": may.sum(axis=1),
    }


def prompts_cell(seed: int, boards: int, which: str, seeds: int) -> dict[str, list[float]]:
    """Prompts added where they decide, beside fixed designs on the same boards."""
    fixed = (400, MOST_PROMPTS) if which in WITH_DIFFERENCES else (MOST_PROMPTS,)
    rules = {"until decided": Rule.of_prompts(100, MOST_PROMPTS)}
    rules |= {f"{prompts} prompts": Rule((prompts,), "questions") for prompts in fixed}
    rng = np.random.default_rng([seed, 1, list(SEQUENTIAL).index(which), seeds])
    return beside_fixed_designs(rng, boards, which, rules, seeds, MOST_PROMPTS, "prompts per row")


def beside_fixed_designs(
    rng: np.random.Generator, boards: int, which: str, rules: Mapping[str, Rule], seeds: int, prompts: int, counted: str
) -> dict[str, list[float]]:
    """Boards of so many seeds and prompts at most, decided by each rule."""
    effects = SEQUENTIAL[which]
    real, best = effects >= FOUND, int(effects.argmax())
    hits: dict[str, list[Floats]] = {}
    at_once = 50 if prompts == 200 else 25
    for start in range(0, boards, at_once):
        x = gold_rewards(rng, min(at_once, boards - start), which, seeds, prompts)
        for name, rule in rules.items():
            state, given = run_sequentially(x, rule)
            if real.any():
                hits.setdefault(f"{name}: differences found", []).append(state.significant[:, real].mean(axis=1))
                hits.setdefault(f"{name}: rows that may be best", []).append(state.may_be_best.sum(axis=1))
            hits.setdefault(f"{name}: false stars", []).append(state.significant[:, effects == 0].any(axis=1))
            hits.setdefault(f"{name}: best missed", []).append(~state.may_be_best[:, best])
            hits.setdefault(f"{name}: {counted}", []).append(given.mean(axis=1))
    return {name: np.concatenate(parts).astype(float).tolist() for name, parts in hits.items()}


def gold_rewards(rng: np.random.Generator, boards: int, which: str, seeds: int, prompts: int) -> Floats:
    """Scores of boards of one kind, [boards, rows, seeds, prompts]."""
    effects = SEQUENTIAL[which]
    rows = len(effects)
    own = np.full(rows, 0.06)
    own[-1] *= RESTLESS if which == "restless" else 1.0
    x = effects[:, None, None] + own[:, None, None] * rng.standard_normal((boards, rows, seeds, 1))
    x = x + 0.2 * rng.standard_normal((boards, rows, 1, prompts))
    return x + 1.45 * rng.standard_normal((boards, rows, seeds, prompts))


def run_sequentially(x: Floats, rule: Rule) -> tuple[State, NDArray[np.intp]]:
    """The last state, and the seeds or prompts of each row, for boards [boards, rows, seeds, prompts]."""
    boards, rows = x.shape[:2]
    state, given = State.start(rows, (boards,)), np.zeros((boards, rows), dtype=np.intp)
    for look in rule.looks:
        if not state.open.any():
            break
        given[state.open] = look
        here = np.arange(look) < given[..., None]
        if rule.adds == "seeds":
            shown = np.where(here[..., None], x[:, :, :look], np.nan)
        else:
            shown = np.where(here[:, :, None], x[..., :look], np.nan)
        state = decide(shown, state, rule)
    return state, given


Job = tuple[str, Mapping[str, Any], Callable[[], dict[str, list[float]]]]


def jobs(boards: int, seed: int = 1) -> Iterator[Job]:
    """Every cell, with what it is called and where it stands in the grid.

    The levels of the methods were chosen on boards of seed 0, so that those of other seeds test them.
    """
    for seeds, prompts, kind, restless in product(SEEDS, PROMPTS, KINDS, (1.0, RESTLESS)):
        where = {"seeds": seeds, "prompts": prompts, "scores": kind, "restless": restless > 1}
        if seeds > 1 or restless == 1.0:
            yield "grid", where, partial(grid_cell, seed, boards, seeds, prompts, kind, restless)
    for seeds, prompts, own in product(SEEDS, PROMPTS, (0.03, 0.1)):
        where = {"seeds": seeds, "prompts": prompts, "seed deviation": own}
        yield "power", where, partial(power_cell, seed, 2 * boards, seeds, prompts, own)
    for seeds, prompts in product(SEEDS, PROMPTS):
        where = {"seeds": seeds, "prompts": prompts}
        few = {40: boards, 200: boards // 2, 805: boards // 8}[prompts]
        yield "length-controlled", where, partial(length_controlled_cell, seed, max(few, 10), seeds, prompts)
    for seeds, prompts in product(SEEDS, (40, 200)):
        yield "strengths", {"seeds": seeds, "prompts": prompts}, partial(strengths_cell, seed, boards, seeds, prompts)
    for which in SEQUENTIAL:
        yield "sequential", {"board": which}, partial(sequential_cell, seed, boards, which)
    for which, seeds in product(SEQUENTIAL, (3, 5)):
        where = {"board": which, "seeds": seeds}
        few = max(boards // (2 if which == "restless" else 8), 10)
        yield "sequential prompts", where, partial(prompts_cell, seed, few, which, seeds)


def measure(job: Job) -> dict[str, Any]:
    """One cell: for each statement its rate and the Monte Carlo standard error of it, and the seconds of processor time."""
    group, where, cell = job
    start = time.process_time()
    rates = {
        name: {"rate": round(float(np.mean(hits)), 4), "error": round(float(np.std(hits) / np.sqrt(len(hits))), 4)}
        for name, hits in cell().items()
    }
    return {"group": group, **where, "rates": rates, "seconds": round(time.process_time() - start, 1)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--boards", type=int, help="per cell; 2,000 by default, 400 with --quick")
    parser.add_argument("--quick", action="store_true", help="a fifth of the boards")
    parser.add_argument(
        "--only", help="a group of cells: grid, power, length-controlled, strengths, sequential or sequential prompts"
    )
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    boards = given.boards or (400 if given.quick else 2000)
    cells = [job for job in jobs(boards) if given.only in (None, job[0])]
    start, found = time.perf_counter(), []
    with ProcessPoolExecutor(given.processes) as pool:
        for cell in pool.map(measure, cells):
            found.append(cell)
            print(json.dumps(cell), flush=True)
    answer = {"boards": boards, "minutes": round((time.perf_counter() - start) / 60, 1), "cells": found}
    given.out.write_text(json.dumps(answer, indent=1) + "\n")


if __name__ == "__main__":
    main()
