"""The layouts of padded rows, one sequence per row: they work with every model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.models.logps import Head, TokenRow, response_logps
from harness.training.layouts.layout import Bundle

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


class UniqueRows:
    """m + 1 rows per bundle: each response once, with its own copy of the prompt."""

    name = "unique"

    def __init__(self, warning: str = "", head: Head = Head()) -> None:  # noqa: B008
        self.warning = warning
        self.head = head

    def logps(self, model: PreTrainedModel, bundles: Sequence[Bundle]) -> Tensor:
        return response_logps(model, [row for bundle in bundles for row in bundle.rows()], self.head)

    def tokens(self, bundles: Sequence[Bundle]) -> int:
        return _area([row for bundle in bundles for row in bundle.rows()])


class ExpandedPairs:
    """2m rows per bundle, the chosen response again for every rejected one, as trainers of pairs do it.

    The reference implementation of the others: slow, and obviously right.
    """

    name = "expanded"
    warning = ""

    def __init__(self, head: Head = Head()) -> None:  # noqa: B008
        self.head = head

    def logps(self, model: PreTrainedModel, bundles: Sequence[Bundle]) -> Tensor:
        """The mean over a response's copies, which are equal: value and gradient are those of one copy."""
        import torch

        values = response_logps(model, [row for bundle in bundles for row in _pairs(bundle)], self.head)
        means, start = [], 0
        for bundle in bundles:
            copies = max(1, len(bundle.responses) - 1)
            means += [values[start : start + copies].mean()[None], values[start + copies : start + len(_pairs(bundle))]]
            start += len(_pairs(bundle))
        return torch.cat(means)

    def tokens(self, bundles: Sequence[Bundle]) -> int:
        return _area([row for bundle in bundles for row in _pairs(bundle)])


def _pairs(bundle: Bundle) -> list[TokenRow]:
    """m copies of the chosen row, then the m rejected ones; a lone response is one row."""
    chosen, *rejected = bundle.rows()
    return [chosen] * max(1, len(rejected)) + rejected


def _area(rows: Sequence[TokenRow]) -> int:
    """Tokens of a padded batch: prompts padded to one width, responses to one length."""
    return len(rows) * (max(len(row.prompt) for row in rows) + max(len(row.response) for row in rows))
