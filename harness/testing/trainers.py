"""Checks of a trainer: a whole training stage on a tiny model, twice."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass
from functools import partial
from io import StringIO
from pathlib import Path
from typing import Any

from harness.api.interfaces import Objective, Trainer
from harness.api.methods import GROUPED
from harness.api.registry import Registered, Registry
from harness.api.types import Group, Response
from harness.config import describe
from harness.errors import StageError
from harness.models.checkpoint import Checkpoint
from harness.run.costs import used_budget
from harness.run.graph import CHECKPOINT, Graph
from harness.run.records import TrainFacts
from harness.run.stages import run_stage
from harness.run.stages.context import Context, read_dataset, save_checkpoint
from harness.run.stages.start import run_source
from harness.sandbox.untrained import untrained_policy
from harness.store import Store, file_hash
from harness.testing.verdict import Advice, Fault, Finding, Unchecked, run

PROMPTS = 8
SOURCE: Mapping[str, int] = {"sft": 4, "train": PROMPTS, "tuning": 4, "heldout": 4}
SETTINGS: Mapping[str, Any] = {"prompts_per_batch": 4, "learning_rate": 0.01}


@dataclass(frozen=True)
class TrainedOnce:
    """The result of `train_once`.

    Attributes:
        model: folder of the trained checkpoint.
        budget: what the training used, as a board shows it.
        curve: the points of the training curve.
        warnings: for a board's readers.
    """

    model: Path
    budget: Mapping[str, float]
    curve: list[dict[str, float]]
    warnings: list[str]

    def weights(self) -> str:
        """Return a hash of the weights."""
        files = sorted(self.model.glob("*.safetensors"))
        return hashlib.sha256(" ".join(file_hash(file) for file in files).encode()).hexdigest()


def train_once(
    trainer: Trainer,
    folder: Path,
    registry: Registry | None = None,
    seed: int = 0,
    *,
    share: float | None = None,
    gpus: Sequence[str] = (),
    **settings: Any,
) -> TrainedOnce:
    """Run a trainer as a row's training stage: an untrained Llama of 40,000 parameters, eight prompts of the sandbox.

    A trainer on groups gets the sandbox's preference pairs; one that needs an objective gets a registered one without a
    reference.

    Args:
        folder: for the store; the same folder gives the same training again without running it.
        share: of the training's steps, after which it stops for a state (`evaluation.during`) and goes on from there.
        gpus: names of GPUs that the executor is taken to have; none need be there.
        settings: fields of the `training` section.

    Raises:
        StageError: the host does not accept what the trainer left.
    """
    registry = registry or Registry.load()
    _known(trainer, registry)
    start, store = folder / "start", Store(folder / "store")
    if not start.exists():
        save_checkpoint(*untrained_policy(), start)
    checkpoints = {"start": Checkpoint(str(start)).as_dict()}
    context = Context(store, registry, checkpoints, lambda done, total, note: None, checkpoint_minutes=0, gpus=tuple(gpus))
    source, groups = _inputs(context)
    objective = _objective(trainer, registry)
    payload: dict[str, Any] = {
        "settings": {name: value for name, value in {**SETTINGS, **settings}.items() if name in trainer.carries},
        "seed": seed,
        **({"objective": dict(describe(objective))} if objective else {}),
    }
    inputs = {"model": f"{CHECKPOINT}start", **({"groups": groups} if trainer.trains_on() != "prompts" else {})}
    if trainer.name != GROUPED:
        payload |= {"trainer": dict(describe(trainer)), "examples": [0, PROMPTS], "max_tokens": 8}
        inputs["source"] = source
    graph = Graph()
    key = graph.add("train", "train", payload, inputs)
    if share is not None:
        state = graph.add("state", "state", {**payload, "training": key, "share": share}, inputs)
        run_stage(graph.stages[state], context)
    run_stage(graph.stages[key], context)
    artifact = store.open(key)
    facts = TrainFacts.of(artifact)
    return TrainedOnce(artifact / "model", used_budget([facts]), list(artifact.read_lines("history.jsonl")), list(facts.notes))


def _inputs(context: Context) -> tuple[str, str]:
    """Put the sandbox's rows and their preference pairs into the store; return both keys."""
    source, groups, store = "a" * 32, "b" * 32, context.store
    if not store.holds(source):
        component = context.registry.get("source", "sandbox").component(**SOURCE)
        graph = Graph()
        stage = graph.stages[graph.add("source", "source", {"source": dict(describe(component))}, {})]
        with store.draft("source", source) as draft:
            run_source(stage, context, draft)
    if not store.holds(groups):
        examples = read_dataset(store.open(source))["train"]
        pairs = [Group(item.prompt, Response(item.ranked[0]), (Response(item.ranked[1]),)) for item in examples]
        with store.draft("groups", groups) as draft:
            draft.write_lines("groups.jsonl", [asdict(group) for group in pairs])
    return source, groups


