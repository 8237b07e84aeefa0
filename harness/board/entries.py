"""The parts of a board, schema version 1. Fields that later versions added are optional: a board without them is still read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from math import inf
from typing import ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from harness.api.spaces import SearchSpace, SpaceValue
from harness.api.texts import HALF_SURROGATE
from harness.api.walk import walk
from harness.board.facts import Provenance
from harness.board.views.text import number, p_value

DEEPEST = 60  # values within values: far more than a config has, and less than writing them as YAML can take
LARGEST_INTEGER, LARGEST = 2**63 - 1, 1e100  # what Parquet holds, and what can be squared and drawn


# Of the statistics: 1 before seeds were tested twice, fits had errors and the noise floor was a probability; 2 before the
# interval of a restless row kept the few degrees of freedom of its seeds; 3 before the first place was tested.
METHODS = 4
COMPUTED_AGAIN = 3  # the earliest methods whose numbers are computed again, as far as they had them
MOST_NAMED = 8  # rows that may be the best, in a sentence
SIGNIFICANCE_LEVEL = 0.05  # of a family of tests: the largest corrected p-value that counts is below it
STARS = (SIGNIFICANCE_LEVEL, 0.01, 0.001)  # one star for each level that the corrected p-value is below

Kind = Literal["measured", "control", "null", "published", "imported", "checkpoint", "served"]
Verdict = Literal["better", "worse", "different", "unclear"]


class BoardEntry(BaseModel):
    """A part of a board. A field named in `optional` is absent, not null, where it has no value."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    optional: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_absent(self, handler: SerializerFunctionWrapHandler) -> dict[str, object]:
        return {key: value for key, value in handler(self).items() if value is not None or key not in self.optional}


class WinsEntry(BoardEntry):
    """Shares of examples: the row better than the baseline, equal, worse; above and below where neither is better."""

    won: float
    tied: float
    lost: float


class Delta(BoardEntry):
    """Row minus baseline on common examples and seeds.

    `p` is the larger of `p_flips` (permutation over questions; takes the trained models as given) and `p_design` (Student's t
    over seeds and questions). `p_own` is the second test's, with the variance between the row's own seeds. `p_adjusted` is
    Holm's within the family, or `p_own`'s where that is larger, `q` Benjamini & Hochberg's, `p_seeds` the t-test over the means
    of seeds alone, as papers report it. `effect` is the standardised paired difference, `detectable` the smallest
    true difference that would have been found four times in five, at Holm's first step. `below_noise`, on boards
    of the first methods: smaller than the null row's bound. `one_seed`: seeds were not sampled, so interval and p-values are
    over prompts alone and nothing is called significant. `seeds` counts the common ones; 0 where there are none.
    `other_data`: the row was trained on another source than the baseline. `choice_low` and `choice_high`, on the metric that
    settings were tuned on: the interval that counts, too, that tuning would have chosen otherwise on other prompts.
    `p_equivalent`, where the config names a margin: of two one-sided tests that the true difference is not inside it, corrected
    by Holm over all rows with a margin.
    """

    optional = frozenset(
        {
            *("choice_low", "choice_high"),
            *("p_adjusted", "below_noise", "one_seed", "p_flips", "p_design", "p_own", "p_seeds", "q", "effect", "wins"),
            *("detectable", "n", "seeds", "other_data", "p_equivalent"),
        }
    )

    mean: float
    low: float
    high: float
    p: float
    p_adjusted: float | None = None
    below_noise: Literal[True] | None = None
    one_seed: Literal[True] | None = None
    p_flips: float | None = None
    p_design: float | None = None
    p_own: float | None = None
    p_seeds: float | None = None
    q: float | None = None
    effect: float | None = None
    wins: WinsEntry | None = None
    detectable: float | None = None
    n: int | None = None
    seeds: int | None = None
    other_data: Literal[True] | None = None
    choice_low: float | None = None
    choice_high: float | None = None
    p_equivalent: float | None = None

    @property
    def is_equivalent(self) -> bool:
        """Whether the row is practically equal to the baseline: inside the config's margin, after correction, over seeds."""
        return self.p_equivalent is not None and self.p_equivalent < SIGNIFICANCE_LEVEL and not self.one_seed

    @property
    def is_significant(self) -> bool:
        """Whether seeds were sampled, p < 0.05 after correction, and the interval over seeds and prompts excludes 0.

        With one seed two trainings of one method can differ as surely. On boards of the first methods it has to exceed the
        noise floor too.
        """
        corrected = self.p_adjusted is not None and self.p_adjusted < SIGNIFICANCE_LEVEL
        return corrected and not self.low <= 0 <= self.high and not self.below_noise and not self.one_seed

    @property
    def mark(self) -> str:
        """Stars for a significant difference (one below 0.05, two below 0.01, three below 0.001), ≈ below the noise floor.

        After them ≡ where the row is practically equal, and † where it was trained on other data than the baseline.
        """
        other = ("≡" if self.is_equivalent else "") + ("†" if self.other_data else "")
        if self.below_noise:
            return f"≈{other}"
        stars = "*" * sum((self.p_adjusted or 0.0) < level for level in STARS) if self.is_significant else ""
        return stars + other

    def verdict(self, metric: MetricEntry) -> Verdict:
        """Return whether the row is better or worse than the baseline; `different` on a metric without a direction."""
        if not self.is_significant:
            return "unclear"
        if metric.higher_is_better is None:
            return "different"
        return "better" if (self.mean > 0) == metric.higher_is_better else "worse"


