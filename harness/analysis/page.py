"""The files of an analysis: `table.csv`, `table.md`, `figure.svg`, `result.json` and `README.md`, which shows the others."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

from harness.analysis.report import Cell, ClaimVerdict, Report, cited, csv_table, markdown_table
from harness.api.interfaces import Analysis
from harness.board.statistics import Interval
from harness.board.views.text import plain
from harness.errors import HarnessError
from harness.store.environment import versions
from harness.version import __version__


def write(analysis: Analysis, report: Report, folder: Path, command: str) -> dict[str, object]:
    """Write an analysis's files into a folder; return the content of `result.json`.

    Args:
        command: the command that makes the same files again.

    Raises:
        HarnessError: the folder cannot be written.
    """
    result = _result(analysis, report, command)
    files = {
        "table.csv": csv_table(report),
        "table.md": markdown_table(report),
        "figure.svg": str(report.figure.svg()),
        "result.json": json.dumps(result, indent=1, ensure_ascii=False) + "\n",
        "README.md": _page(analysis, report, command),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise HarnessError(f"{folder} cannot be written ({error.strerror}): choose another with --out") from error
    return result


def outcome(report: Report) -> str:
    """Return how many claims got each verdict, in words."""
    counts = Counter(finding.verdict for finding in report.findings)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in ClaimVerdict if counts[verdict])


def _result(analysis: Analysis, report: Report, command: str) -> dict[str, object]:
    paper = analysis.paper
    value: dict[str, object] = plain(
        {
            "schema": 1,
            "analysis": analysis.name,
            "paper": paper and asdict(replace(paper, equations="")),
            "places": paper.equations if paper else "",
            "command": command,
            "harness": __version__,
            "versions": versions(),
            "n": report.n,
            "findings": [asdict(finding) for finding in report.findings],
            "method": list(report.method),
            "configs": report.configs,
            "columns": list(report.columns),
            "rows": [[_cell(cell) for cell in row] for row in report.rows],
        }
    )
    return value


def _cell(cell: Cell) -> object:
    return asdict(cell) if isinstance(cell, Interval) else cell


def _page(analysis: Analysis, report: Report, command: str) -> str:
    paper = analysis.paper
    findings = "".join(
        f"- **{finding.verdict.capitalize()}** ({finding.place}). {finding.claim}\n  Measured: {finding.measured}.\n"
        for finding in report.findings
    )
    heading = "The paper's claims" if paper else "Claims"
    claims = f"## {heading}\n\n{findings}\n" if findings else ""
    sizes = ", ".join(f"{name} {count}" for name, count in report.n.items())
    method = "".join(f"- {text}\n" for text in report.method)
    origin = f"{cited(paper)}{', ' if paper.equations else ''}{paper.equations}. " if paper else ""
    return (
        f"# {analysis.name}\n\n{analysis.question}.\n\n"
        f"{origin}Made by:\n\n```console\n$ {command}\n```\n\n"
        f"{claims}"
        f"## Measured\n\n![{analysis.name}](figure.svg)\n\n{markdown_table(report)}\n"
        f"Intervals are at 95 %. {sizes[:1].upper()}{sizes[1:]}.\n\n"
        f"## How\n\n{method}"
        "- A verdict is computed from an interval: a claim is undecided where the interval allows both answers.\n"
        "- `result.json` holds the configs, the versions of the libraries and all digits; `table.csv` the table.\n"
    )
