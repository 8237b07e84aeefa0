"""A starting model from a source's own text: a tokenizer and a small Llama trained on its dialogues from nothing.

For data without a model that fits the machine. It is a language model of whole dialogues, every token counts; SFT teaches
it who it is. The same recipe, dialogues, torch build and number of threads give the same weights, bit for bit.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from harness.api.types import Message
from harness.errors import DataError, StageError

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

BEGIN, PADDING, END = "<|bos|>", "<|pad|>", "<|end|>"
USER, ASSISTANT, SYSTEM = "<|user|>", "<|assistant|>", "<|system|>"
SPECIAL = (BEGIN, PADDING, USER, ASSISTANT, SYSTEM, END)
IGNORED = -100  # the label of padding
FINAL_SHARE = 0.1  # of the steps, at the end, over which `final_loss` is averaged

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}<|assistant|>{% generation %}{{ message['content'] }}<|end|>{% endgeneration %}"
    "{% else %}{{ '<|' + message['role'] + '|>' }}{{ message['content'] }}<|end|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


class ScratchModel(BaseModel):
    """The recipe of a model trained from nothing; everything that decides its weights beside the dialogues."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    vocabulary_size: int = Field(2048, ge=300, le=65536, description="most tokens, the 256 bytes and 6 special ones included")
    hidden_size: int = Field(128, ge=8, le=4096, description="width of the model, a multiple of 2 × heads")
    layers: int = Field(4, ge=1, le=64, description="transformer layers")
    heads: int = Field(4, ge=1, le=64, description="attention heads a layer")
    intermediate_size: int = Field(384, ge=8, le=16384, description="width of the feed-forward layers")
    epochs: int = Field(3, ge=1, le=1000, description="passes over the dialogues")
    tokens_per_step: int = Field(2048, ge=16, description="tokens of an update, padding included")
    learning_rate: float = Field(3e-3, gt=0, le=1, description="AdamW's highest, after the warm-up; falls along a cosine")
    warmup_share: float = Field(0.05, ge=0, lt=1, description="share of the steps over which the learning rate rises")
    weight_decay: float = Field(0.1, ge=0, le=1, description="AdamW's, on matrices alone")
    max_length: int = Field(512, ge=16, le=32768, description="context in tokens; longer dialogues are left out and counted")
    seed: int = Field(0, ge=0, description="decides the first weights and the order of the dialogues")

    def numbers(self) -> dict[str, Any]:
        """Return the fields of a Llama's config.json that decide its size; its tokenizer may have fewer tokens."""
        return {
            "vocab_size": self.vocabulary_size,
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.heads,
            "max_position_embeddings": self.max_length,
            "tie_word_embeddings": True,
        }

    @model_validator(mode="after")
    def _heads_fit(self) -> ScratchModel:
        if self.hidden_size % (2 * self.heads):  # rotary embeddings turn pairs of dimensions
            raise ValueError(f"hidden_size {self.hidden_size} is not a multiple of 2 × heads = {2 * self.heads}")
        return self


def train_from_scratch(
    recipe: ScratchModel,
    dialogues: Sequence[tuple[Message, ...]],
    folder: Path,
    report: Callable[[int, int, str], None] | None = None,
) -> dict[str, float]:
    """Train a tokenizer and a model on `dialogues`; save both (float32 safetensors) in `folder`.

    Args:
        recipe: sizes and schedule.
        dialogues: whole dialogues, each a training row of its own. Of a preference pair give both, so that the model favours
            neither.
        folder: where to write; created, files in it overwritten.
        report: called every 10 steps and after the last with (steps done, steps, a note on the loss).

    Returns:
        `parameters`, `vocabulary`, `dialogues` (trained on), `left_out` (too long), `steps`, `tokens` (trained on, padding
        not counted) and `final_loss`, nats per token over the last tenth of the steps, each before it was trained on.

    Raises:
        DataError: no dialogue is within `max_length` tokens.
        StageError: the loss or its gradient stopped being a number.
    """
    tokenizer = build_tokenizer(recipe, dialogues)
    encoded = [tokenizer.apply_chat_template(_as_dicts(turns), return_dict=False) for turns in dialogues]
    rows = [row for row in encoded if len(row) <= recipe.max_length]
    if not rows:
        raise DataError(
            f"model.scratch.max_length = {recipe.max_length}: none of {len(dialogues)} dialogues is that short; raise it"
        )
    model = build_model(recipe, tokenizer)
    facts = _train(recipe, model, rows, report)
    tokenizer.model_max_length = recipe.max_length  # only now: the dialogues left out were measured without a warning
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)
    sizes = {"parameters": model.num_parameters(), "vocabulary": len(tokenizer), "dialogues": len(rows)}
    return {**facts, **sizes, "left_out": len(dialogues) - len(rows)}


