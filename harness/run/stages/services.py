"""Services of data builders and evaluators. What they compute goes through the store under its content, so that whoever asks
for the same samples, similarities or log-probabilities again finds them.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pydantic import JsonValue

from harness.api.interfaces import Backend, Chunks, ResumableGenerate
from harness.api.types import Example, Prompt, Response, Sampling
from harness.config import describe
from harness.errors import StageError
from harness.models.batched import Batched
from harness.models.generate import block_sampling, blocks
from harness.models.judge.judge import Judge
from harness.models.judge.settings import judge_of
from harness.models.logps import ScoredRows
from harness.models.options import LoadOptions, ScoringLayout, Use
from harness.models.reward import JudgeReward, Reward, RewardedDialogues, RewardModel, RewardScorer, read_rewards
from harness.models.served import ASKED_AS
from harness.models.tokenization import ChatTemplate
from harness.models.verifier import Verifier
from harness.run.graph import CHECKPOINT, SERVED
from harness.run.records import EvaluatePayload, JudgedPayload, JudgeFacts, RewardFacts, SampleFacts, ShardFacts
from harness.run.stages.chunks import KeptChunks
from harness.run.stages.context import Context, answer_rows, read_answers
from harness.run.stages.parts import BatchShare, ShardEndsError, compute_part, put_together, unknown
from harness.store import Artifact, ArtifactDraft, canonical, key_of
from harness.training.layouts.layout import Bundle
from harness.training.layouts.scores import SharedScores

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


# As `harness.run.graph.VERSIONS`, of what services make.
VERSIONS = {"samples": 2, "logps": 2, "similarity": 2, "rewards": 1, "views": 2, "parts": 1}


def text_hash(value: Any) -> str:
    """A hash of any JSON value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()[:32]


def response_key(response: Response) -> list[Any]:
    """The part of a response that decides its log-probability under a policy."""
    return [response.text, response.finished, *([list(response.ids)] if response.ids is not None else [])]


def request_seed(seed: int, request: str) -> int:
    """A seed that differs with the request."""
    return int(text_hash([seed, request])[:12], 16)


@dataclass
class Ledger:
    """The artifacts that a stage used beside its inputs, and their cost, as `records.Facts` explains it."""

    used: list[str] = field(default_factory=list)
    made_seconds: float = 0.0
    charged_seconds: float = 0.0
    tokens_generated: int = 0

    def facts(self) -> dict[str, JsonValue]:
        """Return the facts for the stage's artifact."""
        return {
            "used": [*sorted(set(self.used))],
            "made_seconds": self.made_seconds,
            "charged_seconds": self.charged_seconds,
            "tokens_generated": self.tokens_generated,
        }


