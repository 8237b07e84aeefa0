"""What the first process of a sharded training sends the others of a model: all but its weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from architectures import HONOURING, make

from harness.training.adapters import add_adapters
from harness.training.ranks import Ranks
from harness.training.settings import LoraSettings
from harness.training.sharded_load import load_by_first


@dataclass(frozen=True)
class Passed(Ranks):
    """A process that is told what the first one told."""

    sent: list[Any] = field(default_factory=list)

    def from_first(self, value: Any) -> Any:
        if self.first:
            self.sent.append(value)
        return self.sent[0]


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("name", HONOURING)
def test_the_others_get_the_same_model_without_weights(name: str, adapted: bool) -> None:
    def load() -> torch.nn.Module:
        model = make(HONOURING[name])
        return add_adapters(model, LoraSettings(rank=2, target_modules="all-linear"), 0) if adapted else model

    first = Passed(0, 2)
    model = load_by_first(first, load)
    other = load_by_first(Passed(1, 2, sent=first.sent), lambda: pytest.fail("only the first process loads"))
    weights, empty = (dict(each.named_parameters(remove_duplicate=False)) for each in (model, other))
    assert weights.keys() == empty.keys() and len(weights) > 10
    for key, weight in weights.items():
        assert empty[key].is_meta and not weight.is_meta and empty[key].requires_grad == weight.requires_grad
        assert (empty[key].shape, empty[key].dtype) == (weight.shape, weight.dtype)
        assert all((weights[twin] is weight) == (empty[twin] is empty[key]) for twin in weights)
    tables = dict(model.named_buffers())
    assert all(torch.equal(table, tables[key]) for key, table in other.named_buffers())
    assert tables.keys() == dict(other.named_buffers()).keys()
    assert other.config.to_dict() == model.config.to_dict() and other.training == model.training
