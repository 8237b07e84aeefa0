"""Each response's own random numbers: the same whatever is drawn beside it, and as good as any others."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import chisquare, kstest

from harness.api.types import Prompt, Sampling
from harness.models.generate import _choose, generate
from harness.models.random_numbers import STEPS_AT_ONCE, ByResponse
from harness_plugins.backends import TransformersBackend

PROMPTS = [Prompt.of(str(number), " ".join(["name a fruit ."] * (1 + number % 4))) for number in range(10)]
SAMPLING = Sampling(n=3, max_tokens=8, top_p=0.9, seed=5)
CPU = torch.device("cpu")


def table(stream: ByResponse, rows: int, steps: int) -> torch.Tensor:
    """All numbers of a batch, [rows, steps]."""
    return torch.cat([stream.draw(step, torch.arange(rows)) for step in range(steps)], dim=1)


def test_a_number_depends_on_seed_place_sample_and_step_alone() -> None:
    steps = STEPS_AT_ONCE + 5
    whole = table(ByResponse(7, [0, 1, 2], 2, CPU), 6, steps)
    alone = table(ByResponse(7, [1], 2, CPU), 2, steps)
    assert torch.equal(whole[2:4], alone)
    other = table(ByResponse(8, [0, 1, 2], 2, CPU), 6, steps)
    assert len(torch.unique(torch.cat([whole, other]))) == 2 * 6 * steps
    # Rows that ended are dropped, and numbers are asked for from a later step on: the others get theirs.
    late = ByResponse(7, [0, 1, 2], 2, CPU)
    assert torch.equal(late.draw(steps - 1, torch.tensor([4, 1]))[:, 0], whole[[4, 1], steps - 1])


def test_the_numbers_of_today_are_those_of_every_later_version() -> None:
    """Philox is a standard: these are its words, whatever the version of numpy."""
    assert ByResponse(2**62, [3], 1, CPU).draw(0, torch.tensor([0])).item() == 0.8562162851382655


@pytest.mark.parametrize("across", ["steps", "samples", "prompts"])
def test_numbers_are_uniform_along_every_axis(across: str) -> None:
    places, n, steps = {"steps": ([0], 1, 4096), "samples": ([0], 4096, 1), "prompts": (range(4096), 1, 1)}[across]
    values = table(ByResponse(0, list(places), n, CPU), len(places) * n, steps).flatten()
    assert values.min() >= 0 and values.max() < 1
    assert kstest(values.numpy(), "uniform").pvalue > 0.01
    assert abs(torch.corrcoef(torch.stack([values[:-1], values[1:]]))[0, 1]) < 0.05


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_tokens_follow_the_softmax(temperature: float) -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.5, 0.3]])
    stream = ByResponse(0, [0, 1], 10_000, CPU)
    rows = torch.arange(20_000)
    drawn = _choose(logits.expand(20_000, -1), Sampling(temperature=temperature), lambda: stream.draw(0, rows))
    expected = torch.softmax(logits[0].double() / temperature, -1) * len(drawn)
    assert chisquare(torch.bincount(drawn, minlength=5).numpy(), expected.numpy()).pvalue > 0.01


def test_a_response_depends_on_no_other(tiny) -> None:
    """Not on how many rows are decoded side by side, which of the prompts are drawn first, or what was there before."""
    whole = generate(*tiny, PROMPTS, SAMPLING, random="by_response")
    assert len({response.ids for row in whole for response in row}) > 20
    for rows in (1, 6, 12):
        assert generate(*tiny, PROMPTS, SAMPLING, rows_per_batch=rows, random="by_response") == whole
    longer = generate(*tiny, [*PROMPTS, Prompt.of("new", "name two fruits .")], SAMPLING, random="by_response")
    assert longer[:-1] == whole
    assert generate(*tiny, PROMPTS, SAMPLING, random="by_batch") != whole


def test_the_default_is_in_no_key_and_the_other_is() -> None:
    assert "random" not in TransformersBackend().model_dump(mode="json")
    assert TransformersBackend(random="by_response").model_dump(mode="json")["random"] == "by_response"
