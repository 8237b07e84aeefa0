"""TRL's own trainers: a row's settings and objective as their arguments. `trl_run.py` runs them."""

from __future__ import annotations

import contextlib
import dataclasses
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, ClassVar, Literal, get_type_hints

from pydantic import Field, JsonValue, TypeAdapter, ValidationError, model_validator

from harness import Objective, Trainer, TrainingReward, TrainingSettings, TrainingTask, TrainingUse
from harness_plugins.trainers.trl_trainers import SCHEDULE_STEPS, TRAINERS, TrlTrainer

Name = Literal["sft", "dpo", "kto", "cpo", "orpo", "grpo", "rloo", "online_dpo"]

# Arguments that would break the budget, the seed, the store or the security of a run.
KEPT_BY_THE_HOST = frozenset(
    {
        *("output_dir", "seed", "data_seed", "num_train_epochs", "max_steps", "full_determinism", "use_cpu", "report_to"),
        *(
            "push_to_hub",
            "hub_model_id",
            "hub_token",
            "hub_strategy",
            "trust_remote_code",
            "model_init_kwargs",
            "eval_strategy",
        ),
        *(
            "save_strategy",
            "save_steps",
            "resume_from_checkpoint",
            "logging_strategy",
            "logging_steps",
            "remove_unused_columns",
        ),
        *(
            "deepspeed",
            "fsdp",
            "fsdp_config",
            "accelerator_config",
            "do_train",
            "do_eval",
            "do_predict",
            "log_completions_hub_repo",
        ),
    }
)


class Trl(Trainer):
    """TRL's own trainer: SFT, DPO, KTO, CPO, ORPO on groups, GRPO, RLOO and online DPO on prompts."""

    name: ClassVar[str] = "trl"
    carries: ClassVar[frozenset[str]] = frozenset(
        {
            *("learning_rate", "prompts_per_batch", "epochs", "schedule", "warmup_share", "weight_decay", "max_gradient_norm"),
            *("precision", "gradient_checkpointing", "lora", "optimizer"),
        }
    )
    leaves_states: ClassVar[bool] = True

    trainer: Name = Field(description="which of TRL's trainers")
    reward: TrainingReward | None = Field(
        None,
        description="what grpo, rloo and online_dpo maximise, if not the config's `reward`: gold (the source's own mark), "
        "{model: …} (a reward model), {checker: …} (a verifier), {judge: {}} (the config's judge) or {policy: likelihood} "
        "(the round's starting policy itself)",
    )
    arguments: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="arguments of TRL's config class, such as num_generations; they override what the row's settings give",
    )

    hours: float = Field(
        24.0,
        gt=0,
        le=8760,
        exclude_if=lambda hours: hours == 24.0,  # keys of rows that leave it at that stay as they were
        description="its training is ended after so long",
    )

    @model_validator(mode="after")
    def _rewarded(self) -> Trl:
        if self._trl.online and self.reward is None:
            raise ValueError(f"`reward`: {self.trainer} maximises one: give `reward: gold`, or a reward model's section")
        if not self._trl.online and self.reward is not None:
            raise ValueError(f"`reward`: {self.trainer} trains on the data builder's responses: leave it out")
        return self

    @classmethod
    def takes_reward(cls, fields: Mapping[str, Any]) -> bool:
        trl = TRAINERS.get(str(fields.get("trainer")))
        return trl is not None and trl.online

    @property
    def _trl(self) -> TrlTrainer:
        return TRAINERS[self.trainer]

    def title(self) -> str:
        return f"trl {self.trainer}"

    def trains_on(self) -> Literal["groups", "prompts"]:
        return "prompts" if self._trl.online else "groups"

    def objectives(self) -> frozenset[str]:
        return frozenset(self._trl.objectives)

    def needs_rejected(self) -> bool:
        return self._trl.format in ("ids", "preference", "unpaired")

    def required(self) -> frozenset[str]:
        if self.reward is None or self.reward == "gold":
            return frozenset({"gold"} if self.reward else ())
        return self.reward.needs

    def asks_judge(self) -> bool:
        return self.reward is not None and self.reward != "gold" and self.reward.asks_judge

    def units(self) -> frozenset[str]:
        return frozenset({"updates", "generated"} if self._trl.online else {"updates"})

    def time_limit_hours(self) -> float:
        return self.hours

    def fingerprint(self) -> str:
        named = "" if self.reward is None or self.reward == "gold" else self.reward.fingerprint()
        return "; ".join([f"trl {metadata.version('trl')}", *([f"reward {named}"] if named else [])])

    def problems(self) -> Sequence[tuple[str, str]]:
        metadata.version("trl")  # raises where it is not installed
        given = self.reward is not None and self.reward != "gold"
        problems = list(self.reward.problems("reward")) if given else []
        fields = {item.name for item in dataclasses.fields(config_class(self.trainer))} if self.arguments else set()
        hints = get_type_hints(config_class(self.trainer)) if self.arguments else {}
        for name, value in self.arguments.items():
            if name in KEPT_BY_THE_HOST:
                problems.append((f"arguments.{name}", "the harness sets it: leave it out"))
            elif name not in fields:
                problems.append((f"arguments.{name}", f"{config_class(self.trainer).__name__} has no such argument"))
            else:
                with contextlib.suppress(TypeError):  # a type that pydantic knows nothing of: the class itself decides
                    problems += _type_problem(name, value, hints[name])
        return problems

    def conflicts(self, objective: Objective | None, settings: TrainingSettings) -> Sequence[tuple[str, str]]:
        problems = []
        if objective is not None:
            carried = self._trl.objectives[objective.name].fields
            for name, field in type(objective).model_fields.items():
                if name not in carried and getattr(objective, name) != field.get_default(call_default_factory=True):
                    problems.append(
                        (f"objective.{name}", f"TRL's {self.trainer} has no such setting: leave it at {field.default!r}")
                    )
        if not problems and not self.problems():
            try:
                self.config(objective, settings, Path("unused"), seed=0, rows=64, prompts=64, max_tokens=8, limit={})
            except (ValueError, TypeError, ImportError) as error:
                problems.append(("trainer.arguments", str(error).splitlines()[0]))
        return problems

    def config(
        self,
        objective: Objective | None,
        settings: TrainingSettings,
        folder: Path,
        *,
        seed: int,
        rows: int,
        prompts: int,
        max_tokens: int,
        limit: Mapping[str, int],
    ) -> Any:
        """Return the row's settings as an instance of TRL's config class.

        Args:
            rows: of the data set; several stand for one prompt where it has several rejected responses.
            prompts: that they stand for.
            max_tokens: of the longest generated response.
            limit: of the budget.
        """
        cls, trl = config_class(self.trainer), self._trl
        taken = trl.objectives[objective.name] if objective is not None else None
        given = {
            **common_arguments(settings, folder, seed, trl, rows, prompts, self.arguments, limit),
            **({trl.longest: max_tokens} if trl.longest else {}),
            **({theirs: getattr(objective, ours) for ours, theirs in taken.fields.items()} if taken else {}),
            **(taken.fixed if taken else {}),
            **trl.defaults,
            **self.arguments,
        }
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="`gradient_checkpointing` is deprecated", category=FutureWarning)
            return cls(**given)

    def train(self, task: TrainingTask) -> TrainingUse:
        from harness_plugins.trainers.trl_run import run

        return run(self, self._trl, task)