@dataclass
class Services:
    """Content-addressed work on behalf of one stage.

    Attributes:
        share: of a shard, what it computes of each request; None of a whole stage.
        parts: of a shard, key of a request -> key of the artifact with its part.
        failures: of a shard, why a part could not be computed.
        scoring_layout: of `JudgedPayload`.
    """

    context: Context
    ledger: Ledger = field(default_factory=Ledger)
    share: BatchShare | None = None
    parts: dict[str, str] = field(default_factory=dict)
    failures: list[Exception] = field(default_factory=list)
    scoring_layout: ScoringLayout = "padded"

    def through_store(self, kind: str, payload: Mapping[str, Any], make: Callable[[ArtifactDraft], None]) -> Artifact:
        """Return the artifact that `payload` decides; make it unless the store holds it."""
        store, key, earlier = self.context.store, self.key(kind, payload), 0.0
        # Whoever makes it may need the engine's turn, so an engine must not wait with us (`plugins/backends/launch.py`).
        with store.claim(key, self.context.engine.stop):
            fresh = not store.holds(key)
            if fresh:
                with store.draft(kind, key) as draft:
                    make(draft)
                earlier = draft.earlier_seconds
        artifact = store.open(key)
        self.ledger.used.append(key)
        self.ledger.charged_seconds += artifact.seconds
        self.ledger.made_seconds += artifact.seconds - earlier if fresh else 0.0
        self.ledger.tokens_generated += SampleFacts.of(artifact).tokens
        return artifact

    def scored(
        self,
        kind: str,
        payload: Mapping[str, Any],
        rows: int,
        batched: Callable[[], Batched],
        make: Callable[[ArtifactDraft, np.ndarray], None],
    ) -> Artifact | None:
        """Return the artifact that `payload` decides, made from numbers that a model computes batch by batch.

        Args:
            rows: how many there are.
            batched: loads the model; called where a batch is to be computed.
            make: writes the artifact from the numbers, [rows] or [rows, width].

        Returns:
            None in a shard, which computes its part alone.
        """
        key = self.key(kind, payload)
        if self.share is not None:
            self.compute_part(key, batched)
            return None
        together = partial(put_together, key, rows, batched, self.context)
        return self.through_store(kind, payload, lambda draft: make(draft, together(draft)))

    def compute_part(self, key: str, batched: Callable[[], Batched]) -> None:
        """Compute a shard's part of a request, unless the whole is there.

        Args:
            key: of the request.
        """
        assert self.share is not None
        if self.context.store.holds(key):
            return
        # Each request begins with another shard: one of few batches has none for some.
        share = BatchShare((self.share.number + int(key[:8], 16)) % self.share.count, self.share.count)
        make = partial(compute_part, share=share, context=self.context)
        try:
            part = self.through_store("parts", {"of": key, **asdict(share)}, lambda draft: make(batched(), draft=draft))
        except Exception as error:
            self.failures.append(error)
            raise
        self.parts[key] = part.key

    def only_whole(self) -> None:
        """Mark what no shard does.

        Raises:
            ShardEndsError: this is a shard.
        """
        if self.share is not None:
            raise ShardEndsError("a shard does no more than score and embed")

    def key(self, kind: str, payload: Mapping[str, Any]) -> str:
        """Return the store key of the artifact that `payload` decides."""
        return key_of(kind, VERSIONS[kind], payload, {}, self.context.environment)


def policy_name(reference: str) -> str:
    """Return a model's name for backends: `policy-` (`served-` if a server has it) and the first digits of its key or hash."""
    kind = "served" if reference.startswith(SERVED) else "policy"
    return f"{kind}-{reference.removeprefix(CHECKPOINT).removeprefix(SERVED)[:16]}"


def reward_service(
    services: Services, model: RewardModel, prompts: Sequence[Prompt], responses: Sequence[Sequence[Response]]
) -> list[list[float]]:
    """Return a reward model's values, through the store."""
    payload = {
        "reward": {**model.model_dump(mode="json", exclude={"model", "revision"}), "weights": model.weights},
        "prompts": text_hash([[asdict(message) for message in prompt.messages] for prompt in prompts]),
        "responses": text_hash([[[item.text, item.finished] for item in row] for row in responses]),
    }

    def make(draft: ArtifactDraft, numbers: np.ndarray) -> None:
        values, cut = read_rewards(numbers, responses)
        draft.write_lines("rewards.jsonl", values)
        draft.facts |= RewardFacts(truncated=cut).as_json()

    def batched() -> Batched:
        return RewardedDialogues(RewardScorer(model), prompts, responses)

    artifact = services.scored("rewards", payload, sum(map(len, responses)), batched, make)
    return unknown(responses) if artifact is None else list(artifact.read_lines("rewards.jsonl"))


def reward_values(
    reward: Reward,
    services: Services,
    judge: Judge | None,
    examples: Sequence[Example],
    responses: Sequence[Sequence[Response]],
) -> list[list[float]]:
    """Return the values of any reward, [examples][responses]; NaN where there is none.

    Args:
        judge: the stage's judge; needed by a `JudgeReward` alone.
    """
    if isinstance(reward, RewardModel):
        return reward_service(services, reward, [example.prompt for example in examples], responses)
    services.only_whole()
    if isinstance(reward, Verifier):
        return reward.rewards(examples, responses)
    prompts = [example.prompt for example, row in zip(examples, responses, strict=True) for _ in row]
    values = iter(judge_values(reward, judge, prompts, [item for row in responses for item in row]))
    return [[next(values) for _ in row] for row in responses]


