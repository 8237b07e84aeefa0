"""Format text and numbers for people. Text comes from models and files, so none of it is trusted."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any

# Other, control · other, format (bidirectional marks, zero widths) · surrogates · line and paragraph separators
HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
JOINERS = "\u200c\u200d"  # Persian and Indic scripts and many emoji need them


def visible(text: str, *, keep: str = "\n\t") -> str:
    r"""Return `text` with every invisible character written out, as in `\x1b` or `\u202e`.

    Args:
        keep: invisible characters that stay as they are.
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_shown(character, keep) for character in text)


def one_line(text: str) -> str:
    r"""Return `visible` text in one line, with line breaks written out as `\n`."""
    return visible(text, keep="")


def shortened(text: str, limit: int = 26) -> str:
    """Return at most `limit` characters, with an ellipsis in the middle, since the ends of names tell rows apart."""
    shown = one_line(text)
    if len(shown) <= limit:
        return shown
    head = (limit - 1) // 2
    return f"{shown[:head]}…{shown[len(shown) - (limit - 1 - head) :]}"


def _shown(character: str, keep: str) -> str:
    if character in keep or character in JOINERS or unicodedata.category(character) not in HIDDEN:
        return character
    return character.encode("unicode_escape").decode("ascii")


def plain(value: Any) -> Any:
    """Return `value` as JSON types: keys as text, sets sorted; NaN, infinities and all other types as text."""
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return value if value.isprintable() else "".join(c if unicodedata.category(c) != "Cs" else _shown(c, "") for c in value)
    if isinstance(value, Mapping):
        return {plain(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, Set):
        return sorted((plain(item) for item in value), key=str)
    if isinstance(value, Sequence):
        return [plain(item) for item in value]
    return plain(str(value))


def number(value: float) -> str:
    """Return three decimals below 10, fewer above: 0.612, 48.3, 1,204. A zero after rounding has no minus."""
    size = abs(value)
    text = f"{size:,.0f}" if size >= 999.95 else f"{size:.1f}" if size >= 9.9995 else f"{size:.3f}"
    return f"−{text}" if value < 0 and text.strip("0.") else text


def signed(value: float) -> str:
    """Return `number` with its sign: +0.612."""
    text = number(value)
    return f"+{text}" if value > 0 and text.strip("0.") else text


def duration(seconds: float) -> str:
    """Return a duration in a fitting unit: 42 s, 3.5 min, 2.1 h."""
    if seconds < 99.5:
        return f"{seconds:.0f} s" if seconds >= 9.95 else f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5970 else f"{seconds / 3600:.1f} h"


def count(value: float) -> str:
    """Return a count in a fitting unit: 950, 12.4k, 3.1M, 2.0B."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= size:
            return f"{value / (1e3 if unit == 'k' else size):.1f}{unit}"
    return f"{value:,.0f}" if float(value).is_integer() else number(value)


def p_value(p: float) -> str:
    """Return a p value in words: p = 0.031, or p < 0.001."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def data_lines(data: Mapping[str, Any]) -> list[str]:
    """Return a sentence each on the rows that a source kept and on each reason for dropping others."""
    kept = ", ".join(f"{split} {count:,}" for split, count in data.get("kept", {}).items())
    lines = [f"data: {kept}"] if kept else []
    if dropped := data.get("dropped"):
        lines.append("dropped by the source: " + ", ".join(f"{count:,} {reason}" for reason, count in sorted(dropped.items())))
    for split, reasons in data.get("too_long", {}).items():
        if reasons:
            lines.append(
                f"too long in {split}: " + ", ".join(f"{count:,} over {name}" for name, count in sorted(reasons.items()))
            )
    contaminated = data.get("contaminated", {})
    if contaminated:
        counts = [f"{split} {sum(how.values())} ({', '.join(_ways(how))})" for split, how in contaminated.items()]
        lines.append(f"prompts left out because they are evaluated: {', '.join(counts)}")
    for name, benchmark in data.get("benchmarks", {}).items():
        if benchmark.get("unknown") is None:
            overlaps = [
                f"{split} {count['prompts']:,} of {count['of']:,}" for split, count in benchmark.get("splits", {}).items()
            ]
            questions = f"{name}'s {benchmark.get('questions', 0):,} questions"
            lines.append(f"training prompts with one of {questions}: {', '.join(overlaps) or 'none'}")
    return lines


def _ways(how: Mapping[str, int]) -> Iterator[str]:
    """Yield how many prompts match evaluated ones, by the kind of match. Older boards count exact matches only."""
    yield f"{how.get('exact', 0)} exact"
    if how.get("continued"):
        yield f"{how['continued']:,} another cut of an evaluated dialogue"
    if how.get("benchmark"):
        yield f"{how['benchmark']:,} with a benchmark's question"
