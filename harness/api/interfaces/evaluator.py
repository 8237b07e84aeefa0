"""The interfaces of evaluators, which score rows, and of importers, which read other tools' scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from harness.api.interfaces.component import Component
from harness.api.types import (
    Example,
    Imported,
    JudgeAnswer,
    Judgment,
    Message,
    Metric,
    Prompt,
    Questions,
    Response,
    Sampling,
    Score,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from harness.models.reward import Reward


class EvaluationTask(Protocol):
    """The services that an evaluator may ask for; answers and log-probabilities go through the store.

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
        """Summed log-probabilities in nats of responses to the examples, under the policy or the starting model.

        With `run.shards`, what is asked for before a number is read is computed on all devices: ask for all of them first.
        """
        ...

    def gold(self, example: Example, response: Response) -> Mapping[str, float]:
        """The source's marks of one response: `total` and whatever else it reports."""
        ...

    def reward(self, model: Reward, responses: Sequence[Sequence[Response]]) -> list[list[float]]:
        """A reward's value of each example's responses; equal requests are computed once.

        NaN where there is none: the judge's answer could not be read, or the example has no reference to verify by.
        """
        ...

    def benchmarks(self) -> Path:
        """A folder of lm-eval tasks that the source ships."""
        ...

    def policy(self) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
        """The policy in memory, in evaluation mode, with float32 weights on every device."""
        ...


class Evaluator(Component):
    """Turns a policy into scores, one per example and metric, so that every comparison can be paired."""

    needs: ClassVar[frozenset[Literal["target", "ranked", "gold", "benchmarks"]]] = frozenset()
    reads_split: ClassVar[bool] = True  # scores the evaluated split's examples; false where it brings questions of its own
    divisible: ClassVar[bool] = False  # an example's scores hang on no other example: prompts may be evaluated in parts
    judged: ClassVar[bool] = False  # asks a judge: the config needs a `judge` section, and its field `judge` may change fields

    def required(self) -> frozenset[str]:
        """Return what it asks of the source with these fields: `needs`, unless a field takes something's place."""
        return self.needs

    def asks_judge(self) -> bool:
        """Return whether it asks a judge with these fields: `judged`, unless a field decides."""
        return self.judged

    def metrics(self) -> Sequence[Metric]:
        """Return the metrics that it reports; every `Score.metric` is one of these."""
        raise NotImplementedError

    def samplings(self) -> Sequence[Sampling]:
        """The answers it will ask for, so that they are drawn once for all evaluators (seed 0; the run adds its own)."""
        return ()

    def opponents(self) -> Sequence[str]:
        """Rows whose answers it reads beside its own, by label; `baseline` is the board's, `all` every other row."""
        return ()

    def problems(self) -> Sequence[tuple[str, str]]:
        """Return problems of the fields that only a look at the disk can tell: (field, fix). Cheap; called while planning."""
        return ()

    def fingerprint(self) -> str:
        """Return what decides its scores beside the fields, such as a hash of the files read. Cheap; called while planning."""
        return ""

    def prepare(self) -> None:
        """Put in place what it downloads. Called before anything runs, where scores are still to be made, and never by a plan.

        Raises:
            DataError: it cannot be had; what is wrong and the fix.
        """

    def cautions(self) -> Sequence[str]:
        """Return warnings for the board: what a reader of its scores should know with these fields."""
        return ()

    def benchmark_prompts(self, shipped: Path | None = None) -> Sequence[Prompt]:
        """Return the questions that it brings itself, against which training prompts are held; none by default.

        The first user turn of each counts. Prompts with one id are wordings of one question. Called while planning and when a
        board is written: it reads local files alone, and downloads nothing.

        Args:
            shipped: the folder of lm-eval tasks that the source ships, where `needs` has `benchmarks`.

        Raises:
            DataError: its files are not here yet, or cannot be read.
        """
        return ()

    @classmethod
    def brings_questions(cls) -> bool:
        """Return whether it says which questions it brings."""
        return cls.benchmark_prompts is not Evaluator.benchmark_prompts

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


class Importer(Component):
    """A reader of another tool's results, for rows of kind `imported`.

    Its evaluator names, metrics and example names are those of the evaluator that measures the same here, so that both are
    compared example by example.
    """

    def read(self, paths: Sequence[Path]) -> Iterable[Imported]:
        """Return the results in these files and folders.

        Raises:
            DataError: a result cannot be read; names file and place.
        """
        raise NotImplementedError
