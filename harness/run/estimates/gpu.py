"""Tokens, memory and GPU-hours of a comparison on a named GPU, for `harness plan --gpu`. docs/estimates.md has the formulas."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import mean
from typing import TYPE_CHECKING, Any

from pydantic import JsonValue

from harness.api.interfaces import DataBuilder
from harness.api.types import Prompt, Response
from harness.errors import HarnessError, did_you_mean
from harness.models.sentence import SentenceEmbedder
from harness.models.size import ModelSize
from harness.run.graph import CHECKPOINT, SERVED
from harness.run.records import (
    AnswersPayload,
    EvaluatedPayload,
    EvaluatePayload,
    GroupsInputs,
    GroupsPayload,
    ReferenceInputs,
    SftPayload,
    StatePayload,
    TrainInputs,
    TrainPayload,
)
from harness.sandbox.scripted import ScriptedBuild
from harness.training.optimizers import moments
from harness.training.settings import SftSettings, TrainingSettings

if TYPE_CHECKING:
    import numpy as np

    from harness.api.types import Dataset
    from harness.config import Comparison
    from harness.models.checkpoint import Checkpoint
    from harness.run.graph import Graph, Stage

COMPUTE = 0.4  # share of the peak that training, scoring and reading prompts reach
DECODING = 0.6  # share of the bandwidth that decoding reaches
ROWS = 256  # sequences decoded side by side, where memory allows
FREE = 0.9  # share of a GPU's memory that is there to be used
OVERHEAD = 1.5 * 2**30  # bytes: CUDA's context, workspaces, fragments
EMBEDDER = 335_000_000  # parameters of one that is not on this machine: BERT-large's, such as UAE-Large-V1's
LOGITS = 2**26  # logits that are kept at once while preferences are trained and scored
GIB = 2**30
Request = tuple[Any, ...]  # what two requests must have in common to share their samples
ASSUMED = 256  # tokens of a prompt and of a response, where nothing else is known
MEASURED = 200  # examples that are tokenised to find out


BENCHMARKS = frozenset({"lm_eval"})  # evaluators whose requests do not hang on the evaluated prompts: not counted


@dataclass(frozen=True)
class Lengths:
    """Tokens of a prompt and of a response, on average, and where they are from."""

    prompt: float
    response: float
    origin: str


@dataclass
class Work:
    """The work of all stages of one kind.

    Attributes:
        left: stages that the store does not hold.
        trained, generated, scored: tokens, of all stages; a trained prompt counts once where the layout has it once.
        hours: GPU-hours of all stages; `hours_left` of those that are left.
        memory: bytes on each GPU, at most.
    """

    kind: str
    stages: int = 0
    left: int = 0
    trained: float = 0.0
    generated: float = 0.0
    scored: float = 0.0
    hours: float = 0.0
    hours_left: float = 0.0
    memory: float = 0.0


@dataclass(frozen=True)
class _Cost:
    trained: float = 0.0
    generated: float = 0.0
    scored: float = 0.0
    seconds: float = 0.0
    memory: float = 0.0


class GpuEstimate:
    """Walks a graph.

    Args:
        examples: by split, as far as they are known.
    """

    def __init__(
        self, comparison: Comparison, size: ModelSize, gpu: Gpu, lengths: Lengths, examples: Mapping[str, int]
    ) -> None:
        self.comparison, self.size, self.gpu, self.lengths = comparison, size, gpu, lengths
        self.examples = examples
        self.notes: list[str] = []
        self.demands: dict[str, Demand] = {}
        self.drawn: dict[tuple[Any, ...], float] = {}  # samples per prompt that an earlier stage draws already
        self.sizes = {CHECKPOINT + item.digest: _size_of(item) for row in comparison.rows if (item := row.checkpoint)}
        self.present: Collection[str] = ()
        self.by_stage: dict[str, float] = {}
        self.quantized = comparison.checkpoint is not None and comparison.checkpoint.options.quantization is not None

    def works(self, graph: Graph, present: Collection[str]) -> list[Work]:
        """By kind, in the graph's order."""
        self.present = present
        works: dict[str, Work] = {}
        for stage in graph:
            cost, work = self._cost(stage, graph), works.setdefault(stage.kind, Work(stage.kind))
            work.stages += 1
            work.trained += cost.trained
            work.generated += cost.generated
            work.scored += cost.scored
            work.hours += cost.seconds / 3600
            self.by_stage[stage.key] = cost.seconds / 3600
            if stage.key not in present:
                work.left += 1
                work.hours_left += cost.seconds / 3600
            work.memory = max(work.memory, cost.memory)
        return list(works.values())

    def _cost(self, stage: Stage, graph: Graph) -> _Cost:
        makers = {
            "sft": self._sft,
            "groups": self._groups,
            "reference": self._reference,
            "train": self._train,
            "state": self._state,
            "answers": self._answers,
            "evaluate": self._evaluate,
        }
        if stage.kind not in makers or stage.inputs.get("model", "").startswith(SERVED):
            return _Cost()  # a server's GPUs are not this run's
        start, self.size = self.size, self.sizes.get(stage.inputs.get("model", ""), self.size)
        try:
            return makers[stage.kind](stage, graph)
        finally:
            self.size = start

    def _sft(self, stage: Stage, graph: Graph) -> _Cost:
        settings = SftSettings.model_validate(SftPayload.of(stage).settings)
        examples = self.examples.get("sft")
        if examples is None:
            examples = self.comparison.config.budget.prompts
            self._note(f"how many rows the sft split has is not known: counted as the budget's {examples:,} prompts")
        length = min(self.lengths.prompt + self.lengths.response, settings.max_length)
        tokens = examples * length * settings.epochs
        rows = settings.batch_size / (settings.devices.count if settings.devices else 1)
        rows = min(rows, getattr(settings, "micro_batch_size", None) or rows)
        return self._training(settings, tokens, length, max(1.0, rows) * length, whole=settings.layout != "packed")

    def _state(self, stage: Stage, graph: Graph) -> _Cost:
        """Return nothing where the training goes on from the state, which then counts its steps; else the steps up to it."""
        payload = StatePayload.of(stage)
        if payload.training not in self.present:
            return _Cost()
        whole, before = self._train(stage, graph), [StatePayload.of(graph.stages[key]).share for key in stage.after]
        part = payload.share - max(before, default=0.0)
        return replace(whole, trained=whole.trained * part, seconds=whole.seconds * part)

    def _train(self, stage: Stage, graph: Graph) -> _Cost:
        payload, named = TrainPayload.of(stage), TrainInputs.of(stage).groups
        if payload.trainer is not None or named is None:
            self._note("what trainers other than the host's own compute is not counted")
            return _Cost()
        groups = graph.stages[named]
        settings, spending = TrainingSettings.model_validate(payload.settings), payload.spending
        demand, prompts = self._demand(groups), self._range(groups)
        tokens = self._group_tokens(demand.negatives, settings.layout)
        seen: float = prompts * settings.epochs
        if spending:
            pairs = max(1.0, demand.negatives)
            whole = (1 + demand.negatives) * (self.lengths.prompt + self.lengths.response)
            price: Mapping[str, float] = {"pairs": pairs, "tokens": whole, "updates": 1 / settings.prompts_per_batch}
            seen = spending.amount / price[spending.unit]
        length = self.lengths.prompt + self.lengths.response
        return self._training(settings, seen * tokens, length, max(settings.tokens_per_micro_batch, tokens), whole=False)

    def _training(
        self, settings: SftSettings | TrainingSettings, tokens: float, length: float, at_once: float, *, whole: bool
    ) -> _Cost:
        seconds = compute_seconds(training_flops(self.size, tokens, length, settings), self.gpu)
        if _strategy(settings).startswith("fsdp"):
            host = 4 * self.size.parameters / GIB
            self._note(f"the first process of a sharded training gathers the model to save it: {host:,.0f} GiB of CPU memory")
        memory = training_bytes(self.size, settings, at_once, 0.6 if self.quantized else 4, whole=whole)
        return _Cost(trained=tokens, seconds=seconds, memory=memory)

    def _groups(self, stage: Stage, graph: Graph) -> _Cost:
        demand, prompts = self._demand(stage), self._range(stage)
        payload, inputs = GroupsPayload.of(stage), GroupsInputs.of(stage)
        cost = self._scoring(prompts * demand.scored, single=True)
        for request, wanted in demand.samples.items():
            policy = inputs.start if ("policy", "start") in request else inputs.policy
            place = (policy, request, payload.seed, *payload.examples)
            more = max(0.0, wanted - self.drawn.get(place, 0.0))
            self.drawn[place] = max(wanted, self.drawn.get(place, 0.0))
            drawing = self._generation(prompts if more else 0, prompts * more, payload.max_tokens)
            cost = _Cost(
                generated=cost.generated + drawing.generated,
                scored=cost.scored,
                seconds=cost.seconds + drawing.seconds,
                memory=max(cost.memory, drawing.memory),
            )
        for embedder, texts in demand.embedded.items():
            place = (inputs.policy, embedder, payload.seed, *payload.examples)
            more = max(0.0, texts - self.drawn.get(place, 0.0))
            self.drawn[place] = max(texts, self.drawn.get(place, 0.0))
            reading = self._embedding(embedder, prompts * more)
            seconds, memory = cost.seconds + reading.seconds, max(cost.memory, reading.memory)
            cost = replace(cost, seconds=seconds, memory=memory)
        return cost

    def _embedding(self, embedder: SentenceEmbedder, texts: float) -> _Cost:
        parameters = embedder.parameters()
        if parameters is None:
            parameters = EMBEDDER
            self._note(f"the size of the embedder {embedder.model} is not known: counted as {EMBEDDER:,} parameters")
        flops = 2 * parameters * texts * min(self.lengths.response, embedder.max_tokens)
        return _Cost(seconds=compute_seconds(flops, self.gpu), memory=OVERHEAD + 4 * parameters)

    def _reference(self, stage: Stage, graph: Graph) -> _Cost:
        groups = graph.stages[ReferenceInputs.of(stage).groups]
        return self._scoring(self._range(groups) * (1 + self._demand(groups).negatives), single=False)

    def _answers(self, stage: Stage, graph: Graph) -> _Cost:
        payload = AnswersPayload.of(stage)
        prompts, sampling = self._evaluated(payload), payload.drawn
        return self._generation(prompts, prompts * (sampling.n if sampling.temperature else 1), sampling.max_tokens)

    def _evaluate(self, stage: Stage, graph: Graph) -> _Cost:
        """Two responses of each prompt under the policy and its start: what preference_accuracy asks, and few ask more."""
        payload = EvaluatePayload.of(stage)
        name = payload.evaluator.name
        if name in BENCHMARKS:
            self._note(f"what {name} computes is not counted")
            return _Cost()
        return self._scoring(4 * self._evaluated(payload), single=True)

    def _generation(self, prompts: float, samples: float, most: int) -> _Cost:
        if not samples:
            return _Cost()
        response = min(self.lengths.response, most)
        seconds = generation_seconds(self.size, self.gpu, prompts, samples, (self.lengths.prompt, response))
        rows = decoding_rows(self.size, self.gpu, self.lengths.prompt + response)
        rows = int(min(rows, max(1.0, samples)))
        cache = rows * ((self.lengths.prompt + response) * self.size.cache_bytes + 8 * self.size.vocabulary)
        return _Cost(generated=samples * response, seconds=seconds, memory=OVERHEAD + 2 * self.size.parameters + cache)

    def _scoring(self, sequences: float, *, single: bool) -> _Cost:
        """Weights are float32 whatever the products: in a reference those of the training, in a score float32 (`single`)."""
        length = self.lengths.prompt + self.lengths.response
        tokens = sequences * length
        seconds = compute_seconds(forward_flops(self.size, tokens, length), self.gpu, single=single)
        memory = OVERHEAD + 4 * self.size.parameters + logits_bytes(self.size, 8192, whole=False)
        return _Cost(scored=tokens, seconds=seconds, memory=memory if sequences else 0.0)

    def _demand(self, groups: Stage) -> Demand:
        """Return the demand of a groups stage's builder; each builder is probed once."""
        payload = GroupsPayload.of(groups)
        described = payload.builder
        place = f"{described.name} {described.fields} {payload.round}"
        if place not in self.demands:
            builders = (round_.builder for row in self.comparison.rows for round_ in row.rounds if round_.builder)
            builder = next(
                item for item in builders if item.model_dump(mode="json") == described.fields and item.name == described.name
            )
            self.demands[place] = probe(builder, payload.round)
            if not self.demands[place].known:
                self._note(
                    f"what the builder {builder.name} asks for could not be found out: counted as one negative and no samples"
                )
        return self.demands[place]

    def _group_tokens(self, negatives: float, layout: str) -> float:
        prompt, response = self.lengths.prompt, self.lengths.response
        if layout == "expanded":
            return max(1.0, 2 * negatives) * (prompt + response)
        return (1 + negatives) * (prompt + response) if layout == "unique" else prompt + (1 + negatives) * response

    def _range(self, groups: Stage) -> int:
        first, last = GroupsPayload.of(groups).examples
        return last - first

    def _evaluated(self, payload: EvaluatedPayload) -> int:
        """Return the number of prompts of an evaluation."""
        known = self.examples.get(payload.split)
        if known is None and payload.prompts is None:
            self._note(f"how many rows the {payload.split} split has is not known: its evaluation is counted as 500 prompts")
        last = min(known if known is not None else 10**9, payload.prompts or 10**9) if known or payload.prompts else 500
        return max(0, last - payload.first)

    def _note(self, note: str) -> None:
        if note not in self.notes:
            self.notes.append(note)