class ScoreEntry(BoardEntry):
    """One metric of one row; no interval where there are no values per example; `seeds` only if not all have a value."""

    optional = frozenset({"low", "high", "seeds", "delta"})

    mean: float
    low: float | None = None
    high: float | None = None
    n: int
    per_seed: tuple[float, ...] = ()
    seeds: tuple[int, ...] | None = None
    higher_is_better: bool | None
    delta: Delta | None = None


class CostEntry(BoardEntry):
    """The cost of a row's data, reference and training beyond the shared starting model: the mean over its seeds.

    Charged in full even where rows share it; seconds are wall time of whoever made the artifacts. Of the evaluation it holds
    `judge_tokens` and `usd`, what judges took at list price, and nothing else. Empty where a row has nothing of the kind.
    """

    optional = frozenset({"seconds", "device_seconds", "tokens_trained", "tokens_generated", "judge_tokens", "usd"})

    seconds: float | None = None
    device_seconds: float | None = None
    tokens_trained: float | None = None
    tokens_generated: float | None = None
    judge_tokens: float | None = None
    usd: float | None = None


class SpaceEntry(BoardEntry):
    """The search space of one setting: an interval with its ends, or `choices`; and where it is from."""

    optional = frozenset({"low", "high", "log", "choices", "source"})

    low: float | None = None
    high: float | None = None
    log: Literal[True] | None = None
    choices: tuple[SpaceValue, ...] | None = None
    source: str | None = None

    @model_validator(mode="after")
    def _is_a_space(self) -> Self:
        self.as_space()
        return self

    def as_space(self) -> SearchSpace:
        """Return the space as components declare it."""
        return SearchSpace(self.low, self.high, log=bool(self.log), choices=self.choices or (), source=self.source or "")


class TrialEntry(BoardEntry):
    """One trial of a row's settings at one seed, scored on the tuning split.

    Attributes:
        number: counted from 0; a trial with several seeds has an entry for each.
        score: the mean of the metric; absent where the trial failed, for `reason`.
        share: of the training budget that it was trained on.
    """

    optional = frozenset({"score", "reason"})

    number: int
    settings: dict[str, SpaceValue]
    seed: int
    score: float | None = None
    share: float = 1.0
    state: Literal["complete", "pruned", "failed"] = "complete"
    reason: str | None = None


class ExpectedBest(BoardEntry):
    """The expected score of the best of `trials` trials, with its 95 % interval over which trials were drawn."""

    trials: int
    mean: float
    low: float
    high: float


