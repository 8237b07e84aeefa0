"""The context that every stage runs in, and the readers of its inputs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api.interfaces import Backend, Component, Generate
from harness.api.registry import Kind, Registry
from harness.api.types import Dataset, Example, Group, Message, Prompt, Response, SplitName
from harness.errors import StageError, StoreError, UnavailableError
from harness.models.checkpoint import Checkpoint, base_checkpoint
from harness.models.delta import adapters_of, rebuild
from harness.models.delta_note import Base, is_delta, read_note
from harness.models.load import generation_eos, load_model, load_tokenizer, read_config
from harness.models.options import LoadOptions, Use, weights_dtype
from harness.models.served import BACKEND, ServedModel
from harness.run.graph import CHECKPOINT, DROPPABLE, SERVED
from harness.run.records import Description, SourceFacts
from harness.run.stages.live import Live
from harness.store import Artifact, Store
from harness.store.environment import environment

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


Report = Callable[[int, int, str], None]


CHECKPOINT_MINUTES = 10.0


@dataclass
class StageProgress:
    """A `Report` for a stage that makes several requests: its progress runs once from 0 to its total, and never backwards.

    A request begins where `done` falls or `total` changes. Each takes its share of the stage: `total` of the `expected` units
    where those are known, else nine tenths of what is left, so that a request still to come has room.

    Attributes:
        report: is told (units done, units in all, note) of the whole stage.
        expected: units of all requests together; 0 if unknown.
    """

    report: Report
    expected: int = 0
    _request: tuple[int, int] = (0, 0)  # done and total of the request under way
    _begun: float = 0.0  # share of the stage that was done before it
    _share: float = 0.0  # of the stage that it takes
    _reached: float = 0.0

    def __call__(self, done: int, total: int, note: str) -> None:
        before, previous_total = self._request
        if total != previous_total or done < before:
            left = 1.0 - self._reached
            self._begun = self._reached
            self._share = min(left, total / self.expected) if self.expected else 0.9 * left
        self._request = (done, total)
        if total > 0:
            self._reached = max(self._reached, self._begun + self._share * min(1.0, done / total))
        units = self.expected or 1000
        self.report(round(self._reached * units), units, note)


class Engine:
    """The one engine that a stage may have running: another policy's ends it first, and so does the end of the stage."""

    def __init__(self) -> None:
        self._name = ""
        self._running = ExitStack()
        self._generate: Generate | None = None
        self._held: dict[str, Path] = {}

    def use(self, name: str, session: Callable[[], AbstractContextManager[Generate]]) -> Generate:
        """The engine called `name`, started unless it is the one that runs."""
        if self._generate is None or name != self._name:
            self.stop()
            self._generate = self._running.enter_context(session())
            self._name = name
        return self._generate

    def hold(self, name: str, resource: Callable[[], AbstractContextManager[Path]]) -> Path:
        """Return the folder called `name`, which is made when first asked for and goes when the engine has stopped."""
        if name not in self._held:
            self._held[name] = self._running.enter_context(resource())
        return self._held[name]

    def stop(self) -> None:
        self._generate = None
        self._held.clear()
        self._running.close()


def no_secret(variable: str) -> str | None:
    """For contexts that were given no secrets."""
    return None


