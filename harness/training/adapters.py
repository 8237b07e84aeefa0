"""Low-rank adapters: added before training, merged into the weights after it. Imports peft; import it where training begins.

They are merged in float32, whatever the type of the weights beneath them.

The reference of a round is the model that the round names, by default the one that it starts from. Its log-probabilities are a
stage of their own, computed from that model's checkpoint before there is any adapter here, so that 'the adapters switched off'
is never asked for: in a second round that would be another model.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from harness.errors import StageError
from harness.models.load import merged, quiet_peft
from harness.training.settings import LoraSettings

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def add_adapters(model: PreTrainedModel, settings: LoraSettings, seed: int) -> PeftModel:
    """`model` with adapters that change nothing yet, and nothing else to train; it is changed in place.

    Raises:
        StageError: `target_modules` names no layer of the model.
    """
    targets = settings.target_modules
    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=settings.rank,
        lora_alpha=settings.alpha,
        lora_dropout=settings.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        use_rslora=settings.use_rslora,
    )
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            quiet_peft()
            warnings.filterwarnings("ignore", message="fan_in_fan_out is set to False")  # put right by PEFT itself
            torch.manual_seed(seed)
            return get_peft_model(model, config)
    except ValueError as error:
        raise StageError(f"lora.target_modules = {targets!r} does not fit {type(model).__name__}: {error}") from error


def save_adapters(model: PeftModel, folder: Path, start: str) -> None:
    """The adapters alone, as safetensors; `start` is what they are to be added to: a stage's key or a checkpoint's hash."""
    model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)
    described = folder / "adapter_config.json"
    config = json.loads(described.read_text(encoding="utf-8")) | {"base_model_name_or_path": start}
    described.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def merge_into(start: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    """Return a model with saved adapters added to its weights, which are float32."""
    with warnings.catch_warnings():
        quiet_peft()
        wrapped = PeftModel.from_pretrained(start, adapter)
    return merged(wrapped)