class SelectionEntry(BoardEntry):
    """How certain the choice is: chosen again on bootstrap draws of the tuning prompts.

    Attributes:
        prompts: of the tuning split that all trials have a score on.
        kept: share of the draws that choose the same trial.
        spread: standard deviation over draws of the score, on all prompts, of the trial that is chosen.
        told_apart: whether the best trial differs from the median one beyond what prompts do (paired, two standard errors).
    """

    prompts: int
    kept: float
    spread: float
    told_apart: bool


class TuningEntry(BoardEntry):
    """How a row's settings were searched on the tuning split.

    Attributes:
        default: why the row has its config's own settings: its search is `off`, or its entry sets all (`fixed`). Then nothing
            else is set.
        chosen: the settings of the best trial, `number`; absent where every trial failed.
        budget: unit -> the amount that trials might take, where that and not their number was given.
        cost: of all trials together, beyond the shared starting model.
        expected: of the best after 1, 2, … trials; absent for trials that depend on each other.
    """

    optional = frozenset(
        {
            "budget",
            "default",
            "metric",
            "higher_is_better",
            "pruner",
            "sampler",
            "chosen",
            "number",
            "cost",
            "expected",
            "selection",
            "trials",
            "space",
        }
    )

    default: Literal["off", "fixed"] | None = None
    metric: str | None = None
    higher_is_better: bool | None = None
    sampler: Literal["random", "tpe", "grid"] | None = None
    pruner: Literal["halving"] | None = None
    budget: dict[Literal["tokens", "seconds"], float] | None = None
    space: dict[str, SpaceEntry] | None = None
    trials: tuple[TrialEntry, ...] | None = None
    chosen: dict[str, SpaceValue] | None = None
    number: int | None = None
    cost: CostEntry | None = None
    expected: tuple[ExpectedBest, ...] | None = None
    selection: SelectionEntry | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if self.default is not None:
            return self
        if not self.trials or None in (self.space, self.metric, self.sampler, self.higher_is_better):
            raise ValueError("a search has trials, a space, a metric with its direction, and a sampler")
        spaces = {name: space.as_space() for name, space in (self.space or {}).items()}
        for trial in self.trials:
            if trial.settings.keys() != spaces.keys() or any(
                value not in spaces[name] for name, value in trial.settings.items()
            ):
                raise ValueError(f"trial {trial.number} has settings outside of the search space")
        if (self.chosen is None) != (self.number is None) or (self.number is not None and self.number not in self.scores):
            raise ValueError("`chosen` and `number` are those of a trial")
        return self

    @property
    def scores(self) -> dict[int, float | None]:
        """Each trial's mean score over its seeds; None where it failed at one, or was pruned."""
        return mean_scores(self.trials or ())


def mean_scores(trials: Sequence[TrialEntry]) -> dict[int, float | None]:
    """Return trial number -> its mean score over its seeds; None where it failed at one, or was pruned."""
    by_number: dict[int, list[float | None]] = {}
    for trial in trials:
        by_number.setdefault(trial.number, []).append(trial.score if trial.state == "complete" else None)
    return {
        number: None if None in scores else sum(score for score in scores if score is not None) / len(scores)
        for number, scores in by_number.items()
    }


class MetricEntry(BoardEntry):
    """A metric of the board; `key` is `<evaluator>/<metric>`.

    `bounds`: the least and the largest value that it can take. `fit`: values per example are pseudo-values of a fit
    (`Metric.fit`), so only their means and errors say anything.
    """

    optional = frozenset({"bounds", "fit"})

    key: str
    description: str
    higher_is_better: bool | None
    primary: bool
    fit: Literal["run", "rows"] | None = None
    bounds: tuple[float | None, float | None] | None = None

    @property
    def width(self) -> float:
        """The largest difference that two values can have; infinite without two bounds."""
        least, largest = self.bounds or (None, None)
        return inf if least is None or largest is None else largest - least


