"""One round of one method: groups and reference in, a model out."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from harness.api.interfaces import Objective
from harness.errors import StageError
from harness.models.load import merged
from harness.models.prompts import ChatTemplate
from harness.run.graph import Stage
from harness.run.stages.context import Context, read_groups, save_checkpoint
from harness.store import ArtifactDraft
from harness.training.batch import TokenGroup, tokenize
from harness.training.budget import Spending, spend
from harness.training.layouts.choose import choose_layout
from harness.training.ranks import Ranks
from harness.training.settings import SftSettings, TrainingSettings

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from harness.training.checkpoints import Checkpoints

REFERENCE = "reference:"


def run_train(stage: Stage, context: Context, draft: ArtifactDraft) -> None:
    """Train; the artifact is the model, its history, and what the training really used."""
    from harness.training.trainer import train

    objective: Objective = context.component("objective", stage.payload["objective"])
    settings = TrainingSettings(**stage.payload["settings"])
    groups = read_groups(context.store.open(stage.inputs["groups"]))
    start = Start(stage, context, settings)
    policy, tokenizer = start.policy()
    ranked = not stage.payload.get("unranked", False)
    tokenized = _with_reference(tokenize(groups, ChatTemplate(tokenizer), objective, ranked=ranked), stage, context)
    tokenized = _trainable(tokenized, objective)
    seed, spending = stage.payload["seed"], stage.payload.get("spending")
    ordered = spend(tokenized, Spending(**spending), settings.prompts_per_batch, seed) if spending else None
    checkpoints = checkpoints_of(stage, context)
    layout = choose_layout(policy, settings.layout)
    with context.scratch() as folder:
        trained = train(
            policy,
            ordered or tokenized,
            objective,
            settings,
            seed=seed,
            scratch=folder,
            report=context.report,
            layout=layout,
            shuffle=ordered is None,
            checkpoints=checkpoints,
        )
    seen = ordered or tokenized * settings.epochs
    start.save(policy, tokenizer, draft)
    if not Ranks.here().first:
        return
    draft.write_lines("history.jsonl", trained.history)
    draft.earlier_seconds = checkpoints.earlier_seconds
    draft.facts.update(
        {
            "prompts": len({id(group) for group in seen}),
            "pairs": sum(group.pairs for group in seen),
            "updates": len(trained.history),
            "tokens_trained": sum(group.tokens for group in seen),
            "unpaired": len(groups) - len(tokenized),
            "layout": layout.name,
            "layout_warning": layout.warning,
            "memory_warning": memory_warning(settings.tokens_per_micro_batch, trained.tokens),
        }
    )


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
    """Where a stage keeps how far its training has come."""
    from harness.training.checkpoints import Checkpoints

    return Checkpoints(context.store.partial(stage.key), context.checkpoint_minutes * 60)


@dataclass(frozen=True)
class Start:
    """What a training begins from."""

    stage: Stage
    context: Context
    settings: TrainingSettings | SftSettings

    def policy(self) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
        """The model to train, with adapters where the settings ask for them, and its tokenizer."""
        from harness.training.adapters import add_adapters

        model, tokenizer = self.context.load(self.stage.inputs["model"], "training")
        lora = self.settings.lora
        return add_adapters(model, lora, self.stage.payload["seed"]) if lora else model, tokenizer

    def save(self, policy: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, draft: ArtifactDraft) -> None:
        """The whole model as `model`, adapters merged into it; and those alone as `adapter`, where there are any.

        Weights are stored in float32, so that the smallest step is in them; in another type where `model.storage` names one,
        and then with what it loses among the facts. Of several processes, all must call it, and the first writes.
        """
        from harness.training.sharding import whole_weights

        weights = whole_weights(policy)
        if not Ranks.here().first:
            return
        if weights is not None:
            policy, _ = self.policy()
            policy.load_state_dict(weights)
        whole = self._merged(policy, draft.folder / "adapter") if hasattr(policy, "merge_and_unload") else policy
        storage = self.context.options(self._model).storage
        if storage != "float32":
            from harness.training.precision import round_weights

            start = self.context.load_model(self._model, "scoring").state_dict()
            draft.facts["rounding"] = asdict(round_weights(whole, start, storage))
        save_checkpoint(whole, tokenizer, draft.folder / "model")

    @property
    def _model(self) -> str:
        return self.stage.inputs["model"]

    def _merged(self, policy: PeftModel, folder: Path) -> PreTrainedModel:
        """The whole model in float32, its adapters saved in a folder first; they are merged into no weights of fewer digits."""
        from harness.training.adapters import merge_into, save_adapters

        save_adapters(policy, folder, self._model)
        options = self.context.options(self._model)
        if not options.rounds:
            return merged(policy)
        if options.quantization is None:
            policy.to("cpu")  # makes room: a float32 copy of the whole model comes next
        return merge_into(self.context.load_model(self._model, "scoring"), folder)


def memory_warning(asked: int, used: int) -> str:
    """What the board says where memory ran out; empty where it did not."""
    if used == asked:
        return ""
    return (
        f"memory ran out, so micro-batches were cut to {used} tokens instead of training.tokens_per_micro_batch = {asked}; "
        "loss and gradient are the same"
    )


def _with_reference(groups: list[TokenGroup], stage: Stage, context: Context) -> list[TokenGroup]:
    """The groups with every stored reference view filled in."""
    stored = {
        name.removeprefix(REFERENCE): [tuple(row) for row in context.store.open(key).read_lines("logps.jsonl")]
        for name, key in stage.inputs.items()
        if name.startswith(REFERENCE)
    }
    return [
        replace(group, reference={view: rows[index] for view, rows in stored.items()}) for index, group in enumerate(groups)
    ]
