"""The probe: a model that the shared-prefix layout fails on is found, and falls back with one warning."""

from __future__ import annotations

import pytest
import torch
from architectures import FAILING, HONOURING, make
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from harness.errors import StageError
from harness.training.layouts.choose import LayoutWarning, choose_layout
from harness.training.layouts.probe import check_leaks, probe_bundles
from harness.training.layouts.shared_prefix import SharedPrefix


@pytest.mark.parametrize("name", ["llama", "mistral sliding", "qwen3", "gpt_neox"])
def test_nothing_leaks_in_bfloat16(name: str) -> None:
    model = make(HONOURING[name]).bfloat16()
    check_leaks(model, choose_layout(model, "shared_prefix"))


@pytest.mark.parametrize("name", FAILING)
def test_a_model_that_fails_falls_back_with_one_warning(name: str) -> None:
    build, reason = FAILING[name]
    model = make(build)
    before = model.config._attn_implementation
    with pytest.warns(LayoutWarning, match=f"shared-prefix layout.*{reason}.*training with padded rows") as caught:
        layout = choose_layout(model, "auto")
    assert len([warning for warning in caught if warning.category is LayoutWarning]) == 1
    assert layout.name == "unique"
    assert model.config._attn_implementation == before


def test_a_model_that_is_silently_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Positions by place in the row instead of `position_ids`: no error, only other numbers."""
    whole = LlamaRotaryEmbedding.forward
    monkeypatch.setattr(
        LlamaRotaryEmbedding,
        "forward",
        lambda self, x, position_ids: whole(self, x, torch.arange(x.shape[1])[None].expand(len(x), -1)),
    )
    with pytest.warns(LayoutWarning, match=r"its log-probabilities would be off by"):
        assert choose_layout(make(HONOURING["llama"])).name == "unique"


def test_asking_for_it_by_name_is_an_error_where_it_fails() -> None:
    with pytest.raises(StageError, match=r"training\.layout = 'shared_prefix': StableLm.*never reached.*use 'auto'"):
        choose_layout(make(FAILING["stablelm"][0]), "shared_prefix")


def test_an_attention_that_is_not_ours_is_refused_at_each_pass() -> None:
    model = make(HONOURING["llama"])
    with pytest.raises(NotImplementedError, match="never reached"):
        SharedPrefix().logps(model, probe_bundles())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"layer_types": ["full_attention", "linear_attention"]}, "it has linear_attention layers"),
        ({"attention_chunk_size": 8}, "it has chunked attention layers"),
        ({"attn_logit_softcapping": 30.0}, r"it caps logits \(attn_logit_softcapping\)"),
        ({"_attn_implementation": "eager"}, "its attention implementation is 'eager'"),
    ],
)
def test_configurations_refused_outright(change: dict[str, object], reason: str) -> None:
    model = make(HONOURING["llama"])
    for name, value in change.items():
        setattr(model.config, name, value)
    with pytest.warns(LayoutWarning, match=reason):
        assert choose_layout(model).name == "unique"


def test_the_probe_leaves_the_model_and_the_generator_alone() -> None:
    model = make(HONOURING["gemma3"]).eval()
    weights, state = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    choose_layout(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert not model.training
