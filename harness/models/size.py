"""How large a model is, from its configuration alone: no weight is read, and a hub model's may be known without the hub.

The model is built on torch's `meta` device, which allocates nothing, so that any architecture of transformers is counted as
it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from harness.errors import UnreachableError
from harness.extras import require
from harness.models.checkpoint import Checkpoint
from harness.models.load import read_config

LARGE = 50_000_000  # parameters from which `auto` takes the layouts that are faster and differ in the last digits


@dataclass(frozen=True)
class ModelSize:
    """Numbers of a decoder.

    Attributes:
        parameters: all of them, tied ones once.
        multiplied: those that a token is multiplied with: all matrices, the output's among them, and no table of inputs.
        layers, hidden, intermediate: of the network.
        attention: heads × width of a head.
        keys: key-value heads × width of a head.
        vocabulary: rows of the output.
        linear: over all linear layers but the output, inputs + outputs: the parameters of adapters of rank 1.
    """

    parameters: int
    multiplied: int
    layers: int
    hidden: int
    intermediate: int
    attention: int
    keys: int
    vocabulary: int
    linear: int

    @property
    def cache_bytes(self) -> int:
        """Return the size of one token's keys and values, in a type of two bytes."""
        return 2 * 2 * self.layers * self.keys


def model_size(config: Mapping[str, Any]) -> ModelSize:
    """Return the size of the model that a config.json describes.

    Raises:
        ValueError: transformers knows no such causal language model, or one of its numbers is not there.
    """
    require("torch", "transformers")
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    known = AutoConfig.for_model(**{"model_type": "", **config})
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(known)
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    text = known.get_text_config()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    tied = outputs.weight is inputs.weight
    heads = int(text.num_attention_heads)
    width = int(getattr(text, "head_dim", None) or text.hidden_size // heads)
    linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear) and module is not outputs]
    return ModelSize(
        parameters=parameters,
        multiplied=parameters - (0 if tied else inputs.weight.numel()),
        layers=int(text.num_hidden_layers),
        hidden=int(text.hidden_size),
        intermediate=int(getattr(text, "intermediate_size", 4 * text.hidden_size)),
        attention=heads * width,
        keys=int(getattr(text, "num_key_value_heads", None) or heads) * width,
        vocabulary=int(text.vocab_size),
        linear=sum(module.in_features + module.out_features for module in linear),
    )


def is_large(checkpoint: Checkpoint) -> bool:
    """Return whether a model has `LARGE` parameters or more by its config.json; False where that is not known.

    Keys depend on this, and planning needs no torch, so the model is not built: only its embeddings and two matrices each of
    attention and feed-forward are counted, no more than a decoder has.
    """
    config = checkpoint_config(checkpoint) or {}
    text = config.get("text_config")
    numbers = text if isinstance(text, Mapping) else config

    def first(*names: str) -> int:
        return next((value for name in names if isinstance(value := numbers.get(name), int)), 0)

    hidden = first("hidden_size", "n_embd", "d_model")
    layers = first("num_hidden_layers", "n_layer", "n_layers", "num_layers")
    inner = first("intermediate_size", "n_inner", "ffn_dim") or 4 * hidden
    return hidden * (first("vocab_size") + 2 * layers * (hidden + inner)) >= LARGE


def known_config(name: str) -> Mapping[str, object] | None:
    """Return the config.json of a hub model that the configs in this package name; None for any other."""
    file = resources.files("harness.models") / "known_configs.json"
    known: dict[str, dict[str, object]] = json.loads(file.read_text(encoding="utf-8"))
    return known.get(name)


def checkpoint_config(checkpoint: Checkpoint) -> Mapping[str, object] | None:
    """Return a starting model's config.json: from its files, or from the table if the hub is out of reach; else None."""
    if checkpoint.hub is not None and checkpoint.commit is None:
        return known_config(checkpoint.hub)
    try:
        return read_config(checkpoint.files(weights=False))
    except UnreachableError:
        return known_config(checkpoint.hub or "")