def _objective(trainer: Trainer, registry: Registry) -> Objective | None:
    """Return an objective that the trainer can train with and that needs no other stage; None where it needs none."""
    if not trainer.needs_objective():
        return None
    takes = trainer.objectives()
    for name in registry.names("objective"):
        cls = registry.get("objective", name).component
        if (takes is None or name in takes) and not (cls.needs_reference or cls.needs_mismatched or cls.ranks_rejected):
            objective: Objective = cls()
            if not objective.views():
                return objective
    raise StageError("no registered objective goes without a reference's numbers: check the trainer in a comparison")


def _known(trainer: Trainer, registry: Registry) -> None:
    """Make a trainer that is not registered known to the registry, for the stage finds it by name."""
    entries: Any = registry.entries["trainer"]
    entries.setdefault(trainer.name, Registered("trainer", trainer.name, type(trainer), "(given in code)", "", ""))


def check_trainer(trainer: Trainer, registry: Registry) -> Iterator[Finding]:
    """Run every check of a trainer, with the fields it is given."""
    with tempfile.TemporaryDirectory() as name:
        done: list[TrainedOnce] = []
        yield (first := run("training", partial(_trains, trainer, registry, Path(name) / "first", done)))
        for check, function in {"budget": _counts, "curve": _curve}.items():
            if first.status == "passed":
                yield run(check, partial(function, trainer, done[0]))
            else:
                yield Finding(check, "not run", "nothing was trained", "see above")
        if first.status == "passed":
            yield run("determinism", partial(_repeats, trainer, registry, Path(name) / "second", done[0]))
            if trainer.leaves_states:
                yield run("states", partial(_stops_halfway, trainer, registry, Path(name) / "third", done[0]))


def _quietly(trainer: Trainer, registry: Registry, folder: Path, share: float | None = None) -> TrainedOnce:
    """Train without what libraries print."""
    with redirect_stdout(StringIO()), redirect_stderr(StringIO()):
        return train_once(trainer, folder, registry, share=share)


def _trains(trainer: Trainer, registry: Registry, folder: Path, done: list[TrainedOnce]) -> None:
    """The host accepts what it leaves; it moved weights, and left its start as it was."""
    if trainer.required() - {"target", "ranked", "gold", "benchmarks"}:
        raise Unchecked(f"it needs {', '.join(sorted(trainer.required()))}", "check it in a comparison")
    save_checkpoint(*untrained_policy(), folder / "start")
    before = {path.name: file_hash(path) for path in (folder / "start").iterdir()}
    try:
        done.append(_quietly(trainer, registry, folder))
    except StageError as error:
        raise Fault(
            str(error), "leave a whole model in safetensors with the start's vocabulary in task.out, or task.save it"
        ) from error
    if {path.name: file_hash(path) for path in (folder / "start").iterdir()} != before:
        raise Fault("it changes files of its start", "read task.start, and write into task.out and task.scratch alone")
    if done[0].warnings:
        raise Fault(done[0].warnings[0], "train, and save the trained model")


def _counts(trainer: Trainer, trained: TrainedOnce) -> None:
    hidden = [unit for unit in ("updates", "tokens") if unit not in trained.budget]
    for unit in trainer.units():
        if unit not in trained.budget:
            raise Fault(
                f"units() promises to keep to {unit}, and train() does not tell how many it used",
                f"return TrainingUse({unit}=…)",
            )
    if hidden:
        raise Advice(
            f"it does not tell its {' and '.join(hidden)}", "return them in harness.TrainingUse, for the board to show"
        )


def _curve(trainer: Trainer, trained: TrainedOnce) -> None:
    if not any("loss" in point for point in trained.curve):
        raise Advice("it gives no training curve", 'call task.point({"loss": …}) after each step')


def _repeats(trainer: Trainer, registry: Registry, folder: Path, first: TrainedOnce) -> None:
    if _quietly(trainer, registry, folder).weights() != first.weights():
        raise Fault("two trainings with one seed give different weights", "draw every random number from task.seed")


def _stops_halfway(trainer: Trainer, registry: Registry, folder: Path, first: TrainedOnce) -> None:
    """A training that stops for a state and goes on ends where one without a stop does."""
    if _quietly(trainer, registry, folder, share=0.5).weights() != first.weights():
        raise Fault(
            "a training that stops for a state ends on other weights",
            "make all steps by task.train_groups or task.train_resumably, or leave `leaves_states` out",
        )
