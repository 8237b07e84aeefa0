"""Runs one of TRL's trainers, and counts what it trains on and generates. Imports torch and TRL."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from transformers import PrinterCallback, TrainerCallback

from harness import ChatTemplate, Group, JudgeReward, Response, StageError, TrainingTask, TrainingUse
from harness_plugins.trainers.trl_trainers import SCHEDULE_STEPS, TrlTrainer

if TYPE_CHECKING:
    from harness_plugins.trainers.trl import Trl

CURVE = {
    "loss": "loss",
    "learning_rate": "learning_rate",
    "grad_norm": "gradient_norm",
    "reward": "reward",
    "objective/scores": "reward",
    "reward_std": "reward_std",
    "kl": "kl",
    "objective/kl": "kl",
    "entropy": "entropy",
    "completions/mean_length": "response_tokens",
    "rewards/accuracies": "accuracy",
    "rewards/margins": "margin",
}
MUST_BE_FINITE = ("loss", "gradient_norm")
LOWEST_RATING = 1.0  # of a judge; counts where no rating could be read


@dataclass
class Counts:
    """Running totals of a training's use; kept in its checkpoints."""

    tokens: int = 0
    pairs: int = 0
    generated: int = 0
    reward_calls: int = 0
    unread: int = 0


def run(trainer: Trl, trl: TrlTrainer, task: TrainingTask) -> TrainingUse:
    """Train by TRL; see `Trainer.train`."""
    from harness_plugins.trainers.trl import trainer_class

    groups = [group for group in task.groups if group.rejected or trl.format == "completion"]
    if not trl.online and not groups:
        raise StageError(f"none of {len(task.groups)} groups has a rejected response, which TRL's {trl.name} compares with")
    model, tokenizer = task.load()
    template, counts = ChatTemplate(tokenizer), Counts()
    rows = prompt_rows(task) if trl.online else group_rows(groups, trl, template)
    prompts = len(rows) if trl.online else len(groups)
    config = trainer.config(
        task.objective,
        task.settings,
        task.scratch,
        seed=task.seed,
        rows=len(rows),
        prompts=prompts,
        max_tokens=task.max_tokens,
        limit=task.limit,
    )
    options: dict[str, Any] = {}
    if trl.online:
        options["reward_funcs"] = rewarding(trainer, template, task, counts)
    elif trl.format == "ids" and task.settings.lora is None:
        options["ref_model"], _ = task.load()  # adapters are switched off for the reference
    limit = GeneratedLimit.of(task, trl, config, counts)
    cls = type(trl.trainer, (_Counting, trainer_class(trl.name)), {"counts": counts, "trl": trl, "limit": limit})
    with warnings.catch_warnings():
        # TRL's own calls, and columns that its collators do not need.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        built = cls(model=model, args=config, train_dataset=_dataset(rows), processing_class=tokenizer, **options)
        built.add_callback(_Curve(task, limit))
        built.remove_callback(PrinterCallback)
        task.train_resumably(built, lambda: asdict(counts), lambda kept: counts.__dict__.update(kept))
    task.save(built.accelerator.unwrap_model(built.model))
    updates = built.state.global_step
    if not updates:
        raise StageError(
            f"TRL's {trl.name} took no step: {prompts} prompts do not fill a batch of {task.settings.prompts_per_batch}; "
            "lower training.prompts_per_batch, or raise budget.prompts"
        )
    seen = min(1.0, updates * config.per_device_train_batch_size * config.gradient_accumulation_steps / max(1, len(rows)))
    if trl.online:  # prompts come in passes over all of them
        seen = min(1.0, counts.reward_calls / (answers_per_prompt(config) * prompts))
    return TrainingUse(
        prompts=round(seen * prompts),
        pairs=counts.pairs if not trl.grouped else None,
        updates=updates,
        tokens=counts.tokens,
        generated=counts.generated,
        reward_calls=counts.reward_calls,
        notes=[unread_note(counts)] if counts.unread else [],
    )


def answers_per_prompt(config: Any) -> int:
    """Return how many responses an online trainer draws for a prompt; online DPO's config has no number, it draws two."""
    return int(getattr(config, "num_generations", 2))