def judge_values(
    reward: JudgeReward, judge: Judge | None, prompts: Sequence[Prompt], responses: Sequence[Response]
) -> list[float]:
    """Return the judge's rating of each response, [N]; NaN where its answer could not be read."""
    if judge is None:
        raise StageError("this component's reward asks a judge and does not say so: its `asks_judge` should return True")
    asked = [reward.conversation(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
    return [math.nan if judgment.value is None else judgment.value for judgment in judge.judge(asked, reward.read, {})]


@dataclass
class PolicyServices:
    """Generation and scoring with one model, loaded when first needed. A `Policy` for backends.

    Where the two take weights of different types, as on a GPU, those that were needed last are in memory.
    """

    services: Services
    reference: str
    backend: Backend
    _loaded: tuple[Use, PreTrainedModel] | None = field(default=None, init=False, repr=False)

    @property
    def model(self) -> PreTrainedModel:
        return self._in_memory("generation")

    @property
    def scorer(self) -> PreTrainedModel:
        """The model with float32 weights, for every number but generated text."""
        return self._in_memory("scoring")

    def _in_memory(self, use: Use) -> PreTrainedModel:
        """The model as it is loaded for a use; it takes the place of one with weights of another type."""
        options = self._options
        same = (
            use == "generation" and not options.rounds and self.services.context.weights_dtype(self.reference, use) == "float32"
        )
        use = "scoring" if same else use
        if self._loaded is None or self._loaded[0] != use:
            self._loaded = None  # first, so that the two never take memory side by side
            self._loaded = use, self.services.context.load_model(self.reference, use)
        return self._loaded[1]

    @cached_property
    def _options(self) -> LoadOptions:
        return self.services.context.options(self.reference)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        return self.services.context.load_tokenizer(self.reference)

    @cached_property
    def stop_ids(self) -> tuple[int, ...]:
        return ChatTemplate(self.tokenizer).stop_ids(self.services.context.generation_eos(self.reference))

    @property
    def loaded(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The scorer and the tokenizer."""
        return self.scorer, self.tokenizer

    @property
    def rounding(self) -> dict[str, str]:
        """Return the key's marker where scoring once used rounded products: `float32`, the type of now."""
        return {"scoring": "float32"} if self._options.rounds else {}

    @property
    def folder(self) -> Path:
        return self.services.context.whole_folder(self.reference)

    @property
    def name(self) -> str:
        return policy_name(self.reference)

    @property
    def logs(self) -> Path:
        folder = self.services.context.store.root / "engines"
        folder.mkdir(exist_ok=True)
        return folder

    def secret(self, variable: str) -> str:
        value = self.services.context.secret(variable)
        if not value:
            raise StageError(f"the environment variable {variable} is not set: generation.backend asks for it; export it first")
        return value

    def draw(
        self,
        draft: ArtifactDraft,
        folder: Path,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        noun: str,
        part: tuple[int, int] | None = None,
    ) -> int:
        """Fresh responses into a draft, and how many tokens they have; `respond` goes through the store.

        Args:
            folder: outlives this process: what an earlier one kept there is not drawn again.
            noun: what one is called in reports.
            part: of a larger request: how many responses came before these, and how many there are in all.
        """
        context = self.services.context
        chunks = self._chunks(folder, prompts, sampling)
        of_shards, seconds = read_shards(context, self._samples_key(prompts, sampling))
        chunks.know(of_shards)
        before, whole = part or (0, len(prompts) * sampling.n)

        def report(done: int, total: int) -> None:
            context.report(before + done, whole, f"{noun} {before + done:,} of {whole:,}")

        if chunks.responses:
            report(len(chunks.responses) * sampling.n, len(prompts) * sampling.n)
        responses = self._rest(prompts, sampling, report, chunks)
        draft.write_lines("answers.jsonl", answer_rows(responses))
        draft.earlier_seconds = chunks.earlier_seconds + seconds
        return count_tokens(responses)

    def draw_shard(
        self, draft: ArtifactDraft, folder: Path, prompts: Sequence[Prompt], sampling: Sampling, number: int, count: int
    ) -> ShardFacts:
        """Every `count`-th batch of a request's responses into a draft, from batch `number` on, for `draw` to put together.

        Args:
            folder: as of `draw`.
        """
        context, began = self.services.context, time.monotonic()
        key = self._samples_key(prompts, sampling)
        wanted = sorted(place for batch in self._generator.batches(self, prompts, sampling)[number::count] for place in batch)
        if context.store.holds(key) or not wanted:
            return ShardFacts()
        chunks, others = self._chunks(folder / key, prompts, sampling), set(range(len(prompts))) - set(wanted)
        chunks.know(dict.fromkeys(others, [Response("", finished=False)] * sampling.n))  # are another shard's

        def report(done: int, total: int) -> None:
            done, total = done - len(others) * sampling.n, total - len(others) * sampling.n
            context.report(done, total, f"sample {done:,} of {total:,}")

        responses = self._rest(prompts, sampling, report, chunks)
        rows = answer_rows([responses[place] for place in wanted])
        draft.write_lines(f"{key}.jsonl", [list(row) for row in zip(wanted, rows, strict=True)])
        draft.earlier_seconds += chunks.earlier_seconds
        seconds = chunks.earlier_seconds + time.monotonic() - began
        return ShardFacts(drawn={key: seconds}, tokens_generated=count_tokens(responses))

    def _chunks(self, folder: Path, prompts: Sequence[Prompt], sampling: Sampling) -> KeptChunks:
        context = self.services.context
        chunks = KeptChunks.of(folder, prompts, sampling, context.checkpoint_minutes * 60, context.ends_at)
        chunks.show = lambda place, response: context.live.sample(prompts[place].messages[-1].content, response.text)
        return chunks

    def _rest(
        self, prompts: Sequence[Prompt], sampling: Sampling, report: Callable[[int, int], None], chunks: KeptChunks
    ) -> list[list[Response]]:
        """Return all responses, those that the chunks lack fresh; no engine starts where they lack none."""
        if len(chunks.responses) == len(prompts):
            return [chunks.responses[place] for place in range(len(prompts))]
        with chunks.kept_on_failure():
            return self._generate(prompts, sampling, report, chunks)

    def _samples_payload(self, prompts: Sequence[Prompt], sampling: Sampling) -> Mapping[str, Any]:
        asked = text_hash([[asdict(message) for message in prompt.messages] for prompt in prompts])
        return {"model": self.reference, "prompts": asked, "sampling": asdict(sampling), "backend": self._generator_key}

    def _samples_key(self, prompts: Sequence[Prompt], sampling: Sampling) -> str:
        """Return the key that these responses have as samples."""
        return self.services.key("samples", self._samples_payload(prompts, sampling))

    def _generate(
        self, prompts: Sequence[Prompt], sampling: Sampling, report: Callable[[int, int], None], chunks: Chunks
    ) -> list[list[Response]]:
        self.services.only_whole()
        backend, gpus = self._generator, self.services.context.gpus
        if gpus and not self.is_served and backend.gpus() > len(gpus):
            raise StageError(
                f"the backend {backend.name} spans {backend.gpus()} GPUs, and this stage has {len(gpus)} ({', '.join(gpus)}): "
                "let it span fewer, or give the run more"
            )
        engine = self.services.context.engine.use(self.name, lambda: backend.session(self))
        if backend.resumes:
            return cast(ResumableGenerate, engine)(prompts, sampling, report, chunks)
        return engine(prompts, sampling, report)

    @property
    def is_served(self) -> bool:
        """Whether only a server has the model: it answers, and everything else raises UnavailableError."""
        return self.reference.startswith(SERVED)

    @cached_property
    def _generator(self) -> Backend:
        served = self.services.context.served(self.reference)
        return self.backend if served is None else self.services.context.asking(served)

    @cached_property
    def _generator_key(self) -> Mapping[str, Any]:
        """Return the description of what generates; a server's address is part of the reference, if it is part of any key."""
        if not self.is_served:
            return describe(self.backend)
        return {"name": self._generator.name, "version": self._generator.version, "fields": ASKED_AS}

    def respond(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[Response]]:
        """`sampling.n` responses per prompt, drawn in blocks that double, so that 64 samples reuse the 32 already there."""
        answers: list[list[Response]] = [[] for _ in prompts]
        cuts = sample_blocks(sampling)
        whole, report = len(prompts) * sum(size for _, size in cuts), self.services.context.report
        report(0, whole, f"sample 0 of {whole:,}")
        for start, size in cuts:
            block = block_sampling(sampling, start, size)
            part = (len(prompts) * start, whole)
            payload = self._samples_payload(prompts, block)
            artifact = self.services.through_store("samples", payload, partial(self._sample, payload, prompts, block, part))
            done = len(prompts) * (start + size)
            report(done, whole, f"sample {done:,} of {whole:,}")  # a block that was in the store reports nothing itself
            for answer, drawn in zip(answers, read_answers(artifact), strict=True):
                answer += drawn
        return [(answer * sampling.n if not sampling.temperature else answer)[: sampling.n] for answer in answers]

    def _sample(
        self,
        payload: Mapping[str, Any],
        prompts: Sequence[Prompt],
        sampling: Sampling,
        part: tuple[int, int],
        draft: ArtifactDraft,
    ) -> None:
        folder = self.services.context.store.partial(self.services.key("samples", payload))
        draft.facts |= SampleFacts(tokens=self.draw(draft, folder, prompts, sampling, "sample", part)).as_json()

    def logps(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[Response]]) -> list[list[float]]:
        """Summed log-probabilities of responses, per prompt; of the weights that training left, with products in float32."""
        layout = self.services.scoring_layout
        payload = {
            "model": self.reference,
            **self.rounding,
            **({"layout": layout} if layout != "padded" else {}),
            "prompts": text_hash([[asdict(message) for message in prompt.messages] for prompt in prompts]),
            "responses": text_hash([[response_key(item) for item in row] for row in responses]),
        }

        def make(draft: ArtifactDraft, numbers: np.ndarray) -> None:
            values = iter(numbers.tolist())
            draft.write_lines("logps.jsonl", [[next(values) for _ in answers] for answers in responses])

        batched = partial(self._scored_rows, prompts, responses)
        artifact = self.services.scored("logps", payload, sum(map(len, responses)), batched, make)
        return unknown(responses) if artifact is None else list(artifact.read_lines("logps.jsonl"))

    def _scored_rows(self, prompts: Sequence[Prompt], responses: Sequence[Sequence[Response]]) -> Batched:
        model, tokenizer = self.loaded
        template = ChatTemplate(tokenizer)
        bundles = [
            Bundle(
                tuple(template.prompt_ids(prompt)), tuple(tuple(template.response_ids(prompt, answer)) for answer in answers)
            )
            for prompt, answers in zip(prompts, responses, strict=True)
        ]
        if self.services.scoring_layout == "shared_prefix":
            return SharedScores(model, bundles)
        return ScoredRows(model, [row for bundle in bundles for row in bundle.rows()])


def sample_blocks(sampling: Sampling) -> list[tuple[int, int]]:
    """Return (start, size) of the blocks in which samples are drawn; one answer is all that greedy decoding gives."""
    return blocks(sampling.n) if sampling.temperature else [(0, 1)]


def count_tokens(responses: Sequence[Sequence[Response]]) -> int:
    """Count the tokens of responses."""
    return sum(response.tokens or 0 for row in responses for response in row)


def read_shards(context: Context, key: str) -> tuple[dict[int, list[Response]], float]:
    """Return the responses that the stage's shards drew for a request, by the place of their prompt, and the seconds it took.

    Args:
        key: of the request's samples.
    """
    responses, seconds = dict[int, list[Response]](), 0.0
    for shard in context.shards:
        if not context.store.holds(shard):
            continue  # it failed: its part is drawn here
        artifact = context.store.open(shard)
        drawn = ShardFacts.of(artifact).drawn
        if key in drawn:
            seconds += drawn[key]
            rows = artifact.read_lines(f"{key}.jsonl")
            responses |= {place: [Response(*fields) for fields in row] for place, row in rows}
    return responses, seconds


def stage_judge(payload: JudgedPayload, context: Context) -> Judge | None:
    """Return the judge that was planned; None where none was.

    Raises:
        StageError: the settings at hand are of another judge than the one planned.
    """
    if payload.judge is None:
        return None
    settings = judge_of(context.judges, payload.as_json())
    if settings.identity != payload.judge:
        raise StageError(f"the judge changed from {payload.judge} to {settings.identity}: plan again")
    if settings.reading != payload.reading:
        raise StageError(f"judges' answers are read by {settings.reading} and not by {payload.reading}: plan again")
    # Only evaluations are planned with repeats: a data builder's verdicts are no measurement.
    planned = payload.repeats if isinstance(payload, EvaluatePayload) else None
    if planned is not None and settings.repeating != planned:
        raise StageError(f"questions are asked again as {settings.repeating} and not as {planned}: plan again")
    key = context.secret(settings.api_key_env) if settings.api_key_env else None
    return Judge(settings, context.store, context.run, key, context.report, repeats=planned is not None)


def judge_facts(payload: JudgedPayload, judge: Judge) -> JudgeFacts:
    """Return the judge of a stage and its cost, for the artifact."""
    return JudgeFacts.model_validate({**(payload.judge or {}), **judge.tally.facts()})
