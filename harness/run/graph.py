"""The graph of stages. A stage's key is known before anything runs: it is a hash of all that decides its result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from harness.board.by_model import SEPARATOR
from harness.store import key_of

# Raise a kind's version when its runner gives other results for the same inputs: old artifacts are then not found.
VERSIONS = {
    "source": 2,
    "scratch": 1,
    "sft": 2,
    "groups": 2,
    "reference": 2,
    "train": 2,
    "answers": 2,
    "evaluate": 2,
    "state": 1,
    "shard": 1,
    "scoring_shard": 1,
}
SHARDS = frozenset({"shard", "scoring_shard"})  # kinds that compute a part of a later stage
TRAININGS = frozenset({"sft", "train", "state"})
DROPPABLE = frozenset({"train", "state"})  # kinds whose model may be dropped when its answers and scores are there
MODEL = "model"  # the folder of a trained model in its artifact
CHECKPOINT = "checkpoint:"  # begins a model input that is a folder given by the user, by its hash, and not an artifact
SERVED = "served:"  # begins a model input that only a server has, by the hash of its identity


@dataclass(frozen=True)
class Stage:
    """One piece of work with one artifact.

    Attributes:
        kind: which runner makes it, a key of `harness.run.stages.RUNNERS`.
        title: for people, e.g. `train dpo · seed 0`.
        payload: everything beside its inputs that decides its result, as JSON of the kind's `Payload` in `harness.run.records`.
        inputs: name -> key of another stage, `checkpoint:<hash>` or `served:<hash>`, as JSON of the kind's `Inputs`.
        shares: stages with the same value would wait for each other's samples, so the executor runs one at a time.
        weight: rough duration relative to other stages; for the order and for estimates only.
        after: stages that end before this one begins, well or not: it goes on from where they came to. No part of the key.
        devices: it computes on so many GPUs at a time, which nothing else uses meanwhile. No part of the key.
    """

    key: str
    kind: str
    title: str
    payload: Mapping[str, Any]
    inputs: Mapping[str, str]
    shares: str | None = None
    weight: float = 1.0
    after: tuple[str, ...] = ()
    devices: int = 1

    @property
    def parents(self) -> frozenset[str]:
        return frozenset(key for key in self.inputs.values() if not key.startswith((CHECKPOINT, SERVED)))


@dataclass(frozen=True)
class StatePlan:
    """A state that a row's model goes through while it is trained.

    Attributes:
        model: a stage: of kind `state`, the training that ends a round, or the start of the first.
        round: counted from 1.
        share: of the round's steps, from 0 (the start, of the first round alone) to 1 (the end, of all rounds but the last).
        position: share of the row's whole training, every round counted alike.
        evaluations: evaluator -> its stage, of the prompts that the row begins with.
    """

    model: str
    round: int
    share: float
    position: float
    evaluations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class RowPlan:
    """One row of the board at one seed, by the keys of its stages.

    A row is a `RowConfig` once the config is resolved, a `RowPlan` once planned, a `RowResult` once its stages have run, and a
    `RowEntry` on the board.

    Attributes:
        model: the trained model, a stage or `checkpoint:<hash>`; the starting model where nothing is trained. Of a row that is
            a model from elsewhere, `checkpoint:<hash>` or `served:<hash>`.
        groups: the data of each round.
        training: the training of each round.
        evaluations: evaluator -> its stages, one for each block of prompts that the row has; one for all where none are added.
        start: the model that the first round starts from.
        training_seed: the row's seed with its offset.
        states: those that are evaluated while it is trained, in their order; empty where the config or the trainer has none.
    """

    label: str
    seed: int
    model: str
    groups: tuple[str, ...]
    training: tuple[str, ...]
    evaluations: Mapping[str, tuple[str, ...]]
    start: str = ""
    training_seed: int = 0
    states: tuple[StatePlan, ...] = ()

    @property
    def all_evaluations(self) -> list[Mapping[str, tuple[str, ...]]]:
        """The evaluations of the row, and of each of its states."""
        return [self.evaluations, *({name: (key,) for name, key in state.evaluations.items()} for state in self.states)]


@dataclass
class Graph:
    """All stages of a comparison, each once, parents before children; and the rows they serve.

    Attributes:
        environment: libraries and device, part of every key but the source's.
        checkpoints: hash -> models that are not artifacts, as `Checkpoint.as_dict` and `ServedModel.as_dict` give them.
        judges: evaluator (`<evaluator>/<label>` with a label) or data builders -> settings of its judge, which workers need
            beyond what decides its answers.
    """

    environment: Mapping[str, str] = field(default_factory=dict)
    stages: dict[str, Stage] = field(default_factory=dict)
    rows: list[RowPlan] = field(default_factory=list)
    checkpoints: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    judges: dict[str, Mapping[str, Any]] = field(default_factory=dict)

    def add(
        self,
        kind: str,
        title: str,
        payload: Mapping[str, Any],
        inputs: Mapping[str, str],
        *,
        shares: str | None = None,
        weight: float = 1.0,
        after: tuple[str, ...] = (),
        devices: int = 1,
    ) -> str:
        """Add a stage unless the graph has it already, and return its key."""
        key = self.key(kind, payload, inputs)
        if key not in self.stages:
            self.stages[key] = Stage(key, kind, title, dict(payload), dict(inputs), shares, weight, after, devices)
        return key

    def key(self, kind: str, payload: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
        """Return the key of a stage."""
        return key_of(kind, VERSIONS[kind], payload, inputs, None if kind == "source" else self.environment)

    def ancestors(self, *keys: str) -> set[str]:
        """Return every stage that `keys` need, themselves included."""
        ancestors: set[str] = set()
        waiting = [key for key in keys if key in self.stages]
        while waiting:
            key = waiting.pop()
            if key not in ancestors:
                ancestors.add(key)
                waiting.extend(self.stages[key].parents)
        return ancestors

    def needed_by(self, row: RowPlan) -> set[str]:
        """Return every stage that a row needs, as if it ran alone."""
        asked = [key for evaluations in row.all_evaluations for keys in evaluations.values() for key in keys]
        return self.ancestors(*asked, *row.training)

    @property
    def trainings(self) -> int:
        """The number of trainings, SFT included."""
        return sum(stage.kind in ("sft", "train") for stage in self)

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.stages.values())

    def __len__(self) -> int:
        return len(self.stages)


def joined(graphs: Mapping[str | None, Graph]) -> Graph:
    """Return one graph with the stages of several, each once; the graph itself where there is only one.

    Args:
        graphs: by the label of their starting model, which the titles of stages that only it has end with, and the labels of
            its rows begin with, as on the board.
    """
    if len(graphs) == 1:
        return next(iter(graphs.values()))
    whole = Graph(next(iter(graphs.values())).environment)
    shared = Counter(key for graph in graphs.values() for key in graph.stages)
    for label, graph in graphs.items():
        for key, stage in graph.stages.items():
            title = stage.title if shared[key] > 1 else f"{stage.title} · {label}"
            whole.stages.setdefault(key, replace(stage, title=title))
        whole.rows += [replace(row, label=f"{label}{SEPARATOR}{row.label}") for row in graph.rows]
        whole.checkpoints |= graph.checkpoints
        whole.judges |= graph.judges
    return whole