@dataclass(frozen=True)
class GeneratedLimit:
    """A budget in generated tokens: training ends before the first step that could generate more than is left.

    Attributes:
        amount: tokens.
        step: the most that one step can generate.
    """

    amount: int
    step: int
    counts: Counts

    @classmethod
    def of(cls, task: TrainingTask, trl: TrlTrainer, config: Any, counts: Counts) -> GeneratedLimit | None:
        """Return the limit of a training; None where its budget has none.

        Raises:
            StageError: it does not pay for one step.
        """
        if (amount := task.limit.get("generated")) is None:
            return None
        passes = config.per_device_train_batch_size * config.gradient_accumulation_steps
        responses = config.generation_batch_size if trl.grouped else passes * answers_per_prompt(config)
        step = max(responses, passes) * getattr(config, trl.longest)
        if step > amount:
            raise StageError(
                f"a step of TRL's {trl.name} may generate {step:,} tokens, and the round's budget.generated is {amount:,}: "
                "raise it, or lower training.prompts_per_batch or generation.max_tokens"
            )
        return cls(amount, step, counts)

    @property
    def reached(self) -> bool:
        """Whether another step could go beyond the limit."""
        return self.counts.generated + self.step > self.amount

    @property
    def share(self) -> float:
        """The share that is spent, in [0, 1]; 1 when no other step fits."""
        return min(1.0, self.counts.generated / (self.amount - self.step + 1))


def _dataset(rows: Sequence[Mapping[str, Any]]) -> Any:
    from datasets import Dataset

    return Dataset.from_list(list(rows))


def prompt_rows(task: TrainingTask) -> list[dict[str, Any]]:
    """Prompts in TRL's conversational format."""
    return [{"id": item.prompt.id, "prompt": [asdict(message) for message in item.prompt.messages]} for item in task.examples]


def group_rows(groups: Sequence[Group], trl: TrlTrainer, template: ChatTemplate) -> list[dict[str, Any]]:
    """Groups as the trainer takes them: as ids of our own template where it takes ids, so that both train on the same."""
    rows: list[dict[str, Any]] = []
    for group in groups:
        messages = [asdict(message) for message in group.prompt.messages]
        if trl.format in ("ids", "completion"):
            prompt = list(template.prompt_ids(group.prompt))
            chosen = list(template.response_ids(group.prompt, group.chosen))
            if trl.format == "completion":
                rows.append({"input_ids": [*prompt, *chosen], "completion_mask": [0] * len(prompt) + [1] * len(chosen)})
            for rejected in group.rejected if trl.format == "ids" else ():
                other = list(template.response_ids(group.prompt, rejected))
                rows.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": other})
        elif trl.format == "unpaired":
            sides = [(group.chosen, True), *((rejected, False) for rejected in group.rejected)]
            rows += [{"prompt": messages, "completion": _answer(side), "label": label} for side, label in sides]
        else:
            rows += [
                {"prompt": messages, "chosen": _answer(group.chosen), "rejected": _answer(rejected)}
                for rejected in group.rejected
            ]
    return rows


def _answer(response: Response) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": response.text}]


def rewarding(trainer: Trl, template: ChatTemplate, task: TrainingTask, counts: Counts) -> Callable[..., list[float]]:
    """Return the reward as TRL calls it: of the text that evaluators would read, by the prompt's `id` column."""
    source = trainer.reward
    assert source is not None  # `Trl` refuses to be without
    ends = set(template.stop_ids())
    lengths = {item.prompt.id: len(template.prompt_ids(item.prompt)) for item in task.examples}

    def reward(
        prompts: Any, completions: Any, completion_ids: Sequence[Sequence[int]], id: Sequence[str], **_: Any
    ) -> list[float]:
        texts, finished = [], []
        for prompt, ids in zip(id, completion_ids, strict=True):
            end = next((place for place, token in enumerate(ids) if token in ends), None)
            kept = list(ids) if end is None else list(ids[: end + 1])
            texts.append(template.text_of(kept, finished=end is not None))
            finished.append(end is not None)
            counts.generated += len(kept)
            if trainer.trainer == "online_dpo":  # whose step is its own, and calls no `compute_loss`
                counts.tokens += lengths[prompt] + len(kept)
        counts.reward_calls += len(texts)
        counts.pairs += len(texts) // 2 if trainer.trainer == "online_dpo" else 0
        return [
            counted(value, prompt) for value, prompt in zip(task.reward(source, list(id), texts, finished), id, strict=True)
        ]

    def counted(value: float, prompt: str) -> float:
        # TRL would take an answer without a reward for one of reward 0, and say nothing.
        if not math.isnan(value):
            return value
        if not isinstance(source, JudgeReward):
            raise StageError(f"the prompt {prompt!r} has no reference, and {trainer.title()} needs one to mark its answers")
        counts.unread += 1
        return LOWEST_RATING

    return reward


