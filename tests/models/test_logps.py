"""Log-probabilities against the definition, and their independence of padding and company."""

from __future__ import annotations

import random

import pytest
import torch

from harness.models.logps import TokenRow, cut, response_logps, score


def rows(count: int, seed: int = 0) -> list[TokenRow]:
    rng = random.Random(seed)
    return [
        TokenRow(tuple(rng.choices(range(6, 400), k=rng.randint(2, 9))), tuple(rng.choices(range(6, 400), k=rng.randint(1, 7))))
        for _ in range(count)
    ]


def by_definition(model, row: TokenRow) -> float:
    """Σ log π(y_t | x, y_<t), one sequence at a time, from all logits."""
    ids = torch.tensor([row.prompt + row.response])
    with torch.no_grad():
        logps = torch.log_softmax(model(ids).logits[0].double(), -1)
    return sum(float(logps[len(row.prompt) - 1 + t, token]) for t, token in enumerate(row.response))


def test_equals_the_definition_whatever_the_padding(tiny) -> None:
    model, _ = tiny
    batch = rows(12)
    with torch.no_grad():
        values = response_logps(model, batch)
    alone = [by_definition(model, row) for row in batch]
    assert values.dtype == torch.float64
    assert values.tolist() == pytest.approx(alone, rel=1e-5)


def test_an_empty_response_has_probability_one(tiny) -> None:
    model, _ = tiny
    with torch.no_grad():
        values = response_logps(model, [TokenRow((7, 8), ()), TokenRow((7, 8), (9,))])
    assert values[0].item() == 0


def test_gradient_equals_the_definition(tiny) -> None:
    model, _ = tiny
    batch = rows(4, seed=3)
    response_logps(model, batch).sum().backward()
    ours = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    total = 0.0
    for row in batch:
        ids = torch.tensor([row.prompt + row.response])
        logps = torch.log_softmax(model(ids).logits[0], -1)
        total = total + sum(logps[len(row.prompt) - 1 + t, token] for t, token in enumerate(row.response))
    total.backward()
    for name, parameter in model.named_parameters():
        assert torch.allclose(ours[name], parameter.grad, rtol=1e-3, atol=1e-4), name


def test_score_keeps_order_and_computes_equal_rows_once(tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = tiny
    batch = rows(9, seed=1)
    seen: list[TokenRow] = []
    import harness.models.logps as module

    whole = module.response_logps
    monkeypatch.setattr(module, "response_logps", lambda model, chunk: seen.extend(chunk) or whole(model, chunk))
    values = score(model, [*batch, *batch[:4]], tokens_per_batch=40)
    assert len(seen) == 9
    assert values[9:] == values[:4]
    assert values[:9] == pytest.approx([by_definition(model, row) for row in batch], rel=1e-5)


def test_cut_respects_the_budget_and_loses_nothing() -> None:
    batch = rows(40, seed=2)
    batches = list(cut(batch, 60))
    assert sorted(index for part in batches for index in part) == list(range(40))
    for part in batches:
        width = max(len(batch[i].prompt) for i in part) + max(len(batch[i].response) for i in part)
        assert len(part) == 1 or len(part) * width <= 60
