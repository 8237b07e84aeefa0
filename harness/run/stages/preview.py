"""Show the examples that rows train on, as ids, before anything is trained: for `harness data`.

Rows are loaded, screened, built and tokenized by the code that a run uses, so what is shown cannot drift from what is trained.
Where a data builder asks for what only a policy or a judge can give, it is run several times on answers that were made up, each
time others: what it builds every time needs no sample, and is shown; the rest is counted.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from harness.api.interfaces import DataBuilder, Source
from harness.api.types import Dataset, Example, Group, JudgeAnswer, Judgment, Message, Prompt, Response, SplitName
from harness.config import Comparison, RoundPlan, RowConfig
from harness.errors import DataError, HarnessError, StageError
from harness.models.load import load_tokenizer
from harness.models.scratch import ScratchModel, build_tokenizer
from harness.models.tokenization import ChatTemplate
from harness.run.graph import CHECKPOINT, Graph, RowPlan, Stage
from harness.run.records import (
    GroupsFacts,
    GroupsInputs,
    GroupsPayload,
    ScratchPayload,
    ScreeningCounts,
    SftInputs,
    SftPayload,
    SourceFacts,
    SourceInputs,
    TrainInputs,
    TrainPayload,
)
from harness.run.stages.context import Context, read_dataset, read_groups
from harness.run.stages.groups import no_group, read_source, round_examples, round_rng
from harness.run.stages.start import run_source, training_dialogues
from harness.run.stages.train import is_trainable, no_pair
from harness.store import MANIFEST, Artifact, ArtifactDraft
from harness.training.batch import PLAIN, TokenGroup, partners, tokenize, tokenize_prompt, tokenize_target
from harness.training.settings import SftSettings

if TYPE_CHECKING:
    from harness.models.reward import Reward
    from harness.models.sentence import SentenceEmbedder

Role = Literal["chosen", "rejected"]
# Signs of the scores that made-up answers get, and twice each: a group that only one sign gives is built twice as well.
_SIGNS = (1.0, 1.0, -1.0, -1.0)
_TRIED = 64  # prompts that a builder which samples is tried on
_MADE_UP = "\ue000"  # private use: no answer of people or models has it
_SAMPLES, _SCORES, _VERDICTS = "samples", "scores of a model", "a judge's verdicts"


class EmptyRowError(DataError):
    """A row that trains on nothing."""


@dataclass(frozen=True)
class ShownResponse:
    """A response as it is trained on; the loss falls on every one of its ids.

    Attributes:
        text: as the data, or the store's groups, have it.
        finished: whether the turn was ended; a response cut off by a length limit has no token that ends it.
    """

    role: Role
    text: str
    ids: tuple[int, ...]
    finished: bool = True


@dataclass(frozen=True)
class ShownExample:
    """A prompt with its responses.

    Attributes:
        prompt_text: the rendered prompt; the loss falls on none of it.
        unsampled: role -> responses that only a run can sample.
        views: name -> ids of another prompt under which the objective scores the same responses.
        partner: id of the prompt whose responses the objective scores under this prompt as well; empty where it does not.
    """

    id: str
    prompt_text: str
    prompt_ids: tuple[int, ...]
    responses: tuple[ShownResponse, ...]
    unsampled: Mapping[Role, int] = field(default_factory=dict)
    views: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    partner: str = ""


@dataclass(frozen=True)
class ShownPart:
    """Examples of one round of a row, of supervised fine-tuning, or of a split that is evaluated.

    Attributes:
        data: for people: what made them, e.g. `data spin`.
        objective: its name; empty for fine-tuning, and where nothing is trained.
        round: for people, of a row of several, e.g. `round 2 of 2: `.
        notes: counts of what is used and what is left out, and what a run would add.
    """

    data: str
    notes: tuple[str, ...]
    examples: tuple[ShownExample, ...]
    objective: str = ""
    round: str = ""
    trained: bool = True


@dataclass(frozen=True)
class ShownRow:
    """A row's parts, and the template whose tokens they are."""

    label: str
    parts: tuple[ShownPart, ...]
    template: ChatTemplate


