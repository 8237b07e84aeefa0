"""What `harness plan` says: the graph of a comparison against the store, the data, and what judges and GPUs would take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.cli.judge_estimate import JudgeEstimate, judge_estimates

if TYPE_CHECKING:
    from harness.cli.gpu_report import GpuReport
    from harness.cli.gpus import Gpu
    from harness.graph import Graph, Stage
    from harness.resolve import Comparison
    from harness.types import Dataset, Example


@dataclass(frozen=True)
class PlanReport:
    """A plan, counted.

    Attributes:
        present: keys of stages that the store holds.
        requests: a stage's key -> how many rows need it.
        data: rows kept and left out, and why; None where the hub is out of reach.
        gpu: only where it was asked for.
    """

    comparison: Comparison
    graph: Graph
    present: set[str]
    requests: Counter[str]
    data: dict[str, Any] | None
    judges: Sequence[JudgeEstimate]
    gpu: GpuReport | None

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        said = {
            "name": self.comparison.config.name,
            "stages": [self._stage(stage) for stage in self.graph],
            "data": self.data,
            "judges": [asdict(item) for item in self.judges],
            "unreachable": dict(self.comparison.unreachable),
        }
        return said | ({"gpu": self.gpu.as_dict()} if self.gpu else {})

    def _stage(self, stage: Stage) -> dict[str, Any]:
        return {
            "key": stage.key,
            "kind": stage.kind,
            "title": stage.title,
            "rows": self.requests[stage.key],
            "in_store": stage.key in self.present,
            "inputs": dict(stage.inputs),
        }


def plan_report(comparison: Comparison, folder: Path, gpu: Gpu | None, lengths: tuple[float, float] | None) -> PlanReport:
    """The plan of a comparison for the store in `folder`, which need not be there."""
    from harness.cli.gpu_report import gpu_report
    from harness.plan import plan
    from harness.store import MANIFEST, Store

    graph = plan(comparison)
    kept = Store(folder) if folder.exists() else None
    present = {stage.key for stage in graph if kept and (kept.place(stage.key) / MANIFEST).exists()}
    requests: Counter[str] = Counter(key for row in graph.rows for key in graph.needed_by(row))
    loaded, data = _rows(comparison)
    evaluation = comparison.config.evaluation
    judges = judge_estimates(comparison, graph, present, loaded[evaluation.split][: evaluation.prompts]) if loaded else []
    estimate = gpu_report(comparison, graph, present, gpu, loaded, lengths) if gpu else None
    return PlanReport(comparison, graph, present, requests, data, judges, estimate)


def _rows(comparison: Any) -> tuple[Dataset | None, dict[str, Any] | None]:
    """The source's rows as the `source` stage will find them, and what was left out; None where the hub is out of reach."""
    from harness.models.load import load_tokenizer
    from harness.models.prompts import ChatTemplate
    from harness.stages.screening import screen

    limits, checkpoint = comparison.config.limits, comparison.checkpoint
    if "source" in comparison.unreachable or (limits is not None and "model" in comparison.unreachable):
        return None, None
    template, loaded = None, comparison.source.load()
    if limits is not None or (checkpoint is not None and "model" not in comparison.unreachable and _system_turn(loaded)):
        template = ChatTemplate(load_tokenizer(checkpoint.files(weights=False), checkpoint.options))
    if template is not None and (example := _system_turn(loaded)) is not None:
        template.prompt_ids(example.prompt)  # one that the template refuses is told of now, and not by the first stage
    dataset, report = screen(loaded, limits, template)
    return dataset, report.as_dict()


def _system_turn(dataset: Dataset) -> Example | None:
    """The first example that begins with a system turn."""
    examples = (example for rows in dataset.splits.values() for example in rows)
    return next((example for example in examples if example.prompt.messages[0].role == "system"), None)
