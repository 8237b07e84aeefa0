"""What every stage works with."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.environment import environment
from harness.errors import StageError
from harness.graph import CHECKPOINT
from harness.interfaces import Component
from harness.models.load import load
from harness.registry import Kind, Registry
from harness.store import Artifact, Store
from harness.types import Dataset, Example, Group, Message, Prompt, Response, SplitName

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Report = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Context:
    """A worker's means.

    Attributes:
        environment: of `harness.environment`, part of the keys of what services make.
        checkpoints: hash -> folder of starting models that are not artifacts.
        report: called as a stage goes, with (done, total, a short note).
    """

    store: Store
    registry: Registry
    checkpoints: Mapping[str, str]
    report: Report
    environment: Mapping[str, str] = field(default_factory=environment)

    def component(self, kind: Kind, description: Mapping[str, Any]) -> Any:
        """A component from what `resolve.describe` wrote of it."""
        component: type[Component] = self.registry.get(kind, description["name"]).component
        if component.version != description["version"]:
            raise StageError(
                f"{kind} {component.name!r} changed from version {description['version']} to {component.version}: plan again"
            )
        return component(**description["fields"])

    def model_folder(self, reference: str) -> Path:
        """The checkpoint folder of a model input."""
        if reference.startswith(CHECKPOINT):
            return Path(self.checkpoints[reference.removeprefix(CHECKPOINT)])
        return self.store.open(reference) / "model"

    def load(self, reference: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """Model and tokenizer of a model input."""
        return load(self.model_folder(reference))

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """A folder that goes when the block ends; in the store, so that what a killed worker leaves is swept."""
        with self.store.part() as folder:
            yield folder


def save_checkpoint(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Weights as safetensors, configuration, tokenizer and template."""
    model.save_pretrained(folder, safe_serialization=True)
    tokenizer.save_pretrained(folder)


def example_row(example: Example) -> dict[str, Any]:
    """An example as JSON."""
    return asdict(example)


def read_dataset(artifact: Artifact) -> Dataset:
    """A source's rows as written by the `source` stage."""
    splits: dict[SplitName, tuple[Example, ...]] = {
        name: tuple(_example(row) for row in artifact.read_lines(f"{name}.jsonl")) for name in artifact.facts["splits"]
    }
    return Dataset(splits, artifact.facts["dropped"])


def _example(row: Mapping[str, Any]) -> Example:
    return Example(_prompt(row["prompt"]), row["target"], tuple(row["ranked"]), row["metadata"])


def _prompt(row: Mapping[str, Any]) -> Prompt:
    return Prompt(row["id"], tuple(Message(**message) for message in row["messages"]))


def group_row(group: Group) -> dict[str, Any]:
    """A group as JSON."""
    return asdict(group)


def read_groups(artifact: Artifact) -> list[Group]:
    """Groups as written by the `groups` stage."""
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
    """Responses per prompt, as written by `write_answers`."""
    return [
        [Response(text, finished, tokens) for text, finished, tokens in row] for row in artifact.read_lines("answers.jsonl")
    ]


def answer_rows(answers: list[list[Response]]) -> list[list[list[Any]]]:
    """Responses per prompt as JSON."""
    return [[[response.text, response.finished, response.tokens] for response in row] for row in answers]
