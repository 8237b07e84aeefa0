"""One round of one method: groups and reference in, a model out."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api.interfaces import Objective, Source, Trainer, TrainingUse
from harness.api.methods import GROUPED
from harness.api.types import Example, Group, Prompt, Response
from harness.errors import StageError
from harness.models.delta import shrink
from harness.models.delta_note import stands_for
from harness.models.judge.judge import Judge
from harness.models.load import merged
from harness.models.logps import TokenRow, score
from harness.models.reward import PolicyReward, RewardModel, RewardScorer, TrainingReward
from harness.models.tokenization import ChatTemplate
from harness.models.verifier import Verifier
from harness.run.graph import MODEL, Stage
from harness.run.records import DeltaFacts, StateFacts, StatePayload, StorageFacts, TrainFacts, TrainInputs, TrainPayload
from harness.run.stages.context import Context, read_dataset, read_groups, save_checkpoint
from harness.run.stages.groups import read_source, round_examples
from harness.run.stages.services import judge_facts, judge_values, stage_judge
from harness.run.stages.time_limit import time_limit
from harness.run.stages.trained import count_moved, read_trained
from harness.store import Artifact, ArtifactDraft
from harness.training.batch import TokenGroup, tokenize
from harness.training.budget import spend
from harness.training.layouts.choose import choose_layout
from harness.training.ranks import Ranks
from harness.training.settings import SftSettings, TrainingSettings

if TYPE_CHECKING:
    import transformers
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from harness.training.checkpoints import Checkpoints


def run_train(stage: Stage, context: Context, draft: ArtifactDraft) -> None:
    """Train; the artifact holds the model, its history, and the budget that the training really used."""
    with context.scratch() as folder:
        task, use = _trained(stage, context, draft, folder)
    if not Ranks.here().first:
        return
    draft.write_lines("history.jsonl", task.history)
    counts = {"prompts": use.prompts, "pairs": use.pairs, "updates": use.updates, "tokens": use.tokens}
    unknown = [unit for unit, amount in counts.items() if amount is None]
    notes = [*use.notes, *task.notes]
    facts = TrainFacts(
        prompts=use.prompts or 0,
        pairs=use.pairs or 0,
        updates=use.updates or 0,
        tokens_trained=use.tokens or 0,
        **task.facts,
        **({"tokens_generated": use.generated} if use.generated else {}),
        **({"reward_calls": use.reward_calls} if use.reward_calls else {}),
        **({"judge": judge_facts(task.payload, task.judge)} if task.judge else {}),
        **({"unknown": unknown} if unknown else {}),
        **({"notes": notes} if notes else {}),
    )
    draft.facts |= facts.as_json()


def run_state(stage: Stage, context: Context, draft: ArtifactDraft) -> None:
    """Train up to a share of the steps; the artifact holds the model as it is then.

    The training keeps a checkpoint there, and the next state, or the training itself, goes on from it to the same bits.
    """
    began = time.monotonic()
    with context.scratch() as folder:
        task, _ = _trained(stage, context, draft, folder)
    draft.earlier_seconds = 0.0  # they are those of the states before
    if not Ranks.here().first:
        return
    step, steps = task.checkpoints.reached
    # The training counts these seconds as its own, unless it was done before.
    counted = {} if context.store.holds(StatePayload.of(stage).training) else {"made_seconds": time.monotonic() - began}
    draft.facts |= StateFacts(step=step, steps=steps, **counted).as_json()


def _trained(stage: Stage, context: Context, draft: ArtifactDraft, folder: Path) -> tuple[TrainerServices, TrainingUse]:
    """Run a stage's trainer with a folder of its own, and check what it left."""
    payload = TrainPayload.of(stage)
    if payload.trainer is not None:
        trainer: Trainer = context.component("trainer", payload.trainer)
    else:
        trainer = context.registry.get("trainer", GROUPED).component()
    task = TrainerServices(stage, context, draft, folder, gpus=trainer.gpus())
    with time_limit(trainer.time_limit_hours(), f"the trainer {trainer.title()!r}"):
        use = trainer.train(task)
    if payload.trainer is not None and Ranks.here().first:
        task.accept(trainer, use)
    return task, use