@dataclass(frozen=True)
class Context:
    """Everything that a stage computes with beside its inputs.

    Attributes:
        environment: from `harness.store.environment`, part of the keys of what services make; its device decides the dtype of
            weights.
        judges: evaluator -> settings of its judge.
        run: name of the run; all its judges share one budget.
        checkpoints: hash -> models that are not artifacts, as `Checkpoint.as_dict` and `ServedModel.as_dict` give them.
        report: called with (done, total, a short note) while a stage runs.
        live: takes intermediate results.
        checkpoint_minutes: between two checkpoints of a training, or two chunks of a generation; 0 after every step or batch.
        secret: returns the value of an environment variable that a config names, such as an API key.
        engine: generates for the stage that runs.
        common_scratch: the folder that `scratch` returns to each of several processes which run one stage together; the parent
            process removes it.
        shards: keys of the stages that drew parts of this stage's responses; one that failed is not in the store.
        ends_at: when the run's time is over, in seconds since the epoch: trainings and generations then keep their state and
            raise `TimeOverError`; None for never.
        gpus: names of the GPUs that are this stage's alone, as `CUDA_VISIBLE_DEVICES` takes them; empty where there are none.
    """

    store: Store
    registry: Registry
    checkpoints: Mapping[str, Mapping[str, Any]]
    report: Report
    environment: Mapping[str, str] = field(default_factory=environment)
    checkpoint_minutes: float = CHECKPOINT_MINUTES
    secret: Callable[[str], str | None] = no_secret
    engine: Engine = field(default_factory=Engine)
    judges: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    run: str = "alone"
    common_scratch: Path | None = None
    gpus: tuple[str, ...] = ()
    shards: tuple[str, ...] = ()
    ends_at: float | None = None
    live: Live = field(default_factory=Live)

    def component(self, kind: Kind, description: Description) -> Any:
        """Return a component as it was described when the run was planned.

        Raises:
            StageError: its version or its files have changed since.
        """
        cls: type[Component] = self.registry.get(kind, description.name).component
        if cls.version != description.version:
            raise StageError(f"{kind} {cls.name!r} changed from version {description.version} to {cls.version}: plan again")
        component = cls(**description.fields)
        if description.fingerprint is not None and component.fingerprint() != description.fingerprint:
            raise StageError(
                f"{kind} {cls.name!r} is no longer what the plan was made for "
                f"({description.fingerprint!r} then, {component.fingerprint()!r} now): run again"
            )
        return component

    def model_folder(self, reference: str) -> Path:
        """The checkpoint folder of a model input, which may hold a delta; a hub model is downloaded unless it is cached."""
        checkpoint = self._checkpoint(reference)
        return checkpoint.files() if checkpoint else stored_model(self.store, reference)

    def whole_folder(self, reference: str) -> Path:
        """The checkpoint folder of a model input with whole weights, for programs that read it themselves.

        It is there until the stage's engine stops, which is at the end of the stage at the latest.
        """
        folder = self.model_folder(reference)
        if not is_delta(folder):
            return folder
        return self.engine.hold(reference, lambda: self._rebuilt(folder))

    @contextmanager
    def _rebuilt(self, folder: Path) -> Iterator[Path]:
        with self.store.part() as scratch:
            yield rebuild(folder, self.base_folder, scratch / "model")

    def base_folder(self, base: Base) -> Path:
        """The folder of the model that a delta is added to.

        Raises:
            DataError: it is not there any more.
            StoreError: the same, of a stage's model.
        """
        return base_folder(base, self.store, self.checkpoints)

    def delta_base(self, reference: str, lora: bool = False) -> tuple[Base, tuple[Path, ...]] | None:
        """Return the model that a training's result is kept as a difference from, and the adapters that were added to it since.

        It is the first one of all, and never one that may be dropped. With adapters it is the last one before them, so that
        these are all the difference.

        Args:
            reference: the model that the training starts from.
            lora: whether it trains adapters.

        Returns:
            None where the result is kept whole: the config asks for that, or the start is whole itself and may be dropped.
        """
        checkpoint = self._checkpoint(reference)
        if checkpoint is not None:
            return (Base(model=reference, place=checkpoint.place), ()) if checkpoint.deltas else None
        if not any(row.get("deltas") for row in self.checkpoints.values()):
            return None
        folder, stays = stored_model(self.store, reference), self.store.open(reference).kind not in DROPPABLE
        if is_delta(folder) and not (lora and stays):
            return read_note(folder).base, adapters_of(folder)
        return (Base(model=reference), ()) if stays else None

    def load(self, reference: str, use: Use, place: str | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Model and tokenizer of a model input."""
        return self.load_model(reference, use, place), self.load_tokenizer(reference)

    def load_model(self, reference: str, use: Use, place: str | None = None) -> PreTrainedModel:
        """A model input in memory, as its comparison's `model` section and its use say; on the device `place`, if given."""
        return self._load(self.model_folder(reference), self._given_options(reference), use, place)

    def load_folder(self, folder: Path) -> PreTrainedModel:
        """A checkpoint that a run saved, in memory as it is scored."""
        return self._load(folder, None, "scoring")

    def _load(self, folder: Path, options: LoadOptions | None, use: Use, place: str | None = None) -> PreTrainedModel:
        return load_model(folder, options, use=use, device=self.environment.get("device"), locate=self.base_folder, place=place)

    def options(self, reference: str) -> LoadOptions:
        """How a model input is loaded: a starting model's own way, or what a run noted in the checkpoint that it trained."""
        given = self._given_options(reference)
        return given if given is not None else LoadOptions.of_config(read_config(self.model_folder(reference)))

    def weights_dtype(self, reference: str, use: Use) -> str:
        """The type in which a model input's weights lie in memory."""
        return weights_dtype(self.options(reference), self.environment.get("device", "cpu"), use)

    def _given_options(self, reference: str) -> LoadOptions | None:
        checkpoint = self._checkpoint(reference)
        return checkpoint.options if checkpoint else None

    def load_tokenizer(self, reference: str) -> PreTrainedTokenizerBase:
        """The tokenizer of a model input; of a hub model no weights are downloaded."""
        checkpoint = self._checkpoint(reference)
        return load_tokenizer(self._small_files(reference), checkpoint.options if checkpoint else None)

    def generation_eos(self, reference: str) -> tuple[int, ...]:
        """Return the end tokens that a model input's generation configuration names; of a hub model no weights are loaded."""
        return generation_eos(self._small_files(reference))

    def _small_files(self, reference: str) -> Path:
        checkpoint = self._checkpoint(reference)
        return checkpoint.files(weights=False) if checkpoint else self.model_folder(reference)

    def served(self, reference: str) -> ServedModel | None:
        """Return the model input that a server has; None for any other."""
        if not reference.startswith(SERVED):
            return None
        return ServedModel(**self.checkpoints[reference.removeprefix(SERVED)])

    def asking(self, served: ServedModel) -> Backend:
        """Return the backend that asks a served model."""
        backend: Backend = self.registry.get("backend", BACKEND).component(**served.backend_fields())
        return backend

    def _checkpoint(self, reference: str) -> Checkpoint | None:
        if (served := self.served(reference)) is not None:
            raise UnavailableError(f"{served.model} is served, and gives answers alone: its weights and tokens are not here")
        if not reference.startswith(CHECKPOINT):
            return None
        return Checkpoint.of(self.checkpoints[reference.removeprefix(CHECKPOINT)])

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder that goes when the block ends; in the store, so that what a killed worker leaves is swept."""
        if self.common_scratch is not None:
            yield self.common_scratch
            return
        with self.store.part() as folder:
            yield folder


def stored_model(store: Store, key: str) -> Path:
    """Return the checkpoint folder of a trained model.

    Raises:
        StoreError: the artifact is absent or damaged, or its weights were dropped.
    """
    artifact = store.open(key)
    if artifact.dropped:
        raise StoreError(
            f"the weights of the model {key} were dropped, as run.keep_models asks: `harness compare` of its config with "
            "--set run.keep_models=all makes them again"
        )
    return artifact / "model"


def base_folder(base: Base, store: Store, checkpoints: Mapping[str, Mapping[str, Any]]) -> Path:
    """Return the folder of the model that a delta is added to.

    Args:
        checkpoints: `Context.checkpoints`, which say best where a starting model lies; otherwise the delta's own note does.

    Raises:
        DataError: it is not there any more.
        StoreError: the same, of a stage's model.
    """
    if not base.model.startswith(CHECKPOINT):
        return stored_model(store, base.model)
    row = checkpoints.get(base.model.removeprefix(CHECKPOINT))
    return (Checkpoint.of(row) if row else base_checkpoint(base)).files()


def save_checkpoint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Weights as safetensors, configuration, tokenizer and template."""
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)


