"""The kernels of the shared-prefix layout against sdpa on its parts: as far as a CPU has them, in float64.

FlashAttention's kernel is replaced by dense products with the same inputs and outputs. FlexAttention has no backward on CPUs,
so its gradient is that of sdpa with its mask.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from architectures import HONOURING, exact, make
from pydantic import ValidationError
from test_layouts import assert_equal, groups, step
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from harness.errors import StageError
from harness.training.layouts import flex, varlen
from harness.training.layouts.attention import Segments
from harness.training.layouts.choose import choose_layout
from harness.training.layouts.layout import Bundle
from harness.training.layouts.probe import check_attention
from harness.training.layouts.shared_prefix import SharedPrefix
from harness.training.layouts.varlen import Spans
from harness.training.settings import TrainingSettings


class DenseKernel:
    """FlashAttention's interface by whole matrices: forward with logarithms of sums, backward from output and sums alone."""

    calls = 0

    def forward(self, query: Tensor, key: Tensor, value: Tensor, spans: Spans, scaling: float | None) -> tuple[Tensor, Tensor]:
        DenseKernel.calls += 1
        scores = self.scores(query, key, spans, scaling)
        sums = scores.logsumexp(-1)
        weights = (scores - sums[..., None]).exp().nan_to_num(0.0)
        return torch.einsum("hqk,khd->qhd", weights, self.repeated(value, query)), sums

    def backward(
        self, gradient: Tensor, states: Sequence[Tensor], output: Tensor, sums: Tensor, spans: Spans, scaling: float | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        query, key, value = states
        scale = scaling or 1 / math.sqrt(query.shape[2])
        weights = (self.scores(query, key, spans, scaling) - sums[..., None]).exp()
        given = torch.einsum("qhd,khd->hqk", gradient, self.repeated(value, query))
        inner = weights * (given - (gradient * output).sum(-1).T[..., None]) * scale
        by_key = torch.einsum("hqk,qhd->khd", inner, query), torch.einsum("hqk,qhd->khd", weights, gradient)
        grouped = [part.reshape(len(key), key.shape[1], -1, key.shape[2]).sum(2) for part in by_key]
        return torch.einsum("hqk,khd->qhd", inner, self.repeated(key, query)), grouped[0], grouped[1]

    @staticmethod
    def repeated(state: Tensor, query: Tensor) -> Tensor:
        return state.repeat_interleave(query.shape[1] // state.shape[1], 1)

    def scores(self, query: Tensor, key: Tensor, spans: Spans, scaling: float | None) -> Tensor:
        places = [
            torch.bucketize(torch.arange(len(x)), e[1:], right=True) for x, e in ((query, spans.queries), (key, spans.keys))
        ]
        seen = places[0][:, None] == places[1]
        if spans.causal:
            seen &= torch.arange(len(query))[:, None] >= torch.arange(len(key))
        scale = scaling or 1 / math.sqrt(query.shape[2])
        return (torch.einsum("qhd,khd->hqk", query, self.repeated(key, query)) * scale).masked_fill(~seen, -math.inf)


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt_neox", "opt"])
def test_two_calls_without_copies_have_the_numbers_of_one_with_copies(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varlen, "TorchKernel", DenseKernel)
    model = exact(make(HONOURING[name]))
    shared = choose_layout(model, "shared_prefix")
    expected, before = step(model, groups(), shared), DenseKernel.calls
    assert_equal(step(model, groups(), SharedPrefix(attention="varlen")), expected, 1e-9)
    assert DenseKernel.calls == before + 2 * model.config.num_hidden_layers


def test_a_response_without_tokens_and_a_prompt_alone_are_no_trouble(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(varlen, "TorchKernel", DenseKernel)
    model = exact(make(HONOURING["llama"]))
    choose_layout(model, "shared_prefix")
    for responses in (((5, 6), ()), ((),)):
        bundles = [Bundle((3, 4, 5), responses), Bundle((6, 7), ((8,),))]
        with torch.no_grad():
            ours, theirs = (SharedPrefix(attention=way).logps(model, bundles) for way in ("varlen", "sdpa"))
        assert torch.allclose(ours, theirs, rtol=1e-9)


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("window", [None, 5])
def test_the_mask_of_flex_attention_has_the_numbers_of_the_parts(window: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "mistral sliding" if window else "llama"
    model = exact(make(HONOURING[name]))
    shared = choose_layout(model, "shared_prefix")
    expected = step(model, groups(), shared)
    with torch.no_grad():
        bundles = [group.bundle() for group in groups()]
        right, ours = (SharedPrefix(attention=way).logps(model, bundles) for way in ("sdpa", "flex"))
    assert torch.allclose(ours, right, rtol=1e-9)

    def dense(query: Tensor, key: Tensor, value: Tensor, *, block_mask, scale: float, enable_gqa: bool) -> Tensor:
        places = torch.arange(query.shape[2])
        seen = block_mask.mask_mod(0, 0, places[:, None], places)
        return scaled_dot_product_attention(query, key, value, seen, scale=scale, enable_gqa=enable_gqa)

    monkeypatch.setattr(flex, "_compiled", lambda cuda: dense)
    assert_equal(step(model, groups(), SharedPrefix(attention="flex")), expected, 1e-9)


def test_what_a_kernel_cannot_do_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(HONOURING["llama"])
    for way, reason in (("varlen", "16 bits alone"), ("flex", "backward on CPU")):
        lacking = "it needs a CUDA device, and this machine has none: choose 'sdpa'"
        assert TrainingSettings(attention=way).absent() == {"attention": lacking}
        with pytest.raises((StageError, NotImplementedError)):
            check_attention(torch.device("cpu"), way)
        with pytest.raises((StageError, NotImplementedError), match=reason):
            SharedPrefix(attention=way).logps(installed(model), [Bundle((3, 4), ((5, 6),))])
    with pytest.raises(StageError, match=r"training\.attention = 'flex' does not work here"):
        choose_layout(model, "auto", "flex")
    monkeypatch.setattr(varlen, "TorchKernel", DenseKernel)
    sliding = make(HONOURING["mistral sliding"])
    with pytest.raises(StageError, match=r"training\.attention = 'varlen' has no sliding windows.* of 5 tokens"):
        SharedPrefix(attention="varlen").logps(installed(sliding), [Bundle((3, 4, 5), ((6, 7, 8),))])


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"attention": "flex", "layout": "unique"}, "of the shared-prefix layout, and `layout` is 'unique'"),
        ({"attention": "varlen", "precision": "float32"}, "16 bits alone, and `precision` is 'float32'"),
    ],
)
def test_attention_that_would_not_take_part_is_refused_in_the_plan(
    fields: dict[str, str], reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    with pytest.raises(ValidationError, match=reason):
        TrainingSettings(**fields)
    assert TrainingSettings(attention=fields["attention"]).payload("cuda")["attention"] == fields["attention"]


@pytest.mark.parametrize("place", ["cpu", "meta"])
def test_attention_is_tried_where_a_model_to_be_sharded_will_be_trained(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []
    monkeypatch.setattr("harness.training.layouts.probe.check_attention", lambda device, way: tried.append((device.type, way)))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    choose_layout(make(HONOURING["llama"]).to(place), "auto", "flex")
    assert tried == [("cuda", "flex")]


def installed(model):
    choose_layout(model, "shared_prefix")
    return model


def test_flash_attention_for_generation_leaves_the_layout_on() -> None:
    model = make(HONOURING["llama"])
    model.config._attn_implementation = "flash_attention_2"  # as loaded where it is installed
    assert choose_layout(model, "shared_prefix").name == "shared_prefix"


def test_what_layers_share_is_copied_to_the_device_once() -> None:
    segments, built = Segments.of([Bundle((3, 4), ((5,), (6, 7)))]), []
    for _ in range(3):
        assert segments.kept("name", lambda: built.append(1) or 7) == 7
    assert built == [1] and segments.longest == 4
