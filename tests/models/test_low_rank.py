"""Adapters added by exact sums: the same bits in any order, next to PEFT's own merge, for every layer that can have one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from harness.errors import DataError
from harness.models.delta import rebuild, shrink
from harness.models.delta_note import Base, read_note
from harness.models.load import merged
from harness.models.low_rank import Adapter, Update
from harness.training.adapters import add_adapters, save_adapters
from harness.training.settings import LoraSettings


def llama() -> PreTrainedModel:
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "vocab_size": 50}
    return LlamaForCausalLM(LlamaConfig(**sizes, num_attention_heads=4, num_key_value_heads=2))


def gpt2() -> PreTrainedModel:  # its linear layers keep their weights turned
    return GPT2LMHeadModel(GPT2Config(n_embd=64, n_layer=1, n_head=4, vocab_size=50, n_positions=32))


def test_an_update_is_the_same_bits_whatever_the_order_of_the_sum() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.normal(size=(300, 37)), rng.normal(size=(37, 50)) * 1e-3
    order = rng.permutation(37)
    update, other = Update.of(left, right, 0.3), Update.of(left[:, order], right[order], 0.3)
    whole, pieces = update.block(0, 15_000), [other.block(first, min(15_000, first + 777)) for first in range(0, 15_000, 777)]
    assert (whole == np.concatenate(pieces)).all()
    assert np.abs(whole / 0.3 - (left @ right).reshape(-1)).max() < 1e-6 * np.abs(left @ right).max()
    assert not Update.of(left * 0, right, 1.0).block(0, 15_000).any()


@pytest.mark.parametrize(
    ("build", "settings"),
    [
        (llama, LoraSettings(rank=3, use_rslora=True)),
        (llama, LoraSettings(rank=2, target_modules=("embed_tokens", "q_proj"))),
        (gpt2, LoraSettings(rank=2)),
    ],
    ids=["linear", "embeddings", "turned"],
)
def test_two_rounds_of_adapters_are_nearly_all_that_is_kept(build, settings: LoraSettings, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = build()
    start, folder = tmp_path / "start", tmp_path / "artifact" / "model"
    model.save_pretrained(start)
    adapters = []
    for number, place in enumerate((tmp_path / "first" / "adapter", folder.parent / "adapter")):
        policy = add_adapters(model, settings, number)
        with torch.no_grad():
            for name, parameter in policy.named_parameters():
                if ".lora_" in name:
                    parameter.normal_(std=2e-3, generator=torch.Generator().manual_seed(number))
        save_adapters(policy, place, "start")
        model = merged(policy)
        adapters.append(place)
    model.save_pretrained(folder)
    before = (folder / "model.safetensors").read_bytes()
    shrink(folder, Base(model="start"), lambda base: start, adapters)
    assert read_note(folder).adapters == ("adapter-1", "../adapter")
    # What is kept beside the adapters are last digits: fewer than one byte for ten weights.
    planes = sum(path.stat().st_size for path in folder.glob("delta-*.safetensors")) - header_bytes(folder)
    assert planes < len(before) / 40
    assert (rebuild(folder, lambda base: start, tmp_path / "whole") / "model.safetensors").read_bytes() == before


def header_bytes(folder: Path) -> int:
    """Return the bytes of names, of an empty plane's own, in a delta's files: of small weights they are most of it."""
    lengths = [int.from_bytes(path.read_bytes()[:8], "little") for path in folder.glob("delta-*.safetensors")]
    return sum(lengths) + sum(20 * len(load_file(path)) for path in folder.glob("delta-*.safetensors"))


def test_a_damaged_adapter_is_an_error_and_a_strange_one_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"r": 2, "lora_alpha": 4}')
    weights = np.ones(6, np.float32)
    with pytest.raises(DataError, match=r"adapter in .* cannot be read .*: delete the artifact"):
        Adapter(tmp_path).added("layer.weight", (2, 3), 0, weights)
    factors = {"lora_A": torch.ones(2, 3), "lora_B": torch.ones(2, 2)}
    half = {name: factor.bfloat16() for name, factor in factors.items()}
    for right, broken in (
        (True, {}),
        (True, half),
        (False, {"lora_B": torch.full((2, 2), torch.nan)}),
        (False, {"lora_B": torch.ones(5, 2)}),
        (False, {"lora_B": torch.ones(2, 7)}),
    ):
        tensors = {f"base_model.model.layer.{name}.weight": value for name, value in (factors | broken).items()}
        save_file(tensors, tmp_path / "adapter_model.safetensors")
        changed = Adapter(tmp_path).added("layer.weight", (2, 3), 0, weights)
        assert (changed == (5 if right else 1)).all()
        assert (Adapter(tmp_path).added("other.weight", (2, 3), 0, weights) == 1).all()
