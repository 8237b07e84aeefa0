"""What a plugin implements. A component is a frozen pydantic model: its fields are its hyper-parameters, with bounds and
descriptions; its methods are its behaviour. Class variables say what it is called, where it comes from and what it needs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, Self

from pydantic import BaseModel, ConfigDict

from harness.types import (
    Dataset,
    Example,
    Group,
    GroupLogps,
    Imported,
    JudgeAnswer,
    Judgment,
    Loss,
    Message,
    Metric,
    Paper,
    Prompt,
    Questions,
    Response,
    Sampling,
    Score,
    SplitName,
)

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from harness.models.reward import RewardModel
    from harness.models.sentence import SentenceEmbedder


class Component(BaseModel):
    """Common ground of everything a plugin registers.

    `name` is how configs call it. `version` goes into the key of every artifact it makes: raise it when the same fields
    give other results. `paper` is None where there is none to cite.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: ClassVar[str]
    version: ClassVar[int] = 1
    paper: ClassVar[Paper | None] = None

    def problems(self) -> Sequence[tuple[str, str]]:
        """What is wrong with fields that only a look at the machine can tell: (field, fix). Cheap; called while planning."""
        return ()

    def fingerprint(self) -> str:
        """What else decides the results beside the fields: a hash of files read, an engine's version. Called while planning;
        part of every key that the component is in, unless empty."""
        return ""


class BuildTask(Protocol):
    """What a data builder may ask for. Every service goes through the store: two methods that ask for the same samples
    share them, and a request for 64 reuses the 32 already there.

    Attributes:
        examples: the prompts of this round, with target and ranked responses where the source has them.
        round: counted from 0.
        rng: seeded by the run and the round.
    """

    examples: Sequence[Example]
    round: int
    rng: random.Random

    def sample(
        self,
        n: int,
        *,
        prefix: str = "",
        temperature: float = 1.0,
        top_p: float = 1.0,
        policy: Literal["start", "current"] = "current",
    ) -> list[list[Response]]:
        """n responses per example from the round's policy; `prefix` goes before the last user turn."""
        ...

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
        """n responses to each of any prompts, such as a question to the policy about its own answers."""
        ...

    def logps(
        self, responses: Sequence[Sequence[Response]], *, prefix: str = "", policy: Literal["start", "current"] = "current"
    ) -> list[list[float]]:
        """Summed log-probabilities in nats of responses to the examples; `prefix` goes before the last user turn."""
        ...

    def similarity(self, embedder: str | SentenceEmbedder, responses: Sequence[Sequence[Response]]) -> list[np.ndarray]:
        """Cosine of each response's embedding with its example's target, one array per example.

        `embedder` is `tfidf` (words and word pairs, inverse document frequency over all texts given) or `hidden` (mean
        last hidden state of the starting policy), or a `SentenceEmbedder`.
        """
        ...

    def reward(self, model: RewardModel, responses: Sequence[Sequence[Response]]) -> list[list[float]]:
        """A reward model's value of each example's responses; equal requests are computed once."""
        ...

    def gold(self, responses: Sequence[Sequence[Response]]) -> list[list[float]]:
        """The source's gold reward per example and response; an error where the source has none."""
        ...

    def judge(
        self, conversations: Sequence[Sequence[Message]], parse: Callable[[JudgeAnswer], Any], **parameters: Any
    ) -> list[Judgment]:
        """The reading of each conversation by the config's judge, as `EvaluationTask.judge`; the builder must be `judged`."""
        ...

    def count(self, reason: str, examples: int = 1) -> None:
        """Count examples that gave no group, for the build report."""
        ...


class DataBuilder(Component):
    """Makes the groups a round trains on."""

    needs: ClassVar[frozenset[Literal["target", "ranked", "gold"]]] = frozenset()
    judged: ClassVar[bool] = False  # asks a judge: the config needs a `judge` section, and its field `judge` may change fields

    def required(self) -> frozenset[str]:
        """What it asks of the source with these fields: `needs`, unless a field takes something's place."""
        return self.needs

    def build(self, task: BuildTask) -> Iterable[Group]:
        """Yield at most one group per example of `task.examples`."""
        raise NotImplementedError


