"""Starling-RM-7B-alpha's layout: a Llama-2 trunk without its language-model head, and a linear `v_head` to one number.

Its card (huggingface.co/berkeley-nest/Starling-RM-7B-alpha) publishes the weights as a pickle, which is not read here; convert
it once (docs/backends.md). The card's code pads on the left and so reads the reward at the last token, as here. Its text of
one turn is followed to the letter, the tokenizer's own BOS before the written one included; earlier turns are written alike.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api.types import Message
from harness.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_PREFIXES = ("transformer.", "model.model.", "model.")  # the card's module holds the trunk under the first two names


@dataclass
class StarlingReward:
    """Trunk and head in memory."""

    trunk: PreTrainedModel
    head: Tensor  # [H]

    @classmethod
    def load(cls, folder: Path, device: str, dtype: Any) -> StarlingReward:
        """From `config.json` and safetensors.

        Raises:
            DataError: a weight of the trunk or the head is missing.
        """
        import torch
        from safetensors.torch import load_file
        from transformers import AutoConfig, LlamaModel

        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        files = sorted(folder.glob("*.safetensors"))
        weights: dict[str, Tensor] = {name: value for file in files for name, value in load_file(file).items()}
        if missing := missing_weights(config, weights):
            raise DataError(f"{folder} has not Starling's layout: it lacks {', '.join(missing[:3])}")
        trunk = LlamaModel(config)  # with its rotary tables, which no file holds
        state = {name: weights[key] for name in trunk.state_dict() if (key := _place(name, weights)) is not None}
        trunk.load_state_dict(state)
        return cls(trunk.to(device=device, dtype=dtype).eval(), weights["v_head.weight"].reshape(-1).to(device, torch.float32))

    def score(self, ids: Tensor, mask: Tensor) -> Tensor:
        """[N] from ids and mask [N, T] padded on the right."""
        device = self.trunk.device
        states = self.trunk(input_ids=ids.to(device), attention_mask=mask.to(device), use_cache=False).last_hidden_state
        last = mask.sum(1).to(device) - 1
        rows = states[range(len(states)), last].float()  # [N, H]
        values: Tensor = rows @ self.head
        return values.cpu()


def missing_weights(config: Any, names: Collection[str]) -> list[str]:
    """Return what the layout needs and is not among a checkpoint's weights."""
    import torch
    from transformers import LlamaModel

    with torch.device("meta"):
        wanted = LlamaModel(config).state_dict().keys()
    missing = [name for name in wanted if _place(name, names) is None]
    return sorted([*missing, *([] if "v_head.weight" in names else ["v_head.weight"])])


def _place(name: str, names: Collection[str]) -> str | None:
    """Return the name of a trunk's weight in the files, None if they lack it."""
    return next((prefix + name for prefix in _PREFIXES if prefix + name in names), None)


def starling_ids(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> tuple[int, ...]:
    """Return the dialogue in the card's words: `<s>[INST] question </s> [/INST] answer</s>`, turn after turn."""
    text, system = "", ""
    for message in messages:
        if message.role == "system":
            system = f"{message.content}\n\n"
        elif message.role == "user":
            text, system = f"{text}<s>[INST] {system}{message.content} </s> [/INST] ", ""
        else:
            text = f"{text}{message.content}</s>"
    return tuple(tokenizer(text)["input_ids"])
