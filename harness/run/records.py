"""The JSON of stages as types: for each kind, the inputs it reads, its payload, and the facts of the artifact it makes.

Inputs and payload are hashed into a stage's key, and facts lie in stores for years. So a record writes the fields that were
given and no others (a field that is added later must not change the keys before it), and a fact that an older version did not
write reads as the field's default.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Self, TypedDict

from pydantic import BaseModel, ConfigDict, JsonValue, TypeAdapter, ValidationError

from harness.api.types import Sampling, SplitName
from harness.errors import StoreError
from harness.models.options import ScoringLayout
from harness.training.budget import Spending
from harness.training.layouts.choose import LayoutName
from harness.training.settings import Rounding

if TYPE_CHECKING:
    from harness.run.graph import Stage
    from harness.store import Artifact

_PREFIXES = {"answers": "answers:", "references": "reference:", "opponents": "opponent:"}


@dataclass(frozen=True)
class Inputs:
    """The keys of the artifacts that a stage reads, under the names that its own key is hashed with.

    A field that holds one key is named as it is. A mapping stands for several inputs: its entry `dpo` of `opponents` is named
    `opponent:dpo`. A model is the key of a stage, `checkpoint:<hash>` or `served:<hash>`.
    """

    def named(self) -> dict[str, str]:
        """Return name -> key, as `Stage.inputs` holds them."""
        named: dict[str, str] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if item.name in _PREFIXES:
                named |= {_PREFIXES[item.name] + name: key for name, key in value.items()}
            elif value is not None:
                named[item.name] = value
        return named

    @classmethod
    def of(cls, stage: Stage) -> Self:
        """Read a stage's inputs.

        Raises:
            KeyError: one is missing.
        """
        values: dict[str, Any] = {}
        for item in fields(cls):
            if prefix := _PREFIXES.get(item.name):
                values[item.name] = {
                    name.removeprefix(prefix): key for name, key in stage.inputs.items() if name.startswith(prefix)
                }
            elif item.name in stage.inputs or item.default is MISSING:
                values[item.name] = stage.inputs[item.name]
        return cls(**values)


@dataclass(frozen=True)
class SourceInputs(Inputs):
    model: str | None = None  # whose tokens the limits count
    evaluated: str | None = None  # for a row's own source: the comparison's, whose evaluated prompts it must not hold


@dataclass(frozen=True)
class ScratchInputs(Inputs):
    source: str


@dataclass(frozen=True)
class SftInputs(Inputs):
    source: str
    model: str


@dataclass(frozen=True)
class GroupsInputs(Inputs):
    """The inputs of a data builder.

    Attributes:
        start: the model that the row starts from.
        policy: the model that the round starts from.
    """

    source: str
    start: str
    policy: str


@dataclass(frozen=True)
class ReferenceInputs(Inputs):
    groups: str
    model: str


@dataclass(frozen=True)
class TrainInputs(Inputs):
    """The inputs of one round of training.

    Attributes:
        groups: None for a trainer that trains on prompts.
        source: the prompts, for a trainer other than the host's own.
        references: view -> the stage with the reference's log-probabilities under it.
    """

    model: str
    groups: str | None = None
    source: str | None = None
    references: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class AnswersInputs(Inputs):
    source: str
    model: str


@dataclass(frozen=True)
class EvaluateInputs(Inputs):
    """The inputs of one evaluator on one row.

    Attributes:
        start: the model that the row starts from.
        answers: place of a sampling among the evaluator's -> the row's own answers.
        opponents: label of another row -> its answers, or its model where the evaluator draws no answers beforehand.
    """

    source: str
    model: str
    start: str
    answers: Mapping[str, str] = field(default_factory=dict)
    opponents: Mapping[str, str] = field(default_factory=dict)


class StageRecord(BaseModel):
    """A part of a payload or of facts."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    def as_json(self) -> dict[str, JsonValue]:
        """Return the fields that were given, as JSON."""
        return self.model_dump(exclude_unset=True)


