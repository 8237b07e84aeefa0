"""Backends that say that they resume: the smallest that does, and ones that do it wrong."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from harness import Backend, Chunks, Policy, Prompt, Response, Sampling
from harness.testing.places import ScriptedPolicy, check_backend
from harness.testing.resuming import check_resuming
from harness.testing.verdict import Fault
from harness_plugins.backends import TransformersBackend


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    return ScriptedPolicy(tmp_path)


class Diceman(Backend):
    """Rolls one die through all prompts, and keeps its state."""

    name: ClassVar[str] = "diceman"
    resumes: ClassVar[bool] = True

    def generate(
        self,
        policy: Policy,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        report: Callable[[int, int], None] | None = None,
        chunks: Chunks | None = None,
    ) -> list[list[Response]]:
        rolled = 0 if chunks is None or not chunks.state else int(chunks.state)
        rng = random.Random(sampling.seed)
        for _ in range(rolled):
            rng.randint(1, 6)
        answers = {} if chunks is None else dict(chunks.responses)
        for place in range(len(prompts)):
            if place not in answers:
                answers[place] = [Response(str(rng.randint(1, 6)), tokens=2) for _ in range(sampling.n)]
                rolled += sampling.n
                self.kept(chunks, place, answers[place], rolled)
            if report is not None:
                report((place + 1) * sampling.n, len(prompts) * sampling.n)
        return [answers[place] for place in range(len(prompts))]

    def kept(self, chunks: Chunks | None, place: int, row: list[Response], rolled: int) -> None:
        if chunks is not None:
            chunks.add({place: row}, str(rolled).encode())


class Forgetful(Diceman):
    """Keeps no state."""

    def kept(self, chunks: Chunks | None, place: int, row: list[Response], rolled: int) -> None:
        if chunks is not None:
            chunks.add({place: row})


class Silent(Diceman):
    """Keeps nothing."""

    def kept(self, chunks: Chunks | None, place: int, row: list[Response], rolled: int) -> None:
        pass


class Partly(Diceman):
    """Keeps one response of a prompt."""

    def kept(self, chunks: Chunks | None, place: int, row: list[Response], rolled: int) -> None:
        if chunks is not None:
            chunks.add({place: row[:1]}, str(rolled).encode())


class Elsewhere(Diceman):
    """Keeps other responses than it returns."""

    def kept(self, chunks: Chunks | None, place: int, row: list[Response], rolled: int) -> None:
        if chunks is not None:
            chunks.add({place: [Response("6")] * len(row)}, str(rolled).encode())


class Again(Diceman):
    """Answers everything, whatever is there."""

    def generate(
        self,
        policy: Policy,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        report: Callable[[int, int], None] | None = None,
        chunks: Chunks | None = None,
    ) -> list[list[Response]]:
        answers = super().generate(policy, prompts, sampling, report)
        for place, row in enumerate(answers):
            self.kept(chunks, place, row, 0)
        return answers


class OldFashioned(Backend):
    """Says that it resumes, and takes no chunks."""

    name: ClassVar[str] = "old_fashioned"
    resumes: ClassVar[bool] = True

    def generate(
        self,
        policy: Policy,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        report: Callable[[int, int], None] | None = None,
    ) -> list[list[Response]]:
        return [[Response("1")] * sampling.n for _ in prompts]


@pytest.mark.parametrize("backend", [Diceman(), TransformersBackend(rows_per_batch=64)], ids=lambda backend: backend.name)
def test_backends_that_go_on(backend: Backend) -> None:
    assert [(finding.check, finding.status) for finding in check_backend(backend)] == [
        ("generate", "passed"),
        ("resuming", "passed"),
    ]


@pytest.mark.parametrize(
    ("backend", "said", "fix"),
    [
        (Forgetful(), "going on after 1 of 100 prompts gives other answers than one go", "state that was given to chunks.add"),
        (Silent(), "says that it resumes, and added nothing", "or leave `resumes` out"),
        (Partly(), "parts of a prompt's responses", "with all their responses"),
        (Elsewhere(), "other responses to `chunks` than it returned", "under the prompt's place"),
        (Again(), "the prompt at place 0 is answered again", "leave out the prompts of chunks.responses"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Backend) else None,
)
def test_backends_that_do_not(backend: Backend, said: str, fix: str, policy: Policy) -> None:
    with pytest.raises(Fault) as found:
        check_resuming(backend, policy)
    assert said in found.value.said
    assert fix in found.value.fix


def test_a_backend_that_takes_no_chunks_is_to_be_mended() -> None:
    (_, resuming) = check_backend(OldFashioned())
    assert resuming.status == "failed"
    assert "takes" in resuming.said and "positional" in resuming.said
