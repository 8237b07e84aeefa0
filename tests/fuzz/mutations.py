"""Whole things with something wrong in them: trees of plain values and bytes, changed in a few places."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from typing import Any

from hypothesis import strategies as st

HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**30, 10**400, 0.5, 1e308, -1e308, 5e-324),
    *(math.nan, math.inf, -math.inf),
    *("", " ", "\x00", "a\x00b", "\x1b[2J", "\u202egnp", "\ud800", "0", "1e999", "nan", "=1+1", "<script>", "null"),
    *("../../../outside", "/etc/passwd", "~no-such-user/x", "C:\\x", "a/b", "file://x", "http://user:pass@host/v1", "x" * 5000),
    *("{{ 1 }}", "{% for", "%s%n", "{0}", "${HOME}", "\u2028", "👩‍👩‍👧", "e\u0301"),
)
TREES: tuple[Any, ...] = ([], {}, [[]], [None], [1, "a", None], {"": ""}, {"name": None}, {"a": {"b": [1]}}, [{}], ["x"] * 300)

values = st.one_of(
    st.sampled_from(HOSTILE),
    st.sampled_from(TREES).map(copy.deepcopy),
    st.text(max_size=12),
    st.integers(-100, 100),
    st.floats(),
)


@st.composite
def changed(draw: st.DrawFn, whole: Any, most: int = 3) -> Any:
    """`whole` with one to `most` of its parts replaced, removed, repeated, renamed or swapped for another part."""
    holder = [copy.deepcopy(whole)]
    for _ in range(draw(st.integers(1, most))):
        places = list(_places(holder))
        node, key = places[draw(st.integers(0, len(places) - 1))]
        _change(draw, holder, node, key)
    return holder[0] if holder else None


def _change(draw: st.DrawFn, holder: list[Any], node: Any, key: Any) -> None:
    how = draw(st.sampled_from(("replace", "replace", "replace", "remove", "repeat", "rename", "swap", "wrap")))
    if how == "remove" and node is not holder:
        del node[key]
    elif how == "repeat" and isinstance(node, list):
        node.insert(key, copy.deepcopy(node[key]))
    elif how == "rename" and isinstance(node, dict):
        node[draw(st.one_of(st.text(max_size=8), st.sampled_from([v for v in HOSTILE if isinstance(v, str)])))] = node.pop(key)
    elif how == "swap":
        places = list(_places(holder))
        other, there = places[draw(st.integers(0, len(places) - 1))]
        node[key] = copy.deepcopy(other[there])
    elif how == "wrap":
        node[key] = [node[key]]
    else:
        node[key] = draw(values)


def _places(node: Any) -> Iterator[tuple[Any, Any]]:
    """Every part of a tree, as what holds it and where."""
    for key, child in list(node.items() if isinstance(node, dict) else enumerate(node)):
        yield node, key
        if isinstance(child, dict | list):
            yield from _places(child)


@st.composite
def damaged(draw: st.DrawFn, content: bytes) -> bytes:
    """`content` with bytes overwritten, removed, put in, or cut off."""
    raw = bytearray(content)
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(len(raw) - 1, 0)))
        how = draw(st.sampled_from(("overwrite", "insert", "remove", "cut", "repeat")))
        some = draw(
            st.one_of(st.binary(min_size=1, max_size=8), st.sampled_from((b"\xff" * 4, b"\0" * 8, b"\x7f\xff\xff\xff")))
        )
        if how == "cut":
            del raw[at:]
        elif how == "remove":
            del raw[at : at + len(some)]
        elif how == "repeat":
            raw[at:at] = raw[max(0, at - 40) : at]
        else:
            raw[at : at + (len(some) if how == "overwrite" else 0)] = some
    return bytes(raw)
