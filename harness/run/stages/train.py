"""One round of one method: groups and reference in, a model out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.api.interfaces import Objective
from harness.errors import StageError
from harness.models.load import merged
from harness.models.prompts import ChatTemplate
from harness.run.graph import Stage
from harness.run.records import TrainFacts, TrainInputs, TrainPayload
from harness.run.stages.context import Context, read_groups, save_checkpoint
from harness.store import ArtifactDraft
from harness.training.batch import TokenGroup, tokenize
from harness.training.budget import spend
from harness.training.layouts.choose import choose_layout
from harness.training.ranks import Ranks
from harness.training.settings import Rounding, SftSettings, TrainingSettings

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from harness.training.checkpoints import Checkpoints


def run_train(stage: Stage, context: Context, draft: ArtifactDraft) -> None:
    """Train; the artifact holds the model, its history, and the budget that the training really used."""
    from harness.training.trainer import train

    payload, inputs = TrainPayload.of(stage), TrainInputs.of(stage)
    objective: Objective = context.component("objective", payload.objective)
    settings = TrainingSettings.model_validate(payload.settings)
    groups = read_groups(context.store.open(inputs.groups))
    start = Start(inputs.model, payload.seed, context, settings)
    policy, tokenizer = start.policy()
    tokenized = tokenize(groups, ChatTemplate(tokenizer), objective, ranked=not payload.unranked)
    tokenized = _trainable(_with_reference(tokenized, inputs, context), objective)
    ordered = spend(tokenized, payload.spending, settings.prompts_per_batch, payload.seed) if payload.spending else None
    checkpoints = checkpoints_of(stage, context)
    layout = choose_layout(policy, settings.layout)
    with context.scratch() as folder:
        trained = train(
            policy,
            ordered or tokenized,
            objective,
            settings,
            seed=payload.seed,
            scratch=folder,
            report=context.report,
            layout=layout,
            shuffle=ordered is None,
            checkpoints=checkpoints,
        )
    seen = ordered or tokenized * settings.epochs
    rounding = start.save(policy, tokenizer, draft)
    if not Ranks.here().first:
        return
    draft.write_lines("history.jsonl", trained.history)
    draft.earlier_seconds = checkpoints.earlier_seconds
    facts = TrainFacts(
        prompts=len({id(group) for group in seen}),
        pairs=sum(group.pairs for group in seen),
        updates=len(trained.history),
        tokens_trained=sum(group.tokens for group in seen),
        unpaired=len(groups) - len(tokenized),
        layout=layout.name,
        layout_warning=layout.warning,
        memory_warning=memory_warning(settings.tokens_per_micro_batch, trained.tokens),
        **({"rounding": rounding} if rounding else {}),
    )
    draft.facts |= facts.as_json()


def _trainable(groups: list[TokenGroup], objective: Objective) -> list[TokenGroup]:
    """The groups that the objective can train on.

    Raises:
        StageError: there is none.
    """
    kept = [group for group in groups if is_trainable(group.pairs, objective)]
    if groups and not kept:
        raise no_pair(len(groups), objective)
    return kept


def is_trainable(rejected: int, objective: Objective) -> bool:
    """Return whether the objective can train on a group with so many rejected responses."""
    return rejected > 0 or not objective.needs_rejected


def no_pair(groups: int, objective: Objective) -> StageError:
    """Return the error of a round none of whose groups can be trained on."""
    return StageError(
        f"none of {groups} groups has a rejected response, and {objective.name!r} compares with one: "
        "choose another data builder or objective"
    )


def checkpoints_of(stage: Stage, context: Context) -> Checkpoints:
    """Return the checkpoints from which a stage's training resumes."""
    from harness.training.checkpoints import Checkpoints

    return Checkpoints(context.store.partial(stage.key), context.checkpoint_minutes * 60)


@dataclass(frozen=True)
class Start:
    """The model that a training starts from.

    Attributes:
        model: a stage's key, or `checkpoint:<hash>`.
        seed: decides the initial weights of adapters.
    """

    model: str
    seed: int
    context: Context
    settings: TrainingSettings | SftSettings

    def policy(self) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
        """The model to train, with adapters where the settings ask for them, and its tokenizer."""
        from harness.training.adapters import add_adapters

        model, tokenizer = self.context.load(self.model, "training")
        lora = self.settings.lora
        return add_adapters(model, lora, self.seed) if lora else model, tokenizer

    def save(
        self, policy: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, draft: ArtifactDraft
    ) -> Rounding | None:
        """Write the whole model to `model`, adapters merged into it, and the adapters alone to `adapter`, where there are any.

        Weights are stored in float32, so that the smallest step is kept; in another type where `model.storage` names one.
        Weights are gathered from all processes of a training, so all of them must call this; the first one writes.

        Returns:
            What a smaller type loses; None for float32, and in all processes but the first.
        """
        from harness.training.sharding import whole_weights

        weights = whole_weights(policy)
        if not Ranks.here().first:
            return None
        if weights is not None:
            policy, _ = self.policy()
            policy.load_state_dict(weights)
        whole = self._merged(policy, draft.folder / "adapter") if hasattr(policy, "merge_and_unload") else policy
        storage, rounding = self.context.options(self.model).storage, None
        if storage != "float32":
            from harness.training.precision import round_weights

            start = self.context.load_model(self.model, "scoring").state_dict()
            rounding = round_weights(whole, start, storage)
        save_checkpoint(whole, tokenizer, draft.folder / "model")
        return rounding

    def _merged(self, policy: PeftModel, folder: Path) -> PreTrainedModel:
        """The whole model in float32, its adapters saved in a folder first; they are merged into no weights of fewer digits."""
        from harness.training.adapters import merge_into, save_adapters

        save_adapters(policy, folder, self.model)
        options = self.context.options(self.model)
        if not options.rounds:
            return merged(policy)
        if options.quantization is None:
            policy.to("cpu")  # makes room: a float32 copy of the whole model comes next
        return merge_into(self.context.load_model(self.model, "scoring"), folder)


def memory_warning(asked: int, used: int) -> str:
    """Return the board's warning where memory ran out; empty where it did not."""
    if used == asked:
        return ""
    return (
        f"memory ran out, so micro-batches were cut to {used} tokens instead of training.tokens_per_micro_batch = {asked}; "
        "loss and gradient are the same"
    )


def _with_reference(groups: list[TokenGroup], inputs: TrainInputs, context: Context) -> list[TokenGroup]:
    """Return the groups with the log-probabilities of every stored reference view."""
    stored = {
        view: [tuple(row) for row in context.store.open(key).read_lines("logps.jsonl")]
        for view, key in inputs.references.items()
    }
    return [
        replace(group, reference={view: rows[index] for view, rows in stored.items()}) for index, group in enumerate(groups)
    ]
