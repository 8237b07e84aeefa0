"""A context to run analyses in, small enough for a test, and the checks that every analysis must pass.

The kit is imported where it is used: `harness plan` imports `harness.testing`, and should not load numpy and scipy for it.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api.interfaces import Analysis
from harness.api.registry import Registry
from harness.sandbox.untrained import ScriptedPolicy
from harness.testing.verdict import Fault, Finding, run

if TYPE_CHECKING:
    from harness.analysis.context import AnalysisContext
    from harness.analysis.report import Report


def analysis_context(folder: Path, name: str = "analysis", *, registry: Registry | None = None) -> AnalysisContext:
    """Return a context of the sandbox, an untrained model of 40,000 parameters and 8 prompts, for an analysis's own tests.

    Args:
        folder: an empty folder for the model, the store and the comparisons.
        name: the analysis's name.
    """
    from harness.analysis.context import AnalysisContext, AnalysisOptions

    raw = {
        "source": {"name": "sandbox", "sft": 8, "train": 8, "tuning": 4, "heldout": 6},
        "model": {"path": str(ScriptedPolicy(folder).folder)},
        "sft": None,
        "training": {"prompts_per_batch": 8},
        "generation": {"max_tokens": 6},
        "budget": {"prompts": 8},
        "evaluators": [{"name": "gold_reward", "n": 1, "max_tokens": 6}],
        "seeds": [0],
    }
    options = AnalysisOptions(folder / "boards", folder / "store")
    return AnalysisContext(name, raw, "the testing context", options, registry or Registry.load())


def check_analysis(analysis: Analysis, registry: Registry) -> Iterator[Finding]:
    """Check an analysis's description, then run it twice in `analysis_context`."""
    yield run("description", partial(_described, analysis))
    with tempfile.TemporaryDirectory() as folder:
        context = analysis_context(Path(folder), analysis.name, registry=registry)
        reports: list[Report] = []
        earlier = run("run", partial(_runs, analysis, context, reports))
        yield earlier
        for name, check in (("report", _whole), ("files", _writes), ("determinism", _repeats)):
            # Each check needs what the ones before it found whole.
            if earlier.status == "passed":
                earlier = run(name, partial(check, analysis, context, reports[0]))
                yield earlier
            else:
                yield Finding(name, "not run", "there is no whole report", "see above")


def _described(analysis: Analysis) -> None:
    question: Any = getattr(analysis, "question", None)
    if not isinstance(question, str) or not question.strip() or "\n" in question or question.endswith("."):
        fix = 'write question: ClassVar[str] = "Whether …", one line without a full stop: lists and pages show it'
        raise Fault(f"its question is {question!r}", fix)
    minutes: Any = getattr(analysis, "minutes", None)
    if type(minutes) not in (int, float) or not 0 < minutes < math.inf:
        fix = "write minutes: ClassVar[float] = …, about how long it takes with the quickstart's settings"
        raise Fault(f"its minutes are {minutes!r}", fix)


def _runs(analysis: Analysis, context: AnalysisContext, reports: list[Report]) -> None:
    from harness.analysis.report import Report

    context.require(*analysis.needs)
    report: Any = analysis.run(context)
    if not isinstance(report, Report):
        raise Fault(f"run() returned {type(report).__name__}", "return harness.Report(columns, rows, figure, findings, method)")
    reports.append(report)


def _whole(analysis: Analysis, context: AnalysisContext, report: Report) -> None:
    """Check that the table is a table, the figure a figure, and the claims have verdicts."""
    from harness.analysis.figure import Figure
    from harness.analysis.report import CheckedClaim
    from harness.board.statistics import Interval

    if not report.rows:
        raise Fault("its table has no rows", "give Report.rows a row for each thing that was measured")
    for index, row in enumerate(report.rows):
        if len(row) != len(report.columns):
            raise Fault(
                f"row {index} has {len(row)} cells for {len(report.columns)} columns", "give a cell for each; None is a dash"
            )
        wrong = next((cell for cell in row if not isinstance(cell, str | int | float | Interval | None)), None)
        if wrong is not None:
            raise Fault(
                f"row {index} has a cell of type {type(wrong).__name__}", "give text, int, float, harness.Interval or None"
            )
    if not isinstance(report.figure, Figure) or not report.figure.panels:
        raise Fault("it has no figure", "give Report.figure a harness.Figure with a panel")
    for panel in report.figure.panels:
        for line in panel.lines:
            if len(line.points) != len(panel.axes.places):
                said = f"the line {line.name!r} has {len(line.points)} points for {len(panel.axes.places)} places"
                raise Fault(said, "give a point for each of Axes.places; None is no point")
    wrong_claim = next((item for item in report.findings if not isinstance(item, CheckedClaim)), None)
    if wrong_claim is not None:
        raise Fault(f"its findings hold {type(wrong_claim).__name__}", "make each by a rule of harness.CheckedClaim")
    if not report.method:
        raise Fault("it does not say how it measures", "give Report.method a sentence on what was measured, and how")


def _writes(analysis: Analysis, context: AnalysisContext, report: Report) -> None:
    from harness.analysis.page import write

    with tempfile.TemporaryDirectory() as folder:
        write(analysis, report, Path(folder), "harness analyze")
        json.loads((Path(folder) / "result.json").read_text(encoding="utf-8"))


def _repeats(analysis: Analysis, context: AnalysisContext, report: Report) -> None:
    again = analysis.run(context)
    for part in ("rows", "findings", "method", "n", "configs"):
        # repr also takes NaN for NaN
        if repr(getattr(again, part)) != repr(getattr(report, part)):
            raise Fault(f"two runs differ in {part}", "seed what is drawn, and sort what is a set")
