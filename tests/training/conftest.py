"""What the parity tests share."""

from __future__ import annotations

import copy

import pytest
import torch


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
