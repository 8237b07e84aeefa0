"""Prompts, responses and how they are sampled."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True)
class Message:
    """One turn of a dialogue."""

    role: Role
    content: str


@dataclass(frozen=True)
class Prompt:
    """A dialogue that ends with a user turn, which a policy answers.

    Attributes:
        id: unique within a source.
        messages: the turns, oldest first.
    """

    id: str
    messages: tuple[Message, ...]

    @classmethod
    def of(cls, id: str, text: str) -> Prompt:
        """A prompt of a single user turn."""
        return cls(id, (Message("user", text),))

    def prefixed(self, prefix: str) -> Prompt:
        """The prompt-augmented query p ⊕ x: `prefix` before the last user turn, a space between."""
        *before, last = self.messages
        return Prompt(self.id, (*before, Message(last.role, f"{prefix} {last.content}")))

    @property
    def text(self) -> str:
        """The last user turn."""
        return self.messages[-1].content


@dataclass(frozen=True)
class Response:
    """The answer of a policy or an author.

    Attributes:
        text: the words, without special tokens.
        finished: whether the turn was ended; no end-of-turn token is appended to a response cut off by a length limit.
        tokens: how many tokens were sampled, where known.
        ids: the tokens as they were sampled, the one that ended the turn among them, in the vocabulary of the comparison's
            starting model; None for a text that is tokenized when it is needed. `ChatTemplate.response_ids` takes them only
            while `text` is still theirs, so that a builder may edit the text alone (`dataclasses.replace`). Two responses are
            equal whatever their ids: builders compare what is said.
    """

    text: str
    finished: bool = True
    tokens: int | None = None
    ids: tuple[int, ...] | None = field(default=None, compare=False)

    def __post_init__(self) -> None:
        if self.ids is not None:
            object.__setattr__(self, "ids", tuple(self.ids))  # JSON gives a list


@dataclass(frozen=True)
class ReadResponse(Response):
    """A response as evaluators read it where a comparison says what becomes of thoughts (`evaluation.response`).

    Attributes:
        tokens: without those of the thoughts where these were taken out of the text.
        whole: the response as the policy gave it, thoughts included.
        thought_tokens: how many of its tokens are thoughts.
        closed: whether every thought has ended.
    """

    whole: Response | None = None
    thought_tokens: int = 0
    closed: bool = True


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn. `temperature` 0 is greedy decoding."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 64
    seed: int = 0

    @property
    def label(self) -> str:
        return "greedy" if self.temperature == 0 else f"T={self.temperature:g}"
