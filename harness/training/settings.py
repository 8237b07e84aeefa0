"""How a policy is trained: the `training` and `sft` sections of a config."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from harness.training.layouts.choose import LayoutName

Schedule = Literal["constant", "linear", "cosine"]


class TrainingSettings(BaseModel):
    """What all methods share; a method entry may override any of it."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    learning_rate: float = Field(2e-4, gt=0, le=1, description="peak learning rate of AdamW")
    prompts_per_batch: int = Field(16, ge=1, description="prompts per optimiser step; m negatives make m pairs of each")
    epochs: int = Field(1, ge=1, description="passes over a round's groups")
    schedule: Schedule = Field("cosine", description="learning rate after the warm-up")
    warmup_share: float = Field(0.1, ge=0, lt=1, description="share of the steps with a rising learning rate")
    weight_decay: float = Field(0.0, ge=0, description="AdamW's decoupled weight decay")
    max_gradient_norm: float = Field(1.0, gt=0, description="gradients are clipped to this global norm")
    tokens_per_micro_batch: int = Field(
        8192, ge=1, description="tokens of one forward pass, padding included; changes memory and speed, never the loss"
    )
    layout: LayoutName = Field(
        "auto",
        description="how a prompt's responses lie in a pass: `shared_prefix` (prompt once), `unique` (m + 1 padded rows), "
        "`expanded` (2m), `auto` (shared_prefix where the model honours it); changes memory and speed, never the loss",
    )


class SftSettings(BaseModel):
    """The shared starting point: supervised fine-tuning on the source's `sft` split by TRL's SFTTrainer."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    epochs: int = Field(3, ge=1, description="passes over the targets; how far SFT is taken decides rankings, so state it")
    learning_rate: float = Field(5e-4, gt=0, le=1, description="peak learning rate of AdamW")
    batch_size: int = Field(32, ge=1, description="examples per optimiser step")
    schedule: Schedule = Field("cosine", description="learning rate after the warm-up")
    warmup_share: float = Field(0.05, ge=0, lt=1, description="share of the steps with a rising learning rate")
    max_length: int = Field(1024, ge=8, description="longest example in tokens; longer ones are dropped and counted")
