"""What a loaded checkpoint does not do: drop out, in modules or in functions."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, OPTConfig, OPTForCausalLM

from harness.models.load import load_model

IDS = {"vocab_size": 40, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
SIZES = {"hidden_size": 16, "word_embed_proj_dim": 16, "ffn_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
MODELS = {  # name -> how to make it
    "modules (GPT-2)": lambda: GPT2LMHeadModel(GPT2Config(**IDS, n_embd=16, n_layer=1, n_head=2)),
    "functions (OPT)": lambda: OPTForCausalLM(OPTConfig(**IDS, **SIZES, dropout=0.5, attention_dropout=0.5)),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_loaded_model_does_not_drop_out(name: str, tmp_path: Path) -> None:
    ids = torch.arange(3, 11)[None]
    model = MODELS[name]().train()
    assert not torch.equal(model(ids).logits, model(ids).logits)
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path).train()
    assert torch.equal(loaded(ids).logits, loaded(ids).logits)
