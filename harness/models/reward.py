"""Rewards: one number for an answer to a dialogue, by a reward model, a verifier, the config's judge or the policy itself.

Reward models are sequence classifiers, or have Starling-RM-7B-alpha's layout.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from harness.api.types import JudgeAnswer, Message, Prompt, Response
from harness.errors import DataError, UnreachableError, did_you_mean
from harness.extras import require
from harness.models.batched import computed, places_of, with_equal_rows
from harness.models.fit import classifier_problem, starling_problem
from harness.models.hub import hub_snapshot
from harness.models.logps import TokenRow, cut
from harness.models.rendering import render
from harness.models.starling import StarlingReward, starling_ids
from harness.models.verifier import Verifier
from harness.models.weights import Weights

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Ids = tuple[int, ...]
Scorer = Callable[["Tensor", "Tensor"], "Tensor"]  # ids, mask [N, T] -> [N]
TOKENS_PER_BATCH = 8192
SANDBOX = "sandbox"  # the reward model that comes with the package (`harness.sandbox.reward_model`)


class RewardModel(Weights):
    """A reward model.

    `model: sandbox` is the one that comes with the package. `sequence_classification`: a checkpoint of
    `AutoModelForSequenceClassification` with one label, which reads the dialogue in its own chat template. `starling`: a Llama
    trunk with a linear `v_head`, read at the last token, as Starling-RM-7B-alpha.
    """

    layout: Literal["sequence_classification", "starling"] = Field(
        "sequence_classification", description="how the checkpoint is built and what text it reads"
    )
    max_tokens: int = Field(
        2048, ge=8, le=131_072, description="longest dialogue; of a longer one the beginning is left out, and it is counted"
    )

    @property
    def local(self) -> Path | None:
        """As `Weights.local`; `sandbox` is the reward model in the package."""
        return Path(__file__).parent.parent / "sandbox" / "reward" if self.model == SANDBOX else super().local

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

    @property
    def needs(self) -> frozenset[str]:
        """Return the features that it asks of a source."""
        return frozenset()

    @property
    def asks_judge(self) -> bool:
        """Return whether marking asks a judge."""
        return False

    def described(self) -> str:
        """Return what marks, in words."""
        return f"the reward model {self.model}"

    def fingerprint(self) -> str:
        """Return what decides its marks beside the fields: its weights."""
        return self.weights


GRADING = """Rate how good the answer to the user's question is, on a scale of 1 to 10. Look at whether it does what was asked,
whether it is correct, and whether it is clear and complete without padding.

[Question]
{prompt}

[The Start of the Answer]
{response}
[The End of the Answer]

Say in two sentences at most what decides. Then write your rating on a line of its own, as in: Rating: [[5]]"""
LOWEST, HIGHEST = 1, 10  # ratings that a judge may give
REQUEST = "Please produce a good response that merits a perfect score of {score} out of 10."
LEVELS = (2, 4, 6, 8, 10)
_RATING = re.compile(r"\[\[(\d{1,3}(?:\.\d{1,6})?)\]\]")


class JudgeReward(BaseModel):
    """A rating from 1 to 10 by the config's judge, asked about one answer at a time."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    judge: dict[str, Any] = Field(description="changed fields of the config's `judge` section; {} for none")
    question: str = Field(
        GRADING, description="what the judge is asked; {prompt} and {response} are put in, and it must want a rating as [[5]]"
    )

    @field_validator("question")
    @classmethod
    def _has_both(cls, question: str) -> str:
        if "{prompt}" not in question or "{response}" not in question:
            raise ValueError("it should contain {prompt} and {response}")
        return question

    @property
    def needs(self) -> frozenset[str]:
        """Return the features that it asks of a source."""
        return frozenset()

    @property
    def asks_judge(self) -> bool:
        """Return whether marking asks a judge."""
        return True

    def problems(self, field: str) -> Sequence[tuple[str, str]]:
        """Return none: the judge's own section is checked with the config."""
        return ()

    def described(self) -> str:
        """Return what marks, in words."""
        return "the judge's rating from 1 to 10"

    def fingerprint(self) -> str:
        """Return nothing: the judge is in the key of the stage that asks it."""
        return ""

    def conversation(self, prompt: Prompt, response: Response) -> tuple[Message, ...]:
        """Return what the judge is asked about an answer."""
        turns = prompt.messages
        dialogue = turns[0].content if len(turns) == 1 else "\n\n".join(f"{turn.role}: {turn.content}" for turn in turns)
        parts = {"prompt": dialogue, "response": response.text}
        # In one pass: an answer that holds `{prompt}` must not have the prompt put into it.
        return (Message("user", re.sub(r"\{(prompt|response)\}", lambda match: parts[match[1]], self.question)),)

    def read(self, answer: JudgeAnswer) -> float | None:
        """Return the last rating of a judge's answer; None where there is none, or it is out of bounds."""
        ratings = _RATING.findall(answer.text)
        return rating if ratings and LOWEST <= (rating := float(ratings[-1])) <= HIGHEST else None


