"""Log-probabilities of a round's responses under its reference: once per unique sequence, kept for every objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from harness.api.interfaces import Objective
from harness.api.types import Prompt, Response
from harness.models.batched import Batched
from harness.models.tokenization import ChatTemplate
from harness.run.graph import Stage
from harness.run.records import ReferenceFacts, ReferenceInputs, ReferencePayload
from harness.run.stages.context import Context, read_groups
from harness.run.stages.parts import put_together
from harness.run.stages.services import Services, response_key, text_hash
from harness.store import ArtifactDraft
from harness.training.batch import MISMATCHED, partners
from harness.training.layouts.choose import choose_layout
from harness.training.layouts.layout import Bundle, ScoredBundles

if TYPE_CHECKING:
    import numpy as np

Answers = Sequence[Sequence[tuple[Prompt, Response]]]  # per prompt: the responses, each with the prompt that it answers
LOGPS = "logps.jsonl"


def run_reference(stage: Stage, context: Context, draft: ArtifactDraft) -> None:
    """One row per group: the chosen response's log-probability, then each rejected one's. Nats.

    The model is the one that the round starts from, in the precision and layout that the round trains in, without any adapter.
    Of the mismatched view, the responses are those of the group's partner. A view of an objective's own goes through the store
    by what it asks: only the prompt decides it, so that objectives which differ in λ or β, or in name, share it.
    """
    context = replace(context, shards=stage.after)
    request = _Request.of(stage, context)
    if request.view_payload is None:
        numbers = put_together(stage.key, request.responses, request.batched, context, draft)
        request.write(draft, numbers)
        return
    services = Services(context)
    shared = services.scored("views", request.view_payload, request.responses, request.batched, request.write)
    assert shared is not None
    draft.write_lines(LOGPS, list(shared.read_lines(LOGPS)))
    # The view's artifact counts the tokens: counted here too, they would be paid twice.
    draft.facts |= ReferenceFacts(tokens_scored=0, **services.ledger.facts()).as_json()


def ask_reference(stage: Stage, services: Services) -> None:
    """Compute a shard's part of a reference."""
    request = _Request.of(stage, services.context)
    key = stage.key if request.view_payload is None else services.key("views", request.view_payload)
    services.compute_part(key, request.batched)


@dataclass(frozen=True)
class _Request:
    """The responses that a reference stage scores.

    Attributes:
        view_payload: for a view of an objective's own, all that decides its numbers; None for the others.
    """

    asked: ReferencePayload
    model: str
    prompts: Sequence[Prompt]
    answers: Answers
    context: Context
    view_payload: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, stage: Stage, context: Context) -> _Request:
        """Read the groups of a stage."""
        asked, inputs = ReferencePayload.of(stage), ReferenceInputs.of(stage)
        groups, view = read_groups(context.store.open(inputs.groups)), asked.view
        prompts = [group.prompt for group in groups]
        owners = partners(groups) if view == MISMATCHED else groups
        answers = [[(group.prompt, response) for response in (group.chosen, *group.rejected)] for group in owners]
        if asked.objective is None:
            return cls(asked, inputs.model, prompts, answers, context)
        objective: Objective = context.component("objective", asked.objective)
        changed = [objective.views()[view](prompt) for prompt in prompts]
        payload = {
            "model": inputs.model,
            "prompts": text_hash([[asdict(message) for message in prompt.messages] for prompt in changed]),
            "responses": text_hash([[response_key(response) for _, response in row] for row in answers]),
            "precision": asked.precision,
            **({"layout": asked.layout} if asked.layout != "auto" else {}),
        }
        return cls(asked, inputs.model, changed, answers, context, payload)

    @property
    def responses(self) -> int:
        return sum(map(len, self.answers))

    def batched(self) -> Batched:
        """Load the model."""
        model = self.context.load_model(self.model, "training")
        scored = ScoredBundles(model, self._bundles, choose_layout(model, self.asked.layout))
        return _InPrecision(scored, self.asked.precision)

    def write(self, draft: ArtifactDraft, numbers: np.ndarray) -> None:
        """Write the log-probabilities, and count the tokens."""
        values = iter(numbers.tolist())
        draft.write_lines(LOGPS, [[next(values) for _ in row] for row in self.answers])
        tokens = sum(row.tokens for bundle in self._bundles for row in bundle.rows())
        draft.facts |= ReferenceFacts(tokens_scored=tokens).as_json()

    @cached_property
    def _bundles(self) -> list[Bundle]:
        template = ChatTemplate(self.context.load_tokenizer(self.model))
        return [
            # A response keeps the ids of its own prompt, as in training: a view changes what comes before them, nothing else.
            Bundle(tuple(template.prompt_ids(prompt)), tuple(tuple(template.response_ids(*answer)) for answer in row))
            for prompt, row in zip(self.prompts, self.answers, strict=True)
        ]


@dataclass(frozen=True)
class _InPrecision:
    """A `Batched` in the precision of the training."""

    scored: ScoredBundles
    precision: str

    def batches(self) -> list[list[int]]:
        return self.scored.batches()

    def compute(self, batch: Sequence[int]) -> np.ndarray:
        from harness.training.precision import autocast

        with autocast(self.scored.model, self.precision):
            return self.scored.compute(batch)