def _spending_notes(payload: TrainPayload) -> list[str]:
    limit = payload.spending
    if limit is None:
        return []
    return [f"trained on in passes, each in another order, until {limit.amount:,} {limit.unit} are spent"]


class Preview:
    """A comparison's examples.

    Args:
        context: whose store holds what was made already; it is only read.
        folder: empty, for files that are needed while this object is.
    """

    def __init__(self, comparison: Comparison, graph: Graph, context: Context, folder: Path) -> None:
        self.comparison, self.graph, self.context, self.folder = comparison, graph, context, folder
        self._templates: dict[str, ChatTemplate] = {}
        self._sources: dict[str, Artifact] = {}

    @property
    def screening(self) -> ScreeningCounts:
        """Counts of the source's rows that were kept, and of the others by reason."""
        return SourceFacts.of(self._source).screening or ScreeningCounts()

    def row(self, label: str, n: int) -> ShownRow:
        """Return the first `n` examples that a row trains on, at the first seed.

        Raises:
            EmptyRowError: it trains on nothing.
        """
        config = next(config for config in self.comparison.rows if config.label == label)
        planned = self._planned(label)
        if not config.rounds:
            return self.fine_tuning(label, n)
        try:
            parts: list[ShownPart] = []
            for number in range(len(config.rounds)):
                parts.append(self._round(config, planned, number, n - sum(len(part.examples) for part in parts)))
        except StageError as error:
            raise EmptyRowError(f"row {label!r}: {error}") from error
        return ShownRow(label, tuple(parts), self._template(self._trained_from(planned, 0)))

    def fine_tuning(self, label: str, n: int) -> ShownRow:
        """Return the first `n` examples of the supervised fine-tuning that a row starts from.

        Raises:
            EmptyRowError: there is none, or no example has a target that fits.
        """
        stage = self._sft(label)
        if stage is None:
            raise EmptyRowError(
                f"row {label!r}: it is the starting model as it is, which nothing is trained on: the config has no `sft` "
                "section; show another row (--row) or the prompts that it is evaluated on (--split heldout)"
            )
        template, most = (
            self._template(SftInputs.of(stage).model),
            SftSettings.model_validate(SftPayload.of(stage).settings).max_length,
        )
        examples, dropped, looked, whole = list[ShownExample](), Counter[str](), 0, self._dataset["sft"]
        for example in whole:
            if len(examples) == n:
                break
            looked += 1
            ids = tokenize_target(example, template, most)
            if isinstance(ids, str):
                dropped[ids] += 1
                continue
            target = ShownResponse("chosen", example.target or "", tuple(ids[1]))
            text = template.prompt_text(example.prompt)
            examples.append(ShownExample(example.prompt.id, text, tuple(ids[0]), (target,)))
        if not examples:
            reason = _counts(dropped) or "the split sft is empty"
            raise EmptyRowError(f"row {label!r}: no example of {len(whole)} can be fine-tuned on ({reason})")
        notes = [f"{_plural(len(whole), 'example')} in the split sft, each trained on once an epoch"]
        notes += [f"dropped among the first {looked}: {_counts(dropped)} (sft.max_length = {most})"] if dropped else []
        return ShownRow(label, (ShownPart("supervised fine-tuning", tuple(notes), tuple(examples)),), template)

    def split(self, label: str, split: SplitName, n: int) -> ShownRow:
        """Return the first `n` examples of a split that is evaluated: nothing is trained on it.

        Raises:
            EmptyRowError: the split is empty.
        """
        whole = self._dataset[split]
        if not whole:
            raise EmptyRowError(f"the split {split!r} has no example: choose another with --split")
        template = self._template(self._planned(label).model)
        evaluation = self.comparison.config.evaluation
        asked = "; every row is evaluated on them" if evaluation.split == split else ""
        most = evaluation.possible_prompts
        asked += f", on the first {most:,}" if asked and most is not None else ""
        notes = (
            f"{_plural(len(whole), 'example')}; nothing is trained on them{asked}",
            "shown with the answers that the data have",
        )
        partial = [_labelled(example) for example in whole[:n]]
        examples = tuple(_shown_partial(item, template, {PLAIN: tuple(template.prompt_ids(item.prompt))}) for item in partial)
        return ShownRow(label, (ShownPart(f"split {split}", notes, examples, trained=False),), template)

    def _planned(self, label: str) -> RowPlan:
        return next(row for row in self.graph.rows if row.label == label)

    def _trained_from(self, planned: RowPlan, number: int) -> str:
        """Return the model that a round starts from."""
        return TrainInputs.of(self.graph.stages[planned.training[number]]).model

    def _sft(self, label: str) -> Stage | None:
        """The fine-tuning behind a row's model."""
        reference = self._planned(label).model
        while (stage := self.graph.stages.get(reference)) is not None and stage.kind != "sft":
            reference = stage.inputs.get("model", "")
        return stage

    def _round(self, config: RowConfig, planned: RowPlan, number: int, n: int) -> ShownPart:
        """A round's counts, and its first `n` examples.

        Raises:
            StageError: the round would fail for want of groups.
        """
        round_, rounds = config.rounds[number], config.planned_rounds
        template = self._template(self._trained_from(planned, number))
        title = f"round {number + 1} of {rounds}: " if rounds > 1 else ""
        groups = TrainInputs.of(self.graph.stages[planned.training[number]]).groups
        if round_.builder is None or groups is None:
            return self._prompts(round_, template, planned.training[number], title, n)
        built = self._built(round_.builder, self.graph.stages[groups], n)
        if built.exact:
            examples = _shown_groups(built.groups, template, round_, n)
        else:
            examples = [
                _shown_partial(item, template, tokenize_prompt(item.prompt, template, round_.objective))
                for item in built.partial[: max(0, n)]
            ]
        notes = (*built.notes(round_), *_spending_notes(TrainPayload.of(self.graph.stages[planned.training[number]])))
        return ShownPart(f"data {round_.builder.name}", notes, tuple(examples), round_.title, title)

    def _prompts(self, round_: RoundPlan, template: ChatTemplate, key: str, title: str, n: int) -> ShownPart:
        """A round's first prompts, for a trainer that trains on prompts alone."""
        stage = self.graph.stages[key]
        payload, source = TrainPayload.of(stage), TrainInputs.of(stage).source
        dataset = read_dataset(self._source_of(source)) if source else self._dataset
        examples = round_examples(payload.examples, dataset)
        shown = [
            _shown_partial(Partial(example.prompt), template, {PLAIN: tuple(template.prompt_ids(example.prompt))})
            for example in examples[: max(0, n)]
        ]
        notes = (
            f"{_plural(len(examples), 'prompt')}, to which the policy writes while it is trained",
            *_spending_notes(payload),
        )
        return ShownPart("prompts", notes, tuple(shown), round_.title, title)

    def _built(self, builder: DataBuilder, stage: Stage, n: int) -> _Built:
        held = self._held(stage.key)
        if held is not None:
            facts = GroupsFacts.of(held)
            return _Built(facts.prompts, facts.prompts, read_groups(held), facts.dropped, stored=True)
        payload = GroupsPayload.of(stage)
        source = self._source_of(GroupsInputs.of(stage).source)
        examples = round_examples(payload.examples, read_dataset(source))
        built = build_dry(builder, examples, payload, read_source(source, self.context), n)
        if built.exact and not built.groups:
            raise no_group(builder, len(examples), built.dropped)
        return built

    @cached_property
    def _dataset(self) -> Dataset:
        return read_dataset(self._source)

    @cached_property
    def _source(self) -> Artifact:
        """The comparison's rows: the store's, or those that the `source` stage makes."""
        return self._source_of(next(stage.key for stage in self.graph if stage.kind == "source"))

    def _source_of(self, key: str) -> Artifact:
        """The rows of a source, the comparison's or a row's own."""
        if (held := self._held(key)) is not None:
            return held
        stage, folder = self.graph.stages[key], self.folder / f"source-{key}"
        if key not in self._sources:
            draft = ArtifactDraft(folder)
            folder.mkdir()
            run_source(stage, self.context, draft, self._dataset if SourceInputs.of(stage).evaluated else None)
            self._sources[key] = Artifact(stage.key, stage.kind, folder, draft.facts, 0.0)
        return self._sources[key]

    def _held(self, key: str) -> Artifact | None:
        store = self.context.store
        return store.open(key) if (store.place(key) / MANIFEST).exists() else None

    def _template(self, reference: str) -> ChatTemplate:
        """The template of a model that need not be there yet: a model has the tokenizer of the one that it is trained from."""
        while not reference.startswith(CHECKPOINT) and self._held(reference) is None:
            stage = self.graph.stages[reference]
            if stage.kind == "scratch":
                break
            reference = stage.inputs["model"]
        if reference not in self._templates:
            at_hand = reference.startswith(CHECKPOINT) or self._held(reference) is not None
            tokenizer = self.context.load_tokenizer(reference) if at_hand else load_tokenizer(self._scratch(reference))
            self._templates[reference] = ChatTemplate(tokenizer)
        return self._templates[reference]

    def _scratch(self, key: str) -> Path:
        """A folder with the tokenizer that a model made from nothing will have: it takes the text alone, and no training."""
        recipe = ScratchModel.model_validate(ScratchPayload.of(self.graph.stages[key]).recipe)
        tokenizer = build_tokenizer(recipe, training_dialogues(self._dataset))
        tokenizer.model_max_length = recipe.max_length
        tokenizer.save_pretrained(self.folder / "tokenizer")
        return self.folder / "tokenizer"