def build_tokenizer(recipe: ScratchModel, dialogues: Sequence[tuple[Message, ...]]) -> PreTrainedTokenizerFast:
    """Byte-level BPE: any text survives. Adds no tokens of its own: the chat template places `<|bos|>`, once."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=recipe.vocabulary_size,
        min_frequency=2,
        show_progress=False,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
    )
    tokenizer.train_from_iterator((message.content for turns in dialogues for message in turns), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BEGIN,
        pad_token=PADDING,
        eos_token=END,
        additional_special_tokens=[USER, ASSISTANT, SYSTEM],
        chat_template=CHAT_TEMPLATE,
        clean_up_tokenization_spaces=False,
    )


def build_model(recipe: ScratchModel, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """An untrained Llama with tied embeddings; first weights of scale 1/√hidden keep activations at scale 1."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        **{**recipe.numbers(), "vocab_size": len(tokenizer)},
        initializer_range=recipe.hidden_size**-0.5,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        return LlamaForCausalLM(config)


def _as_dicts(turns: Sequence[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in turns]


def _steps(recipe: ScratchModel, lengths: Sequence[int]) -> list[list[int]]:
    """Return the rows of each update, over all epochs: rows of like length together, at most `tokens_per_step` with padding
    (one row at least), in random order."""
    rng = random.Random(recipe.seed)
    steps: list[list[int]] = []
    for _ in range(recipe.epochs):
        order = sorted(range(len(lengths)), key=lambda row: lengths[row] * (1 + 0.1 * rng.random()))
        epoch: list[list[int]] = [[]]
        for row in order:
            width = max(lengths[row], *(lengths[other] for other in epoch[-1])) if epoch[-1] else lengths[row]
            if epoch[-1] and (len(epoch[-1]) + 1) * width > recipe.tokens_per_step:
                epoch.append([])
            epoch[-1].append(row)
        rng.shuffle(epoch)
        steps += epoch
    return steps


def _batches(rows: Sequence[Sequence[int]], steps: Sequence[Sequence[int]]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """(input ids, labels), both [rows, tokens], padded on the right: causal attention needs no mask then."""
    import torch

    for step in steps:
        width = max(len(rows[row]) for row in step)
        labels = torch.full((len(step), width), IGNORED)
        for index, row in enumerate(step):
            labels[index, : len(rows[row])] = torch.tensor(rows[row])
        yield labels.clamp(min=0), labels


def _optimizer(
    recipe: ScratchModel, model: LlamaForCausalLM, steps: int
) -> tuple[torch.optim.AdamW, torch.optim.lr_scheduler.LambdaLR]:
    import torch

    matrices = [weight for weight in model.parameters() if weight.dim() > 1]
    gains = [weight for weight in model.parameters() if weight.dim() <= 1]
    groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": gains, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.98))
    warmup = max(1, round(steps * recipe.warmup_share))

    def factor(step: int) -> float:
        rising = (step + 1) / warmup
        falling = 0.5 * (1 + math.cos(math.pi * max(0, step - warmup) / max(1, steps - warmup)))
        return min(rising, 0.02 + 0.98 * falling)

    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def _train(
    recipe: ScratchModel, model: LlamaForCausalLM, rows: Sequence[Sequence[int]], report: Callable[[int, int, str], None] | None
) -> dict[str, float]:
    import torch

    steps = _steps(recipe, [len(row) for row in rows])
    optimizer, schedule = _optimizer(recipe, model, len(steps))
    model.train()
    losses: list[tuple[float, int]] = []  # (nats per token, tokens predicted)
    for done, (ids, labels) in enumerate(_batches(rows, steps), 1):
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        losses.append((loss.item(), int((labels[:, 1:] != IGNORED).sum())))
        _check_finite(recipe, done, len(steps), loss=loss.item(), gradient=norm.item())
        optimizer.step()
        schedule.step()
        if report is not None and (done % 10 == 0 or done == len(steps)):
            report(done, len(steps), f"loss {_mean(losses[-10:]):.3f} nats/token")
    model.eval()
    last = losses[-max(1, round(FINAL_SHARE * len(losses))) :]
    return {"steps": len(steps), "tokens": recipe.epochs * sum(map(len, rows)), "final_loss": _mean(last)}


def _check_finite(recipe: ScratchModel, step: int, steps: int, **numbers: float) -> None:
    """End before an update that would leave weights that are no numbers."""
    for what, number in numbers.items():
        if not math.isfinite(number):
            raise StageError(
                f"the {what} of the model from scratch is {number} at step {step} of {steps}: "
                f"lower model.scratch.learning_rate (now {recipe.learning_rate:g})"
            )


def _mean(losses: Sequence[tuple[float, int]]) -> float:
    """Nats per token over steps of different size."""
    return sum(loss * tokens for loss, tokens in losses) / sum(tokens for _, tokens in losses)
