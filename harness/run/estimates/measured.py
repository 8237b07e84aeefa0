"""Rates of this machine for the times of a plan, measured in less than a minute by `harness plan --measure`.

A model of the config's shape with random weights, with fewer layers where it is large, takes training steps and generates: on
a CPU with one thread, as a worker does, on a GPU with products in bfloat16. Rates are kept in the cache folder, in a file for
each machine, and serve plans for models of about that size.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import TypeAdapter, ValidationError

from harness.api.types import Prompt, Sampling
from harness.errors import HarnessError
from harness.models.size import ModelSize, checkpoint_config, model_size
from harness.run.estimates.gpu import Gpu, Lengths, comparison_size, forward_flops
from harness.store.atomic import write_atomically
from harness.store.environment import cpu_kind

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from harness.config import Comparison
    from harness.models.checkpoint import Checkpoint

SECONDS = 20.0  # that trainings are timed for, and generations
PARAMETERS = {"cpu": 2e8, "cuda": 1.5e9}  # of the measured model, about: larger ones lose layers
LONGEST = 512  # tokens of a prompt and of a response in the measurement
RESPONSE = 64  # tokens that are generated, at most
ROWS_ON_GPU, ROWS_ON_CPU = 8, 32  # of a training step
STEP = 2e11  # FLOPs of a training step on a CPU, about and at most: three seconds of a core
NEAR = 4.0  # how many times larger or smaller a model may be that rates are used for


def this_device() -> str:
    """Return the name of this machine's first card, or `cpu`."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"


def is_card(device: str, gpu: Gpu) -> bool:
    """Return whether a card's own name is that of a GPU of ours: `NVIDIA H200` is h200-141gb."""
    return re.search(rf"{gpu.name.split('-')[0]}(?![0-9a-z])", device.lower().replace(" ", "")) is not None


@dataclass(frozen=True)
class Rates:
    """Rates that one core or one GPU of this machine reached.

    Attributes:
        device: `cpu`, or the card's name.
        day: of the measurement, in UTC.
        multiplied: parameters of the measured model that a token is multiplied with.
        training: FLOP/s of training steps, the optimiser's work included.
        decoding: FLOP/s of generation, at two a parameter and token.
        bandwidth: bytes/s that decoding moves, by the formula of `generation_seconds`.
    """

    device: str
    day: str
    multiplied: int
    training: float
    decoding: float
    bandwidth: float

    def serves(self, size: ModelSize) -> bool:
        """Whether a model is about as large as the measured one, or the measured one stands for larger ones."""
        most = PARAMETERS["cpu" if self.device == "cpu" else "cuda"]
        return 1 / NEAR <= min(size.multiplied, most) / min(self.multiplied, most) <= NEAR

    def is_of(self, gpu: Gpu) -> bool:
        """Whether they were measured on this GPU."""
        return is_card(self.device, gpu)

    def calibrate(self, gpu: Gpu) -> Gpu:
        """Return the GPU with the shares of its peaks that were reached."""
        training, decoding = self.training / gpu.flops, self.bandwidth / gpu.bandwidth
        return replace(gpu, compute=training, decoding=decoding, measured=self.day)


KEPT = TypeAdapter(list[Rates])


@dataclass(frozen=True)
class Calibration:
    """This machine's rates in the cache, and whether they are to be measured again.

    Args:
        folder: of the cache.
    """

    folder: Path
    again: bool = False

    def rates(self, comparison: Comparison, gpu: Gpu | None, lengths: Callable[[], Lengths]) -> Rates | None:
        """Return the rates for a comparison's model, measured now or before; None where there are none.

        Args:
            gpu: the one that the plan is for; None for CPUs.
            lengths: of prompts and responses, to measure with.

        Raises:
            HarnessError: they cannot be measured; says why.
        """
        if self.again:
            if comparison.checkpoint is None:
                raise HarnessError(
                    "--measure: the model is made from the source's text, so its size is not known before it runs"
                )
            device = this_device()
            if gpu is None and device != "cpu":
                raise HarnessError(f"--measure: this machine has the GPU {device}: name it by --gpu")
            if gpu is not None and not is_card(device, gpu):
                raise HarnessError(f"--measure: this machine computes on {device}, not on {gpu.name}: leave one option out")
            measured = measure(comparison.checkpoint, lengths())
            self._keep(measured)
            return measured
        kept = [rates for rates in self._kept() if (rates.device == "cpu" if gpu is None else rates.is_of(gpu))]
        try:
            size = comparison_size(comparison) if kept else None
        except HarnessError:  # the plan says so itself where it matters
            size = None
        fitting = [rates for rates in kept if size is not None and rates.serves(size)]
        return min(fitting, key=lambda rates: abs(rates.multiplied - size.multiplied)) if size is not None and fitting else None

    @property
    def file(self) -> Path:
        """The file of this machine: several may share a cache folder."""
        machine = f"{platform.node()} {cpu_kind()} {os.cpu_count()}"
        return self.folder / "measured" / f"{hashlib.sha256(machine.encode()).hexdigest()[:16]}.json"

    def _kept(self) -> list[Rates]:
        try:
            return KEPT.validate_json(self.file.read_bytes())
        except (OSError, ValidationError):  # none yet, or damaged: a cache
            return []

    def _keep(self, measured: Rates) -> None:
        def key(rates: Rates) -> tuple[str, int]:
            return rates.device, rates.multiplied

        rest = [rates for rates in self._kept() if key(rates) != key(measured)]
        self.file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.file, json.dumps([asdict(rates) for rates in [*rest, measured]], indent=1).encode())


