"""What the parity tests share."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
from trl_twin import TOLERANCES


@pytest.fixture
def models(tiny):
    """A policy, the reference that it has moved away from, and their tokenizer."""
    model, tokenizer = tiny
    policy = copy.deepcopy(model)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for parameter in policy.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))
    return policy, model, tokenizer


@pytest.fixture(params=TOLERANCES)
def precision(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """In which type both sides compute. TRL's head makes log-probabilities in float32 whatever the model's type: for float64 it
    gets one that does not, and all the rest of its trainers, which is what is compared, is its own."""
    if request.param == "float64":
        monkeypatch.setattr("trl.trainer.utils._ChunkedLogProbFunction", SimpleNamespace(apply=_head))
    return str(request.param)


def _head(hidden, weight, bias, labels, *_):
    """What TRL's head returns: log-probabilities of the labels, and of the rest, which only its logs show, nothing."""
    assert bias is None
    values = (hidden @ weight.T).log_softmax(-1).gather(-1, labels[:, None])[:, 0]
    nothing = torch.zeros_like(values)
    return values, nothing, nothing, nothing, nothing.bool()