# Builders without a policy


@dataclass(frozen=True)
class Partial:
    """The part of a group that needs no sample."""

    prompt: Prompt
    chosen: Response | None = None
    rejected: tuple[Response, ...] = ()
    unsampled: Mapping[Role, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Built:
    """The groups that a builder made of a round's prompts; `partial` in their place where it asks for what only a run can give.

    Attributes:
        tried: of the round's prompts, those that it was given.
    """

    prompts: int
    tried: int
    groups: Sequence[Group] = ()
    dropped: Mapping[str, int] = field(default_factory=dict)
    asked: frozenset[str] = frozenset()
    partial: Sequence[Partial] = ()
    stored: bool = False

    @property
    def exact(self) -> bool:
        return not self.asked

    def notes(self, round_: RoundPlan) -> list[str]:
        """Counts, and what is missing."""
        if not self.exact:
            missing = " and ".join(sorted(self.asked))
            notes = [f"{_plural(self.prompts, 'prompt')}; its builder asks for {missing}, which only a run can give"]
            known = any(item.chosen or item.rejected for item in self.partial)
            notes.append(f"shown without them: prompts{' and the responses that need none' if known else ' alone'}")
            if self.dropped:
                notes.append(f"dropped whatever is sampled, of the first {self.tried:,}: {_counts(self.dropped)}")
            return notes
        used = [group for group in self.groups if is_trainable(len(group.rejected), round_.needs_rejected())]
        pairs = sum(len(group.rejected) for group in used)
        notes = [f"{_plural(self.prompts, 'prompt')} → {_plural(len(used), 'group')}, {_plural(pairs, 'pair')}"]
        if self.stored:
            notes.append("these groups are the store's: responses that were sampled have the ids they were sampled as")
        left_out = dict(self.dropped)
        if len(used) < len(self.groups):
            left_out[f"without a rejected response, which {round_.title} needs"] = len(self.groups) - len(used)
        return [*notes, f"dropped: {_counts(left_out)}"] if left_out else notes


def build_dry(builder: DataBuilder, examples: Sequence[Example], payload: GroupsPayload, source: Source, n: int) -> _Built:
    """Let a builder build without a policy: all groups where it asks for none, else what `n` of them have for certain.

    Raises:
        StageError: the builder fails although nothing was made up.
    """

    def build(given: Sequence[Example], number: int) -> tuple[DryBuild, list[Group]]:
        task = DryBuild(given, payload.round, round_rng(payload, builder), source, _SIGNS[number], number)
        try:
            return task, list(builder.build(task))
        except Exception as error:
            # A builder may well fail on answers that no policy gave.
            if task.asked:
                return task, []
            if isinstance(error, HarnessError):
                raise
            raise StageError(f"data builder {builder.name!r} failed: {type(error).__name__}: {error}") from error

    given = examples[: max(_TRIED, 4 * n)]  # thousands of prompts times dozens of made-up answers are not needed
    if not build(given, 0)[0].asked:
        task, groups = build(examples, 0)
        if not task.asked:
            return _Built(len(examples), len(examples), groups, task.dropped)
        given = examples
    passes = [build(given, number) for number in range(len(_SIGNS))]
    asked = frozenset().union(*(task.asked for task, _ in passes))
    by_prompt = [{group.prompt.id: group for group in groups} for _, groups in passes]
    ids = [example.prompt.id for example in given if any(example.prompt.id in groups for groups in by_prompt)]
    partial = [_agreed([groups[prompt] for groups in by_prompt if prompt in groups]) for prompt in ids]
    if not partial:
        return _Built(len(examples), len(given), asked=asked, partial=[Partial(example.prompt) for example in given])
    dropped = {reason: min(task.dropped.get(reason, 0) for task, _ in passes) for reason in passes[0][0].dropped}
    certain = {reason: number for reason, number in dropped.items() if number}
    return _Built(len(examples), len(given), dropped=certain, asked=asked, partial=partial)


def _agreed(groups: Sequence[Group]) -> Partial:
    """Return the part that all groups of one prompt share: answers that were made up differ from one to the next."""
    first, *others = groups
    chosen = first.chosen if all(other.chosen == first.chosen for other in others) else None
    rejected = tuple(item for item in first.rejected if all(item in other.rejected for other in others))
    unsampled: dict[Role, int] = {"chosen": int(chosen is None), "rejected": len(first.rejected) - len(rejected)}
    return Partial(first.prompt, chosen, rejected, {role: number for role, number in unsampled.items() if number})


class _NeedsARun(Exception):  # noqa: N818  no error: what a builder that asks a judge is ended with
    pass


@dataclass
class DryBuild:
    """A `BuildTask` without a policy: it makes answers and scores up, and notes that it was asked for them.

    Attributes:
        sign: of the scores of made-up answers, in the order they are given in.
        number: of this pass; no two passes make up the same answer.
        asked: what only a run can give.
    """

    examples: Sequence[Example]
    round: int
    rng: random.Random
    source: Source
    sign: float
    number: int
    asked: set[str] = field(default_factory=set)
    dropped: dict[str, int] = field(default_factory=dict)
    _made: Any = field(default_factory=count)

    def sample(
        self,
        n: int,
        *,
        prefix: str = "",
        temperature: float = 1.0,
        top_p: float = 1.0,
        policy: Literal["start", "current"] = "current",
    ) -> list[list[Response]]:
        return self._answers(len(self.examples), n)

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
        return self._answers(len(prompts), n)

    def logps(
        self, responses: Sequence[Sequence[Response]], *, prefix: str = "", policy: Literal["start", "current"] = "current"
    ) -> list[list[float]]:
        return self._scores(responses)

    def similarity(self, embedder: str | SentenceEmbedder, responses: Sequence[Sequence[Response]]) -> list[np.ndarray]:
        return [np.asarray(row) for row in self._scores(responses)]

    def reward(self, model: Reward, responses: Sequence[Sequence[Response]]) -> list[list[float]]:
        if model.asks_judge:
            self.asked.add(_VERDICTS)
            raise _NeedsARun
        return self._scores(responses)

    def gold(self, responses: Sequence[Sequence[Response]]) -> list[list[float]]:
        """The source's own mark of a response that the data have: it needs no policy."""
        rows = zip(self.examples, responses, strict=True)
        return [[self._gold(example, response, place) for place, response in enumerate(row)] for example, row in rows]

    def judge(
        self, conversations: Sequence[Sequence[Message]], parse: Callable[[JudgeAnswer], Any], **parameters: Any
    ) -> list[Judgment]:
        self.asked.add(_VERDICTS)
        raise _NeedsARun

    def count(self, reason: str, examples: int = 1) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + examples

    def _answers(self, prompts: int, n: int) -> list[list[Response]]:
        self.asked.add(_SAMPLES)
        return [[Response(f"{_MADE_UP}{self.number} {next(self._made)}{_MADE_UP}") for _ in range(n)] for _ in range(prompts)]

    def _scores(self, responses: Sequence[Sequence[Response]]) -> list[list[float]]:
        self.asked.add(_SCORES)
        return [[self._score(place) for place in range(len(row))] for row in responses]

    def _gold(self, example: Example, response: Response, place: int) -> float:
        if _MADE_UP in response.text:
            return self._score(place)
        return float(self.source.gold(example, response)["total"])

    def _score(self, place: int) -> float:
        return self.sign * (1000.0 + place)  # beyond any mark of a source, so that each sign puts answers on one side of it


# Examples as ids


def _shown_groups(groups: Sequence[Group], template: ChatTemplate, round_: RoundPlan, n: int) -> list[ShownExample]:
    """The first `n` groups that a round can train on, tokenized as training does it.

    Raises:
        StageError: there is none.
    """
    objective = round_.objective
    owners = partners(groups) if objective is not None and objective.needs_mismatched else []
    places = [place for place, group in enumerate(groups) if is_trainable(len(group.rejected), round_.needs_rejected())]
    if not places:
        raise no_pair(len(groups), round_.title)
    places = places[: max(0, n)]
    if not places:
        return []
    needed = list(groups[: places[-1] + 1])
    if owners and len(needed) < len(groups):
        needed.append(groups[-1])  # the first group's partner is the last one of all
    tokenized = tokenize(needed, template, objective)
    return [_shown(groups[place], tokenized[place], template, owners[place].prompt.id if owners else "") for place in places]


def _shown(group: Group, ids: TokenGroup, template: ChatTemplate, partner: str) -> ShownExample:
    answers = zip((group.chosen, *group.rejected), ids.responses, strict=True)
    responses = [
        ShownResponse("rejected" if place else "chosen", answer.text, tokens, answer.finished)
        for place, (answer, tokens) in enumerate(answers)
    ]
    text = template.prompt_text(group.prompt)
    return ShownExample(group.prompt.id, text, ids.prompts[PLAIN], tuple(responses), views=_views(ids.prompts), partner=partner)


def _shown_partial(item: Partial, template: ChatTemplate, prompts: Mapping[str, tuple[int, ...]]) -> ShownExample:
    roles: list[tuple[Role, Response]] = [("chosen", item.chosen)] if item.chosen is not None else []
    roles += [("rejected", response) for response in item.rejected]
    responses = [
        ShownResponse(role, response.text, tuple(template.response_ids(item.prompt, response)), response.finished)
        for role, response in roles
    ]
    text = template.prompt_text(item.prompt)
    return ShownExample(item.prompt.id, text, prompts[PLAIN], tuple(responses), item.unsampled, _views(prompts))


def _views(prompts: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    return {name: ids for name, ids in prompts.items() if name != PLAIN}


def _labelled(example: Example) -> Partial:
    """An example's own answers: the best ranked one, or else its target, before the others."""
    best, *others = example.ranked or ([example.target] if example.target is not None else [None])
    rejected = tuple(Response(text) for text in others if text is not None)
    return Partial(example.prompt, None if best is None else Response(best), rejected)


def _counts(reasons: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {reason}" for reason, number in sorted(reasons.items()))


def _plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
