"""Log-probabilities of a round's responses under its reference: once per unique sequence, kept for every objective."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from harness.api.interfaces import Objective
from harness.api.types import Prompt, Response
from harness.models.tokenization import ChatTemplate
from harness.run.graph import Stage
from harness.run.records import ReferenceFacts, ReferenceInputs, ReferencePayload
from harness.run.stages.context import Context, read_groups
from harness.run.stages.services import Services, response_key, text_hash
from harness.store import ArtifactDraft
from harness.training.batch import MISMATCHED, partners
from harness.training.layouts.choose import choose_layout
from harness.training.layouts.layout import Bundle, score_bundles

Answers = Sequence[Sequence[tuple[Prompt, Response]]]  # per prompt: the responses, each with the prompt that it answers
LOGPS = "logps.jsonl"


def run_reference(stage: Stage, context: Context, draft: ArtifactDraft) -> None:
    """One row per group: the chosen response's log-probability, then each rejected one's. Nats.

    The model is the one that the round starts from, in the precision and layout that the round trains in, without any adapter.
    Of the mismatched view, the responses are those of the group's partner. A view of an objective's own goes through the store
    by what it asks: only the prompt decides it, so that objectives which differ in λ or β, or in name, share it.
    """
    asked, inputs = ReferencePayload.of(stage), ReferenceInputs.of(stage)
    groups, view = read_groups(context.store.open(inputs.groups)), asked.view
    prompts = [group.prompt for group in groups]
    owners = partners(groups) if view == MISMATCHED else groups
    answers = [[(group.prompt, response) for response in (group.chosen, *group.rejected)] for group in owners]
    if asked.objective is None:
        _score(stage, context, draft, prompts, answers)
        return
    objective: Objective = context.component("objective", asked.objective)
    changed = [objective.views()[view](prompt) for prompt in prompts]
    payload = {
        "model": inputs.model,
        "prompts": text_hash([[asdict(message) for message in prompt.messages] for prompt in changed]),
        "responses": text_hash([[response_key(response) for _, response in row] for row in answers]),
        "precision": asked.precision,
        **({"layout": asked.layout} if asked.layout != "auto" else {}),
    }
    services = Services(context)
    shared = services.through_store("views", payload, lambda part: _score(stage, context, part, changed, answers))
    draft.write_lines(LOGPS, list(shared.read_lines(LOGPS)))
    # The view's artifact counts the tokens: counted here too, they would be paid twice.
    draft.facts |= ReferenceFacts(tokens_scored=0, **services.ledger.facts()).as_json()


def _score(stage: Stage, context: Context, draft: ArtifactDraft, prompts: Sequence[Prompt], answers: Answers) -> None:
    from harness.training.precision import autocast

    asked = ReferencePayload.of(stage)
    model, tokenizer = context.load(ReferenceInputs.of(stage).model, "training")
    template = ChatTemplate(tokenizer)
    bundles = [
        # A response keeps the ids of its own prompt, as in training: a view changes what comes before them, nothing else.
        Bundle(tuple(template.prompt_ids(prompt)), tuple(tuple(template.response_ids(*answer)) for answer in row))
        for prompt, row in zip(prompts, answers, strict=True)
    ]
    layout = choose_layout(model, asked.layout)
    with autocast(model, asked.precision):
        draft.write_lines(LOGPS, score_bundles(model, bundles, layout))
    draft.facts |= ReferenceFacts(tokens_scored=sum(row.tokens for bundle in bundles for row in bundle.rows())).as_json()
