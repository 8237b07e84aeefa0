"""Only-prompting's analysis: what it asks, and what it needs.

The classes are light; a module with an analysis's code is imported when it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from harness import Analysis, Paper
from harness_plugins.only_prompting.builder import PAPER

if TYPE_CHECKING:
    from harness import AnalysisContext, Report

Needs = frozenset[Literal["target", "ranked", "gold", "benchmarks"]]


class JudgedScores(Analysis):
    """Samples responses from the starting model, and has it score them as self-rewarding does."""

    name: ClassVar[str] = "judged-scores"
    paper: ClassVar[Paper | None] = Paper(PAPER.title, PAPER.arxiv, "Figure 1")
    question: ClassVar[str] = "Whether a policy that judges its own responses tells them apart"
    minutes: ClassVar[float] = 1

    def run(self, context: AnalysisContext) -> Report:
        from harness_plugins.only_prompting.judged_scores import run

        return run(context)


class PromptedRewards(Analysis):
    """Trains one, two and three rounds, and marks the answers of every policy under the scores it is asked for."""

    name: ClassVar[str] = "prompted-rewards"
    paper: ClassVar[Paper | None] = Paper(PAPER.title, PAPER.arxiv, "Figures 3 and 4, Tables 2 and 3")
    question: ClassVar[str] = (
        "Whether a policy answers as well as it is asked to, by round; fixed gap; answering with the chosen prefix"
    )
    needs: ClassVar[Needs] = frozenset({"gold"})
    minutes: ClassVar[float] = 2

    def run(self, context: AnalysisContext) -> Report:
        from harness_plugins.only_prompting.prompted_rewards import run

        return run(context)