class PolicyReward(BaseModel):
    """The policy's own judgment: the quality that it would most likely have been asked for, had it given this answer.

    The mean of `levels` under P(level | prompt, answer) ∝ P(answer | request for the level, prompt): Bayes' rule with equal
    priors. It is for policies that follow requests for a quality, and asks for no written judgment.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: Literal["likelihood"] = Field(description="how it judges: by the likelihood of its answer under each request")
    request: str = Field(REQUEST, description="goes before the prompt; {score} becomes each level")
    levels: tuple[int, ...] = Field(LEVELS, min_length=2, description="the scores asked for")

    @field_validator("request")
    @classmethod
    def _names_a_score(cls, request: str) -> str:
        if "{score}" not in request:
            raise ValueError("it should contain {score}, or all requests are equal")
        return request

    @property
    def needs(self) -> frozenset[str]:
        """Return the features that it asks of a source."""
        return frozenset()

    @property
    def asks_judge(self) -> bool:
        """Return whether marking asks a judge."""
        return False

    def problems(self, field: str) -> Sequence[tuple[str, str]]:
        """Return none."""
        return ()

    def described(self) -> str:
        """Return what marks, in words."""
        return "the policy's own judgment"

    def fingerprint(self) -> str:
        """Return nothing: the policy is an input of the stage that trains it."""
        return ""

    def requests(self) -> list[str]:
        """Return the request for each level."""
        return [self.request.replace("{score}", str(level)) for level in self.levels]

    def expected(self, logps: Sequence[float]) -> float:
        """Return the mean level of an answer with these log-probabilities in nats under each request, [levels]."""
        most = max(logps)
        weights = [math.exp(value - most) for value in logps]
        return sum(level * weight for level, weight in zip(self.levels, weights, strict=True)) / sum(weights)


_KINDS: Mapping[str, type[BaseModel]] = {"checker": Verifier, "judge": JudgeReward, "policy": PolicyReward}


def _read_reward(value: Any, *, kinds: Sequence[str] = ("checker", "judge")) -> Any:
    """Choose the kind of reward by its field: one of `kinds`, else `model`."""
    if not isinstance(value, Mapping):
        if isinstance(value, BaseModel):
            return value
        own = ", gold for the source's mark, {policy: likelihood} for the policy's own" if "policy" in kinds else ""
        raise ValueError(
            f"write {{model: …}} for a reward model, {{checker: …}} for a verifier{own} or {{judge: {{}}}} for the judge"
        )
    names = [name for name in ("model", *kinds) if name in value]
    if len(names) > 1:
        raise ValueError(f"`{names[0]}` and `{names[1]}` are two rewards: leave one out")
    kind = _KINDS.get("".join(names), RewardModel)
    for name in value:
        if kind is not RewardModel and name not in kind.model_fields:
            raise ValueError(f"no such field: {name!r}; {did_you_mean(str(name), kind.model_fields)}")
    return kind.model_validate(value)


def _read_training_reward(value: Any) -> Any:
    return value if value == "gold" else _read_reward(value, kinds=("checker", "judge", "policy"))


Reward = Annotated[RewardModel | Verifier | JudgeReward, BeforeValidator(_read_reward)]
# Rewards that a trainer may maximise: those above, the source's gold mark, and the policy's own judgment.
TrainingReward = Annotated[
    Literal["gold"] | RewardModel | Verifier | JudgeReward | PolicyReward, BeforeValidator(_read_training_reward)
]


class Rewarded(BaseModel):
    """The field `reward` of components that use the source's gold reward unless another takes its place.

    It goes before the component's interface in the list of bases.
    """

    reward: Reward | None = Field(
        None,
        exclude_if=lambda reward: reward is None,
        description="in place of the source's gold reward: {model: …} (a reward model), {checker: …} (a verifier) or "
        "{judge: {}} (the config's judge)",
    )

    needs: ClassVar[frozenset[Any]]
    judged: ClassVar[bool]

    @classmethod
    def takes_reward(cls, fields: Mapping[str, Any]) -> bool:
        """Return whether the config's own reward is meant for this component with these fields; it always is."""
        return True

    def required(self) -> frozenset[str]:
        """Return what it asks of the source: `needs`, with what the reward needs in place of gold."""
        return self.needs if self.reward is None else (self.needs - {"gold"}) | self.reward.needs

    def asks_judge(self) -> bool:
        """Return whether it asks a judge with these fields."""
        return self.judged or (self.reward is not None and self.reward.asks_judge)

    def problems(self) -> Sequence[tuple[str, str]]:
        """Return problems of the reward: (field, fix)."""
        return self.reward.problems("reward") if self.reward else ()

    def absent(self) -> Sequence[str]:
        """Return the reward model's field where its folder is not on this machine yet."""
        folder = isinstance(self.reward, RewardModel) and not Path(self.reward.model).expanduser().exists()
        return ("reward.model",) if folder else ()

    def fingerprint(self) -> str:
        """Return what decides the reward beside its fields."""
        return self.reward.fingerprint() if self.reward else ""