def read_dataset(artifact: Artifact) -> Dataset:
    """Return a source's rows as the `source` stage wrote them."""
    facts = SourceFacts.of(artifact)
    splits: dict[SplitName, tuple[Example, ...]] = {
        name: tuple(_example(row) for row in artifact.read_lines(f"{name}.jsonl")) for name in facts.splits
    }
    return Dataset(splits, facts.dropped)


def _example(row: Mapping[str, Any]) -> Example:
    return Example(_prompt(row["prompt"]), row["target"], tuple(row["ranked"]), row["metadata"])


def _prompt(row: Mapping[str, Any]) -> Prompt:
    return Prompt(row["id"], tuple(Message(**message) for message in row["messages"]))


def read_groups(artifact: Artifact) -> list[Group]:
    """Return groups as the `groups` stage wrote them."""
    return [
        Group(
            _prompt(row["prompt"]),
            Response(**row["chosen"]),
            tuple(Response(**rejected) for rejected in row["rejected"]),
            row["info"],
        )
        for row in artifact.read_lines("groups.jsonl")
    ]


def read_answers(artifact: Artifact) -> list[list[Response]]:
    """Return responses per prompt, as `answer_rows` gives them; those of earlier versions have no ids."""
    return [[Response(*fields) for fields in row] for row in artifact.read_lines("answers.jsonl")]


def answer_rows(answers: list[list[Response]]) -> list[list[list[Any]]]:
    """Return responses per prompt as JSON: text, whether it ended, how many tokens, and their ids where they are known."""
    return [[_answer_row(response) for response in row] for row in answers]


def _answer_row(response: Response) -> list[Any]:
    known = [] if response.ids is None else [list(response.ids)]
    return [response.text, response.finished, response.tokens, *known]


def quiet_libraries() -> None:
    """One thread, deterministic algorithms, no bars and no chatter from the libraries."""
    import datasets
    import torch
    import transformers

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True, warn_only=True)
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    datasets.disable_progress_bars()
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
