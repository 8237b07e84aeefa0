"""Reward models: one number for an answer to a dialogue. Sequence classifiers, and Starling-RM-7B-alpha's layout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from harness.api.types import Message, Prompt, Response
from harness.errors import DataError, UnreachableError
from harness.models.fit import classifier_problem, starling_problem
from harness.models.hub import hub_snapshot
from harness.models.logps import TokenRow, cut
from harness.models.starling import StarlingReward, starling_ids
from harness.models.weights import Weights

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Ids = tuple[int, ...]
Scorer = Callable[["Tensor", "Tensor"], "Tensor"]  # ids, mask [N, T] -> [N]
TOKENS_PER_BATCH = 8192


class RewardModel(Weights):
    """A reward model.

    `sequence_classification`: a checkpoint of `AutoModelForSequenceClassification` with one label, which reads the dialogue in
    its own chat template. `starling`: a Llama trunk with a linear `v_head`, read at the last token, as Starling-RM-7B-alpha.
    """

    layout: Literal["sequence_classification", "starling"] = Field(
        "sequence_classification", description="how the checkpoint is built and what text it reads"
    )
    max_tokens: int = Field(
        2048, ge=8, le=131_072, description="longest dialogue; of a longer one the beginning is left out, and it is counted"
    )

    def problems(self, field: str) -> Sequence[tuple[str, str]]:
        """As `Weights.problems`, and whether the checkpoint is what `layout` says; unknown of the hub's while out of reach."""
        from harness.models.checkpoint import SMALL_FILES  # here, so that importing `harness` stays light

        if problems := super().problems(field):
            return problems
        check = starling_problem if self.layout == "starling" else classifier_problem
        try:
            local = self.local
            folder = local or hub_snapshot(self.model, self.revision or "", SMALL_FILES)
            fix = check(folder, whole=local is not None)
        except UnreachableError:
            return ()
        except DataError as error:
            fix = str(error)
        return [(f"{field}.model", fix)] if fix else ()


def rewards(
    model: RewardModel, prompts: Sequence[Prompt], responses: Sequence[Sequence[Response]]
) -> tuple[list[list[float]], int]:
    """As `RewardScorer.rewards`, of a model that is loaded for this once.

    Raises:
        DataError: the checkpoint is not what `layout` says, or has no chat template.
    """
    return RewardScorer(model).rewards(prompts, responses)


class RewardScorer:
    """A reward model in memory.

    Raises:
        DataError: the checkpoint is not what `layout` says, or has no chat template.
    """

    def __init__(self, model: RewardModel) -> None:
        self.model = model
        self._encode, self._score, self._pad_id = _load(model)

    def rewards(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[Response]]) -> tuple[list[list[float]], int]:
        """Each response's reward, [prompts][responses], and how many dialogues lost their beginning; equal ones once."""
        import torch

        encoded, cut_off, most = [], 0, self.model.max_tokens
        for prompt, row in zip(prompts, responses, strict=True):
            for response in row:
                ids = self._encode([*prompt.messages, Message("assistant", response.text)])
                if len(ids) > most:
                    ids, cut_off = (ids[0], *ids[len(ids) - most + 1 :]), cut_off + 1
                encoded.append(ids)
        unique = list(dict.fromkeys(encoded))
        values: dict[Ids, float] = {}
        with torch.inference_mode():
            for batch in cut([TokenRow((), ids) for ids in unique], TOKENS_PER_BATCH):
                chosen = [unique[index] for index in batch]
                values.update(zip(chosen, self._score(*_padded(chosen, self._pad_id)).double().tolist(), strict=True))
        position = iter(encoded)
        return [[values[next(position)] for _ in row] for row in responses], cut_off


def _padded(rows: Sequence[Ids], pad_id: int | None) -> tuple[Tensor, Tensor]:
    """Ids and mask, [N, T] each, padded on the right; without a padding token, by an id that none of the rows holds."""
    import torch

    if pad_id is None:
        held = {token for row in rows for token in row}
        pad_id = next(token for token in range(len(held) + 1) if token not in held)
    width = max(len(row) for row in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for line, row in enumerate(rows):
        ids[line, : len(row)] = torch.tensor(row)
        mask[line, : len(row)] = 1
    return ids, mask


def reward_dtype(device: str) -> str:
    """Return the type in which reward models compute: a value is compared with others of the same model alone."""
    return "bfloat16" if device == "cuda" else "float32"


def _load(model: RewardModel) -> tuple[Callable[[Sequence[Message]], Ids], Scorer, int | None]:
    """How it reads a dialogue, how it scores ids, and its padding token (None: any id that does not occur)."""
    import torch
    from transformers import AutoTokenizer

    folder = model.folder()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, reward_dtype(device))
    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    if model.layout == "starling":
        starling = StarlingReward.load(folder, device, dtype)
        return (lambda messages: starling_ids(tokenizer, messages)), starling.score, 0
    if not tokenizer.chat_template:
        raise DataError(f"reward model {model.model}: its tokenizer has no chat template, and none is assumed: add one")
    classifier, pad_id = _classifier(model, tokenizer, device, dtype)

    def encode(messages: Sequence[Message]) -> Ids:
        dialogue = [{"role": message.role, "content": message.content} for message in messages]
        return tuple(tokenizer.apply_chat_template(dialogue, return_dict=False))

    def score(ids: Tensor, mask: Tensor) -> Tensor:
        if pad_id is None:  # decoders find each row's last token by this id
            classifier.config.get_text_config().pad_token_id = int(ids[mask == 0][0]) if (mask == 0).any() else -1
        logits: Tensor = classifier(input_ids=ids.to(device), attention_mask=mask.to(device)).logits
        return logits[:, 0].float().cpu()

    return encode, score, pad_id


def _classifier(
    model: RewardModel, tokenizer: PreTrainedTokenizerBase, device: str, dtype: object
) -> tuple[PreTrainedModel, int | None]:
    """The classifier, and the padding token if it has one of its own.

    A padding token that is also the end of a turn would hide a row's last token from a decoder, and is not used.
    """
    from transformers import AutoModelForSequenceClassification

    classifier, report = AutoModelForSequenceClassification.from_pretrained(
        model.folder(), dtype=dtype, trust_remote_code=False, use_safetensors=True, output_loading_info=True
    )
    if missing := sorted(report["missing_keys"]):
        raise DataError(f"reward model {model.model}: its files lack {', '.join(missing[:3])}: it is no sequence classifier")
    if classifier.config.num_labels != 1:
        raise DataError(f"reward model {model.model}: it has {classifier.config.num_labels} labels, a reward has one")
    pad_id = tokenizer.pad_token_id
    apart = pad_id is not None and pad_id != tokenizer.eos_token_id
    if apart:
        classifier.config.get_text_config().pad_token_id = pad_id
    return classifier.to(device).eval(), pad_id if apart else None
