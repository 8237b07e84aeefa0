"""A data builder's round: prompts in, groups out."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from harness.api.interfaces import DataBuilder, Source
from harness.api.types import Dataset, Example, Group, JudgeAnswer, Judgment, Message, Prompt, Response, Sampling
from harness.errors import StageError
from harness.models.embed import MeanStates, hidden_rows, known_embedder, state_cosines, tfidf_similarity
from harness.models.judge.judge import Judge
from harness.models.reward import Reward
from harness.models.sentence import EmbeddedTexts, SentenceEmbedder, different_texts, text_cosines
from harness.models.tokenization import ChatTemplate
from harness.run.graph import Stage
from harness.run.records import Description, GroupsFacts, GroupsInputs, GroupsPayload, ResponseCounts
from harness.run.stages.context import Context, StageProgress, read_dataset
from harness.run.stages.parts import unknown
from harness.run.stages.services import (
    PolicyServices,
    Services,
    judge_facts,
    request_seed,
    reward_values,
    stage_judge,
    text_hash,
)
from harness.store import Artifact, ArtifactDraft


def run_groups(stage: Stage, context: Context, draft: ArtifactDraft) -> None:
    """Build a round's groups; the facts count them, and the prompts that gave none by reason."""
    payload = GroupsPayload.of(stage)
    builder: DataBuilder = context.component("data", payload.builder)
    expected = (builder.responses_per_prompt() or 0) * (payload.examples[1] - payload.examples[0])
    context = replace(context, report=StageProgress(context.report, expected), shards=stage.after)
    services, judge = Services(context), stage_judge(payload, context)
    task = _task(stage, builder, services)
    task.asked = judge
    groups = list(builder.build(task))
    if not groups:
        raise no_group(builder, len(task.examples), task.dropped)
    draft.write_lines("groups.jsonl", [asdict(group) for group in groups])
    facts = GroupsFacts(
        prompts=len(task.examples),
        groups=len(groups),
        pairs=sum(len(group.rejected) for group in groups),
        dropped=task.dropped,
        responses=count_responses(groups, task.examples, lambda: ChatTemplate(task.start.tokenizer)),
        means=_means(groups),
        **services.ledger.facts(),
        **({"judge": judge_facts(payload, judge)} if judge else {}),
    )
    draft.facts |= facts.as_json()


def ask_groups(stage: Stage, services: Services) -> None:
    """Compute a shard's part of what a data builder asks for before it looks at a number."""
    builder: DataBuilder = services.context.component("data", GroupsPayload.of(stage).builder)
    for _ in builder.build(_task(stage, builder, services)):
        pass


def _task(stage: Stage, builder: DataBuilder, services: Services) -> BuilderServices:
    """Return the task of a round, without a judge."""
    payload, inputs, context = GroupsPayload.of(stage), GroupsInputs.of(stage), services.context
    services = replace(services, scoring_layout=payload.scoring_layout)
    source, backend = context.store.open(inputs.source), context.component("backend", payload.backend)
    return BuilderServices(
        services=services,
        examples=round_examples(payload.examples, read_dataset(source)),
        round=payload.round,
        rng=round_rng(payload, builder),
        source=read_source(source, context),
        start=PolicyServices(services, inputs.start, backend),
        current=PolicyServices(services, inputs.policy, backend),
        seed=payload.seed,
        max_tokens=payload.max_tokens,
    )


def sample_request(
    seed: int, max_tokens: int, n: int, *, prefix: str = "", temperature: float = 1.0, top_p: float = 1.0
) -> Sampling:
    """Return how the samples of `BuildTask.sample` are drawn.

    Args:
        seed: of the round's row.
    """
    # A request of its own has random numbers of its own: samples under two prefixes must not share theirs.
    return Sampling(n, temperature, top_p, max_tokens, request_seed(seed, prefix) if prefix else seed)


def round_examples(places: Sequence[int], dataset: Dataset) -> Sequence[Example]:
    """Return a round's share of the budget: training prompts in the source's order.

    Args:
        places: [first, last) of the training prompts.

    Raises:
        StageError: the source has fewer.
    """
    first, last = places
    examples = dataset["train"]
    if len(examples) < last:
        raise StageError(
            f"budget.prompts asks for {last} training prompts and the source has {len(examples)}: lower it, or load more"
        )
    return examples[first:last]


def round_rng(payload: GroupsPayload, builder: DataBuilder) -> random.Random:
    """Return the random numbers that a round's builder draws from."""
    return random.Random(f"groups {payload.seed} {payload.round} {builder.name}")


def no_group(builder: DataBuilder, prompts: int, dropped: Mapping[str, int]) -> StageError:
    """Return the error of a round whose builder made no group."""
    reasons = ", ".join(f"{reason}: {count}" for reason, count in dropped.items()) or "no reason counted"
    return StageError(f"data builder {builder.name!r} made no group from {prompts} prompts ({reasons})")


def read_source(artifact: Artifact, context: Context) -> Source:
    """Return the source component that loaded an artifact's rows."""
    source: Source = context.component("source", Description(**artifact.read_json("source.json")))
    return source


