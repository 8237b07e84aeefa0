"""Sizes from configurations: the published numbers of parameters, and what is not one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness.models.checkpoint import Checkpoint, checkpoint_folder
from harness.models.load import load_model
from harness.models.size import LARGE, checkpoint_config, is_large, known_config, model_size


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("mistralai/Mistral-7B-v0.1", 7_241_732_096),
        ("alignment-handbook/zephyr-7b-sft-full", 7_241_732_096),
        ("EleutherAI/pythia-2.8b", 2_775_208_960),
        ("Qwen/Qwen2.5-0.5B", 494_032_768),
        ("Qwen/Qwen3-0.6B-Base", 596_049_920),
        ("Qwen/Qwen3-1.7B-Base", 1_720_574_976),
        ("Qwen/Qwen3-4B-Base", 4_022_468_096),
    ],
)
def test_the_table_gives_the_published_number_of_parameters(name: str, parameters: int) -> None:
    config = checkpoint_config(Checkpoint(None, name))
    assert config is not None and model_size(config).parameters == parameters


def test_numbers_of_one_model_by_hand() -> None:
    size = model_size(known_config("mistralai/Mistral-7B-v0.1") or {})
    assert size.parameters - size.multiplied == 32000 * 4096  # the table of input embeddings
    assert (size.layers, size.hidden, size.attention, size.keys, size.vocabulary) == (32, 4096, 4096, 1024, 32000)
    assert size.cache_bytes == 32 * 2 * 1024 * 2
    attention, feed_forward = 2 * (4096 + 4096) + 2 * (4096 + 1024), 3 * (4096 + 14336)
    assert size.linear == 32 * (attention + feed_forward)


def test_tied_embeddings_are_multiplied_with() -> None:
    size = model_size(known_config("Qwen/Qwen3-0.6B-Base") or {})
    assert size.multiplied == size.parameters and size.attention == 2048 != size.hidden


def test_a_folder_is_counted_as_it_is_loaded() -> None:
    folder = checkpoint_folder("sandbox")
    size = model_size(checkpoint_config(Checkpoint(str(folder))) or {})
    assert size.parameters == load_model(folder).num_parameters()


def test_what_is_not_known_is_said(tmp_path: Path) -> None:
    assert checkpoint_config(Checkpoint(None, "someone/unknown")) is None
    with pytest.raises(ValueError, match="model identifier"):
        model_size({"model_type": "own"})


LLAMA = {"model_type": "llama", "hidden_size": 512, "num_hidden_layers": 8, "intermediate_size": 2048, "vocab_size": 32000}


@pytest.mark.parametrize(
    ("config", "large"),
    [
        (LLAMA, False),
        ({**LLAMA, "num_hidden_layers": 16}, True),
        ({"model_type": "wrapped", "text_config": {**LLAMA, "num_hidden_layers": 16}}, True),
        ({"model_type": "gpt2", "n_embd": 768, "n_layer": 12, "vocab_size": 50257}, True),
        ({"model_type": "own", "hidden_size": "many"}, False),
    ],
)
def test_a_large_model_is_known_by_its_configuration(tmp_path: Path, config: dict[str, object], large: bool) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    checkpoint = Checkpoint(str(tmp_path))
    assert is_large(checkpoint) is large
    assert not large or config["model_type"] == "wrapped" or model_size(config).parameters >= LARGE


def test_a_model_out_of_reach_is_large_by_the_table_or_not_known() -> None:
    assert is_large(Checkpoint(None, "Qwen/Qwen2.5-0.5B")) and not is_large(Checkpoint(None, "someone/unknown"))
