"""What methods shared, and what it saved: stages and seconds, against every row running alone from an empty store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from harness.api.types import Cost
from harness.run.graph import Graph, RowPlan
from harness.store import Artifact, Store

_METHOD_KINDS = ("groups", "reference", "train")


@dataclass(frozen=True)
class Sharing:
    """Counts of artifacts; `seconds_*` are the sums of what each took when it was made.

    Attributes:
        requested: artifacts that all rows need, each row counted as if alone.
        distinct: different ones among them.
        ran: of those, made in this run; the rest was in the store.
        seconds_alone: time for `requested`.
        seconds_shared: time for `distinct`.
        by_kind: kind -> (requested, distinct).
    """

    requested: int
    distinct: int
    ran: int
    seconds_alone: float
    seconds_shared: float
    by_kind: dict[str, tuple[int, int]]

    def as_dict(self) -> dict[str, Any]:
        counted = {key: value for key, value in asdict(self).items() if key not in ("requested", "ran")}
        return {
            **counted,
            "stages_requested": self.requested,
            "stages_run": self.ran,
            "stages_reused": self.requested - self.ran,
            "seconds_saved": self.seconds_alone - self.seconds_shared,
        }


def measure_sharing(graph: Graph, store: Store, ran: set[str]) -> Sharing:
    """Count what the finished rows of a graph needed."""
    requests: Counter[str] = Counter()
    made_by: dict[str, set[str]] = {}
    for row in graph.rows:
        for key in graph.needed_by(row):
            if store.place(key).exists():
                used = {used for used in store.open(key).facts.get("used", ()) if store.holds(used)}
                made_by.setdefault(key, used)
                requests.update({key, *used})
    artifacts = {key: store.open(key) for key in requests}
    seconds = {key: _own_seconds(artifact) for key, artifact in artifacts.items()}
    kinds = sorted({artifact.kind for artifact in artifacts.values()})
    inner = {key for parent in ran for key in made_by.get(parent, ()) if artifacts[parent].facts.get("made_seconds")}
    return Sharing(
        requested=requests.total(),
        distinct=len(requests),
        ran=len((ran & requests.keys()) | inner),
        seconds_alone=sum(seconds[key] * count for key, count in requests.items()),
        seconds_shared=sum(seconds.values()),
        by_kind={
            kind: (
                sum(count for key, count in requests.items() if artifacts[key].kind == kind),
                sum(artifact.kind == kind for artifact in artifacts.values()),
            )
            for kind in kinds
        },
    )


def _own_seconds(artifact: Artifact) -> float:
    """What an artifact took, less what it spent making others that are counted on their own."""
    return max(0.0, artifact.seconds - float(artifact.facts.get("made_seconds", 0.0)))


def row_cost(graph: Graph, store: Store, row: RowPlan) -> Cost:
    """What a row took beyond the shared starting model: its data, reference and training, in full even where shared.

    Of its evaluation, what its judges took.
    """
    cost = Cost()
    for key in graph.ancestors(*row.training):
        stage = graph.stages[key]
        if stage.kind in _METHOD_KINDS:
            artifact = store.open(key)
            seconds = _own_seconds(artifact) + float(artifact.facts.get("charged_seconds", 0.0))
            tokens = artifact.facts.get("tokens_trained", 0), artifact.facts.get("tokens_generated", 0)
            cost = cost + Cost(seconds, *tokens) + _judged(artifact.facts)
    for key in row.evaluations.values():
        cost = cost + _judged(store.open(key).facts if store.holds(key) else {})
    return cost


def _judged(facts: Mapping[str, Any]) -> Cost:
    """What an artifact's judge took."""
    judge = facts.get("judge")
    return Cost(judge_tokens=judge["judge_tokens"], usd=judge["judge_usd"]) if judge else Cost()


def row_budget(graph: Graph, store: Store, row: RowPlan) -> dict[str, float]:
    """What a row's training really used, over all its rounds."""
    used = {"prompts": 0.0, "pairs": 0.0, "updates": 0.0, "tokens": 0.0}
    for key in row.training:
        facts = store.open(key).facts
        for name, fact in (("prompts", "prompts"), ("pairs", "pairs"), ("updates", "updates"), ("tokens", "tokens_trained")):
            used[name] += facts[fact]
    return used