class Description(StageRecord):
    """A component as `harness.config.describe` writes it.

    Attributes:
        version: None for a source that was out of reach, of which nothing runs.
        fingerprint: of the files behind the component, where it has one.
    """

    name: str
    version: int | None = None
    fields: dict[str, JsonValue]
    fingerprint: str | None = None


class Payload(StageRecord):
    """All that decides a stage's result beside its inputs and the environment."""

    @classmethod
    def of(cls, stage: Stage) -> Self:
        """Read a stage's payload."""
        return cls.model_validate(stage.payload)


class SourcePayload(Payload):
    """A source, and what decides which of its rows are used.

    Attributes:
        benchmarks: evaluators by whose questions training prompts are left out.
    """

    source: Description
    benchmarks: list[Description] = []
    limits: dict[str, JsonValue] | None = None


class ScratchPayload(Payload):
    recipe: dict[str, JsonValue]


class TrainingPayload(Payload):
    """Settings of a training, and the versions of the libraries that only some settings use.

    Attributes:
        merging: version of how adapters are merged, where an older version merged them differently.
    """

    settings: dict[str, JsonValue]
    seed: int
    peft: str | None = None
    accelerate: str | None = None
    deepspeed: str | None = None
    merging: int | None = None


class SftPayload(TrainingPayload):
    pass


class JudgedPayload(Payload):
    """A stage that scores, and may ask a judge.

    Attributes:
        scoring: `float32` where the model's weights have fewer digits, which were once scored as they are.
        scoring_layout: how answers lie while they are scored, where that is not in padded rows.
        judge: `JudgeSettings.identity`, all that decides the judge's answers.
        reading: `JudgeSettings.reading`, how they are parsed.
    """

    scoring: str | None = None
    scoring_layout: ScoringLayout = "padded"
    judge: dict[str, JsonValue] | None = None
    reading: dict[str, JsonValue] | None = None


class TrainPayload(TrainingPayload, JudgedPayload):
    """One round of training; the judge is that of a trainer's reward.

    Attributes:
        objective: None for a trainer with a loss of its own.
        unranked: the objective uses the order of the rejected responses, and the builder does not order them.
        trainer: None for the host's own.
        examples: [first, last), places in the source's training prompts; for other trainers than the host's own.
        max_tokens: of a response that the policy generates while it is trained.
    """

    objective: Description | None = None
    unranked: bool = False
    spending: Spending | None = None
    trainer: Description | None = None
    examples: list[int] = []
    max_tokens: int = 0


class StatePayload(TrainPayload):
    """A training up to a share of its steps; the other fields are those of the training.

    Attributes:
        training: its key: both keep their checkpoints in one place, and go on from each other's.
    """

    training: str
    share: float


class GroupsPayload(JudgedPayload):
    """One round of a data builder.

    Attributes:
        examples: [first, last), places in the source's training prompts.
    """

    builder: Description
    backend: Description
    max_tokens: int
    examples: list[int]
    round: int
    seed: int


class ReferencePayload(Payload):
    """One view of a round's responses under the reference.

    Attributes:
        objective: whose view it is; None for the plain and the mismatched view, which all objectives share.
    """

    view: str
    objective: Description | None = None
    precision: str = "float32"
    layout: LayoutName = "auto"


class EvaluatedPayload(Payload):
    """The examples that a stage evaluates, and what generates for it.

    Attributes:
        prompts: the last one's number in the split, or fewer where it has fewer; None for all.
        first: prompts before the first one, where the split is evaluated in blocks.
        prefix: goes before the last user turn of every prompt that the row answers.
    """

    split: SplitName
    prompts: int | None
    backend: Description
    first: int = 0
    prefix: str = ""


