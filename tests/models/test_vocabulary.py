"""Token log-probabilities against torch's log-softmax, value and gradient, whole and in chunks."""

from __future__ import annotations

import pytest
import torch

import harness.models.vocabulary as vocabulary
from harness.models.vocabulary import TokenTargets, head_logps, token_logps

ROWS = torch.tensor([0, 0, 0, 1, 3, 4])  # row 2 predicts nothing, row 0 three tokens, two of them equal
LABELS = torch.tensor([5, 5, 1, 0, 6, 2])


def logits() -> torch.Tensor:
    return (3 * torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))).requires_grad_()


@pytest.mark.parametrize("chunk", [7, 14, 10**9])
def test_equals_log_softmax(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "CHUNK", chunk)
    ours, plain = logits(), logits()
    weights = torch.arange(1.0, 7.0, dtype=torch.float64)
    values = token_logps(ours, ROWS, LABELS)
    expected = torch.log_softmax(plain, 1)[ROWS, LABELS]
    (values * weights).sum().backward()
    (expected * weights).sum().backward()
    assert torch.allclose(values, expected, rtol=1e-12)
    assert torch.allclose(ours.grad, plain.grad, rtol=1e-12)


def test_gradcheck() -> None:
    assert torch.autograd.gradcheck(lambda values: token_logps(values, ROWS, LABELS), (logits(),))


def test_half_precision_is_computed_in_float32() -> None:
    half = logits().detach().bfloat16()
    values = token_logps(half, ROWS, LABELS)
    assert values.dtype == torch.float32
    assert torch.allclose(values, torch.log_softmax(half.float(), 1)[ROWS, LABELS])


@pytest.mark.parametrize("chunk", [7, 14, 10**9])
def test_the_chunked_head_equals_the_whole(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vocabulary, "CHUNK", chunk)
    torch.manual_seed(0)
    head = torch.nn.Linear(4, 7).double()
    hidden = torch.randn(5, 4, dtype=torch.float64, requires_grad=True)
    targets = TokenTargets(ROWS, LABELS, torch.tensor([0, 1, 2, 0, 1, 2]), 4)
    found = targets.sums(head_logps(head, hidden, targets))
    expected = targets.sums(torch.log_softmax(head(hidden), 1)[ROWS, LABELS])
    assert found[3] == 0
    assert torch.allclose(found, expected, rtol=1e-12)
    leaves = [hidden, *head.parameters()]
    weights = torch.arange(1.0, 5.0, dtype=torch.float64)
    for ours, plain in zip(
        torch.autograd.grad((found * weights).sum(), leaves),
        torch.autograd.grad((expected * weights).sum(), leaves),
        strict=True,
    ):
        assert torch.allclose(ours, plain, rtol=1e-12)