def unread_note(counts: Counts) -> str:
    """Return the board's warning about ratings that could not be read."""
    return (
        f"{counts.unread} of {counts.reward_calls} answers of the judge held no rating; those were trained on as the lowest, "
        f"{LOWEST_RATING:g}"
    )


class _Counting:
    """Count tokens and pairs of the batches that a loss is computed on; keep ids that are made already; write no card.

    Attributes:
        counts: shared with the reward function.
        limit: of generated tokens, which the learning rate follows then.
    """

    counts: Counts
    trl: TrlTrainer
    limit: GeneratedLimit | None

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        if (limit := self.limit) is None:
            return super().create_scheduler(num_training_steps, optimizer)  # type: ignore[misc]
        from torch.optim.lr_scheduler import LambdaLR

        optimizer = optimizer or self.optimizer  # type: ignore[attr-defined]
        shape, *_ = super().create_scheduler(SCHEDULE_STEPS, optimizer).lr_lambdas  # type: ignore[misc]
        # One for each group of parameters, all the same.
        self.lr_scheduler = LambdaLR(optimizer, lambda _: shape(round(SCHEDULE_STEPS * limit.share)))
        return self.lr_scheduler

    def _prepare_dataset(self, dataset: Any, *arguments: Any, **options: Any) -> Any:
        if self.trl.format == "ids":
            return dataset
        return super()._prepare_dataset(dataset, *arguments, **options)  # type: ignore[misc]

    def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **options: Any) -> Any:
        self._count(inputs)
        return super().compute_loss(model, inputs, *arguments, **options)  # type: ignore[misc]

    def _count(self, inputs: Mapping[str, Any]) -> None:
        for name in ("attention_mask", "chosen_attention_mask", "rejected_attention_mask"):
            if name in inputs:
                self.counts.tokens += int(inputs[name].sum())
        if self.trl.grouped:
            self.counts.tokens += int(inputs["prompt_mask"].sum()) + int(inputs["completion_mask"].sum())
        elif "chosen_attention_mask" in inputs:
            self.counts.pairs += len(inputs["chosen_attention_mask"])
        elif self.trl.format in ("ids", "unpaired"):
            self.counts.pairs += len(inputs["input_ids"]) // 2

    def create_model_card(self, *arguments: Any, **options: Any) -> None:
        """Write none: it would go into every checkpoint."""


class _Curve(TrainerCallback):  # type: ignore[misc]
    """Give each step's numbers to the task."""

    def __init__(self, task: TrainingTask, limit: GeneratedLimit | None) -> None:
        self.task = task
        self.limit = limit

    def _report(self, state: Any, note: str = "") -> None:
        if self.limit is not None:
            self.task.progress(min(self.limit.counts.generated, self.limit.amount), self.limit.amount, note)
        else:
            self.task.progress(state.global_step, state.max_steps, note)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._report(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.limit is not None and self.limit.reached:
            control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        if not logs or "loss" not in logs:
            return
        known = {ours: float(logs[theirs]) for theirs, ours in CURVE.items() if theirs in logs}
        values = {name: value for name, value in known.items() if math.isfinite(value) or name in MUST_BE_FINITE}
        self.task.point({"step": float(state.global_step), **values})
        self._report(state, f"loss {values['loss']:.3f}")
