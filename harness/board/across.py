"""Compare starting models: does the order of rows, and what each gains over the baseline, carry over from one to another?

Rows take part that compete in the ranking and were trained here: a model from elsewhere is the same whatever the start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from harness.board.board import Board, ExampleRow
from harness.board.build import states_by_position
from harness.board.by_model import (
    SEPARATOR,
    AcrossEntry,
    GainEntry,
    InteractionEntry,
    ModelEntry,
    OrderEntry,
    ReversalEntry,
)
from harness.board.compare import DRAWS, FLIPS, LEVEL, RowResult, aligned, readings
from harness.board.entries import FamilyEntry, MetricEntry
from harness.board.facts import SharingFacts
from harness.board.sequential import crossed_tables
from harness.board.statistics import Bootstrap, Difference, Floats, Values, both, holm, pairs
from harness.board.statistics.agreement import agree
from harness.board.statistics.bootstrap import bounds_of
from harness.board.statistics.carry_over import OrderBounds, PairTests, interaction, order_bounds, pair_tests, signs
from harness.board.views.text import plain

FEWEST_ROWS = 3  # an order of two rows is one pair
LEVEL_OF_BOUNDS = 1 - LEVEL


@dataclass(frozen=True)
class _Cell:
    """One primary metric under two starting models.

    Attributes:
        rows: that both have, in a fixed order.
        means: of them, [2, rows], turned so that higher is better.
        tests: of every pair of them; None with fewer than two.
        gaps: row -> its gain over the baseline under the first model minus that under the second.
    """

    metric: MetricEntry
    left: str
    right: str
    rows: tuple[str, ...]
    means: Floats
    tests: PairTests | None
    gaps: Mapping[str, Difference]


def compare_models(
    rows: Mapping[str, Sequence[RowResult]], metrics: Sequence[MetricEntry], baseline: str, *, mixed_judges: bool = False
) -> tuple[AcrossEntry, list[str]]:
    """Return what carries over between starting models on the primary metrics, and why a metric says nothing of it.

    Args:
        rows: by the model's label, at least two.
        baseline: the label of the row that is compared with under each model.
    """
    primary = [metric for metric in metrics if metric.primary] or list(metrics[:1])
    competing = {
        model: {row.label: row for row in listed if row.is_trained_here and not row.is_reference and not row.failed}
        for model, listed in rows.items()
    }
    baselines = {model: next(row for row in listed if row.label == baseline) for model, listed in rows.items()}
    cells, interactions, warnings = list[_Cell](), list[InteractionEntry](), list[str]()
    for metric in primary:
        if metric.higher_is_better is None:
            continue
        evaluator = metric.key.partition("/")[0]
        judges = {tuple(row.judges(evaluator)) for listed in competing.values() for row in listed.values()} - {()}
        if len(judges) > 1 and not mixed_judges:
            warnings.append(f"Starting models are not compared on {metric.key}, since different judges marked their rows.")
            continue
        values = {
            model: {
                label: table.answered()
                for label, row in {baseline: baselines[model], **listed}.items()
                if (table := readings(row, [metric])[0].get(metric.key)) is not None
            }
            for model, listed in competing.items()
        }
        cells += [
            _cell(
                metric, (left, right), values, tuple(label for label in competing[left] if label in competing[right]), baseline
            )
            for left, right in combinations(values, 2)
        ]
        if (entry := _interaction(metric, values, competing)) is not None:
            interactions.append(entry)
    return _entry(cells, interactions), warnings


def _cell(
    metric: MetricEntry,
    models: tuple[str, str],
    values: Mapping[str, Mapping[str, Values]],
    labels: tuple[str, ...],
    baseline: str,
) -> _Cell:
    one, other = values[models[0]], values[models[1]]
    rows = tuple(sorted(label for label in labels if label in one and label in other))
    sign = -1.0 if metric.higher_is_better is False else 1.0
    tables = _tables([[side[label] for label in rows] for side in (one, other)], sign) if len(rows) > 1 else None
    if tables is None:
        means, tests = np.zeros((2, 0)), None
    else:
        means = tables.mean(axis=(2, 3))
        tests = pair_tests(pairs(tables[0]), pairs(tables[1]))
    return _Cell(metric, *models, rows, means, tests, _gaps(one, other, rows, baseline))


def _tables(models: Sequence[Sequence[Values]], sign: float) -> Floats | None:
    """Return [models, rows, seeds, questions] of the seeds that all rows have; None where they share none, or one question."""
    seeds = set.intersection(*(set(row.seeds) for listed in models for row in listed))
    if not seeds:
        return None
    flat = [row.of_seeds(sorted(seeds)) for listed in models for row in listed]
    tables = crossed_tables(flat, sign)
    if tables.shape[-1] < 2 or not np.isfinite(tables).all():
        return None
    return tables.reshape(len(models), len(models[0]), *tables.shape[1:])


def _gaps(one: Mapping[str, Values], other: Mapping[str, Values], rows: Sequence[str], baseline: str) -> dict[str, Difference]:
    """Return each row's gain under one model minus its gain under the other, with the board's tests of a difference.

    The model's effect on a row, y(one) − y(other), is a table of seeds and questions like any other: the difference of that
    of a row from that of the baseline is the difference of the row's gains.
    """
    if baseline not in one or baseline not in other:
        return {}
    effects: dict[str, Values] = {}
    for label in dict.fromkeys((*rows, baseline)):
        left, right = aligned([one[label], other[label]])
        seeds = sorted(set(left.seeds) & set(right.seeds))
        if seeds:
            gap = left.of_seeds(seeds).values - right.of_seeds(seeds).values
            effects[label] = Values(left.examples, gap, tuple(seeds), left.questions)
    if baseline not in effects:
        return {}
    labels = [label for label in rows if label in effects and label != baseline]
    # A gain in a proportion is between −1 and 1, and so is the model's effect on a row.
    bounds = (-1.0, 1.0) if bounds_of([side[label] for label in effects for side in (one, other)]) else None
    *tables, base = aligned([*(effects[label] for label in labels), effects[baseline]])
    gaps = Bootstrap(DRAWS, FLIPS, LEVEL).differences(tables, base, bounds=bounds) if labels else []
    return {label: gap for label, gap in zip(labels, gaps, strict=True) if isinstance(gap, Difference)}


def _interaction(
    metric: MetricEntry, values: Mapping[str, Mapping[str, Values]], competing: Mapping[str, Mapping[str, RowResult]]
) -> InteractionEntry | None:
    """Return the test over all models at once, on the rows that all of them have."""
    labels = set.intersection(*(set(listed) & set(values[model]) for model, listed in competing.items()))
    rows = sorted(labels)
    if len(rows) < 2:
        return None
    tables = _tables([[values[model][label] for label in rows] for model in values], 1.0)
    tested = None if tables is None else interaction(tables)
    if tables is None or tested is None:
        return None
    return InteractionEntry(
        metric=metric.key,
        f=tested.f,
        freedom=(float(tested.rows_freedom), tested.error_freedom),
        p=tested.p,
        p_adjusted=tested.p,  # corrected with those of the other metrics in `_entry`
        rows=len(rows),
        seeds=tables.shape[2],
        questions=tables.shape[3],
    )


def _entry(cells: Sequence[_Cell], interactions: Sequence[InteractionEntry]) -> AcrossEntry:
    """Return the board's entry, each kind of test corrected over metrics, models and rows together."""
    reversals = [(cell, place) for cell in cells if cell.tests is not None for place in range(len(cell.tests.reversed))]
    corrected = _corrected(reversals)
    gains = [(cell, label, gap) for cell in cells for label, gap in cell.gaps.items()]
    adjusted = both(np.array([gap.p for _, _, gap in gains]), np.array([gap.p_own for _, _, gap in gains])).tolist()
    families = [
        ("interaction of rows and starting models", [item.metric for item in interactions]),
        ("gains under two starting models", [cell.metric.key for cell, _, _ in gains]),
        ("pairs of rows whose order reverses", [cell.metric.key for cell, _ in reversals]),
    ]
    return AcrossEntry(
        orders=tuple(entry for cell in cells if (entry := _order(cell)) is not None),
        interactions=tuple(
            item.model_copy(update={"p_adjusted": p})
            for item, p in zip(interactions, holm([item.p for item in interactions]), strict=True)
        ),
        gains=tuple(
            GainEntry(
                metric=cell.metric.key,
                row=plain(label),
                left=plain(cell.left),
                right=plain(cell.right),
                mean=gap.mean,
                low=gap.low,
                high=gap.high,
                p=gap.p,
                p_own=gap.p_own,
                p_adjusted=p,
                one_seed=True if gap.seeds < 2 else None,
            )
            for (cell, label, gap), p in zip(gains, adjusted, strict=True)
        ),
        reversals=tuple(
            _reversal(cell, place, p)
            for (cell, place), p in zip(reversals, corrected, strict=True)
            if _is_reversed(cell, place)
        ),
        families=tuple(
            FamilyEntry(name=name, metrics=tuple(dict.fromkeys(keys)), tests=len(keys)) for name, keys in families if keys
        ),
    )