def common_arguments(
    settings: TrainingSettings,
    folder: Path,
    seed: int,
    trl: TrlTrainer,
    rows: int,
    prompts: int,
    arguments: Mapping[str, Any],
    limit: Mapping[str, int],
) -> dict[str, Any]:
    """Return the arguments that every trainer of TRL has, as `Trl.config` describes its own.

    A step takes the rows of `training.prompts_per_batch` prompts, so that a row of TRL's makes as many updates as ours.
    """
    import torch

    cuda = torch.cuda.is_available()
    precision = settings.precision if settings.precision != "auto" else ("bfloat16" if cuda else "float32")
    answers = int(arguments.get("num_generations", 8 if trl.name == "grpo" else 2)) if trl.grouped else 1
    batch = max(1, round(settings.prompts_per_batch * rows / max(1, prompts))) * answers
    batch = int(arguments.get("per_device_train_batch_size", batch))
    whole = batch * int(arguments.get("gradient_accumulation_steps", 1))
    steps = limit.get("updates") or settings.epochs * max(1, -(-rows * answers // whole))
    if "generated" in limit:
        steps = SCHEDULE_STEPS  # the learning rate follows the share of the limit that is spent (`trl_run.py`)
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": batch,
        "num_train_epochs": settings.epochs,
        # Where generated tokens are limited, training ends when they are spent: each step generates at least one.
        "max_steps": limit.get("updates", limit.get("generated", -1)),
        "learning_rate": settings.learning_rate,
        "lr_scheduler_type": {"constant": "constant_with_warmup"}.get(settings.schedule, settings.schedule),
        "warmup_steps": round(settings.warmup_share * steps),
        "weight_decay": settings.weight_decay,
        "max_grad_norm": settings.max_gradient_norm,
        "optim": settings.optimizer,
        "seed": seed,
        "data_seed": seed,
        "bf16": precision == "bfloat16",
        "gradient_checkpointing": settings.gradient_checkpointing,
        "use_cpu": not cuda,
        "logging_strategy": "steps",
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "report_to": [],
        "disable_tqdm": True,
        "remove_unused_columns": False,
        "dataloader_pin_memory": False,
    }


@cache
def config_class(trainer: str) -> Any:
    """Return a trainer's config class. Importing TRL takes seconds."""
    return _imported(TRAINERS[trainer].module, TRAINERS[trainer].config)


@cache
def trainer_class(trainer: str) -> Any:
    """Return TRL's trainer class."""
    return _imported(TRAINERS[trainer].module, TRAINERS[trainer].trainer)


def _imported(module: str, name: str) -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You are importing from 'trl.experimental'")
        return getattr(import_module(module), name)


def _type_problem(name: str, value: Any, hint: Any) -> list[tuple[str, str]]:
    """Return a problem if a value is not of its argument's type: TRL's classes do not look."""
    try:
        TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        return [(f"arguments.{name}", error.errors()[0]["msg"][:1].lower() + error.errors()[0]["msg"][1:])]
    return []
