"""Services of data builders and evaluators. What they compute goes through the store under its content, so that whoever asks
for the same samples, similarities or log-probabilities again finds them.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from harness.interfaces import Backend, Source
from harness.models.embed import EMBEDDERS, hidden_similarity, tfidf_similarity
from harness.models.generate import block_sampling, blocks
from harness.models.logps import Row, score
from harness.models.prompts import ChatTemplate
from harness.resolve import describe
from harness.stages.context import Context, answer_rows, read_answers
from harness.store import Artifact, Draft, canonical, key_of
from harness.types import Example, Prompt, Response, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


VERSIONS = {"samples": 1, "logps": 1, "similarity": 1}  # as `harness.graph.VERSIONS`, of what services make


def text_hash(value: Any) -> str:
    """A hash of any JSON value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:32]


def request_seed(seed: int, request: str) -> int:
    """A seed that differs with the request."""
    return int(text_hash([seed, request])[:12], 16)


@dataclass
class Ledger:
    """What a stage used of the store beside its inputs: keys, and the seconds it is charged although another paid them."""

    used: list[str] = field(default_factory=list)
    made_seconds: float = 0.0
    charged_seconds: float = 0.0
    tokens_generated: int = 0

    def facts(self) -> dict[str, Any]:
        return {
            "used": sorted(set(self.used)),
            "made_seconds": self.made_seconds,
            "charged_seconds": self.charged_seconds,
            "tokens_generated": self.tokens_generated,
        }


@dataclass
class Services:
    """Content-addressed work on behalf of one stage."""

    context: Context
    ledger: Ledger = field(default_factory=Ledger)

    def through_store(self, kind: str, payload: dict[str, Any], make: Callable[[Draft], None]) -> Artifact:
        """The artifact that `payload` decides, made now unless it is there."""
        store = self.context.store
        key = key_of(kind, VERSIONS[kind], payload, {}, self.context.environment)
        with store.claim(key):
            fresh = not store.holds(key)
            if fresh:
                with store.draft(kind, key) as draft:
                    make(draft)
        artifact = store.open(key)
        self.ledger.used.append(key)
        self.ledger.charged_seconds += artifact.seconds
        self.ledger.made_seconds += artifact.seconds if fresh else 0.0
        self.ledger.tokens_generated += artifact.facts.get("tokens", 0)
        return artifact


@dataclass
class PolicyServices:
    """Generation and scoring with one model, loaded when first needed."""

    services: Services
    reference: str
    backend: Backend

    @cached_property
    def loaded(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        return self.services.context.load(self.reference)

    def respond(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Response]]:
        """`sampling.n` responses per prompt, drawn in blocks that double, so that 64 samples reuse the 32 already there."""
        answers: list[list[Response]] = [[] for _ in prompts]
        asked = text_hash([[asdict(message) for message in prompt.messages] for prompt in prompts])
        cuts = blocks(sampling.n) if sampling.temperature else [(0, 1)]
        for start, size in cuts:
            block = block_sampling(sampling, start, size)
            payload = {"model": self.reference, "prompts": asked, "sampling": asdict(block), "backend": describe(self.backend)}
            artifact = self.services.through_store("samples", payload, partial(self._draw, prompts=prompts, sampling=block))
            for answer, drawn in zip(answers, read_answers(artifact), strict=True):
                answer += drawn
        return [(answer * sampling.n if not sampling.temperature else answer)[: sampling.n] for answer in answers]

    def _draw(self, draft: Draft, prompts: Sequence[Prompt], sampling: Sampling) -> None:
        report = self.services.context.report
        responses = self.backend.generate(
            *self.loaded, prompts, sampling, report=lambda done, total: report(done, total, f"sampling {done:,} of {total:,}")
        )
        draft.write_lines("answers.jsonl", answer_rows(responses))
        draft.facts["tokens"] = sum(response.tokens or 0 for row in responses for response in row)

    def logps(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[Response]]) -> list[list[float]]:
        """Summed log-probabilities of responses, per prompt."""
        payload = {
            "model": self.reference,
            "prompts": text_hash([[asdict(message) for message in prompt.messages] for prompt in prompts]),
            "responses": text_hash([[[item.text, item.finished] for item in row] for row in responses]),
        }
        artifact = self.services.through_store("logps", payload, lambda draft: self._score(draft, prompts, responses))
        return list(artifact.read_lines("logps.jsonl"))

    def _score(self, draft: Draft, prompts: Sequence[Prompt], responses: Sequence[Sequence[Response]]) -> None:
        model, tokenizer = self.loaded
        template = ChatTemplate(tokenizer)
        rows = []
        for prompt, answers in zip(prompts, responses, strict=True):
            opening = tuple(template.prompt_ids(prompt))
            rows += [Row(opening, tuple(template.response_ids(answer))) for answer in answers]
        values = iter(score(model, rows))
        draft.write_lines("logps.jsonl", [[next(values) for _ in answers] for answers in responses])


@dataclass
class BuilderServices:
    """`BuildTask` for data builders."""

    services: Services
    examples: Sequence[Example]
    round: int
    rng: random.Random
    source: Source
    start: PolicyServices
    current: PolicyServices
    seed: int
    max_tokens: int
    dropped: dict[str, int] = field(default_factory=dict)

    def sample(
        self,
        n: int,
        *,
        prefix: str = "",
        temperature: float = 1.0,
        top_p: float = 1.0,
        policy: Literal["start", "current"] = "current",
    ) -> list[list[Response]]:
        prompts = [example.prompt.prefixed(prefix) if prefix else example.prompt for example in self.examples]
        # A request of its own has random numbers of its own: samples under two prefixes must not share theirs.
        seed = request_seed(self.seed, prefix) if prefix else self.seed
        sampling = Sampling(n, temperature, top_p, self.max_tokens, seed)
        return (self.start if policy == "start" else self.current).respond(prompts, sampling)

    def similarity(self, embedder: str, responses: Sequence[Sequence[Response]]) -> list[np.ndarray]:
        if embedder not in EMBEDDERS:
            raise ValueError(f"embedder {embedder!r}: known are {', '.join(EMBEDDERS)}")
        targets = [example.target or "" for example in self.examples]
        texts = [[response.text for response in row] for row in responses]
        payload = {
            "embedder": embedder,
            "model": self.start.reference if embedder == "hidden" else None,
            "prompts": text_hash([example.prompt.id for example in self.examples]) if embedder == "hidden" else None,
            "texts": text_hash([targets, texts]),
        }

        def make(draft: Draft) -> None:
            if embedder == "tfidf":
                values = tfidf_similarity(targets, texts)
            else:
                prompts = [example.prompt for example in self.examples]
                values = hidden_similarity(*self.start.loaded, prompts, targets, texts)
            draft.write_lines("similarity.jsonl", [[float(value) for value in row] for row in values])

        artifact = self.services.through_store("similarity", payload, make)
        return [np.asarray(row) for row in artifact.read_lines("similarity.jsonl")]

    def gold(self, responses: Sequence[Sequence[Response]]) -> list[list[float]]:
        return [
            [self.source.gold(example, response)["total"] for response in row]
            for example, row in zip(self.examples, responses, strict=True)
        ]

    def count(self, reason: str, examples: int = 1) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + examples