class TrainerServices:
    """`TrainingTask` for trainers.

    Attributes:
        facts: fields of `TrainFacts` beside the budget's.
        history: the points of the training curve.
        notes: the host's warnings for the board.
        checkpoints: from which the training resumes.
    """

    def __init__(self, stage: Stage, context: Context, draft: ArtifactDraft, scratch: Path, gpus: int = 1) -> None:
        self.stage, self.context, self.draft = stage, context, draft
        self.payload, self.inputs = TrainPayload.of(stage), TrainInputs.of(stage)
        self.settings = TrainingSettings.model_validate(self.payload.settings)
        described = self.payload.objective
        self.objective: Objective | None = context.component("objective", described) if described else None
        self.groups: Sequence[Group] = read_groups(context.store.open(self.inputs.groups)) if self.inputs.groups else []
        self.seed, self.max_tokens = self.payload.seed, self.payload.max_tokens
        spending = self.payload.spending
        self.limit: Mapping[str, int] = {spending.unit: spending.amount} if spending else {}
        self.scratch, self.out = scratch / "trainer", scratch / "out"
        for folder in (self.scratch, self.out):
            folder.mkdir(exist_ok=True)
        self.kept = context.store.partial(stage.key)
        self.checkpoint_seconds = context.checkpoint_minutes * 60
        self.devices: Sequence[str] = assigned(context.gpus, os.environ.get("CUDA_VISIBLE_DEVICES"), gpus)
        self.facts: dict[str, Any] = {}
        self.history: list[dict[str, float]] = []
        self.notes: list[str] = []
        self.checkpoints = checkpoints_of(stage, context)
        self._logged, self._saved = 0, False
        self._start = Start(self.inputs.model, self.seed, context, self.settings)

    @cached_property
    def examples(self) -> Sequence[Example]:
        return round_examples(self.payload.examples, read_dataset(self._source_rows))

    @property
    def _source_rows(self) -> Artifact:
        assert self.inputs.source is not None  # planned for every trainer but the host's own
        return self.context.store.open(self.inputs.source)

    @cached_property
    def start(self) -> Path:
        options = self.context.options(self.inputs.model)
        if not options.changed().keys() - {"trained", *options.kept()}:
            return self.context.whole_folder(self.inputs.model)
        folder = self.scratch.parent / "start"  # a template or an adapter of the config's is in no file yet
        save_checkpoint(*self.context.load(self.inputs.model, "training"), folder)
        return folder

    @cached_property
    def data(self) -> Path:
        path = self.scratch.parent / "data.jsonl"
        rows = trl_rows(self.groups) if self.groups else prompt_rows(self.examples)
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return path

    def load(self) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
        return self._start.policy()

    def save(self, model: PreTrainedModel | PeftModel) -> None:
        self._save(model, self.context.load_tokenizer(self.inputs.model))

    def _save(self, model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.facts |= self._start.save(model, tokenizer, self.draft)
        self._saved = True

    def train_groups(self) -> TrainingUse:
        from harness.training.trainer import train

        payload, objective = self.payload, self.objective
        if objective is None:
            raise StageError("the host's own training takes the loss of an objective: name one in the row")
        policy, tokenizer = self._start.for_shards()
        tokenized = tokenize(self.groups, ChatTemplate(tokenizer), objective, ranked=not payload.unranked)
        tokenized = _trainable(_with_reference(tokenized, self.inputs, self.context), objective)
        batch = self.settings.prompts_per_batch
        ordered = spend(tokenized, payload.spending, batch, payload.seed) if payload.spending else None
        layout = choose_layout(policy, self.settings.layout)
        trained = train(
            policy,
            ordered or tokenized,
            objective,
            self.settings,
            seed=payload.seed,
            scratch=self.scratch,
            report=self.context.report,
            layout=layout,
            shuffle=ordered is None,
            checkpoints=self.checkpoints,
            watch=self.context.live.points,
        )
        self._save(policy, tokenizer)
        self.history, self.draft.earlier_seconds = trained.history, self.checkpoints.earlier_seconds
        self.facts |= {
            "unpaired": len(self.groups) - len(tokenized),
            "layout": layout.name,
            "layout_warning": layout.warning,
            "memory_warning": memory_warning(self.settings.tokens_per_micro_batch, trained.tokens),
        }
        seen = ordered or tokenized * self.settings.epochs
        return TrainingUse(
            prompts=len({id(group) for group in seen}),
            pairs=sum(group.pairs for group in seen),
            updates=len(trained.history),
            tokens=sum(group.tokens for group in seen),
        )

    def train_resumably(
        self,
        trainer: transformers.Trainer,
        notes: Callable[[], Mapping[str, object]] = dict,
        restore: Callable[[Mapping[str, object]], None] = lambda notes: None,
    ) -> None:
        from harness.training.checkpoints import train_resumably

        def everything() -> Mapping[str, object]:
            return {"notes": dict(notes()), "history": self.history}

        def go_on(kept: Mapping[str, Any]) -> None:
            self.history = list(kept["history"])
            self.context.live.points(self.history)
            restore(kept["notes"])

        train_resumably(trainer, self.checkpoints, everything, go_on)
        self.draft.earlier_seconds = self.checkpoints.earlier_seconds

    def reward(
        self,
        source: TrainingReward,
        prompts: Sequence[str],
        responses: Sequence[str],
        finished: Sequence[bool],
    ) -> list[float]:
        examples = [self._by_id[prompt] for prompt in prompts]
        answers = [Response(text, ended) for text, ended in zip(responses, finished, strict=True)]
        if source == "gold":
            return [float(self._gold.gold(example, answer)["total"]) for example, answer in zip(examples, answers, strict=True)]
        if isinstance(source, Verifier):
            return [value for (value,) in source.rewards(examples, [[answer] for answer in answers])]
        questions = [example.prompt for example in examples]
        if isinstance(source, PolicyReward):
            return self._own_judgment(source, questions, answers)
        if not isinstance(source, RewardModel):
            return judge_values(source, self.judge, questions, answers)
        if source not in self._scorers:
            self._scorers[source] = RewardScorer(source)
        values, _ = self._scorers[source].rewards(questions, [[answer] for answer in answers])
        return [value for (value,) in values]

    def _own_judgment(self, source: PolicyReward, prompts: Sequence[Prompt], answers: Sequence[Response]) -> list[float]:
        """Return the judgment of the round's starting policy, whose weights do not move while it is trained."""
        model, template = self._judging
        by_level = [
            score(
                model,
                [_row(template, prompt.prefixed(request), answer) for prompt, answer in zip(prompts, answers, strict=True)],
            )
            for request in source.requests()
        ]
        return [source.expected(logps) for logps in zip(*by_level, strict=True)]

    @cached_property
    def _judging(self) -> tuple[PreTrainedModel, ChatTemplate]:
        model, tokenizer = self.context.load(self.inputs.model, "scoring")
        return model, ChatTemplate(tokenizer)

    @cached_property
    def judge(self) -> Judge | None:
        """The judge of the trainer's reward; None where none was planned."""
        # Its own progress would be taken for the training's.
        return stage_judge(self.payload, replace(self.context, report=lambda done, total, note: None))

    @cached_property
    def _by_id(self) -> Mapping[str, Example]:
        return {example.prompt.id: example for example in self.examples}

    @cached_property
    def _gold(self) -> Source:
        return read_source(self._source_rows, self.context)

    @cached_property
    def _scorers(self) -> dict[RewardModel, RewardScorer]:
        return {}

    def progress(self, done: int, total: int, note: str = "") -> None:
        self.context.report(done, total, note)

    def point(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            if not math.isfinite(value):
                step = len(self.history) + 1
                raise StageError(
                    f"{name} is {value} at step {step}: the training has left the numbers, lower its learning rate"
                )
        self.history.append({str(name): float(value) for name, value in values.items()})
        self.context.live.points(self.history[-1:])

    def log(self, text: str) -> None:
        if self._logged < LOG_BYTES:
            with suppress(OSError):  # where the log is may be full
                sys.stderr.write(text[: LOG_BYTES - self._logged] + "\n")
                sys.stderr.flush()
        self._logged += len(text) + 1

    def accept(self, trainer: Trainer, use: TrainingUse) -> None:
        """Check what a trainer left, and save it as a checkpoint of ours unless `save` did.

        Raises:
            StageError: it left no model, or one that cannot be the start's; or it used more than the budget pays for.
        """
        for unit, most in self.limit.items():
            used = getattr(use, unit)
            if used is not None and used > most:
                raise StageError(f"the trainer {trainer.title()!r} used {used} {unit}, and the round's budget is {most}")
        before = self.context.load_model(self.inputs.model, "scoring")
        tokenizer = self.context.load_tokenizer(self.inputs.model)
        if self._saved:
            trained = self.context.load_folder(self.draft.folder / "model")
        else:
            trained = read_trained(self.out, before, tokenizer, trainer.title(), self.context.options(self.inputs.model).kept())
        moved = count_moved(trained, before, trainer.title())
        if not self._saved:
            self._save(trained, tokenizer)
        if not moved:
            self.notes.append(f"the trainer {trainer.title()} moved no weight: this row is its starting model")


def _row(template: ChatTemplate, prompt: Prompt, answer: Response) -> TokenRow:
    return TokenRow(tuple(template.prompt_ids(prompt)), tuple(template.response_ids(prompt, answer)))


def assigned(gpus: Sequence[str], visible: str | None, count: int) -> tuple[str, ...]:
    """Return the GPUs of one training, by name: this process's own, or the machine's first where it takes several.

    Args:
        gpus: those of the machine that the executor uses; empty where it uses none.
        visible: `CUDA_VISIBLE_DEVICES` of this process.
        count: how many the trainer asks for.

    Raises:
        StageError: the executor has fewer.
    """
    if not gpus:
        return ()
    if count > len(gpus):
        raise StageError(f"the trainer asks for {count} GPUs, and this run has {len(gpus)} ({', '.join(gpus)}): ask for fewer")
    own = tuple(name for name in (visible or "").split(",") if name)
    return own[:1] if count == 1 else tuple(gpus[:count])


LOG_BYTES = 2**20  # of a trainer's output in the run's log


def trl_rows(groups: Sequence[Group]) -> Iterator[dict[str, Any]]:
    """Yield groups in TRL's conversational formats: preference pairs, or prompt and completion where nothing is rejected."""
    for group in groups:
        prompt = {"id": group.prompt.id, "prompt": [asdict(message) for message in group.prompt.messages]}
        for rejected in group.rejected:
            yield {**prompt, "chosen": _answer(group.chosen.text), "rejected": _answer(rejected.text)}
        if not group.rejected:
            yield {**prompt, "completion": _answer(group.chosen.text)}


def prompt_rows(examples: Sequence[Example]) -> Iterator[dict[str, Any]]:
    """Yield prompts in TRL's prompt-only conversational format, with their targets beside."""
    for example in examples:
        prompt = [asdict(message) for message in example.prompt.messages]
        target = {} if example.target is None else {"target": example.target}
        yield {"id": example.prompt.id, "prompt": prompt, **target}


def _answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def _trainable(groups: list[TokenGroup], objective: Objective) -> list[TokenGroup]:
    """The groups that the objective can train on.

    Raises:
        StageError: there is none.
    """
    kept = [group for group in groups if is_trainable(group.pairs, objective.needs_rejected)]
    if groups and not kept:
        raise no_pair(len(groups), objective.name)
    return kept


def is_trainable(rejected: int, needed: bool) -> bool:
    """Return whether a group with so many rejected responses can be trained on, where one may be `needed`."""
    return rejected > 0 or not needed


def no_pair(groups: int, title: str) -> StageError:
    """Return the error of a round none of whose groups can be trained on, by an objective or a trainer of this title."""
    return StageError(
        f"none of {groups} groups has a rejected response, and {title!r} compares with one: "
        "choose another data builder or objective"
    )


def checkpoints_of(stage: Stage, context: Context) -> Checkpoints:
    """Return the checkpoints from which a stage's training resumes: a state's are those of its training."""
    from harness.training.checkpoints import Checkpoints

    state = StatePayload.of(stage) if stage.kind == "state" else None
    folder = context.store.partial(state.training if state else stage.key)
    return Checkpoints(folder, context.checkpoint_minutes * 60, state.share if state else None, ends_at=context.ends_at)


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

    def policy(self, place: str | None = None) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
        """The model to train, with adapters where the settings ask for them, and its tokenizer.

        Args:
            place: the device on which its weights lie; the machine's GPU, if it has one, if None.
        """
        from harness.training.adapters import add_adapters

        model, tokenizer = self.context.load(self.model, "training", place)
        lora = self.settings.lora
        return add_adapters(model, lora, self.seed) if lora else model, tokenizer

    def for_shards(self) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
        """`policy` for this project's own trainer, which FSDP may share out over processes: the first then loads it for all."""
        from harness.training.sharded_load import load_by_first
        from harness.training.sharding import fsdp_asked

        ranks, options = Ranks.here(), self.context.options(self.model)
        if ranks.count == 1 or not fsdp_asked():
            return self.policy()
        if options.quantization is not None or options.trust_remote_code:
            if ranks.first:
                reason = "model.quantization" if options.quantization is not None else "model.trust_remote_code"
                sys.stderr.write(f"with {reason} every process of a sharded training loads the whole model\n")
            return self.policy()
        return load_by_first(ranks, lambda: self.policy("cpu")[0]), self.context.load_tokenizer(self.model)

    def save(
        self, policy: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, draft: ArtifactDraft
    ) -> StorageFacts:
        """Write the whole model to `model`, adapters merged into it, and the adapters alone to `adapter`, where there are any.

        Weights are stored in float32, so that the smallest step is kept; in another type where `model.storage` names one; as
        their difference from the starting model where it is `delta`.
        Weights are gathered from all processes of a training, so all of them must call this; the first one writes.

        Returns:
            The fields of `TrainingFacts` that tell how it was stored; none in all processes but the first.
        """
        from harness.training.sharding import is_sharded, whole_weights

        if is_sharded(policy):
            # Gathered into the start's own tensors, so that the first process holds the model once, and the others never.
            place = self.policy("cpu")[0] if Ranks.here().first else None
            whole_weights(policy, None if place is None else place.state_dict())
            policy = place or policy
        if not Ranks.here().first:
            return {}
        whole = self._merged(policy, draft.folder / "adapter") if hasattr(policy, "merge_and_unload") else policy
        storage = self.context.options(self.model).storage
        facts: StorageFacts = {}
        if storage != "float32":
            from harness.training.precision import round_weights

            start = self.context.load_model(self.model, "scoring").state_dict()
            facts["rounding"] = round_weights(whole, start, storage)
        save_checkpoint(whole, tokenizer, draft.folder / MODEL)
        if (base := self.context.delta_base(self.model)) is not None:
            note, folder = base
            facts["delta"] = DeltaFacts(base=note.model, share=shrink(draft.folder / MODEL, note, folder))
            draft.stands_for |= stands_for(draft.folder / MODEL, MODEL)
        return facts

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
