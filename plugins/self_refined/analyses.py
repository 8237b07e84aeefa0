"""The analysis of self-refinement: what it asks, and what it needs.

The classes are light; a module with an analysis's code is imported when it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from harness import Analysis, Paper

if TYPE_CHECKING:
    from harness import AnalysisContext, Report

Needs = frozenset[Literal["target", "ranked", "gold", "benchmarks"]]


class RefinementAccuracy(Analysis):
    """Trains DPO, IPO and their refinements for every λ on all tuples, and for the default λ on fewer."""

    name: ClassVar[str] = "refinement-accuracy"
    paper: ClassVar[Paper | None] = Paper(
        "Direct Alignment of Language Models via Quality-Aware Self-Refinement", "2405.21040", "Figures 1, 2 and 3, §4.1"
    )
    question: ClassVar[str] = (
        "Whether the augmented prompt ranks pairs as the plain one does; the choice of λ; the number of tuples"
    )
    needs: ClassVar[Needs] = frozenset({"ranked"})
    minutes: ClassVar[float] = 5

    def run(self, context: AnalysisContext) -> Report:
        from harness_plugins.self_refined.refinement_accuracy import run

        return run(context)
