"""`harness plan --gpu`: the estimate made from a comparison, as lines for people and as JSON."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from statistics import mean
from typing import TYPE_CHECKING, Any

from harness.run.estimates import gpu_formula as formula
from harness.run.estimates.gpu import GpuEstimate, Lengths, Work, as_rows
from harness.run.estimates.gpus import Gpu
from harness.errors import HarnessError
from harness.models.size import ModelSize

if TYPE_CHECKING:
    from harness.run.graph import Graph
    from harness.config import Comparison
    from harness.api.types import Dataset

ASSUMED = 256  # tokens of a prompt and of a response, where nothing else is known
MEASURED = 200  # examples that are tokenised to find out


@dataclass(frozen=True)
class GpuReport:
    """What `harness plan --gpu` says."""

    gpu: Gpu
    size: ModelSize
    lengths: Lengths
    works: Sequence[Work]
    notes: Sequence[str]

    @property
    def hours(self) -> float:
        return sum(work.hours for work in self.works)

    @property
    def hours_left(self) -> float:
        return sum(work.hours_left for work in self.works)

    @property
    def too_large(self) -> list[Work]:
        """Kinds of stages that need more memory than the GPU has to give."""
        return [work for work in self.works if work.memory > self.gpu.memory * formula.GIB * formula.FREE]

    def as_dict(self) -> dict[str, Any]:
        return {
            "name": self.gpu.name,
            "parameters": self.size.parameters,
            "prompt_tokens": round(self.lengths.prompt, 1),
            "response_tokens": round(self.lengths.response, 1),
            "lengths": self.lengths.origin,
            "kinds": as_rows(self.works),
            "hours": self.hours,
            "hours_left": self.hours_left,
            "fits": not self.too_large,
            "notes": list(self.notes),
        }

    def head(self) -> list[str]:
        """What the numbers rest on."""
        gpu, lengths = self.gpu, self.lengths
        return [
            f"{gpu.name}: {gpu.memory:g} GiB, {gpu.flops / 1e12:g} TFLOP/s in bfloat16 of which {formula.COMPUTE:.0%} are "
            f"reached, {gpu.bandwidth / 1e9:,.0f} GB/s of which decoding reaches {formula.DECODING:.0%}",
            f"{self.size.parameters / 1e9:.2f} B parameters; prompts of {lengths.prompt:.0f} and responses of "
            f"{lengths.response:.0f} tokens, {lengths.origin}",
        ]

    def warnings(self) -> list[str]:
        """Where it does not fit, and what was guessed."""
        said = [
            f"{work.kind} needs {work.memory / formula.GIB:,.0f} GiB on each GPU, and {self.gpu.name} has {self.gpu.memory:g}: "
            + _remedy(work.kind)
            for work in self.too_large
        ]
        return [*said, *self.notes]


def _remedy(kind: str) -> str:
    if kind in ("sft", "train"):
        batch = "sft.micro_batch_size" if kind == "sft" else "training.tokens_per_micro_batch"
        return (
            f"lower {batch}, set {'sft' if kind == 'sft' else 'training'}.gradient_checkpointing, or take lora or more devices"
        )
    return "choose a larger GPU, or a backend that spreads the model over several"


def gpu_report(
    comparison: Comparison,
    graph: Graph,
    present: Collection[str],
    gpu: Gpu,
    dataset: Dataset | None,
    lengths: tuple[float, float] | None,
) -> GpuReport:
    """The estimate.

    Args:
        present: keys that the store holds.
        dataset: the screened rows, where they are at hand: their numbers and lengths are then measured.
        lengths: tokens of prompt and response, in place of measured or assumed ones.

    Raises:
        HarnessError: the model's size is not known.
    """
    size = _size(comparison)
    examples = {str(name): count for name, count in comparison.source.sizes().items()}
    if dataset is not None:
        examples = {name: len(rows) for name, rows in dataset.splits.items()}
    found = Lengths(*lengths, "given by --lengths") if lengths else _lengths(comparison, dataset)
    estimate = GpuEstimate(comparison, size, gpu, found, examples)
    works = estimate.works(graph, present)
    return GpuReport(gpu, size, found, works, estimate.notes)


def parse_lengths(given: str | None) -> tuple[float, float] | None:
    """`146/256` as two numbers."""
    if given is None:
        return None
    prompt, _, response = given.partition("/")
    if not (prompt.isdigit() and response.isdigit() and int(prompt) and int(response)):
        raise HarnessError(f"--lengths {given!r}: write tokens of a prompt and of a response, for example 146/256")
    return float(prompt), float(response)


def _size(comparison: Comparison) -> ModelSize:
    from harness.models.size import checkpoint_config, model_size

    checkpoint = comparison.checkpoint
    if checkpoint is None:
        raise HarnessError("--gpu: the model is made from the source's text, and is small: there is nothing to estimate")
    config = checkpoint_config(checkpoint)
    if config is None:
        raise HarnessError(
            f"--gpu: the size of {checkpoint.hub} is not known, because the hub cannot be reached and this package does not "
            "list it: run once where the hub is reachable, or give a local folder with its config.json as model.path"
        )
    try:
        return model_size(config)
    except (ValueError, AttributeError, KeyError) as error:
        raise HarnessError(f"--gpu: the size of the model cannot be read off its config.json: {error}") from error


def _lengths(comparison: Comparison, dataset: Dataset | None) -> Lengths:
    """Measured on the first training rows by the model's tokenizer, or assumed within the limits."""
    if dataset is not None and dataset["train"] and comparison.checkpoint is not None and "model" not in comparison.unreachable:
        return _measured(comparison, dataset)
    limits, assumed = comparison.config.limits, Lengths(ASSUMED, ASSUMED, "assumed (--lengths PROMPT/RESPONSE)")
    if limits is None:
        return assumed
    whole = limits.max_tokens or 2 * ASSUMED
    return replace(
        assumed,
        prompt=min(ASSUMED, limits.max_prompt_tokens or ASSUMED, whole / 2),
        response=min(ASSUMED, limits.max_response_tokens or ASSUMED, whole / 2),
    )


def _measured(comparison: Comparison, dataset: Dataset) -> Lengths:
    from harness.models.load import load_tokenizer
    from harness.models.prompts import ChatTemplate
    from harness.api.types import Response

    checkpoint = comparison.checkpoint
    assert checkpoint is not None
    template = ChatTemplate(load_tokenizer(checkpoint.files(weights=False), checkpoint.options))
    rows = dataset["train"][:MEASURED]
    answers = [(row.prompt, Response(text)) for row in rows for text in (row.target, *row.ranked) if text]
    prompt = mean(len(template.prompt_ids(row.prompt)) for row in rows)
    response = mean(len(template.response_ids(*item)) for item in answers) if answers else ASSUMED
    return Lengths(prompt, response, f"measured on {len(rows)} training rows")