class FamilyEntry(BoardEntry):
    """Tests that are corrected together: all compared rows × these metrics."""

    name: str
    metrics: tuple[str, ...]
    tests: int


class SequentialEntry(BoardEntry):
    """Seeds that were added where they decide, from `start` to `most` for each row.

    Attributes:
        seeds: of each row.
        stopped: `decided`: every place is decided; `most`: some rows have all their seeds and are not decided; `futile`: the
            seeds that remain would hardly decide the rest.
        may_be_best: rows that no other is shown to be better than, on the first primary metric.
        trainings: that ran, SFT included; `trainings_fixed` those that `most` seeds for every row would take.
    """

    optional = frozenset({"trainings", "trainings_fixed"})

    start: int
    most: int
    seeds: dict[str, int]
    stopped: Literal["decided", "futile", "most"]
    may_be_best: tuple[str, ...] = ()
    trainings: int | None = None
    trainings_fixed: int | None = None

    @property
    def sentence(self) -> str:
        """Return what the design saved, and why it stopped."""
        fewest, largest = min(self.seeds.values(), default=0), max(self.seeds.values(), default=0)
        each = f"{fewest} to {largest} seeds" if fewest < largest else f"{largest} seeds"
        text = f"Seeds were added only where they decide: rows have {each} of at most {self.most}"
        if self.trainings is not None and self.trainings_fixed:
            saved = 1 - self.trainings / self.trainings_fixed
            text += f", {self.trainings:,} trainings in place of {self.trainings_fixed:,} ({saved:.0%} saved)"
        reason = {
            "decided": "every place is decided",
            "most": f"the rows that are not decided have all {self.most} seeds",
            "futile": f"more seeds, up to {self.most}, would hardly decide the rest",
        }[self.stopped]
        return f"{text}. They stopped since {reason}."


class PromptsEntry(BoardEntry):
    """Prompts that were added where they decide, from `start` to `most` for each row.

    Attributes:
        evaluators: those that took prompts in parts; the others scored all `most` prompts of every row.
        prompts: of each row.
        stopped, may_be_best: as in `SequentialEntry`.
        evaluations: prompts of all rows and seeds; `evaluations_fixed` those that `most` prompts for every row would take.
        blocks: ids of the prompts that each look added.
    """

    start: int
    most: int
    evaluators: tuple[str, ...]
    prompts: dict[str, int]
    stopped: Literal["decided", "futile", "most"]
    may_be_best: tuple[str, ...] = ()
    evaluations: int
    evaluations_fixed: int
    blocks: tuple[tuple[str, ...], ...]

    @property
    def sentence(self) -> str:
        """Return which rows have how many prompts, what the design saved, and why it stopped."""
        labels: dict[int, list[str]] = {}
        for label, count in sorted(self.prompts.items()):
            labels.setdefault(count, []).append(label)
        each = "; ".join(f"{count} for {', '.join(labels[count])}" for count in sorted(labels))
        text = f"Prompts of {', '.join(self.evaluators)} were added only where they decide, up to {self.most}: {each}"
        if self.evaluations_fixed:
            saved = 1 - self.evaluations / self.evaluations_fixed
            text += f". {self.evaluations:,} prompts were answered in place of {self.evaluations_fixed:,} ({saved:.0%} saved)"
        if len(labels) > 1:
            text += ". Each mean is over the prompts of its row, a difference and the order over those that both rows have"
        reason = {
            "decided": "every place is decided",
            "most": f"the rows that are not decided have all {self.most} prompts",
            "futile": f"more prompts, up to {self.most}, would hardly decide the rest",
        }[self.stopped]
        return f"{text}. They stopped since {reason}."


