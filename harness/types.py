"""The values that flow through a comparison. All frozen; none imports torch at run time.

Log-probabilities are sums over a response's tokens in nats, its end-of-turn token included, the prompt's tokens excluded.
Shapes: G groups (prompts) in a batch, M the most rejected responses of any group in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor

Role = Literal["system", "user", "assistant"]
SplitName = Literal["sft", "train", "tuning", "heldout"]


@dataclass(frozen=True)
class Message:
    """One turn of a dialogue."""

    role: Role
    content: str


@dataclass(frozen=True)
class Prompt:
    """What a policy answers: a dialogue that ends with a user turn.

    Attributes:
        id: unique within a source.
        messages: the turns, oldest first.
    """

    id: str
    messages: tuple[Message, ...]

    @classmethod
    def of(cls, id: str, text: str) -> Prompt:
        """A prompt of a single user turn."""
        return cls(id, (Message("user", text),))

    def prefixed(self, prefix: str) -> Prompt:
        """The prompt-augmented query p ⊕ x: `prefix` before the last user turn, a space between."""
        *before, last = self.messages
        return Prompt(self.id, (*before, Message(last.role, f"{prefix} {last.content}")))

    @property
    def text(self) -> str:
        """The last user turn."""
        return self.messages[-1].content


@dataclass(frozen=True)
class Response:
    """What a policy or an author said.

    Attributes:
        text: the words, without special tokens.
        finished: whether the turn was ended; no end-of-turn token is appended to a response cut off by a length limit.
        tokens: how many tokens were sampled, where known.
    """

    text: str
    finished: bool = True
    tokens: int | None = None


@dataclass(frozen=True)
class Example:
    """One row of a source.

    Attributes:
        prompt: the question.
        target: the SFT target, where the source has one.
        ranked: responses from best to worst as the source labels them; two of them are a preference pair.
        metadata: anything its evaluators need, JSON-serialisable.
    """

    prompt: Prompt
    target: str | None = None
    ranked: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Dataset:
    """A source's rows by split, and how many rows were dropped and why."""

    splits: Mapping[SplitName, tuple[Example, ...]]
    dropped: Mapping[str, int] = field(default_factory=dict)

    def __getitem__(self, split: SplitName) -> tuple[Example, ...]:
        return self.splits.get(split, ())