class Objective(Component):
    """A loss over groups, pure tensors in and out.

    `needs_reference` asks for the reference policy's log-probabilities; `needs_rejected` says that a group without
    negatives cannot be trained on; `needs_mismatched` asks for responses scored under prompts that they do not answer
    (`mismatched` is then no name for a view); `ranks_rejected` says that a group's negatives are a ranking, best first, whose
    order counts; `group_mean` says over what `Loss.per_group` is averaged.
    """

    needs_reference: ClassVar[bool] = True
    needs_rejected: ClassVar[bool] = True
    needs_mismatched: ClassVar[bool] = False
    ranks_rejected: ClassVar[bool] = False
    group_mean: ClassVar[Literal["groups", "tokens"]] = "groups"

    def loss(self, batch: GroupLogps) -> Loss:
        """The loss of one batch; see `Loss` for shapes and how it is averaged."""
        raise NotImplementedError

    def views(self) -> Mapping[str, Callable[[Prompt], Prompt]]:
        """Other prompts under which the same responses are scored: name -> how to change the prompt."""
        return {}


class EvaluationTask(Protocol):
    """What an evaluator may ask for; answers and log-probabilities go through the store.

    Attributes:
        examples: the evaluated split, with targets, ranked responses and metadata where the source has them.
        seed: the run's seed.
        folder: a scratch folder of this evaluation, removed afterwards.
        files: a folder whose files stay with the evaluation and are copied beside the board. From `judgments.jsonl`, lines of
            `example`, `sample`, `verdict` and `words`, the board's page shows what a judge said of an answer.
        label: the row's name on the board, for those files; given to judged evaluators alone.
    """

    examples: Sequence[Example]
    seed: int
    folder: Path
    files: Path
    label: str

    def respond(self, sampling: Sampling) -> list[list[Response]]:
        """The policy's answers, `[examples][sampling.n]`."""
        ...

    def respond_to(self, prompts: Sequence[Prompt], sampling: Sampling, row: str | None = None) -> list[list[Response]]:
        """Answers to prompts of the evaluator's own, `[prompts][sampling.n]`, by the policy or by an opponent's row."""
        ...

    def opponents(self) -> Mapping[str, list[list[Response]]]:
        """The answers of the rows that `Evaluator.opponents` names, by label; drawn as `Evaluator.samplings()[0]`.

        Of an evaluator without samplings, which draws answers of its own, the labels alone.
        """
        ...

    def judge(
        self, conversations: Sequence[Sequence[Message]], parse: Callable[[JudgeAnswer], Any], **parameters: Any
    ) -> list[Judgment]:
        """The judge's reading of each conversation, in their order.

        What was asked before is not asked again. An answer of which `parse` makes None is asked for once more, and then kept
        as unparsed: its judgment's value is None, and it must not be scored. `parameters` (temperature, max_tokens,
        top_logprobs …) stand over those of the config.
        """
        ...

    def note(self, name: str, value: Any) -> None:
        """Anything worth knowing of this evaluation beside its scores, for the row's provenance; JSON."""
        ...

    def logps(self, responses: Sequence[Sequence[Response]], *, reference: bool = False) -> list[list[float]]:
        """Summed log-probabilities in nats of responses to the examples, under the policy or the starting model."""
        ...

    def gold(self, example: Example, response: Response) -> Mapping[str, float]:
        """The source's marks of one response: `total` and whatever else it reports."""
        ...

    def reward(self, model: RewardModel, responses: Sequence[Sequence[Response]]) -> list[list[float]]:
        """A reward model's value of each example's responses; equal requests are computed once."""
        ...

    def benchmarks(self) -> Path:
        """A folder of lm-eval tasks that the source ships."""
        ...

    def policy(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The policy in memory, in evaluation mode."""
        ...


class Evaluator(Component):
    """Turns a policy into scores, one per example and metric, so that every comparison can be paired."""

    needs: ClassVar[frozenset[Literal["target", "ranked", "gold", "benchmarks"]]] = frozenset()
    judged: ClassVar[bool] = False  # asks a judge: the config needs a `judge` section, and its field `judge` may change fields

    def metrics(self) -> Sequence[Metric]:
        """What it reports; every `Score.metric` is one of these."""
        raise NotImplementedError

    def samplings(self) -> Sequence[Sampling]:
        """The answers it will ask for, so that they are drawn once for all evaluators (seed 0; the run adds its own)."""
        return ()

    def opponents(self) -> Sequence[str]:
        """Rows whose answers it reads beside its own, by label; `baseline` is the board's, `all` every other row."""
        return ()

    def problems(self) -> Sequence[tuple[str, str]]:
        """What is wrong with fields that only a look at the disk can tell: (field, fix). Cheap; called while planning."""
        return ()

    def fingerprint(self) -> str:
        """What else decides its scores beside the fields: a hash of the files read. Cheap; called while planning."""
        return ""

    def asks(self, examples: Sequence[Example], opponents: int) -> Questions | None:
        """At most how much one evaluation asks its judge, for the estimate of `harness plan`; None where it does not say.

        Args:
            examples: the evaluated ones.
            opponents: how many other rows it meets.
        """
        return None

    def evaluate(self, task: EvaluationTask) -> Iterable[Score]:
        """Yield the scores."""
        raise NotImplementedError


class Source(Component):
    """Where prompts, targets and preferences come from."""

    provides: ClassVar[frozenset[Literal["target", "ranked", "gold", "benchmarks"]]] = frozenset()

    def load(self) -> Dataset:
        """All splits. Deterministic in the fields; raises `DataError` naming file and line."""
        raise NotImplementedError

    def pinned(self) -> Self:
        """The same source with what may change meanwhile (a branch of a repository) fixed. Called once, while planning.

        Raises `DataError` where there is no such thing; `hub_commit` says so, and also that the hub cannot be reached.
        """
        return self

    def sizes(self) -> Mapping[SplitName, int]:
        """How many examples each split has at most, as far as the fields tell. Called while planning."""
        return {}

    def gold(self, example: Example, response: Response) -> Mapping[str, float]:
        """Marks of one response, `total` among them; only where `provides` has `gold`."""
        raise NotImplementedError

    def write_benchmarks(self, folder: Path) -> None:
        """Write lm-eval task files; only where `provides` has `benchmarks`."""
        raise NotImplementedError


class Importer(Component):
    """Reads what another tool measured, for rows of kind `imported`.

    Its evaluator names, metrics and example names are those of the evaluator that measures the same here, so that both are
    compared example by example.
    """

    def read(self, paths: Sequence[Path]) -> Iterable[Imported]:
        """The results in these files and folders; raises `DataError` naming file and place."""
        raise NotImplementedError


class Policy(Protocol):
    """The checkpoint that a backend generates with; what is not asked for is not loaded.

    Attributes:
        folder: its files: weights as safetensors, configuration, tokenizer and template.
        name: what tells it from every other checkpoint; made of letters, digits and hyphens.
        logs: where an engine's output goes; made when first needed.
    """

    @property
    def folder(self) -> Path: ...

    @property
    def name(self) -> str: ...

    @property
    def logs(self) -> Path: ...

    @property
    def model(self) -> PreTrainedModel:
        """In this process's memory, in evaluation mode."""
        ...

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase: ...

    def secret(self, variable: str) -> str:
        """An environment variable's value, such as an API key; `StageError` where it is not set. Never write it anywhere."""
        ...


class Generate(Protocol):
    """A backend at work on one policy."""

    def __call__(
        self, prompts: Sequence[Prompt], sampling: Sampling, report: Callable[[int, int], None] | None = None
    ) -> list[list[Response]]: ...


class Chunks(Protocol):
    """What an earlier process had of a generation when it was killed, and where this one keeps its own.

    Attributes:
        responses: a prompt's place in the request -> its `sampling.n` responses; those given to `add` among them.
        state: what was given to `add` with the last of them; empty where nothing was kept.
    """

    @property
    def responses(self) -> Mapping[int, list[Response]]: ...

    @property
    def state(self) -> bytes: ...

    def add(self, responses: Mapping[int, list[Response]], state: bytes = b"") -> None:
        """More prompts are answered, all `sampling.n` responses of each. They are kept on disk when it is time for that.

        Args:
            state: what the backend needs to go on from here to the same responses, such as its random numbers' state.
        """
        ...


class ResumableGenerate(Generate, Protocol):
    """A backend at work that goes on from where an earlier process was."""

    def __call__(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        report: Callable[[int, int], None] | None = None,
        chunks: Chunks | None = None,
    ) -> list[list[Response]]: ...


class Backend(Component):
    """Something that generates. Overrides `generate`, or `session` where an engine has to be started and stopped.

    `resumes` says that it can go on from where a killed process was: what generates takes a further argument `chunks`, a
    `Chunks` or None, answers only the prompts that are not among its responses, adds to it, and gives the responses that it
    would have given in one go. Without it, a stage whose process is killed generates all of its responses again.
    """

    resumes: ClassVar[bool] = False
    any_policy: ClassVar[bool] = True

    def serves_any_policy(self) -> bool:
        """Whether it answers with the checkpoint it is given; False for a server that holds one model of its own."""
        return self.any_policy

    @contextmanager
    def session(self, policy: Policy) -> Iterator[Generate]:
        """An engine for `policy`, ended with the block. A stage opens it when it first generates, and one at a time."""
        yield partial(self.generate, policy)

    def generate(
        self,
        policy: Policy,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        report: Callable[[int, int], None] | None = None,
    ) -> list[list[Response]]:
        """`sampling.n` responses per prompt, reproducible in `sampling.seed`; `report` gets (done, total) responses."""
        raise NotImplementedError