def measure(checkpoint: Checkpoint, lengths: Lengths, seconds: float = SECONDS) -> Rates:
    """Time training steps and generations of a model with a starting model's shape.

    Raises:
        HarnessError: its configuration or tokenizer is out of reach, or the model does not fit.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from harness.models.load import load_tokenizer

    config = checkpoint_config(checkpoint)
    if config is None:
        raise HarnessError("--measure: the model's config.json is out of reach: run once where the hub is reachable")
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    shape = shortened(config, PARAMETERS[kind])
    size, tokenizer = model_size(shape), load_tokenizer(checkpoint.files(weights=False), checkpoint.options)
    # A core's own time, so that other work on this machine does not count; a GPU computes while its process waits.
    clock = time.perf_counter if kind == "cuda" else time.process_time
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**shape)).to(kind)
        tokens = _rate(_training(model, lengths), seconds, clock)
        model = model.to(torch.bfloat16 if kind == "cuda" else torch.float32).eval()
        rows, length, draw = _generation(model, tokenizer, lengths)
        generated = _rate(draw, seconds, clock)
    except torch.OutOfMemoryError as error:
        raise HarnessError("--measure: a model of the config's shape does not fit in the GPU's free memory") from error
    finally:
        torch.set_num_threads(threads)
    moved = 2 * size.parameters + rows * length * size.cache_bytes  # bytes of a step of all rows
    flops = (
        3 * forward_flops(size, tokens, lengths.prompt + lengths.response) if kind == "cuda" else 6 * size.multiplied * tokens
    )
    return Rates(
        device=this_device(),
        day=datetime.now(UTC).date().isoformat(),
        multiplied=size.multiplied,
        training=flops,
        decoding=2 * size.multiplied * generated,
        bandwidth=moved * generated / rows,
    )


def shortened(config: Mapping[str, Any], parameters: float) -> dict[str, Any]:
    """Return a configuration with as many of its layers as about so many parameters have; one at least."""
    size = model_size(config)
    layers = max(1, min(size.layers, int(size.layers * parameters / size.parameters)))
    shape = dict(config)
    if layers < size.layers:
        shape["num_hidden_layers"] = layers
        if isinstance(kinds := shape.get("layer_types"), list):
            shape["layer_types"] = kinds[:layers]
    return shape


def _rate(work: Callable[[], int], seconds: float, clock: Callable[[], float]) -> float:
    """Return tokens a second of work that is repeated for about so long; the first time, which warms up, does not count.

    Args:
        clock: whose seconds the rate is in.
    """
    work()
    until, began, tokens = time.perf_counter() + seconds, clock(), 0
    while not tokens or time.perf_counter() < until:
        tokens += work()
    return tokens / (clock() - began)


def _training(model: PreTrainedModel, lengths: Lengths) -> Callable[[], int]:
    """Return a training step over random rows, which returns the tokens of their pass.

    As many rows as a batch may have, since AdamW's own time is spread over them; fewer where a CPU would take seconds.
    """
    import torch

    from harness.models.logps import TokenRow, response_logps, vocabulary_size
    from harness.training.precision import autocast

    rng, words = random.Random(0), vocabulary_size(model)
    prompt, response = (max(1, min(LONGEST, round(length))) for length in (lengths.prompt, lengths.response))
    row = 6 * sum(weight.numel() for weight in model.parameters()) * (prompt + response)  # FLOPs, about
    count = ROWS_ON_GPU if model.device.type == "cuda" else max(2, min(ROWS_ON_CPU, int(STEP / row)))
    ids = [tuple(rng.randrange(words) for _ in range(length)) for length in count * [prompt, response]]
    rows = [TokenRow(*pair) for pair in zip(ids[::2], ids[1::2], strict=True)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    model.train()

    def step() -> int:
        with autocast(model):
            loss = -response_logps(model, rows).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        optimizer.zero_grad()
        _wait(model)
        return sum(row.tokens for row in rows)

    return step


def _generation(model: PreTrainedModel, tokenizer: Any, lengths: Lengths) -> tuple[int, float, Callable[[], int]]:
    """Return rows side by side, their mean length, and a generation of them that returns its tokens."""
    from harness.models.generate import generate

    count, samples = (32, 8) if model.device.type == "cuda" else (4, 8)
    response = max(1, min(RESPONSE, round(lengths.response)))
    text = " ".join(["word"] * max(1, min(LONGEST, round(lengths.prompt))))
    prompts = [Prompt.of(str(number), text) for number in range(count)]

    def draw() -> int:
        answers = generate(model, tokenizer, prompts, Sampling(samples, 1.0, 1.0, response, 0))
        _wait(model)
        return sum(answer.tokens or 0 for row in answers for answer in row)

    return count * samples, lengths.prompt + response / 2, draw


def _wait(model: PreTrainedModel) -> None:
    """Wait for the GPU, whose calls return before their work is done."""
    import torch

    if model.device.type == "cuda":
        torch.cuda.synchronize()