class RepeatabilityEntry(BoardEntry):
    """How far an evaluator's judge agrees with itself on questions that it was asked again, word for word.

    Attributes:
        questions: of all rows and seeds, each counted once.
        verdicts: mean number of verdicts on such a question.
        agreement: share of pairs of verdicts on one question that are the same.
        share: of the variance of one verdict between questions, what the judge's changes of mind make (1 − ICC); absent for
            verdicts that are no numbers, and where all are equal.
    """

    optional = frozenset({"share"})

    evaluator: str
    questions: int
    verdicts: float
    agreement: float
    share: float | None = None

    @property
    def sentence(self) -> str:
        """Return the entry in words."""
        asked = f"{self.questions:,} {'question' if self.questions == 1 else 'questions'}"
        text = f"Asked {asked} again, the judge of {self.evaluator} gave the same verdict in {self.agreement:.0%} of pairs"
        return text + (f"; changes of mind are {self.share:.0%} of a verdict's variance." if self.share is not None else ".")


class StatisticsEntry(BoardEntry):
    """How the numbers were made, in words.

    `declared`: the config named the primary metrics before the run; else they are each evaluator's own. `equivalent_within`:
    metric key -> the margin inside which a row is practically equal to the baseline.
    """

    optional = frozenset({"methods", "families", "sequential", "sequential_prompts", "judges", "declared", "equivalent_within"})

    methods: int | None = None  # the version of the statistics; absent: 1
    interval: str
    test: str
    correction: str
    draws: int
    flips: int
    level: float
    families: tuple[FamilyEntry, ...] | None = None
    sequential: SequentialEntry | None = None
    sequential_prompts: PromptsEntry | None = None
    judges: tuple[RepeatabilityEntry, ...] | None = None
    declared: Literal[True] | None = None
    equivalent_within: dict[str, float] | None = None


class RankEntry(BoardEntry):
    """Over bootstrap draws that the rows share: how often a row comes first, its mean rank, and the interval of its ranks."""

    first: float
    mean: float
    low: float
    high: float


class WinMatrix(BoardEntry):
    """`shares[i][j]`: the share of examples on which method i is better than method j, ties half; null without common ones."""

    methods: tuple[str, ...]
    shares: tuple[tuple[float | None, ...], ...]

    @model_validator(mode="after")
    def _is_square(self) -> Self:
        if {len(self.methods)} != {len(self.shares), *map(len, self.shares)}:
            raise ValueError("there should be a row and a column of shares for each method")
        return self

    def share(self, method: str, other: str) -> float | None:
        """Return the share of examples on which `method` is better than `other`; None where the matrix lacks one of them."""
        if not {method, other} <= set(self.methods):
            return None
        return self.shares[self.methods.index(method)][self.methods.index(other)]


class AgreementEntry(BoardEntry):
    """Whether two metrics order the rows alike, and the examples; both turned so that higher is better."""

    optional = frozenset({"per_example"})

    left: str
    right: str
    kendall: float
    spearman: float
    rows: int
    per_example: float | None = None
    examples: int = 0


class EstimateEntry(BoardEntry):
    """A coefficient with its 95 % interval."""

    mean: float
    low: float
    high: float


class RatersEntry(BoardEntry):
    """How far two evaluators that differ in their judge or reward model agree on the same answers, on one metric.

    Attributes:
        left, right: keys of the metric.
        spearman: rank correlation over answers; absent where one of them gives all answers the same value.
        alpha: Krippendorff's α for interval data, `same` the share of equal values; absent for metrics without one scale.
        answers: an example of a row at a seed each; intervals are over `questions`, rows and seeds being what they are.
    """

    optional = frozenset({"spearman", "alpha", "same"})

    left: str
    right: str
    spearman: EstimateEntry | None = None
    alpha: EstimateEntry | None = None
    same: float | None = None
    answers: int
    questions: int


class PowerEntry(BoardEntry):
    """The statistical power of this comparison on one metric: medians over its rows.

    `detectable`: the smallest true difference found four times in five at level `alpha`, Holm's first step. The variances of a
    difference, of one seed, one question and one cell, say what more of either would bring (`harness power`).
    """

    alpha: float
    detectable: float
    seeds: int
    questions: int
    seed_variance: float
    question_variance: float
    rest_variance: float
    freedom_per_seed: float


