"""What a plugin implements. A component is a frozen pydantic model: its fields are its hyper-parameters, with bounds and
descriptions; its methods are its behaviour. Class variables say what it is called, where it comes from and what it needs.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict

from harness.types import (
    Dataset,
    Example,
    Group,
    GroupLogps,
    Loss,
    Metric,
    Paper,
    Prompt,
    Response,
    Sampling,
    Score,
    SplitName,
)

if TYPE_CHECKING:
    import numpy as np
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Component(BaseModel):
    """Common ground of everything a plugin registers.

    `name` is how configs call it. `version` goes into the key of every artifact it makes: raise it when the same fields
    give other results. `paper` is None where there is none to cite.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: ClassVar[str]
    version: ClassVar[int] = 1
    paper: ClassVar[Paper | None] = None


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

    def similarity(self, embedder: str, responses: Sequence[Sequence[Response]]) -> list[np.ndarray]:
        """Cosine of each response's embedding with its example's target, one array per example.

        `embedder` is `tfidf` (words and word pairs, inverse document frequency over all texts given) or `hidden` (mean
        last hidden state of the starting policy).
        """
        ...

    def gold(self, responses: Sequence[Sequence[Response]]) -> list[list[float]]:
        """The source's gold reward per example and response; an error where the source has none."""
        ...

    def count(self, reason: str, examples: int = 1) -> None:
        """Count examples that gave no group, for the build report."""
        ...


class DataBuilder(Component):
    """Makes the groups a round trains on."""

    needs: ClassVar[frozenset[Literal["target", "ranked", "gold"]]] = frozenset()

    def build(self, task: BuildTask) -> Iterable[Group]:
        """Yield at most one group per example of `task.examples`."""
        raise NotImplementedError


class Objective(Component):
    """A loss over groups, pure tensors in and out.

    `needs_reference` asks for the reference policy's log-probabilities; `needs_rejected` says that a group without
    negatives cannot be trained on; `needs_mismatched` asks for responses scored under prompts that they do not answer
    (`mismatched` is then no name for a view); `group_mean` says over what `Loss.per_group` is averaged.
    """

    needs_reference: ClassVar[bool] = True
    needs_rejected: ClassVar[bool] = True
    needs_mismatched: ClassVar[bool] = False
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
    """

    examples: Sequence[Example]
    seed: int
    folder: Path

    def respond(self, sampling: Sampling) -> list[list[Response]]:
        """The policy's answers, [examples][sampling.n]."""
        ...

    def logps(self, responses: Sequence[Sequence[Response]], *, reference: bool = False) -> list[list[float]]:
        """Summed log-probabilities in nats of responses to the examples, under the policy or the starting model."""
        ...

    def gold(self, example: Example, response: Response) -> Mapping[str, float]:
        """The source's marks of one response: `total` and whatever else it reports."""
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

    def metrics(self) -> Sequence[Metric]:
        """What it reports; every `Score.metric` is one of these."""
        raise NotImplementedError

    def samplings(self) -> Sequence[Sampling]:
        """The answers it will ask for, so that they are drawn once for all evaluators (seed 0; the run adds its own)."""
        return ()

    def evaluate(self, task: EvaluationTask) -> Iterable[Score]:
        """Yield the scores."""
        raise NotImplementedError


class Source(Component):
    """Where prompts, targets and preferences come from."""

    provides: ClassVar[frozenset[Literal["target", "ranked", "gold", "benchmarks"]]] = frozenset()

    def load(self) -> Dataset:
        """All splits. Deterministic in the fields; raises `DataError` naming file and line."""
        raise NotImplementedError

    def problems(self) -> Sequence[tuple[str, str]]:
        """What is wrong with fields that only a look at the disk can tell: (field, fix). Cheap; called while planning."""
        return ()

    def sizes(self) -> Mapping[SplitName, int]:
        """How many examples each split has at most, as far as the fields tell. Called while planning."""
        return {}

    def fingerprint(self) -> str:
        """What else decides the data beside the fields: a hash of the files read. Cheap; called while planning."""
        return ""

    def gold(self, example: Example, response: Response) -> Mapping[str, float]:
        """Marks of one response, `total` among them; only where `provides` has `gold`."""
        raise NotImplementedError

    def write_benchmarks(self, folder: Path) -> None:
        """Write lm-eval task files; only where `provides` has `benchmarks`."""
        raise NotImplementedError


class Backend(Component):
    """Something that generates."""

    def generate(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        report: Callable[[int, int], None] | None = None,
    ) -> list[list[Response]]:
        """`sampling.n` responses per prompt, reproducible in `sampling.seed`; `report` gets (done, total) responses."""
        raise NotImplementedError


class Round(BaseModel):
    """What one round changes. Empty: as the method says.

    Attributes:
        data: fields of the data builder, e.g. `rejected_score`.
        objective: fields of the objective.
        learning_rate_factor: multiplies the method's learning rate.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Mapping[str, Any] = {}
    objective: Mapping[str, Any] = {}
    learning_rate_factor: float = 1.0


class Method(BaseModel):
    """A data builder, an objective and rounds, under one name. Any builder goes with any objective.

    Attributes:
        data: the builder's name; None for rows that are the starting model itself.
        objective: the objective's name; None likewise.
        rounds: the budget's prompts are split between them; each starts from and refers to the round before.
        seed_offset: added to the run's seed; a null row is the baseline with other seeds.
        kind: `measured`; `control` for rows that use what a method may not (gold, more updates); `null`.
        training: defaults of the training section, e.g. `{"learning_rate": 1e-4}`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    description: str
    data: str | None = None
    data_fields: Mapping[str, Any] = {}
    objective: str | None = None
    objective_fields: Mapping[str, Any] = {}
    rounds: tuple[Round, ...] = (Round(),)
    seed_offset: int = 0
    kind: Literal["measured", "control", "null"] = "measured"
    training: Mapping[str, Any] = {}
    paper: Paper | None = None
