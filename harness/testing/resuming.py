"""Checks of a backend that resumes: a killed generation, resumed, gives the responses of an uninterrupted one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from harness.api.interfaces import Backend, Policy, ResumableGenerate
from harness.api.types import Prompt, Response, Sampling
from harness.testing.verdict import Fault

WORDS = ("name two fruits .", "name one fruit that is not red .", "answer in short .")
PROMPTS = 100  # more than one batch of the built-in backend


def check_resuming(backend: Backend, policy: Policy) -> None:
    """Stop a generation after its first chunk and in the middle, and resume it in a new session."""
    prompts = [Prompt.of(str(number), " ".join(WORDS[: 1 + number % 3])) for number in range(PROMPTS)]
    sampling, kept = Sampling(n=3, max_tokens=8, seed=1), RememberedChunks(3)
    answers = _generate(backend, policy, prompts, sampling, kept)
    if not kept.history:
        fix = "call chunks.add(responses, state) as prompts are answered, or leave `resumes` out"
        raise Fault("it says that it resumes, and added nothing to `chunks`", fix)
    if any(row != answers[place] for place, row in kept.responses.items()):
        raise Fault("it added other responses to `chunks` than it returned", "add what it returns, under the prompt's place")
    for responses, state in (kept.history[0], kept.history[len(kept.history) // 2]):
        if _generate(backend, policy, prompts, sampling, RememberedChunks(3, responses, state)) != answers:
            raise Fault(
                f"going on after {len(responses)} of {PROMPTS} prompts gives other answers than one go",
                "return chunks.responses as they are, and draw the rest from the state that was given to chunks.add",
            )


def _generate(
    backend: Backend, policy: Policy, prompts: list[Prompt], sampling: Sampling, chunks: RememberedChunks
) -> list[list[Response]]:
    with backend.session(policy) as generate:
        return cast(ResumableGenerate, generate)(prompts, sampling, None, chunks)


class RememberedChunks:
    """`Chunks` in memory; `history` holds what the next process would find after each."""

    def __init__(self, n: int, responses: Mapping[int, list[Response]] | None = None, state: bytes = b"") -> None:
        self.n = n
        self.responses = dict(responses or {})
        self.state = state
        self.history: list[tuple[dict[int, list[Response]], bytes]] = []

    def add(self, responses: Mapping[int, Any], state: bytes = b"") -> None:
        if again := self.responses.keys() & responses.keys():
            raise Fault(f"the prompt at place {min(again)} is answered again", "leave out the prompts of chunks.responses")
        if any(len(row) != self.n for row in responses.values()) or not isinstance(state, bytes):
            raise Fault(
                "chunks.add was given parts of a prompt's responses, or no bytes", "add prompts with all their responses"
            )
        self.responses |= responses
        self.state = state
        self.history.append((dict(self.responses), state))