def count_responses(
    groups: Sequence[Group], examples: Sequence[Example], template: Callable[[], ChatTemplate]
) -> ResponseCounts:
    """Count where the ids of the groups' responses come from.

    `as_sampled`: the ids that a policy sampled. `tokenized_again`: a policy's text, or one that a builder wrote or edited.
    `from_dataset`: a text of the source. The template is made only where a response has ids.
    """
    known = {example.prompt.id: {example.target, *example.ranked} for example in examples}
    counts = {"as_sampled": 0, "tokenized_again": 0, "from_dataset": 0}
    reader: ChatTemplate | None = None
    for group in groups:
        for response in (group.chosen, *group.rejected):
            if response.ids is not None:
                reader = reader or template()
                counts["as_sampled" if reader.is_as_sampled(response) else "tokenized_again"] += 1
            else:
                given = response.tokens is None and response.text in known.get(group.prompt.id, ())
                counts["from_dataset" if given else "tokenized_again"] += 1
    return ResponseCounts(**counts)


def _means(groups: Sequence[Group]) -> dict[str, float]:
    """Return the mean of every number that the builder noted, over the groups that have it."""
    values: dict[str, list[float]] = {}
    for group in groups:
        for name, value in group.info.items():
            values.setdefault(name, []).append(value)
    return {name: sum(listed) / len(listed) for name, listed in sorted(values.items())}


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
    asked: Judge | None = None
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
        sampling = sample_request(self.seed, self.max_tokens, n, prefix=prefix, temperature=temperature, top_p=top_p)
        return self._policy(policy).respond(self._prompts(prefix), sampling)

    def respond(
        self,
        prompts: Sequence[Prompt],
        n: int = 1,
        *,
        temperature: float = 1.0,
        top_p: float = 1.0,
        max_tokens: int | None = None,
        policy: Literal["start", "current"] = "current",
    ) -> list[list[Response]]:
        sampling = Sampling(n, temperature, top_p, max_tokens or self.max_tokens, request_seed(self.seed, "respond"))
        return self._policy(policy).respond(prompts, sampling)

    def logps(
        self, responses: Sequence[Sequence[Response]], *, prefix: str = "", policy: Literal["start", "current"] = "current"
    ) -> list[list[float]]:
        return self._policy(policy).logps(self._prompts(prefix), responses)

    def similarity(self, embedder: str | SentenceEmbedder, responses: Sequence[Sequence[Response]]) -> list[np.ndarray]:
        known_embedder(embedder)
        sentence, on_gpu = not isinstance(embedder, str), self.services.context.environment.get("device") == "cuda"
        targets = [example.target or "" for example in self.examples]
        texts = [[response.text for response in row] for row in responses]
        payload = {
            "embedder": embedder if isinstance(embedder, str) else embedder.key(),
            "model": self.start.reference if embedder == "hidden" else None,
            "prompts": text_hash([example.prompt.id for example in self.examples]) if embedder == "hidden" else None,
            "texts": text_hash([targets, texts]),
            **(self.start.rounding if embedder == "hidden" else {}),
            **({"products": "bfloat16"} if sentence and on_gpu else {}),
        }

        def make(draft: ArtifactDraft, values: Sequence[np.ndarray]) -> None:
            draft.write_lines("similarity.jsonl", [[float(value) for value in row] for row in values])

        artifact: Artifact | None
        if not isinstance(embedder, str):
            embedded = different_texts(targets, texts)
            artifact = self.services.scored(
                "similarity",
                payload,
                len(embedded),
                lambda: EmbeddedTexts(embedder, embedded),
                lambda draft, vectors: make(draft, text_cosines(vectors, embedded, targets, texts)),
            )
        elif embedder == "tfidf":  # in no parts: a word's weight depends on all texts
            self.services.only_whole()
            artifact = self.services.through_store(
                "similarity", payload, lambda draft: make(draft, tfidf_similarity(targets, texts))
            )
        else:
            artifact = self.services.scored(
                "similarity",
                payload,
                sum(1 + len(row) for row in texts),
                lambda: self._mean_states(targets, texts),
                lambda draft, states: make(draft, state_cosines(states, texts)),
            )
        if artifact is None:
            return [np.array(row, dtype=object) for row in unknown(texts)]
        return [np.asarray(row) for row in artifact.read_lines("similarity.jsonl")]

    def _mean_states(self, targets: Sequence[str], texts: Sequence[Sequence[str]]) -> MeanStates:
        model, tokenizer = self.start.loaded
        return MeanStates(model, hidden_rows(tokenizer, [example.prompt for example in self.examples], targets, texts))

    def reward(self, model: Reward, responses: Sequence[Sequence[Response]]) -> list[list[float]]:
        return reward_values(model, self.services, self.asked, self.examples, responses)

    def gold(self, responses: Sequence[Sequence[Response]]) -> list[list[float]]:
        return [
            [self.source.gold(example, response)["total"] for response in row]
            for example, row in zip(self.examples, responses, strict=True)
        ]

    def judge(
        self, conversations: Sequence[Sequence[Message]], parse: Callable[[JudgeAnswer], Any], **parameters: Any
    ) -> list[Judgment]:
        self.services.only_whole()
        if self.asked is None:
            raise StageError("this data builder asks a judge and does not say so: set `judged = True` in its class")
        return self.asked.judge(conversations, parse, parameters)

    def _policy(self, policy: Literal["start", "current"]) -> PolicyServices:
        return self.start if policy == "start" else self.current

    def _prompts(self, prefix: str) -> list[Prompt]:
        return [example.prompt.prefixed(prefix) if prefix else example.prompt for example in self.examples]

    def count(self, reason: str, examples: int = 1) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + examples
