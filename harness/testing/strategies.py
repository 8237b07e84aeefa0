"""Hypothesis strategies for property tests of plugins. Needs the extra `testing`: pip install alignment-harness[testing]."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from harness.api.interfaces import Objective
from harness.api.types import Group, GroupLogps, Logps, Message, Mismatched, Prompt, Response, View
from harness.testing.batches import shaped

_WORDS = st.lists(st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=8), min_size=1, max_size=12)


def texts() -> st.SearchStrategy[str]:
    """A few words of any script, never empty."""
    return _WORDS.map(" ".join)


@st.composite
def prompts(draw: st.DrawFn) -> Prompt:
    """A dialogue of one to three turns, the user's last."""
    turns = draw(st.lists(texts(), min_size=1, max_size=3).filter(lambda turns: len(turns) % 2 == 1))
    roles = ("user", "assistant", "user")
    messages = tuple(Message(role, text) for role, text in zip(roles, turns, strict=False))  # type: ignore[arg-type]
    return Prompt(draw(st.uuids()).hex, messages)


def responses() -> st.SearchStrategy[Response]:
    """A response, mostly one that was ended."""
    return st.builds(Response, texts(), finished=st.sampled_from([True, True, False]))


@st.composite
def groups(draw: st.DrawFn, *, least: int = 1, most: int = 4) -> Group:
    """A group with `least` to `most` distinct rejected responses, none of them the chosen one."""
    chosen, *rejected = draw(st.lists(responses(), min_size=least + 1, max_size=most + 1, unique_by=lambda item: item.text))
    return Group(draw(prompts()), chosen, tuple(rejected))


@st.composite
def group_logps(
    draw: st.DrawFn, objective: Objective | None = None, *, most_groups: int = 4, most_negatives: int = 4
) -> GroupLogps:
    """A float64 batch with what `objective` asks for (a reference alone without one): ragged masks, −0.01 to −8 nats a token.

    A group has no negatives only where the objective allows it. Empty slots hold 0 nats and one token, as in training.
    """
    import torch

    least = 1 if objective is None or objective.needs_rejected else 0
    counts = draw(st.lists(st.integers(least, most_negatives), min_size=1, max_size=most_groups))
    size = (len(counts), max(counts) + 1)
    mask = torch.tensor([[slot < count for slot in range(max(counts))] for count in counts], dtype=torch.bool)
    mask = mask.reshape(len(counts), max(counts))
    tokens = torch.tensor(draw(_table(size, st.integers(1, 64))))

    def scored() -> Logps:
        per_token = torch.tensor(draw(_table(size, st.floats(-8.0, -0.01))), dtype=torch.float64)
        return shaped(per_token * tokens, tokens, mask)

    reference = scored() if objective is None or objective.needs_reference else None
    views = {name: View(scored(), scored()) for name in (objective.views() if objective else ())}
    mismatched = None
    if objective is not None and objective.needs_mismatched:
        pairs = [torch.tensor(row, dtype=torch.float64) for row in draw(_table((2, len(counts)), st.floats(-400.0, -0.01)))]
        mismatched = Mismatched(*pairs)
    return GroupLogps(scored(), reference, views, mismatched)


def _table(size: tuple[int, int], elements: st.SearchStrategy[Any]) -> st.SearchStrategy[list[list[Any]]]:
    rows, columns = size
    row = st.lists(elements, min_size=columns, max_size=columns)
    return st.lists(row, min_size=rows, max_size=rows)
