"""The interface of trainers, which turn a start and a round's data into a trained model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from harness.api.interfaces.component import Component
from harness.api.interfaces.objective import Objective
from harness.api.types import Example, Group

if TYPE_CHECKING:
    import transformers
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from harness.models.reward import TrainingReward
    from harness.training.settings import TrainingSettings

BudgetUnit = Literal["pairs", "tokens", "updates", "generated"]
TrainsOn = Literal["groups", "prompts", "either"]


@dataclass(frozen=True)
class TrainingUse:
    """The part of its budget that a training used; None for what the trainer cannot tell, which the board then leaves out.

    Attributes:
        prompts: different prompts trained on.
        pairs: chosen-rejected pairs trained on, each as often as it was.
        updates: optimiser steps.
        tokens: tokens of all passes with gradient, each response with its own copy of the prompt.
        generated: tokens that the policy generated while it was trained.
        reward_calls: responses that a reward was asked for.
        notes: warnings for readers of the board.
    """

    prompts: int | None = None
    pairs: int | None = None
    updates: int | None = None
    tokens: int | None = None
    generated: int = 0
    reward_calls: int = 0
    notes: Sequence[str] = ()


class TrainingTask(Protocol):
    """One round of training, and the services that a trainer may ask for.

    Attributes:
        groups: the data builder's groups; empty for a trainer that trains on prompts.
        objective: the row's objective; None where the row names none.
        settings: the row's `training` section; of its fields, those of `Trainer.carries` have the config's values, the
            others their defaults.
        limit: unit (`pairs`, `tokens`, `updates` or `generated`) -> amount, where the budget limits this training by more than
            its prompts.
        seed: decides all random numbers.
        max_tokens: of the longest response that the policy should generate, `generation.max_tokens`.
        out: an empty folder for the trained checkpoint, in safetensors. The host takes nothing else from the trainer.
        scratch: an empty folder for anything; removed afterwards.
        kept: a folder for checkpoints of a training under way; it outlives this process, so a killed training can go on.
        checkpoint_seconds: to let pass between two such checkpoints; 0 after every step.
        devices: names of the GPUs that the executor gave to this training, as `CUDA_VISIBLE_DEVICES` takes them; as many as
            `Trainer.gpus` asks for, or none on a machine without GPUs.
    """

    groups: Sequence[Group]
    objective: Objective | None
    settings: TrainingSettings
    limit: Mapping[str, int]
    seed: int
    max_tokens: int
    out: Path
    scratch: Path
    kept: Path
    checkpoint_seconds: float
    devices: Sequence[str]

    @property
    def examples(self) -> Sequence[Example]:
        """The round's prompts, with targets and metadata where the source has them."""
        ...

    @property
    def start(self) -> Path:
        """A folder with the model that the round starts from: weights in safetensors, configuration, tokenizer, template."""
        ...

    @property
    def data(self) -> Path:
        """A file of JSON lines in TRL's conversational formats, each line with the prompt's `id`.

        Groups are `prompt`, `chosen` and `rejected`, one line per pair; groups without a rejected response are `prompt` and
        `completion`. A trainer on prompts gets `prompt`, with the `target` where the source has one.
        """
        ...

    def load(self) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
        """The start in memory, to be trained; with adapters where `settings.lora` asks for them."""
        ...

    def save(self, model: PreTrainedModel | PeftModel) -> None:
        """Write a model that `load` gave as the trained one, adapters merged, in place of a checkpoint in `out`."""
        ...

    def train_groups(self) -> TrainingUse:
        """Train on the groups with the row's objective, by the host's own loop, and save the model."""
        ...

    def train_resumably(
        self,
        trainer: transformers.Trainer,
        notes: Callable[[], Mapping[str, object]] = dict,
        restore: Callable[[Mapping[str, object]], None] = lambda notes: None,
    ) -> None:
        """Run a trainer of transformers' that writes to `scratch`, from the last checkpoint if a killed run left one.

        Args:
            trainer: with `save_strategy="no"`: the host asks for a checkpoint when one is due.
            notes: returns what to keep beside the trainer's own state; JSON.
            restore: takes the notes of the checkpoint.
        """
        ...

    def reward(
        self,
        source: TrainingReward,
        prompts: Sequence[str],
        responses: Sequence[str],
        finished: Sequence[bool],
    ) -> list[float]:
        """Rewards of responses, [N]: the source's gold mark, a reward model's value, a verifier's mark, the judge's rating, or
        the judgment of the policy that the round starts from.

        NaN where there is none: the judge's answer could not be read, or the prompt has no reference to verify by.

        Args:
            prompts: ids of prompts in `examples`, [N].
            finished: whether each response came to its end, [N].
        """
        ...

    def progress(self, done: int, total: int, note: str = "") -> None:
        """Report that the training has come so far."""
        ...

    def point(self, values: Mapping[str, float]) -> None:
        """Add a point to the row's training curve: `loss`, `learning_rate` or any number, of one optimiser step.

        Raises:
            StageError: one of them is not finite.
        """
        ...

    def log(self, text: str) -> None:
        """Write to the run's log; after a mebibyte the rest is left out."""
        ...


class Trainer(Component):
    """Trains a round's model. A row chooses one with `trainer:`; without, it is `grouped`, the host's own.

    Methods with fields in view are called while planning, and must be cheap.

    Attributes:
        carries: fields of the `training` section that this trainer uses; a row may not set others.
        leaves_states: whether all its steps are made by `train_groups` or `train_resumably`, so that the host can end it at a
            share of them; `evaluation.during` needs that.
    """

    carries: ClassVar[frozenset[str]] = frozenset()
    leaves_states: ClassVar[bool] = False

    def title(self) -> str:
        """Return the name that stands on the board in place of an objective's."""
        return self.name

    def trains_on(self) -> TrainsOn:
        """Return what it trains on: `groups`, for which the row needs `data`; `prompts`, for which it has none; or `either`."""
        return "groups"

    def objectives(self) -> frozenset[str] | None:
        """Return the objectives whose fields it carries over, by name; none by default. None stands for all there are."""
        return frozenset()

    def needs_objective(self) -> bool:
        """Return whether a row must name an objective."""
        return False

    def needs_rejected(self) -> bool:
        """Return whether a group without a rejected response is of no use to it."""
        return False

    def required(self) -> frozenset[str]:
        """Return what it asks of the source with these fields, such as `gold`."""
        return frozenset()

    def asks_judge(self) -> bool:
        """Return whether it asks the config's judge with these fields, through `TrainingTask.reward`."""
        return False

    def units(self) -> frozenset[str]:
        """Return the units in which it keeps to a limit: `pairs`, `tokens`, `updates`, `generated`.

        The host keeps the number of prompts.
        """
        return frozenset()

    def gpus(self) -> int:
        """Return how many GPUs it trains on at a time; trainings on more than one run one after another."""
        return 1

    def time_limit_hours(self) -> float | None:
        """Return the time after which the host ends its training, and the row fails; None for no limit."""
        return None

    def conflicts(self, objective: Objective | None, settings: TrainingSettings) -> Sequence[tuple[str, str]]:
        """Return problems of its fields together with the row's objective and settings: (field, fix)."""
        return ()

    def train(self, task: TrainingTask) -> TrainingUse:
        """Train, and leave the model in `task.out` or by `task.save`.

        Raises:
            StageError: it cannot; the reason stands on the row.
        """
        raise NotImplementedError