def _corrected(reversals: Sequence[tuple[_Cell, int]]) -> list[float]:
    tests = [(cell.tests, place) for cell, place in reversals if cell.tests is not None]
    p = np.array([test.reversed[place] for test, place in tests])
    own = np.array([test.reversed_own[place] for test, place in tests])
    return [float(value) for value in both(p, own)] if len(p) else []


def _order(cell: _Cell) -> OrderEntry | None:
    """Return how far two models order the rows alike; None where they have fewer than three in common."""
    if cell.tests is None or len(cell.rows) < FEWEST_ROWS:
        return None
    correlations = agree(cell.means[0], cell.means[1])
    bounds: OrderBounds = order_bounds(cell.tests, LEVEL_OF_BOUNDS)
    if correlations is None:
        return None
    return OrderEntry(
        metric=cell.metric.key,
        left=plain(cell.left),
        right=plain(cell.right),
        rows=len(cell.rows),
        kendall=correlations[0],
        spearman=correlations[1],
        low=bounds.low,
        high=bounds.high,
        pairs=bounds.pairs,
        same=bounds.same,
        reversed=bounds.reversed,
    )


def _is_reversed(cell: _Cell, place: int) -> bool:
    return bool(signs(cell.means[0])[place] * signs(cell.means[1])[place] < 0)


