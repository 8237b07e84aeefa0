"""The `training` and `sft` sections of a config: how a policy is trained."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from harness.api.spaces import SearchSpace
from harness.training.kernels import Kernels, wrong_kernels
from harness.training.layouts.choose import Attention, LayoutName, wrong_attention
from harness.training.optimizers import DEFAULT, wrong_optimizer

Schedule = Literal["constant", "linear", "cosine"]


Precision = Literal["float32", "bfloat16"]


class LoraSettings(BaseModel):
    """Low-rank adapters (arXiv 2106.09685) by PEFT: trained alone, then merged into the weights."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    rank: int = Field(16, ge=1, description="rank of each adapter")
    alpha: float = Field(32.0, gt=0, description="an adapter's output is scaled by alpha / rank")
    dropout: float = Field(
        0.0, ge=0, lt=1, description="on an adapter's input; above 0 training falls back to padded rows, which is slower"
    )
    target_modules: Literal["all-linear"] | tuple[str, ...] = Field(
        "all-linear", description="names of the layers that get one, or `all-linear`: every linear layer but the output's"
    )
    use_rslora: bool = Field(False, description="scale by alpha / √rank instead (arXiv 2312.03732)")


Lora = Annotated[LoraSettings | None, Field(description="train low-rank adapters instead of all weights")]


Strategy = Literal["replicated", "fsdp", "fsdp_offload", "deepspeed_zero2", "deepspeed_zero3"]


class DeviceSettings(BaseModel):
    """One training on several devices of one machine, a process each, through accelerate."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    count: int = Field(ge=2, le=64, description="processes, each with a GPU of its own; on a machine without GPUs a CPU thread")
    strategy: Strategy = Field(
        "replicated",
        description="what each process holds: all of the model (`replicated`), or a part of weights, gradients and optimiser; "
        "names a file of `configs/accelerate`",
    )

    @field_validator("strategy")
    @classmethod
    def _installed(cls, strategy: Strategy) -> Strategy:
        if strategy.startswith("deepspeed") and find_spec("deepspeed") is None:
            raise ValueError("deepspeed is not installed: pip install deepspeed, or choose 'fsdp', which needs nothing more")
        return strategy

    @property
    def libraries(self) -> tuple[str, ...]:
        """By their distributions' names, what decides its numbers beside torch."""
        return ("accelerate", "deepspeed") if self.strategy.startswith("deepspeed") else ("accelerate",)


def _devices(value: Any) -> Any:
    """A number alone is the number of processes, and one process is what there is without it."""
    if isinstance(value, bool) or not isinstance(value, int):
        return value
    return None if value == 1 else {"count": value}


Devices = Annotated[
    DeviceSettings | None,
    BeforeValidator(_devices),
    Field(description="train on several devices: their number, or a section; part of the key, for sums differ in last digits"),
]


PrecisionSetting = Annotated[
    Literal["auto", "float32", "bfloat16"],
    Field(
        description="of matrix products; weights and optimiser stay in float32. `auto` is float32 on a CPU, bfloat16 on a GPU"
    ),
]


GradientCheckpointing = Annotated[
    bool, Field(description="keep layers' inputs alone and compute the rest again in backward: less memory, a third more work")
]