def as_rows(works: Collection[Work]) -> list[dict[str, JsonValue]]:
    """For `--json`: tokens as whole numbers, memory in GiB."""
    rows = []
    for work in works:
        row = asdict(work)
        row |= {name: round(row[name]) for name in ("trained", "generated", "scored")}
        row["memory_gib"] = round(row.pop("memory") / GIB, 2)
        rows.append(row)
    return rows


def forward_flops(size: ModelSize, tokens: float, length: float) -> float:
    """Return the FLOPs of one pass over `tokens` in sequences of `length`: 2 a weight and token, and attention."""
    return 2 * size.multiplied * tokens + 2 * size.layers * size.attention * length * tokens


def training_flops(size: ModelSize, tokens: float, length: float, settings: SftSettings | TrainingSettings) -> float:
    """Forward once; backward twice, or once where only adapters are trained; forward again where layers are recomputed."""
    passes = (2 if settings.lora else 3) + settings.gradient_checkpointing
    return passes * forward_flops(size, tokens, length)


def compute_seconds(flops: float, gpu: Gpu, *, single: bool = False) -> float:
    """Return the seconds of products in bfloat16, or in float32 (`single`), as scores are computed."""
    return flops / ((gpu.single if single else gpu.flops) * gpu.compute)


def decoding_rows(size: ModelSize, gpu: Gpu, length: float) -> int:
    """How many sequences are decoded side by side: `ROWS`, or what is left beside the weights for their keys and values."""
    left = gpu.memory * GIB * FREE - OVERHEAD - 2 * size.parameters
    return max(1, min(ROWS, int(left // max(1.0, length * size.cache_bytes))))


def generation_seconds(size: ModelSize, gpu: Gpu, prompts: float, samples: float, lengths: tuple[float, float]) -> float:
    """Prompts read once each; then a step a token, which reads all weights once for all rows and each row's keys and values."""
    prompt, response = lengths
    rows = min(decoding_rows(size, gpu, prompt + response), max(1.0, samples))
    step = (2 * size.parameters + rows * (prompt + response / 2) * size.cache_bytes) / (gpu.bandwidth * gpu.decoding)
    decoding = samples / rows * response * step
    computing = compute_seconds(forward_flops(size, samples * response, prompt + response), gpu)
    return compute_seconds(forward_flops(size, prompts * prompt, prompt), gpu) + max(decoding, computing)


def training_bytes(
    size: ModelSize, settings: SftSettings | TrainingSettings, at_once: float, weight_bytes: float, *, whole: bool
) -> float:
    """Return the bytes that a training needs on each GPU; loading takes less, since shards are filled one tensor at a time.

    Args:
        at_once: tokens of a pass.
        weight_bytes: see `state_bytes`.
        whole: whether all logits of a pass are kept at once, as they are anyway where weights are sharded.
    """
    whole = whole or _strategy(settings) not in ("", "replicated")
    return (
        OVERHEAD
        + state_bytes(size, settings, weight_bytes)
        + activation_bytes(size, at_once, recomputed=settings.gradient_checkpointing)
        + logits_bytes(size, at_once, whole=whole)
    )


def _strategy(settings: SftSettings | TrainingSettings) -> str:
    """Return how a training uses several devices; empty where it has one."""
    return settings.devices.strategy if settings.devices else ""


def state_bytes(size: ModelSize, settings: SftSettings | TrainingSettings, weight_bytes: float) -> float:
    """Weights, gradients and the optimiser's moments on each GPU: of AdamW 16 bytes a trained parameter, all in float32.

    Args:
        weight_bytes: of a weight that stays as it is, where adapters are trained.
    """
    state = 8 + 4 * (moments(settings.optimizer) if isinstance(settings, TrainingSettings) else 2)
    if settings.lora:
        return weight_bytes * size.parameters + state * settings.lora.rank * size.linear
    if settings.devices is None or settings.devices.strategy == "replicated":
        return state * size.parameters
    gathered = 2 * 4 * size.parameters / size.layers  # two layers at a time are whole
    share = size.parameters / settings.devices.count
    parts = {
        "fsdp": state * share + gathered,
        "fsdp_offload": gathered,
        "deepspeed_zero2": 4 * size.parameters + (state - 4) * share,
    }
    return parts.get(settings.devices.strategy, state * share + gathered)


def activation_bytes(size: ModelSize, tokens: float, *, recomputed: bool) -> float:
    """Return the bytes that backward needs of `tokens` in one pass, in bfloat16: measured on Llama, high for others."""
    layer = 26 * size.hidden + 4 * size.attention + 4 * size.keys + 8 * size.intermediate
    if recomputed:
        return tokens * (4 * size.hidden * size.layers + layer)
    return tokens * layer * size.layers


def logits_bytes(size: ModelSize, tokens: float, *, whole: bool) -> float:
    """Logits in bfloat16 and float32 and their gradient; `whole` where no bound is kept on them, as in TRL's SFT and FSDP."""
    kept = tokens * size.vocabulary
    return 10 * (kept if whole else min(kept, LOGITS))


@dataclass(frozen=True)
class Gpu:
    """One GPU.

    Attributes:
        memory: GiB.
        flops: bfloat16 products a second with sums in float32, peak.
        bandwidth: of its memory, bytes a second, peak.
        single: float32 products a second, peak, not by way of TF32.
        compute, decoding: shares of the peaks that are reached: see `COMPUTE` and `DECODING`.
        measured: the day on which the shares were measured on this machine; empty where they are rules of thumb.
    """

    name: str
    memory: float
    flops: float
    bandwidth: float
    single: float
    compute: float = COMPUTE
    decoding: float = DECODING
    measured: str = ""


GPUS = {
    gpu.name: gpu
    for gpu in (
        Gpu("l4-24gb", 24, 121e12, 300e9, 30e12),
        Gpu("a10g-24gb", 24, 70e12, 600e9, 35e12),
        Gpu("rtx3090-24gb", 24, 71e12, 936e9, 36e12),
        Gpu("rtx4090-24gb", 24, 165e12, 1008e9, 83e12),
        Gpu("rtx5090-32gb", 32, 210e12, 1792e9, 105e12),
        Gpu("l40s-48gb", 48, 362e12, 864e9, 92e12),
        Gpu("a100-40gb", 40, 312e12, 1555e9, 19.5e12),
        Gpu("a100-80gb", 80, 312e12, 2039e9, 19.5e12),
        Gpu("h100-80gb", 80, 989e12, 3350e9, 67e12),
        Gpu("h200-141gb", 141, 989e12, 4800e9, 67e12),
        Gpu("b200-180gb", 180, 2250e12, 8000e9, 75e12),
    )
}


def gpu_of(name: str) -> Gpu:
    """By name, in any case.

    Raises:
        HarnessError: there is none; names those that are close, or all.
    """
    spec = GPUS.get(name.lower())
    if spec is None:
        raise HarnessError(f"--gpu {name!r}: {did_you_mean(name.lower(), GPUS)}")
    return spec


@dataclass(frozen=True)
class Demand:
    """Per prompt of a round.

    Attributes:
        samples: request -> samples drawn; of two builders with one request the larger serves both.
        scored: responses whose log-probability is asked for.
        embedded: embedder -> texts of a prompt that it reads.
        negatives: rejected responses of a group, on average.
        known: False where the builder could not be run on the script; the rest is then a guess of one negative.
    """

    samples: dict[Request, float] = field(default_factory=dict)
    scored: float = 0.0
    embedded: Mapping[SentenceEmbedder, float] = field(default_factory=dict)
    negatives: float = 1.0
    known: bool = True


class _Counting(ScriptedBuild):
    """The scripted task, and what it was asked for."""

    def __init__(self, builder: DataBuilder, round: int) -> None:
        super().__init__(builder.required(), round=round)
        self.drawn: dict[Request, float] = {}
        self.scored = self.answers = 0
        self.embedded: dict[SentenceEmbedder, float] = {}

    def _answer(self, prompt: Prompt, *reason: object) -> Response:
        """A whole answer, and another one each time: what a builder leaves out of a script says nothing of a real policy."""
        self.answers += 1
        return Response(f"{super()._answer(prompt, *reason).text} {self.answers}".strip())

    def sample(self, n: int, **asked: Any) -> list[list[Response]]:
        request = ("sample", *sorted(asked.items()))
        self.drawn[request] = max(n, self.drawn.get(request, 0))
        return super().sample(n, **asked)

    def respond(self, prompts: Sequence[Prompt], n: int = 1, **asked: Any) -> list[list[Response]]:
        request = ("respond", len(self.drawn), *sorted(asked.items()))
        self.drawn[request] = n * len(prompts) / len(self.examples)
        return super().respond(prompts, n, **asked)

    def logps(self, responses: Sequence[Sequence[Response]], **asked: Any) -> list[list[float]]:
        self.scored += sum(map(len, responses))
        return super().logps(responses, **asked)

    def similarity(self, embedder: str | SentenceEmbedder, responses: Sequence[Sequence[Response]]) -> list[np.ndarray]:
        if not isinstance(embedder, str):
            self.embedded[embedder] = 1 + sum(map(len, responses)) / len(self.examples)  # the target, once
        return super().similarity(embedder, responses)


def probe(builder: DataBuilder, round: int = 0) -> Demand:
    """Build sixteen prompts of a scripted policy, and count."""
    task = _Counting(builder, round)
    try:
        groups = list(builder.build(task))
    except Exception:  # a plugin that the script does not suit: its own checks say why
        groups = []
    if not groups:
        return Demand(known=False)
    negatives = sum(len(group.rejected) for group in groups) / len(groups)
    return Demand(task.drawn, task.scored / len(task.examples), task.embedded, negatives)


@dataclass(frozen=True)
class GpuReport:
    """The report of `harness plan --gpu`."""

    gpu: Gpu
    size: ModelSize
    lengths: Lengths
    works: Sequence[Work]
    notes: Sequence[str]
    by_stage: Mapping[str, float] = field(default_factory=dict)  # hours

    @property
    def hours(self) -> float:
        return sum(work.hours for work in self.works)

    @property
    def hours_left(self) -> float:
        return sum(work.hours_left for work in self.works)

    @property
    def too_large(self) -> list[Work]:
        """Kinds of stages that need more memory than the GPU has to give."""
        return [work for work in self.works if work.memory > self.gpu.memory * GIB * FREE]

    def as_dict(self) -> dict[str, JsonValue]:
        return {
            "name": self.gpu.name,
            "parameters": self.size.parameters,
            "prompt_tokens": round(self.lengths.prompt, 1),
            "response_tokens": round(self.lengths.response, 1),
            "lengths": self.lengths.origin,
            "kinds": [*as_rows(self.works)],
            "hours": self.hours,
            "hours_left": self.hours_left,
            "fits": not self.too_large,
            "notes": list(self.notes),
        }

    def head(self) -> list[str]:
        """Return the assumptions behind the numbers."""
        gpu, lengths = self.gpu, self.lengths
        return [
            f"{gpu.name}: {gpu.memory:g} GiB, {gpu.flops / 1e12:g} TFLOP/s in bfloat16 of which {gpu.compute:.0%} are "
            f"reached, {gpu.bandwidth / 1e9:,.0f} GB/s of which decoding reaches {gpu.decoding:.0%}"
            + (f"; shares measured on this machine on {gpu.measured}" if gpu.measured else ""),
            f"{self.size.parameters / 1e9:.2f} B parameters; prompts of {lengths.prompt:.0f} and responses of "
            f"{lengths.response:.0f} tokens, {lengths.origin}",
        ]

    def warnings(self) -> list[str]:
        """Return warnings where memory does not suffice, and guesses."""
        assumptions = [
            f"{work.kind} needs {work.memory / GIB:,.0f} GiB on each GPU, and {self.gpu.name} has {self.gpu.memory:g}: "
            + _remedy(work.kind)
            for work in self.too_large
        ]
        return [*assumptions, *self.notes]


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
    size = comparison_size(comparison)
    examples = {str(name): count for name, count in comparison.source.sizes().items()}
    if dataset is not None:
        examples = {name: len(rows) for name, rows in dataset.splits.items()}
    lengths_used = Lengths(*lengths, "given by --lengths") if lengths else measured_lengths(comparison, dataset)
    estimate = GpuEstimate(comparison, size, gpu, lengths_used, examples)
    works = estimate.works(graph, present)
    return GpuReport(gpu, size, lengths_used, works, estimate.notes, estimate.by_stage)


def parse_lengths(given: str | None) -> tuple[float, float] | None:
    """`146/256` as two numbers."""
    if given is None:
        return None
    prompt, _, response = given.partition("/")
    if not (prompt.isdigit() and response.isdigit() and int(prompt) and int(response)):
        raise HarnessError(f"--lengths {given!r}: write tokens of a prompt and of a response, for example 146/256")
    return float(prompt), float(response)


def comparison_size(comparison: Comparison) -> ModelSize:
    checkpoint = comparison.checkpoint
    if checkpoint is None:
        raise HarnessError("--gpu: the model is made from the source's text, and is small: there is nothing to estimate")
    return _size_of(checkpoint)


def _size_of(checkpoint: Checkpoint) -> ModelSize:
    from harness.models.size import checkpoint_config, model_size

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


def measured_lengths(comparison: Comparison, dataset: Dataset | None) -> Lengths:
    """Measured on the first training rows by the model's tokenizer, or assumed within the limits."""
    known = comparison.checkpoint is not None and "model" not in {**comparison.unreachable, **comparison.unchecked}
    if dataset is not None and dataset["train"] and known:
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
    from harness.api.types import Response
    from harness.models.load import load_tokenizer
    from harness.models.tokenization import ChatTemplate

    checkpoint = comparison.checkpoint
    assert checkpoint is not None
    template = ChatTemplate(load_tokenizer(checkpoint.files(weights=False), checkpoint.options))
    rows = dataset["train"][:MEASURED]
    answers = [(row.prompt, Response(text)) for row in rows for text in (row.target, *row.ranked) if text]
    prompt = mean(len(template.prompt_ids(row.prompt)) for row in rows)
    response = mean(len(template.response_ids(*item)) for item in answers) if answers else ASSUMED
    return Lengths(prompt, response, f"measured on {len(rows)} training rows")