class RewardScorer:
    """A reward model in memory.

    Raises:
        DataError: the checkpoint is not what `layout` says, or has no chat template.
        MissingExtraError: torch is not installed.
    """

    def __init__(self, model: RewardModel) -> None:
        require("torch", "transformers")
        self.model = model
        self.encode, self.score, self.pad_id = _load(model)

    def rewards(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[Response]]) -> tuple[list[list[float]], int]:
        """Each response's reward, [prompts][responses], and how many dialogues lost their beginning; equal ones once."""
        dialogues = RewardedDialogues(self, prompts, responses)
        return read_rewards(computed(dialogues, len(dialogues.rows)), responses)


class RewardedDialogues:
    """Rewards of dialogues, batch by batch (a `Batched`): [n, 2], the reward and 1 where the dialogue lost its beginning.

    Equal dialogues are computed once.
    """

    def __init__(self, scorer: RewardScorer, prompts: Sequence[Prompt], responses: Sequence[Sequence[Response]]) -> None:
        self.scorer, most = scorer, scorer.model.max_tokens
        self.rows: list[Ids] = []
        self.is_cut: list[bool] = []
        for prompt, row in zip(prompts, responses, strict=True):
            for response in row:
                ids = scorer.encode([*prompt.messages, Message("assistant", response.text)])
                self.is_cut.append(len(ids) > most)
                self.rows.append((ids[0], *ids[len(ids) - most + 1 :]) if len(ids) > most else ids)

    def batches(self) -> list[list[int]]:
        places = places_of(self.rows)
        unique = [TokenRow((), self.rows[first]) for first, *_ in places.values()]
        return list(with_equal_rows(cut(unique, TOKENS_PER_BATCH), list(places.values())))

    def compute(self, batch: Sequence[int]) -> np.ndarray:
        import numpy as np
        import torch

        unique = list(dict.fromkeys(self.rows[place] for place in batch))
        with torch.inference_mode():
            scored = self.scorer.score(*_padded(unique, self.scorer.pad_id)).double().tolist()
        values = dict(zip(unique, scored, strict=True))
        return np.array([[values[self.rows[place]], self.is_cut[place]] for place in batch])


def read_rewards(numbers: np.ndarray, responses: Sequence[Sequence[Response]]) -> tuple[list[list[float]], int]:
    """Return rewards, [prompts][responses], and how many dialogues lost their beginning.

    Args:
        numbers: of `RewardedDialogues`.
    """
    rows = iter(numbers.tolist())
    read = [[next(rows) for _ in row] for row in responses]
    return [[value for value, _ in row] for row in read], round(sum(is_cut for row in read for _, is_cut in row))


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
        # As `apply_chat_template` with `tokenize`, whose text is rendered within limits here.
        text = render(tokenizer, messages, add_generation_prompt=False)
        return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])

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
