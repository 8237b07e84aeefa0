"""Costs: what each row took, and what rows saved by sharing stages, against every row running alone from an empty store."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import asdict, dataclass
from typing import Protocol

from pydantic import JsonValue

from harness.api.types import Cost
from harness.run.graph import Graph
from harness.run.records import Facts, TrainFacts
from harness.store import Artifact


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

    def as_dict(self) -> dict[str, JsonValue]:
        """Return the counts under the names of a board's `sharing`."""
        counted = {key: value for key, value in asdict(self).items() if key not in ("requested", "ran")}
        return {
            **counted,
            "stages_requested": self.requested,
            "stages_run": self.ran,
            "stages_reused": self.requested - self.ran,
            "seconds_saved": self.seconds_alone - self.seconds_shared,
        }


class Artifacts(Protocol):
    """The place that finished artifacts are read from: a store, or the evidence of a board."""

    def holds(self, key: str) -> bool:
        """Return whether there is a whole artifact."""

    def open(self, key: str) -> Artifact:
        """Return an artifact.

        Raises:
            StoreError: it is absent or damaged.
        """


def measure_sharing(graph: Graph, store: Artifacts, ran: Set[str]) -> Sharing:
    """Count the artifacts that the finished rows of a graph needed.

    Args:
        ran: keys of the stages that were made in this run.
    """
    requests: Counter[str] = Counter()
    services: dict[str, set[str]] = {}  # stage -> artifacts that it asked for beside its inputs
    for row in graph.rows:
        for key in graph.needed_by(row):
            if store.holds(key):
                if key not in services:
                    services[key] = {used for used in Facts.of(store.open(key)).used if store.holds(used)}
                requests.update({key, *services[key]})
    artifacts = {key: store.open(key) for key in requests}
    facts = {key: Facts.of(artifact) for key, artifact in artifacts.items()}
    seconds = {key: own_seconds(artifact, facts[key]) for key, artifact in artifacts.items()}
    requested_kinds, distinct_kinds = Counter[str](), Counter(artifact.kind for artifact in artifacts.values())
    for key, count in requests.items():
        requested_kinds[artifacts[key].kind] += count
    # A stage that spent time on artifacts beside its inputs made them in this run.
    made = {used for key in ran for used in services.get(key, ()) if facts[key].made_seconds}
    return Sharing(
        requested=requests.total(),
        distinct=len(requests),
        ran=len((ran & requests.keys()) | made),
        seconds_alone=sum(seconds[key] * count for key, count in requests.items()),
        seconds_shared=sum(seconds.values()),
        by_kind={kind: (requested_kinds[kind], distinct_kinds[kind]) for kind in sorted(distinct_kinds)},
    )


def own_seconds(artifact: Artifact, facts: Facts) -> float:
    """Return the time that an artifact took, less the time for others that are counted on their own."""
    return max(0.0, artifact.seconds - facts.made_seconds)


def stage_cost(artifact: Artifact) -> Cost:
    """Return the cost of an artifact of a row's data, reference or training, in full even where rows share it."""
    facts = Facts.of(artifact)
    seconds = own_seconds(artifact, facts) + facts.charged_seconds
    return Cost(seconds, facts.tokens_trained, facts.tokens_generated) + judge_cost(facts)


def judge_cost(facts: Facts) -> Cost:
    """Return the cost of an artifact's judge: tokens and dollars, and no seconds."""
    return Cost(judge_tokens=facts.judge.judge_tokens, usd=facts.judge.judge_usd) if facts.judge else Cost()


def used_budget(rounds: Sequence[TrainFacts]) -> dict[str, float]:
    """Return the part of each budget that a row's training really used, over all its rounds; without what a trainer hid."""
    unknown = {unit for facts in rounds for unit in facts.unknown}
    used = {
        "prompts": float(sum(facts.prompts for facts in rounds)),
        "pairs": float(sum(facts.pairs for facts in rounds)),
        "updates": float(sum(facts.updates for facts in rounds)),
        "tokens": float(sum(facts.tokens_trained for facts in rounds)),
    }
    for unit, amounts in {
        "generated": [facts.tokens_generated for facts in rounds],
        "reward_calls": [facts.reward_calls for facts in rounds],
    }.items():
        if any(amounts):  # online training alone has any
            used[unit] = float(sum(amounts))
    return {unit: amount for unit, amount in used.items() if unit not in unknown}