class NoiseEntry(BoardEntry):
    """How the noise floor is meant and known: a change of seeds alone stays within it with `probability`.

    `low` and `high` are its own 95 % interval; `nulls` counts the null rows that it uses beside the seeds of all rows.
    """

    probability: float
    low: float
    high: float
    nulls: int


class FirstPlaceEntry(BoardEntry):
    """The first place on a metric, at 95 %, among the methods of the ranking.

    Attributes:
        best: the row with the best mean; `runner_up` the one after it.
        ahead: by how much the best is better than the runner-up, in the metric's unit, on what both have.
        p: of 'the runner-up is the best', one-sided and corrected for all rows that compete.
        may_be_best: rows that no other is shown to be better than, best mean first; they hold the true best.
        ranks: the first and the last rank that each row may have; all true ranks are inside at once.
        left_out: rows of the ranking that do not compete -> why.
        one_seed: seeds were not sampled, so all of it is about these trainings alone.
    """

    optional = frozenset({"left_out", "one_seed"})

    best: str
    runner_up: str
    ahead: float
    p: float
    may_be_best: tuple[str, ...]
    ranks: dict[str, tuple[int, int]]
    left_out: dict[str, str] | None = None
    one_seed: Literal[True] | None = None

    @property
    def is_decided(self) -> bool:
        """Whether one row alone may be the best, and seeds were sampled."""
        return len(self.may_be_best) == 1 and not self.one_seed

    def sentence(self, name: str) -> str:
        """Return which rows may be the best, by how much the best leads, and which rows are left out.

        Args:
            name: of the metric.
        """
        rows = list(self.may_be_best)
        if len(rows) == len(self.ranks):
            listed = f"any of the {len(rows)} methods"
        elif len(rows) > MOST_NAMED + 1:
            listed = f"{', '.join(rows[:MOST_NAMED])} and {len(rows) - MOST_NAMED} more of {len(self.ranks)} methods"
        else:
            listed = ", ".join(rows)
        scope = ", of these trainings alone and over prompts alone" if self.one_seed else ""
        text = f"May be best on {name} at 95%{scope}: {listed}."
        if len(rows) == 1:
            text = f"Best on {name} at 95%{scope}: {listed} alone."
        lead = f"ahead of {self.runner_up} by {number(self.ahead)}" if self.ahead > 0 else f"not ahead of {self.runner_up}"
        text += f" {self.best} is {lead} ({p_value(self.p)})."
        for reason in sorted({*(self.left_out or {}).values()}):
            labels = sorted(label for label, why in (self.left_out or {}).items() if why == reason)
            text += f" Left out ({reason}): {', '.join(labels)}."
        return text


class AnalysisEntry(BoardEntry):
    """Statistics over all rows together, per metric key. `noise`: the noise floor, where it is above 0."""

    optional = frozenset({"noise_floors", "first_place", "raters"})

    noise: dict[str, float] = {}
    noise_floors: dict[str, NoiseEntry] | None = None
    first_place: dict[str, FirstPlaceEntry] | None = None
    ranking: dict[str, dict[str, RankEntry]] = {}
    wins: dict[str, WinMatrix] = {}
    agreement: tuple[AgreementEntry, ...] = ()
    raters: tuple[RatersEntry, ...] | None = None
    power: dict[str, PowerEntry] = {}


class RowKind:
    """Questions about the kind of a row, for its result and its entry alike."""

    kind: Kind

    @property
    def is_reference(self) -> bool:
        """Whether the row stands beside the ranking: a control, a null row, or numbers that a paper published."""
        return self.kind in ("control", "null", "published")

    @property
    def is_null(self) -> bool:
        """Whether the row is the baseline trained again with other seeds."""
        return self.kind == "null"

    @property
    def is_published(self) -> bool:
        """Whether the row holds printed means, without values per example and therefore without intervals and tests."""
        return self.kind == "published"

    @property
    def is_imported(self) -> bool:
        """Whether another tool measured the row, example by example."""
        return self.kind == "imported"

    @property
    def is_trained_here(self) -> bool:
        """Whether a comparison of this package trained the row, or would train it with another seed."""
        return self.kind in ("measured", "control", "null")

    @property
    def is_as_it_is(self) -> bool:
        """Whether the row is a model from elsewhere that was evaluated here, once: no training seed was sampled for it."""
        return self.kind in ("checkpoint", "served")

    @property
    def is_evaluated_here(self) -> bool:
        """Whether a comparison of this package evaluated the row, rather than a paper or another tool."""
        return not (self.is_published or self.is_imported)


