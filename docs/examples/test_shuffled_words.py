"""Shuffled words keeps to what the harness relies on, and computes what it should."""

import math

import torch
from harness_shuffled_words import ShuffledWords

from harness import GroupLogps, Logps
from harness.testing import assert_conforms


def test_it_conforms() -> None:
    assert_conforms("shuffled_words")


def test_the_loss_on_numbers_by_hand() -> None:
    def logps(chosen: float, rejected: float) -> Logps:
        one = torch.ones(1, dtype=torch.float64)
        return Logps(chosen * one, rejected * one[:, None], 2 * one, 4 * one[:, None], one[:, None] > 0)

    # h⁺/n⁺ − h⁻/n⁻ = (−4 + 5)/2 − (−10 + 8)/4 = 1
    batch = GroupLogps(policy=logps(-4.0, -10.0), reference=logps(-5.0, -8.0))
    loss = ShuffledWords(beta=0.5).loss(batch).per_pair
    assert loss is not None
    assert math.isclose(loss.item(), math.log(1 + math.exp(-0.5)))