class AnswersPayload(EvaluatedPayload):
    sampling: dict[str, JsonValue]

    @property
    def drawn(self) -> Sampling:
        """The sampling as a type."""
        return TypeAdapter(Sampling).validate_python(self.sampling)


class ShardPayload(AnswersPayload):
    """A part of the responses that a later stage would draw: every `count`-th batch of its prompts, from `number` on.

    Attributes:
        blocks: whether the responses are drawn in blocks, as data builders' are, or all at once, as answers.
    """

    number: int
    count: int
    blocks: bool = False


class ScoringShardPayload(Payload):
    """A part of the numbers that a later stage would compute: of each request, every `count`-th batch from `number` on.

    Attributes:
        kind, key, payload: of that stage, whose inputs the shard has.
    """

    kind: str
    key: str
    payload: dict[str, JsonValue]
    number: int
    count: int


class EvaluatePayload(EvaluatedPayload, JudgedPayload):
    """One evaluator on one row.

    Attributes:
        label: the row's, where a judge is asked: the order of the answers in a question depends on it.
        response: `evaluation.response` of the config.
        opponent_models: with `response`, label of an opponent -> its model, where not all rows have one tokenizer.
        repeats: `JudgeSettings.repeating`, where questions are asked again.
        opponent_prefixes: label of an opponent that answers under a prefix -> that prefix.
    """

    evaluator: Description
    seed: int
    fingerprint: str | None = None
    label: str = ""
    response: dict[str, JsonValue] | None = None
    opponent_models: dict[str, str] = {}
    repeats: dict[str, JsonValue] | None = None
    opponent_prefixes: dict[str, str] = {}


class JudgeFacts(StageRecord):
    """The judge of an artifact, and what it was asked: tokens and dollars count answers that were in the store as well.

    Attributes:
        repeated: key of a question that was asked again -> its verdicts.
    """

    model: str = ""
    endpoint: str = ""
    parameters: dict[str, JsonValue] = {}
    judge_calls: int = 0
    judge_tokens: int = 0
    judge_usd: float | None = None
    judgments: int = 0
    unparsed: int = 0
    declined: int = 0
    cut_off: int = 0
    cut_off_reasons: list[str] = []
    versions: list[str] = []
    repeated: dict[str, list[JsonValue]] = {}


class Facts(StageRecord):
    """The facts of any artifact: what costs are computed from.

    Attributes:
        used: keys of artifacts that the stage asked for beside its inputs.
        made_seconds: spent on making those of them that were not in the store.
        charged_seconds: what all of them took when they were made.
    """

    used: list[str] = []
    made_seconds: float = 0.0
    charged_seconds: float = 0.0
    tokens_trained: int = 0
    tokens_generated: int = 0
    judge: JudgeFacts | None = None

    @classmethod
    def of(cls, artifact: Artifact) -> Self:
        """Read an artifact's facts.

        Raises:
            StoreError: one is not of its type.
        """
        try:
            return cls.model_validate(artifact.facts)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise StoreError(
                f"artifact {artifact.folder}: its fact {place} is {first['input']!r} ({first['msg']}): delete it and run again"
            ) from error


class SplitOverlap(StageRecord):
    """Training prompts of one split that hold an evaluator's questions.

    Attributes:
        of: prompts of the split.
        same: prompts one of whose turns is a question word for word.
        questions: different questions that are held.
    """

    of: int = 0
    prompts: int = 0
    same: int = 0
    questions: int = 0


class BenchmarkOverlap(StageRecord):
    """Training prompts that hold one evaluator's questions.

    Attributes:
        unknown: why the questions could not be read; None where they could.
    """

    questions: int = 0
    splits: dict[SplitName, SplitOverlap] = {}
    unknown: str | None = None


class BenchmarkFacts(Facts):
    benchmarks: dict[str, BenchmarkOverlap]


