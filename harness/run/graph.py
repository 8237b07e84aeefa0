"""The graph of stages. A stage's key is known before anything runs: it is a hash of all that decides its result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.store import key_of

# Raise a kind's version when its runner gives other results for the same inputs: old artifacts are then not found.
VERSIONS = {"source": 2, "scratch": 1, "sft": 2, "groups": 2, "reference": 2, "train": 2, "answers": 2, "evaluate": 2}
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
    """

    key: str
    kind: str
    title: str
    payload: Mapping[str, Any]
    inputs: Mapping[str, str]
    shares: str | None = None
    weight: float = 1.0

    @property
    def parents(self) -> frozenset[str]:
        return frozenset(key for key in self.inputs.values() if not key.startswith((CHECKPOINT, SERVED)))


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
    """

    label: str
    seed: int
    model: str
    groups: tuple[str, ...]
    training: tuple[str, ...]
    evaluations: Mapping[str, tuple[str, ...]]
    start: str = ""
    training_seed: int = 0


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
    ) -> str:
        """Add a stage unless the graph has it already, and return its key."""
        key = key_of(kind, VERSIONS[kind], payload, inputs, None if kind == "source" else self.environment)
        if key not in self.stages:
            self.stages[key] = Stage(key, kind, title, dict(payload), dict(inputs), shares, weight)
        return key

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
        return self.ancestors(*(key for keys in row.evaluations.values() for key in keys), *row.training)

    @property
    def trainings(self) -> int:
        """The number of trainings, SFT included."""
        return sum(stage.kind in ("sft", "train") for stage in self)

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.stages.values())

    def __len__(self) -> int:
        return len(self.stages)
