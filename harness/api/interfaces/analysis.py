"""An analysis: one of a paper's questions, asked again on any source and starting model."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from harness.api.interfaces.component import Component

if TYPE_CHECKING:
    from harness.analysis.context import AnalysisContext
    from harness.analysis.report import Report


class Analysis(Component):
    """One question, answered by `harness analyze` with a table, a figure and a verdict on each of a paper's claims.

    Class variables describe it: `question` in one line; `paper`, whose `equations` name the figures, tables and sections that
    are reproduced; `needs`, the features that its source must provide; `minutes`, about how long it takes on two cores with
    the quickstart's settings and an empty store. `name` is also the folder that its files are written to. Fields, if any,
    keep their defaults under `harness analyze`; tests may give smaller values.
    """

    question: ClassVar[str]
    needs: ClassVar[frozenset[Literal["target", "ranked", "gold", "benchmarks"]]] = frozenset()
    minutes: ClassVar[float]

    def run(self, context: AnalysisContext) -> Report:
        """Compare rows or build their data through the context, and report what came out.

        Raises:
            ConfigError: the config does not suit the analysis.
            StageError: a stage failed.
            ValueError: there is too little data for an interval.
        """
        raise NotImplementedError