class _Settings(BaseModel):
    """Fields that came after artifacts had been stored are named in `later`, so that older keys stay valid."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    later: ClassVar[frozenset[str]] = frozenset(
        {"lora", "precision", "gradient_checkpointing", "devices", "micro_batch_size", "optimizer", "kernels", "attention"}
    )
    precision: PrecisionSetting = "auto"

    def payload(self, device: str) -> dict[str, Any]:
        """The settings as part of a stage's key: later fields only where they change what was there before them.

        Args:
            device: of `harness.store.environment.device_kind`, which decides what `precision: auto` means.
        """
        fields = type(self).model_fields
        later = self.later & fields.keys()
        unchanged = {name for name in later if getattr(self, name) == fields[name].default} | {"precision"}
        return self.model_dump(mode="json", exclude=unchanged) | self.precision_payload(device)

    def precision_payload(self, device: str) -> dict[str, Precision]:
        """Return the resolved `precision`, or nothing for float32 on a CPU, which older keys mean."""
        chosen = resolve_precision(self.precision, device)
        return {} if (chosen, device) == ("float32", "cpu") else {"precision": chosen}


class TrainingSettings(_Settings):
    """The training of all methods; a method entry may override any field."""

    learning_rate: Annotated[
        float, SearchSpace(1e-5, 1e-3, log=True, source="a decade below and above 1e-4; for billions of parameters, far lower")
    ] = Field(2e-4, gt=0, le=1, description="peak learning rate")
    optimizer: str = Field(
        DEFAULT,
        description="by transformers' name (`optim`): rmsprop, sgd, adafactor, adagrad, or one whose package is installed",
    )
    prompts_per_batch: int = Field(16, ge=1, description="prompts per optimiser step; m negatives make m pairs of each")
    epochs: int = Field(1, ge=1, description="passes over a round's groups")
    schedule: Schedule = Field("cosine", description="learning rate after the warm-up")
    warmup_share: float = Field(0.1, ge=0, lt=1, description="share of the steps with a rising learning rate")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay, where the optimiser has one")
    max_gradient_norm: float = Field(1.0, gt=0, description="gradients are clipped to this global norm")
    tokens_per_micro_batch: int = Field(
        8192, ge=1, description="tokens of one forward pass, padding included; changes memory and speed, never the loss"
    )
    layout: LayoutName = Field(
        "auto",
        description="how a prompt's responses lie in a pass: `shared_prefix` (prompt once), `unique` (m + 1 padded rows), "
        "`expanded` (2m), `auto` (shared_prefix where the model honours it); changes memory and speed, never the loss",
    )
    attention: Attention = Field(
        "sdpa",
        description="of the shared-prefix layout: PyTorch's sdpa on padded parts; or on the row as it lies, without copies of "
        "prompts' keys, `varlen` (FlashAttention, 16 bits, PyTorch 2.10) or `flex` (FlexAttention); both CUDA, not run by us",
    )
    precision: PrecisionSetting = "auto"
    kernels: Kernels = Field(
        "default",
        description="of norms, positions and gated layers: transformers' own, or Liger's fused ones (CUDA, extra `liger`; "
        "not run by us)",
    )
    gradient_checkpointing: GradientCheckpointing = False
    lora: Lora = None
    devices: Devices = None

    @field_validator("optimizer")
    @classmethod
    def _can_be_used(cls, optimizer: str) -> str:
        if wrong := wrong_optimizer(optimizer):
            raise ValueError(wrong)
        return optimizer

    def absent(self) -> dict[str, str]:
        """Return the fields that this machine lacks something for, each with the reason and the fix; another may have it."""
        reasons = {"attention": wrong_attention(self.attention), "kernels": wrong_kernels(self.kernels)}
        return {field: reason for field, reason in reasons.items() if reason}

    @model_validator(mode="after")
    def _attention_takes_part(self) -> TrainingSettings:
        if self.attention != "sdpa" and self.layout in ("unique", "expanded"):
            raise ValueError(
                f"`attention` = {self.attention!r} is of the shared-prefix layout, and `layout` is {self.layout!r}: "
                "leave one of the two out"
            )
        if self.attention == "varlen" and self.precision == "float32":
            raise ValueError(
                "`attention` = 'varlen' computes in 16 bits alone, and `precision` is 'float32': leave one of the two out, "
                "or set `attention` to 'flex'"
            )
        return self


SftLayout = Literal["padded", "packed"]


class SftSettings(_Settings):
    """The shared starting point: supervised fine-tuning on the source's `sft` split by TRL's SFTTrainer."""

    later: ClassVar[frozenset[str]] = _Settings.later | {"layout"}

    epochs: int = Field(3, ge=1, description="passes over the targets; how far SFT is taken decides rankings, so state it")
    learning_rate: float = Field(5e-4, gt=0, le=1, description="peak learning rate of AdamW")
    batch_size: int = Field(32, ge=1, description="examples per optimiser step")
    micro_batch_size: int | None = Field(
        None, ge=1, description="examples of one forward pass, a divisor of batch_size; changes memory and speed, not the loss"
    )
    schedule: Schedule = Field("cosine", description="learning rate after the warm-up")
    warmup_share: float = Field(0.05, ge=0, lt=1, description="share of the steps with a rising learning rate")
    max_length: int = Field(1024, ge=8, description="longest example in tokens; longer ones are dropped and counted")
    layout: Literal["auto", SftLayout] = Field(
        "auto",
        exclude_if=lambda layout: layout == "auto",  # boards of configs without it stay as they were
        description="`padded`: rows and logits as TRL makes them; `packed`: rows back to back, logits of targets alone, faster "
        "and equal but for the last digits; `auto`: packed from 50 million parameters on",
    )
    precision: PrecisionSetting = "auto"
    gradient_checkpointing: GradientCheckpointing = False
    lora: Lora = None
    devices: Devices = None

    @field_validator("micro_batch_size")
    @classmethod
    def _divides(cls, size: int | None, info: ValidationInfo) -> int | None:
        batch = info.data.get("batch_size")
        if size is not None and batch is not None and batch % size:
            raise ValueError(f"it should divide batch_size = {batch}, so that a step is whole passes")
        return size

    @model_validator(mode="after")
    def _one_way_to_cut(self) -> SftSettings:
        if self.micro_batch_size is not None and self.devices is not None:
            raise ValueError(
                "`micro_batch_size` is for one device: with `devices` each takes its part of a batch, so leave it out"
            )
        return self


def resolve_precision(asked: str, device: str) -> Precision:
    """Return `auto` as one of the two: bfloat16 on a GPU."""
    if asked == "auto":
        return "bfloat16" if device == "cuda" else "float32"
    return "bfloat16" if asked == "bfloat16" else "float32"


@dataclass(frozen=True)
class Rounding:
    """How much of what training changed is lost where weights are stored with fewer digits.

    Attributes:
        dtype: the type that they are stored in.
        moved: how many weights training moved.
        kept: the share of those that are stored as they were before.
        error: length of what rounding changed, over the length of what training changed; 1 where nothing of it is left.
    """

    dtype: str
    moved: int
    kept: float
    error: float
