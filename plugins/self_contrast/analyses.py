"""Self-Contrast's analyses: what each asks, and what it needs.

The classes are light; a module with an analysis's code is imported when it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from harness import Analysis, Paper
from harness_plugins.self_contrast.builder import PAPER

if TYPE_CHECKING:
    from harness import AnalysisContext, Report

Needs = frozenset[Literal["target", "ranked", "gold", "benchmarks"]]


class DataAccuracy(Analysis):
    """Builds data for every a and R by gold reward, and trains on those of the largest R."""

    name: ClassVar[str] = "data-accuracy"
    paper: ClassVar[Paper | None] = Paper(PAPER.title, PAPER.arxiv, "Figure 5, §4.1")
    question: ClassVar[str] = (
        "How many negatives are really worse than the target, against a % and R, and what that does to the trained policy"
    )
    needs: ClassVar[Needs] = frozenset({"target", "gold"})
    minutes: ClassVar[float] = 2

    def run(self, context: AnalysisContext) -> Report:
        from harness_plugins.self_contrast.data_accuracy import run

        return run(context)


class NegativeRewards(Analysis):
    """Compares the margins of each filter's negatives with those of a filter by gold reward; trains nothing."""

    name: ClassVar[str] = "negative-rewards"
    paper: ClassVar[Paper | None] = Paper(PAPER.title, PAPER.arxiv, "Figure 6, §4.1")
    question: ClassVar[str] = (
        "How the negatives' rewards are distributed, filtered or not, and how far that is from a filter by reward"
    )
    needs: ClassVar[Needs] = frozenset({"target", "gold"})
    minutes: ClassVar[float] = 1

    def run(self, context: AnalysisContext) -> Report:
        from harness_plugins.self_contrast.negative_rewards import run

        return run(context)


class NegativesCount(Analysis):
    """Trains on 1 to 16 negatives a prompt, filtered and not, beside DPO on preference pairs."""

    name: ClassVar[str] = "negatives-count"
    paper: ClassVar[Paper | None] = Paper(PAPER.title, PAPER.arxiv, "Figure 4, Tables 1 and 2, §4.2")
    question: ClassVar[str] = "Whether more negatives per prompt make a better policy, filtered or not, and what they cost"
    needs: ClassVar[Needs] = frozenset({"target", "ranked", "gold"})
    minutes: ClassVar[float] = 4

    def run(self, context: AnalysisContext) -> Report:
        from harness_plugins.self_contrast.negatives_count import run

        return run(context)


class CorpusStatistics(Analysis):
    """Counts samples, tokens and turns of the source's rows, and who wrote the targets; trains and samples nothing."""

    name: ClassVar[str] = "corpus-statistics"
    paper: ClassVar[Paper | None] = Paper(PAPER.title, PAPER.arxiv, "Table 3, Figure 7, appendix B.1")
    question: ClassVar[str] = (
        "How long prompts and targets are after pre-processing, how many turns they have, and who wrote them"
    )
    needs: ClassVar[Needs] = frozenset({"target"})
    minutes: ClassVar[float] = 0.5

    def run(self, context: AnalysisContext) -> Report:
        from harness_plugins.self_contrast.corpus_statistics import run

        return run(context)


class GradientVariance(Analysis):
    """Holds the theorem against simulated variables and against gradients of the starting model."""

    name: ClassVar[str] = "gradient-variance"
    paper: ClassVar[Paper | None] = Paper(PAPER.title, PAPER.arxiv, "Theorem 1, Appendix A")
    question: ClassVar[str] = (
        "Theorem 1: how many negatives replace how many pairs, in closed form, simulated, and with real gradients"
    )
    needs: ClassVar[Needs] = frozenset({"target"})
    minutes: ClassVar[float] = 2

    def run(self, context: AnalysisContext) -> Report:
        from harness_plugins.self_contrast.gradient_variance import run

        return run(context)