def _reversal(cell: _Cell, place: int, p_adjusted: float) -> ReversalEntry:
    above, below = (int(listed[place]) for listed in np.triu_indices(len(cell.rows), 1))
    if signs(cell.means[0])[place] < 0:
        above, below = below, above
    assert cell.tests is not None
    gaps = [float(means[above] - means[below]) for means in cell.means]
    turned = -1.0 if cell.metric.higher_is_better is False else 1.0
    return ReversalEntry(
        metric=cell.metric.key,
        left=plain(cell.left),
        right=plain(cell.right),
        better=plain(cell.rows[above]),
        worse=plain(cell.rows[below]),
        difference_left=turned * gaps[0],
        difference_right=turned * gaps[1],
        p=float(cell.tests.reversed[place]),
        p_adjusted=p_adjusted,
    )


def join_models(boards: Mapping[str, Board], rows: Mapping[str, Sequence[RowResult]], sharing: SharingFacts) -> Board:
    """Return one board with the rows of several starting models, each compared with its own baseline.

    Args:
        boards: the board of each model by its label, all of one config but for `model`.
        rows: the results that the boards were built from.
        sharing: what the rows of all models shared.
    """
    first = next(iter(boards.values()))
    metrics = tuple({metric.key: metric for board in boards.values() for metric in board.metrics}.values())
    across, notes = compare_models(rows, metrics, first.baseline, mixed_judges=first.mixed_judges)
    common = [text for text in first.warnings if all(text in board.warnings for board in boards.values())]
    joined = Board(
        name=first.name,
        description=first.description,
        created=first.created,
        harness=first.harness,
        config={**first.config, "model": [{"label": label, **board.config["model"]} for label, board in boards.items()]},
        baseline=first.baseline,
        metrics=metrics,
        rows=tuple(
            row.model_copy(update={"method": f"{label}{SEPARATOR}{row.method}", "model": label})
            for label, board in boards.items()
            for row in board.rows
        ),
        statistics=first.statistics.model_copy(
            update={
                "correction": f"{first.statistics.correction}; under each starting model on its own",
                "families": across.families or None,
                "judges": None,
            }
        ),
        sharing=sharing,
        warnings=(*common, *map(plain, notes)),
        models=tuple(
            ModelEntry(
                label=label,
                statistics=board.statistics,
                warnings=tuple(text for text in board.warnings if text not in common),
                analysis=board.analysis,
            )
            for label, board in boards.items()
        ),
        across=across,
    )
    scores = {
        f"{label}{SEPARATOR}{row.label}": row.scores for label, listed in rows.items() for row in listed if not row.failed
    }
    joined = joined.with_examples(_joined_examples(boards)).with_scores(scores)
    relabelled = [replace(row, label=f"{label}{SEPARATOR}{row.label}") for label, listed in rows.items() for row in listed]
    joined = joined.with_states(states) if (states := states_by_position(relabelled)) else joined
    builds = {label: board.evidence.builds[""] for label, board in boards.items() if board.evidence is not None}
    return joined.noting(builds)


def _joined_examples(boards: Mapping[str, Board]) -> list[ExampleRow]:
    """Return each prompt once, with the answers of the rows of all models."""
    examples: dict[str, ExampleRow] = {}
    for label, board in boards.items():
        for example in board.example_rows:
            known = examples.get(example.id, replace(example, answers={}, judged={}))
            answers = {f"{label}{SEPARATOR}{row}": answer for row, answer in example.answers.items()}
            judged = {f"{label}{SEPARATOR}{row}": words for row, words in example.judged.items()}
            examples[example.id] = replace(known, answers={**known.answers, **answers}, judged={**known.judged, **judged})
    return list(examples.values())
