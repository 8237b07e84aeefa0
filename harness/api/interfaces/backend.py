"""The interface of generation backends, and the means to resume a generation after its process was killed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Protocol

from harness.api.interfaces.component import Component
from harness.api.types import Prompt, Response, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Policy(Protocol):
    """The checkpoint that a backend generates with; what is not asked for is not loaded.

    Attributes:
        folder: its files: weights as safetensors, configuration, tokenizer and template.
        name: what tells it from every other checkpoint; made of letters, digits and hyphens.
        logs: where an engine's output goes; made when first needed.
        stop_ids: every token that ends a response, the chat template's own first; the others are those of the checkpoint's
            generation configuration, which may name several, and the tokenizer's `eos_token`.
    """

    @property
    def folder(self) -> Path: ...

    @property
    def name(self) -> str: ...

    @property
    def logs(self) -> Path: ...

    @property
    def model(self) -> PreTrainedModel:
        """In this process's memory, in evaluation mode."""
        ...

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase: ...

    @property
    def stop_ids(self) -> tuple[int, ...]: ...

    def secret(self, variable: str) -> str:
        """An environment variable's value, such as an API key; `StageError` where it is not set. Never write it anywhere."""
        ...


class Generate(Protocol):
    """A backend at work on one policy."""

    def __call__(
        self, prompts: Sequence[Prompt], sampling: Sampling, report: Callable[[int, int], None] | None = None
    ) -> list[list[Response]]: ...


class Chunks(Protocol):
    """The parts of a generation that an earlier process finished before it was killed, and the store of this one's parts.

    Attributes:
        responses: a prompt's place in the request -> its `sampling.n` responses; those given to `add` among them.
        state: what was given to `add` with the last of them; empty where nothing was kept.
    """

    @property
    def responses(self) -> Mapping[int, list[Response]]: ...

    @property
    def state(self) -> bytes: ...

    def add(self, responses: Mapping[int, list[Response]], state: bytes = b"") -> None:
        """More prompts are answered, all `sampling.n` responses of each. They are kept on disk when it is time for that.

        Args:
            state: what the backend needs to go on from here to the same responses, such as its random numbers' state.
        """
        ...


class ResumableGenerate(Generate, Protocol):
    """A backend at work that goes on from where an earlier process was."""

    def __call__(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        report: Callable[[int, int], None] | None = None,
        chunks: Chunks | None = None,
    ) -> list[list[Response]]: ...


class Backend(Component):
    """Something that generates. Overrides `generate`, or `session` where an engine has to be started and stopped.

    `resumes` says that it can go on from where a killed process was: what generates takes a further argument `chunks`, a
    `Chunks` or None, answers only the prompts that are not among its responses, adds to it, and gives the responses that it
    would have given in one go. Without it, a stage whose process is killed generates all of its responses again.
    """

    resumes: ClassVar[bool] = False
    any_policy: ClassVar[bool] = True

    def serves_any_policy(self) -> bool:
        """Whether it answers with the checkpoint it is given; False for a server that holds one model of its own."""
        return self.any_policy

    def precision(self, weights: str) -> str:
        """Return in which type it generates, as the board says it.

        Args:
            weights: the type of a policy's weights where it generates with `Policy.model`.
        """
        return "a type that its engine chooses"

    def draws_apart(self) -> bool:
        """Whether each response has random numbers of its own, so that `batches` can be drawn on several devices.

        Such a backend resumes (`resumes`), and what it draws depends on no state of an earlier process.
        """
        return False

    def gpus(self) -> int:
        """Return how many GPUs one engine spans: a stage that generates has so many for itself."""
        return 1

    def batches(self, policy: Policy, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[int]]:
        """Return the places of prompts that are decoded side by side; whole batches are drawn on one device."""
        return [[place] for place in range(len(prompts))]

    @contextmanager
    def session(self, policy: Policy) -> Iterator[Generate]:
        """An engine for `policy`, ended with the block. A stage opens it when it first generates, and one at a time."""
        yield partial(self.generate, policy)

    def generate(
        self,
        policy: Policy,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        report: Callable[[int, int], None] | None = None,
    ) -> list[list[Response]]:
        """Return `sampling.n` responses per prompt, reproducible in `sampling.seed`; `report` gets (done, total) responses.

        Each ends at any of `policy.stop_ids`. A backend that knows the tokens it sampled gives them (`Response.ids`, the one
        that ended the turn among them; `ChatTemplate.sampled` makes such a response): they are then what is trained and
        scored. One that knows the text alone leaves them out, and the text is tokenized again.
        """
        raise NotImplementedError
