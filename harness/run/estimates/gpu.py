"""Tokens, memory and GPU-hours of a comparison on a named GPU, for `harness plan --gpu`. docs/estimates.md has the formulas."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from harness.run.estimates import gpu_formula as formula
from harness.run.estimates.builder_probe import Demand, probe
from harness.run.estimates.gpus import Gpu
from harness.models.size import ModelSize
from harness.training.settings import SftSettings, TrainingSettings

if TYPE_CHECKING:
    from harness.run.graph import Graph, Stage
    from harness.config import Comparison

BENCHMARKS = frozenset({"lm_eval"})  # evaluators whose requests do not hang on the evaluated prompts: not counted


@dataclass(frozen=True)
class Lengths:
    """Tokens of a prompt and of a response, on average, and where they are from."""

    prompt: float
    response: float
    origin: str


@dataclass
class Work:
    """Of all stages of one kind.

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
        self.quantized = comparison.checkpoint is not None and comparison.checkpoint.options.quantization is not None

    def works(self, graph: Graph, present: Collection[str]) -> list[Work]:
        """By kind, in the graph's order."""
        works: dict[str, Work] = {}
        for stage in graph:
            cost, work = self._cost(stage, graph), works.setdefault(stage.kind, Work(stage.kind))
            work.stages += 1
            work.trained += cost.trained
            work.generated += cost.generated
            work.scored += cost.scored
            work.hours += cost.seconds / 3600
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
            "answers": self._answers,
            "evaluate": self._evaluate,
        }
        return makers[stage.kind](stage, graph) if stage.kind in makers else _Cost()

    def _sft(self, stage: Stage, graph: Graph) -> _Cost:
        settings = SftSettings(**stage.payload["settings"])
        examples = self.examples.get("sft")
        if examples is None:
            examples = self.comparison.config.budget.prompts
            self._note(f"how many rows the sft split has is not known: counted as the budget's {examples:,} prompts")
        length = min(self.lengths.prompt + self.lengths.response, settings.max_length)
        tokens = examples * length * settings.epochs
        rows = settings.batch_size / (settings.devices.count if settings.devices else 1)
        rows = min(rows, getattr(settings, "micro_batch_size", None) or rows)
        return self._training(settings, tokens, length, max(1.0, rows) * length, whole=True)

    def _train(self, stage: Stage, graph: Graph) -> _Cost:
        settings, groups = TrainingSettings(**stage.payload["settings"]), graph.stages[stage.inputs["groups"]]
        demand, prompts = self._demand(groups), self._range(groups)
        tokens = self._group_tokens(demand.negatives, settings.layout)
        spending = stage.payload.get("spending")
        seen = prompts * settings.epochs
        if spending:
            pairs = max(1.0, demand.negatives)
            whole = (1 + demand.negatives) * (self.lengths.prompt + self.lengths.response)
            seen = (
                spending["amount"]
                / {"pairs": pairs, "tokens": whole, "updates": 1 / settings.prompts_per_batch}[spending["unit"]]
            )
        length = self.lengths.prompt + self.lengths.response
        return self._training(settings, seen * tokens, length, max(settings.tokens_per_micro_batch, tokens), whole=False)

    def _training(
        self, settings: SftSettings | TrainingSettings, tokens: float, length: float, at_once: float, *, whole: bool
    ) -> _Cost:
        seconds = formula.compute_seconds(formula.training_flops(self.size, tokens, length, settings), self.gpu)
        memory = formula.OVERHEAD + formula.state_bytes(self.size, settings, 0.6 if self.quantized else 4)
        memory += formula.activation_bytes(self.size, at_once, recomputed=settings.gradient_checkpointing)
        return _Cost(trained=tokens, seconds=seconds, memory=memory + formula.logits_bytes(self.size, at_once, whole=whole))

    def _groups(self, stage: Stage, graph: Graph) -> _Cost:
        demand, prompts = self._demand(stage), self._range(stage)
        cost = self._scoring(prompts * demand.scored, single=True)
        for request, wanted in demand.samples.items():
            asked: dict[str, Any] = dict(item for item in request if isinstance(item, tuple))
            policy = stage.inputs["start" if asked.get("policy") == "start" else "policy"]
            place = (policy, request, stage.payload["seed"], *stage.payload["examples"])
            more = max(0.0, wanted - self.drawn.get(place, 0.0))
            self.drawn[place] = max(wanted, self.drawn.get(place, 0.0))
            drawing = self._generation(prompts if more else 0, prompts * more, stage.payload["max_tokens"])
            cost = _Cost(
                generated=cost.generated + drawing.generated,
                scored=cost.scored,
                seconds=cost.seconds + drawing.seconds,
                memory=max(cost.memory, drawing.memory),
            )
        return cost

    def _reference(self, stage: Stage, graph: Graph) -> _Cost:
        groups = graph.stages[stage.inputs["groups"]]
        return self._scoring(self._range(groups) * (1 + self._demand(groups).negatives), single=False)

    def _answers(self, stage: Stage, graph: Graph) -> _Cost:
        prompts, sampling = self._evaluated(), stage.payload["sampling"]
        return self._generation(prompts, prompts * (sampling["n"] if sampling["temperature"] else 1), sampling["max_tokens"])

    def _evaluate(self, stage: Stage, graph: Graph) -> _Cost:
        """Two responses of each prompt under the policy and its start: what preference_accuracy asks, and few ask more."""
        name = stage.payload["evaluator"]["name"]
        if name in BENCHMARKS:
            self._note(f"what {name} computes is not counted")
            return _Cost()
        return self._scoring(4 * self._evaluated(), single=True)

    def _generation(self, prompts: float, samples: float, most: int) -> _Cost:
        if not samples:
            return _Cost()
        response = min(self.lengths.response, most)
        seconds = formula.generation_seconds(self.size, self.gpu, prompts, samples, (self.lengths.prompt, response))
        rows = formula.decoding_rows(self.size, self.gpu, self.lengths.prompt + response)
        rows = int(min(rows, max(1.0, samples)))
        cache = rows * ((self.lengths.prompt + response) * self.size.cache_bytes + 8 * self.size.vocabulary)
        return _Cost(generated=samples * response, seconds=seconds, memory=formula.OVERHEAD + 2 * self.size.parameters + cache)

    def _scoring(self, sequences: float, *, single: bool) -> _Cost:
        """Weights are float32 whatever the products: in a reference those of the training, in a score float32 (`single`)."""
        length = self.lengths.prompt + self.lengths.response
        tokens = sequences * length
        seconds = formula.compute_seconds(formula.forward_flops(self.size, tokens, length), self.gpu, single=single)
        memory = formula.OVERHEAD + 4 * self.size.parameters + formula.logits_bytes(self.size, 8192, whole=False)
        return _Cost(scored=tokens, seconds=seconds, memory=memory if sequences else 0.0)

    def _demand(self, groups: Stage) -> Demand:
        """Of a groups stage's builder, found once."""
        described = groups.payload["builder"]
        place = f"{described['name']} {described['fields']} {groups.payload['round']}"
        if place not in self.demands:
            builders = (round_.builder for variant in self.comparison.variants for round_ in variant.rounds)
            builder = next(
                item
                for item in builders
                if item.model_dump(mode="json") == described["fields"] and item.name == described["name"]
            )
            self.demands[place] = probe(builder, groups.payload["round"])
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
        first, last = groups.payload["examples"]
        return int(last) - int(first)

    def _evaluated(self) -> int:
        evaluation = self.comparison.config.evaluation
        known = self.examples.get(evaluation.split)
        if known is None and evaluation.prompts is None:
            self._note(f"how many rows the {evaluation.split} split has is not known: its evaluation is counted as 500 prompts")
        return min(known if known is not None else 10**9, evaluation.prompts or 10**9) if known or evaluation.prompts else 500

    def _note(self, said: str) -> None:
        if said not in self.notes:
            self.notes.append(said)


def as_rows(works: Collection[Work]) -> list[dict[str, Any]]:
    """For `--json`: tokens as whole numbers, memory in GiB."""
    rows = []
    for work in works:
        row = asdict(work)
        row |= {name: round(row[name]) for name in ("trained", "generated", "scored")}
        row["memory_gib"] = round(row.pop("memory") / formula.GIB, 2)
        rows.append(row)
    return rows