class PointEntry(BoardEntry):
    """One metric of a row at a state of its training; `seeds` only if not all of the row's have a value."""

    optional = frozenset({"seeds"})

    mean: float
    low: float
    high: float
    n: int
    per_seed: tuple[float, ...]
    seeds: tuple[int, ...] | None = None


class StateEntry(BoardEntry):
    """A state that a row's model went through while it was trained.

    `position` is the share of the row's whole training, every round counted alike, `share` that of the steps of round `round`,
    which is counted from 1. The row's own scores are those at position 1.
    """

    position: float
    round: int
    share: float
    scores: dict[str, PointEntry]


class RowEntry(RowKind, BoardEntry):
    """One row of the leaderboard.

    `states` are those that were evaluated while it was trained; `without_states` says why it has none, where others have.
    `model` is the label of its starting model where the board has several.
    """

    optional = frozenset({"failed", "states", "without_states", "model", "tuning"})

    method: str
    data: str | None
    objective: str | None
    rounds: int
    kind: Kind
    seeds: tuple[int, ...]
    scores: dict[str, ScoreEntry]
    cost: CostEntry = CostEntry()
    budget: dict[str, float] = {}
    provenance: Provenance = Provenance()
    curves: dict[str, list[dict[str, float]]] = {}
    failed: str | None = None
    states: tuple[StateEntry, ...] | None = None
    without_states: str | None = None
    model: str | None = None
    tuning: TuningEntry | None = None  # of rows of a comparison that searched settings; rows that train nothing have none

    def delta(self, key: str) -> Delta | None:
        """Return the difference from the baseline on the metric with this key; None where there is none."""
        score = self.scores.get(key)
        return None if score is None else score.delta

    @field_validator("curves")
    @classmethod
    def _are_by_seed(cls, curves: dict[str, list[dict[str, float]]]) -> dict[str, list[dict[str, float]]]:
        if odd := next((seed for seed in curves if not (seed.isascii() and seed.isdecimal())), None):
            raise ValueError(f"curves go by seed, and {odd[:40]!r} is none")
        return curves


class _Judge(BaseModel):
    model_config = ConfigDict(extra="allow")

    allow_mixed_judges: bool = False


class ConfigShape(BaseModel):
    """The sections of a board's `config` that the board itself reads; all others may hold anything."""

    model_config = ConfigDict(extra="allow")

    judge: _Judge | None = None
    evaluators: tuple[Mapping[str, object], ...] = ()
    methods: tuple[object, ...] = ()


def unwritable(value: object) -> Iterator[str]:
    """Yield the values that cannot be computed with, drawn or written again, each with its place."""
    for node in walk(value, deepest=DEEPEST):
        item = node.value
        if node.depth > DEEPEST:
            yield f"{node.place[:100]}…: nested deeper than {DEEPEST} levels"
        elif isinstance(item, str):
            if HALF_SURROGATE.search(item):
                # The place of a key is its mapping's: the key itself cannot be printed.
                yield f"{node.place}{' (a key)' if node.is_key else ''}: half a surrogate pair, which is no text"
        elif isinstance(item, int):
            if abs(item) > LARGEST_INTEGER:
                yield f"{node.place}: a number of more than 63 bits"
        elif isinstance(item, float) and not abs(item) <= LARGEST:
            yield f"{node.place} = {item}: not a finite number up to {LARGEST:g}"


def first_duplicate(names: Sequence[str]) -> str | None:
    """Return the first name that occurs again."""
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]
