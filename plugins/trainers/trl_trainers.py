"""TRL's trainers: the data that each takes, and the fields of our objectives that it has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Carried:
    """An objective of ours in TRL's terms.

    Attributes:
        fields: ours -> theirs.
        fixed: arguments that make their loss ours.
    """

    fields: Mapping[str, str] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class TrlTrainer:
    """One of TRL's trainers.

    Attributes:
        format: of its data; `ids` and `completion` are pairs and single responses as ids of our own template.
        longest: the argument that limits generated responses.
        grouped: whether its batch size counts responses, `num_generations` of each prompt.
        objectives: those of ours that it trains.
        defaults: arguments that differ from TRL's defaults, so that nothing is cut or sampled otherwise than by the row.
    """

    name: str
    trainer: str
    config: str
    module: str = "trl"
    format: Literal["ids", "completion", "preference", "unpaired", "prompts"] = "ids"
    longest: str = ""
    grouped: bool = False
    objectives: Mapping[str, Carried] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)

    @property
    def online(self) -> bool:
        """Whether it trains on the policy's own responses to prompts."""
        return self.format == "prompts"


SCHEDULE_STEPS = 1000  # of the learning rate's schedule, where the number of updates is not known beforehand

_BETA = {"beta": "beta"}
_LONG = {"max_length": 1_000_000}  # TRL's experimental trainers take None for 512

TRAINERS: Mapping[str, TrlTrainer] = {
    trainer.name: trainer
    for trainer in (
        TrlTrainer(
            "sft",
            "SFTTrainer",
            "SFTConfig",
            format="completion",
            objectives={"sft": Carried()},
            defaults={"max_length": None, "completion_only_loss": True},
        ),
        TrlTrainer(
            "dpo",
            "DPOTrainer",
            "DPOConfig",
            objectives={
                "dpo": Carried({**_BETA, "label_smoothing": "label_smoothing"}, {"loss_type": ["sigmoid"]}),
                "ipo": Carried(_BETA, {"loss_type": ["ipo"]}),
                "hinge": Carried(_BETA, {"loss_type": ["hinge"]}),
            },
            defaults={"max_length": None},
        ),
        TrlTrainer(
            "kto",
            "KTOTrainer",
            "KTOConfig",
            format="unpaired",
            objectives={
                "kto": Carried({name: name for name in ("beta", "desirable_weight", "undesirable_weight")}),
            },
            defaults={"max_length": None},
        ),
        TrlTrainer(
            "cpo",
            "CPOTrainer",
            "CPOConfig",
            module="trl.experimental.cpo",
            format="preference",
            objectives={"cpo": Carried({**_BETA, "alpha": "cpo_alpha"}, {"loss_type": "sigmoid"})},
            defaults=_LONG,
        ),
        TrlTrainer(
            "orpo",
            "ORPOTrainer",
            "ORPOConfig",
            module="trl.experimental.orpo",
            format="preference",
            objectives={"orpo": Carried({"odds_ratio_weight": "beta"})},
            defaults=_LONG,
        ),
        TrlTrainer("grpo", "GRPOTrainer", "GRPOConfig", format="prompts", longest="max_completion_length", grouped=True),
        TrlTrainer("rloo", "RLOOTrainer", "RLOOConfig", format="prompts", longest="max_completion_length", grouped=True),
        TrlTrainer(
            "online_dpo",
            "OnlineDPOTrainer",
            "OnlineDPOConfig",
            module="trl.experimental.online_dpo",
            format="prompts",
            longest="max_new_tokens",
            defaults=_LONG,
        ),
    )
}