@dataclass(frozen=True)
class Group:
    """The unit of training: one prompt, one chosen response, m ≥ 0 rejected ones.

    Attributes:
        info: numbers about how the group was made, averaged into the build report (e.g. similarity of its negatives).
    """

    prompt: Prompt
    chosen: Response
    rejected: tuple[Response, ...] = ()
    info: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Sampling:
    """How responses are drawn. `temperature` 0 is greedy decoding."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 64
    seed: int = 0

    @property
    def label(self) -> str:
        return "greedy" if self.temperature == 0 else f"T={self.temperature:g}"


@dataclass(frozen=True)
class Logps:
    """Sequence log-probabilities of a batch of groups under one model.

    Attributes:
        chosen: [G], nats.
        rejected: [G, M], nats; anything where `mask` is False.
        chosen_tokens: [G], response tokens counted in `chosen`.
        rejected_tokens: [G, M].
        mask: [G, M], True where a rejected response exists.
    """

    chosen: Tensor
    rejected: Tensor
    chosen_tokens: Tensor
    rejected_tokens: Tensor
    mask: Tensor


@dataclass(frozen=True)
class View:
    """The same responses under another prompt: policy (without gradient) and reference."""

    policy: Logps
    reference: Logps


@dataclass(frozen=True)
class Mismatched:
    """Responses under prompts that they do not answer, of the whole batch however it is cut; no gradient.

    Attributes:
        policy: [K], nats.
        reference: [K], nats.
    """

    policy: Tensor
    reference: Tensor


@dataclass(frozen=True)
class GroupLogps:
    """All an objective sees. `reference` and `mismatched` are None unless the objective needs them."""

    policy: Logps
    reference: Logps | None = None
    views: Mapping[str, View] = field(default_factory=dict)
    mismatched: Mismatched | None = None

    def pair_metrics(self, margin: Tensor) -> dict[str, Tensor]:
        """What is worth logging of any pairwise loss: `margin` [G, M], the share of pairs above 0, log-probabilities."""
        return {
            "margin": margin,
            "accuracy": (margin > 0).double(),
            "chosen_logp": self.policy.chosen,
            "rejected_logp": self.policy.rejected,
        }


@dataclass(frozen=True)
class Loss:
    """What an objective returns.

    The trainer adds the mean of `per_pair` over all valid pairs of the batch and the mean of `per_group` over its groups
    (or over its chosen tokens, see `Objective.group_mean`), however the batch is cut into micro-batches.

    Attributes:
        per_pair: [G, M], or None.
        per_group: [G], or None.
        metrics: named [G] or [G, M] tensors, logged as means.
    """

    per_pair: Tensor | None = None
    per_group: Tensor | None = None
    metrics: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Metric:
    """What an evaluator reports.

    Attributes:
        name: unique within its evaluator.
        higher_is_better: None where neither direction is better (a length, say).
        primary: shown in the short tables.
    """

    name: str
    description: str
    higher_is_better: bool | None = True
    primary: bool = False


@dataclass(frozen=True)
class Score:
    """One example's value of one metric.

    Attributes:
        sample: counts the responses to one prompt.
        question: what examples of one dialogue share (the turns of a question), so that they are resampled together; the
            example stands alone if empty.
    """

    example: str
    metric: str
    value: float
    sample: int = 0
    question: str = ""


@dataclass(frozen=True)
class Questions:
    """How much a judge is asked at most, without the second asking of what could not be read.

    Attributes:
        calls: questions.
        tokens: of all questions together. A byte of a known text counts as a token, and a policy's answer as its longest.
        answer_tokens: of one of the judge's answers; the judge's `max_tokens` if None.
    """

    calls: int
    tokens: int
    answer_tokens: int | None = None


@dataclass(frozen=True)
class Imported:
    """What another tool measured of one model, for one evaluator.

    Attributes:
        label: the model's name there.
        evaluator: the name of what measures the same here.
        scores: one per example and metric; where the tool left means alone, one score per metric, and `whole` is false.
        judge: who judged, as the files say; '' where nobody did.
        facts: what must be equal for a fair comparison, and the tool's own figures; JSON. `versions` and `shots`, by task,
            are compared between rows.
        answers: some examples with their answer: name -> (prompt, target, answer).
        warnings: what a reader of the board must know, such as a figure that could not be had.
    """

    label: str
    evaluator: str
    metrics: tuple[Metric, ...]
    scores: tuple[Score, ...]
    whole: bool = True
    judge: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)
    answers: Mapping[str, tuple[str, str | None, str]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cost:
    """What something took. Seconds are wall time of the stages, whoever ran them first.

    Attributes:
        judge_tokens: of all questions to judges and their answers, also those that were in the store.
        usd: what those cost at list price; None where a judge's price is unknown.
    """

    seconds: float = 0.0
    tokens_trained: int = 0
    tokens_generated: int = 0
    judge_tokens: int = 0
    usd: float | None = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.seconds + other.seconds,
            self.tokens_trained + other.tokens_trained,
            self.tokens_generated + other.tokens_generated,
            self.judge_tokens + other.judge_tokens,
            None if self.usd is None or other.usd is None else self.usd + other.usd,
        )


@dataclass(frozen=True)
class JudgeAnswer:
    """What a judge said.

    Attributes:
        text: its words; empty where it declined to answer.
        model: its model and version as its server reports them.
        finish: why it stopped: `stop`, `length`, `declined`, or what its server says.
        input_tokens: of the question, as its server counts them.
        output_tokens: of the answer.
        top_logprobs: (token, log-probability in nats) of the likeliest first tokens, where asked for.
    """

    text: str
    model: str
    finish: str = "stop"
    input_tokens: int = 0
    output_tokens: int = 0
    top_logprobs: tuple[tuple[str, float], ...] | None = None


@dataclass(frozen=True)
class Judgment:
    """A judge's answer and what it was read as; `value` is None where it could not be read, asked twice."""

    answer: JudgeAnswer
    value: Any

    @property
    def parsed(self) -> bool:
        return self.value is not None


@dataclass(frozen=True)
class Paper:
    """Where a component comes from."""

    title: str
    arxiv: str = ""
    equations: str = ""