class ScreeningCounts(StageRecord):
    """A source's rows that are used, and why the others are not; `harness.run.stages.screening.Screening` explains them."""

    kept: dict[str, int] = {}
    dropped: dict[str, int] = {}
    contaminated: dict[str, dict[str, int]] = {}
    too_long: dict[str, dict[str, int]] = {}
    benchmarks: dict[str, BenchmarkOverlap] = {}


class SourceFacts(Facts):
    """The rows of a source by split.

    Attributes:
        screening: None in artifacts of older versions.
    """

    splits: dict[SplitName, int] = {}
    dropped: dict[str, int] = {}
    screening: ScreeningCounts | None = None
    usable: dict[str, dict[str, int]] = {}


class DeltaFacts(StageRecord):
    """How small a model is that is kept as its difference from another one.

    Attributes:
        base: the other one: a stage's key, or `checkpoint:<hash>`.
        share: bytes of the difference over those of the weights.
    """

    base: str
    share: float


class StorageFacts(TypedDict, total=False):
    """The fields of `TrainingFacts` that tell how a model was stored, where it was not as it was trained."""

    rounding: Rounding
    delta: DeltaFacts


class TrainingFacts(Facts):
    """The facts of fine-tuning and of preference training.

    Attributes:
        memory_warning: for the board, where memory ran out; empty where it did not.
        rounding: what storage in a smaller type than float32 lost; None where nothing was rounded.
        delta: None where the weights are stored whole.
    """

    memory_warning: str = ""
    rounding: Rounding | None = None
    delta: DeltaFacts | None = None


class SftFacts(TrainingFacts):
    """The facts of supervised fine-tuning.

    Attributes:
        tokens: per epoch.
        layout: of the rows, where it is not TRL's.
        layout_warning: why they were padded though they need not be; empty where they were not.
    """

    layout: str = ""
    layout_warning: str = ""
    examples: int = 0
    dropped: int = 0
    tokens: int = 0


class TrainFacts(TrainingFacts):
    """How much of its budget a training used, and how it ran.

    Attributes:
        unpaired: groups that the objective could not train on, since they have no rejected response.
        unknown: of `prompts`, `pairs`, `updates` and `tokens`, those that the trainer did not tell.
        reward_calls: responses that a reward was asked for while training.
        notes: the trainer's warnings.
    """

    prompts: int
    pairs: int
    updates: int
    tokens_trained: int
    unpaired: int = 0
    layout: str = ""
    layout_warning: str = ""
    unknown: list[str] = []
    reward_calls: int = 0
    notes: list[str] = []


class StateFacts(Facts):
    """How far the training had come: after `step` of `steps`."""

    step: int
    steps: int


class ResponseCounts(StageRecord):
    """Counts of a round's responses by where their ids come from; `harness.run.stages.groups.count_responses` explains them."""

    as_sampled: int = 0
    tokenized_again: int = 0
    from_dataset: int = 0


class GroupsFacts(Facts):
    """How a round's data turned out.

    Attributes:
        dropped: reason -> prompts that gave no group.
        means: of the numbers that the builder noted in its groups.
        responses: None in artifacts of older versions.
    """

    prompts: int
    groups: int
    pairs: int = 0
    dropped: dict[str, int] = {}
    responses: ResponseCounts | None = None
    means: dict[str, float] = {}


class ReferenceFacts(Facts):
    tokens_scored: int = 0


class EvaluateFacts(Facts):
    """The facts of an evaluation.

    Attributes:
        notes: what the evaluator noted beside its scores.
    """

    notes: dict[str, Any] = {}


class SampleFacts(Facts):
    tokens: int = 0


class ShardFacts(Facts):
    """The responses or the numbers of a shard.

    Attributes:
        drawn: key of the samples that it is a part of -> the seconds that drawing its part took.
        parts: key of a request for numbers -> key of the artifact with the shard's part of them.
    """

    drawn: dict[str, float] = {}
    parts: dict[str, str] = {}


class RewardFacts(Facts):
    truncated: int = 0
