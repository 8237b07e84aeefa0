"""Where a number comes from: every statistic of a row, and what the row was made with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from harness.board.board import Board, MetricEntry, RowEntry
from harness.board.views import text

COLUMNS = (
    *("Metric", "Mean", "Interval", "Per seed", "n", "Δ", "Interval of Δ", "p", "p corrected", "q", "p over seeds"),
    *("Effect", "Won / tied / lost", "Smallest seen"),
)
NONE = ""
# Where ids of responses come from, as the `groups` stage counts them.
RESPONSES = {"as_sampled": "as sampled", "tokenized_again": "tokenized again", "from_dataset": "from the data"}

UNTRAINED = "not trained"


def numbers(board: Board) -> dict[str, Any]:
    """Every row's numbers as a page shows them: per row a list per metric it has, its cells by `COLUMNS`, and a verdict."""
    return {
        "columns": COLUMNS,
        "rows": [[_cells(row, metric) for metric in board.metrics if metric.key in row.scores] for row in board.rows],
    }


def _cells(row: RowEntry, metric: MetricEntry) -> list[str]:
    score, delta = row.scores[metric.key], row.scores[metric.key].delta
    cells = [text.one_line(metric.key), text.number(score.mean), _interval(score.low, score.high)]
    cells += [", ".join(text.number(mean) for mean in score.per_seed), f"{score.n:,}"]
    if delta is None:
        return cells
    wins = delta.wins
    cells += [text.signed(delta.mean) + delta.mark, _interval(delta.low, delta.high, signed=True), _small(delta.p)]
    cells += [_small(delta.p_adjusted), _small(delta.q), _small(delta.p_seeds)]
    cells += [NONE if delta.effect is None else text.signed(delta.effect)]
    cells += [NONE if wins is None else f"{wins.won:.0%} / {wins.tied:.0%} / {wins.lost:.0%}"]
    cells += [NONE if delta.detectable is None else text.number(delta.detectable)]
    return [*cells, delta.verdict(metric)]


def _interval(low: float | None, high: float | None, signed: bool = False) -> str:
    shown = text.signed if signed else text.number
    return NONE if low is None or high is None else f"{shown(low)} … {shown(high)}"


def _small(p: float | None) -> str:
    return NONE if p is None else "<0.001" if p < 0.001 else f"{p:.3f}"


def made_of(board: Board, row: RowEntry) -> list[tuple[str, str]]:
    """What a reader needs to make the row again, as far as the board knows: names and values."""
    known = row.provenance
    facts = [
        ("Kind", row.kind),
        ("Source", _source(known)),
        ("Data", row.data),
        ("Objective", row.objective),
        ("Rounds", str(row.rounds) if row.rounds else None),
        ("Seeds", ", ".join(str(seed) for seed in row.seeds)),
        ("Starting model", _starting_model(known.get("model"))),
        ("Chat template", _digest(_of(known.get("model"), "chat_template_sha256"))),
        ("Data set", _digest(known.get("dataset"))),
        ("Models", _models(known.get("models"))),
        ("Judge", _judges(known.get("judges"))),
        ("Backend", _of(known.get("backend"), "name")),
        ("Responses", _responses(known.get("data"))),
        ("Precision", precision(known)),
        ("Written by", ", ".join(f"{'harness' if key == 'version' else key} {v}" for key, v in sorted(board.harness.items()))),
        ("Versions", _listed(board.sharing.get("versions"))),
        ("Command", board.sharing.get("command") if not row.is_published else None),
    ]
    return [(name, str(value)) for name, value in facts if value]


def precision(known: Mapping[str, Any]) -> str:
    """In which types a row was trained, is stored, was scored and generated; empty where its provenance does not say."""
    types = known.get("precision")
    if not isinstance(types, Mapping) or not {"training", "weights", "scoring", "generation"} <= types.keys():
        return ""
    trained = f"trained with products in {types['training']}" if types["training"] != "none" else UNTRAINED
    if "bfloat16" in types["training"]:
        trained += " (its references and refinements too)"
    rewards = f", reward models in {types['rewards']}" if "rewards" in types else ""
    return (
        f"{trained}, weights kept in {types['weights']}, log-probabilities scored in {types['scoring']}, "
        f"text generated in {types['generation']}{rewards}"
    )


def board_precision(board: Board) -> str:
    """The same of all rows, with the rows' names where they differ in more than that some were not trained."""
    rows: dict[str, list[str]] = {}
    for row in board.rows:
        if words := precision(row.provenance):
            rows.setdefault(words, []).append(text.shortened(text.one_line(row.method), 40))
    for words in [words for words in rows if words.startswith(UNTRAINED)]:
        if any(other != words and other.endswith(words.removeprefix(UNTRAINED)) for other in rows):
            del rows[words]
    if len(rows) < 2:
        return "".join(rows)
    return "; ".join(f"{words} ({', '.join(labels)})" for words, labels in rows.items())


def _source(known: Mapping[str, Any]) -> str:
    """Of numbers from elsewhere: where they stand."""
    return "; ".join(str(known[name]) for name in ("source", "paper", "table", "url") if known.get(name))


def _of(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, Mapping) else None


def _starting_model(model: Any) -> str:
    if not isinstance(model, Mapping):
        return ""
    if model.get("scratch"):
        return "made from the training text"
    names = [str(model[key]) for key in ("name", "path", "id", "revision") if model.get(key)]
    return " ".join(names)


def _digest(value: Any) -> str:
    return f"sha256 {value}" if isinstance(value, str) and value else ""


def _models(models: Any) -> str:
    return ", ".join(f"seed {seed}: {key}" for seed, key in models.items()) if isinstance(models, Mapping) else ""


def _responses(data: Any) -> str:
    """Return where the ids of the trained responses come from, over all seeds and rounds."""
    rounds = (
        [facts for entry in data.values() if isinstance(entry, list) for facts in entry] if isinstance(data, Mapping) else []
    )
    counts = [count for facts in rounds if isinstance(count := _of(facts, "responses"), Mapping)]
    totals = {name: sum(n for count in counts if isinstance(n := count.get(name), int)) for name in RESPONSES}
    return ", ".join(f"{totals[name]:,} {words}" for name, words in RESPONSES.items() if totals[name])


def _judges(judges: Any) -> str:
    """Who judged, by evaluator, with the versions that their servers reported."""
    if not isinstance(judges, Mapping):
        return ""
    return "; ".join(f"{evaluator}: {_names(judge)}" for evaluator, judge in judges.items())


def _names(judge: Any) -> str:
    versions = _of(judge, "versions")
    named = ", ".join(str(v) for v in versions) if isinstance(versions, Iterable) and not isinstance(versions, str) else ""
    return named or str(_of(judge, "model") or judge)


def _listed(versions: Any) -> str:
    """By name: a board in memory and one from its file are shown alike."""
    return ", ".join(f"{name} {version}" for name, version in sorted(versions.items())) if isinstance(versions, Mapping) else ""
