"""A finished analysis as files: `table.csv`, `table.md`, `figure.svg`, `result.json` and the page that holds them together."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.analysis.catalogue import Analysis
from harness.analysis.report import Report, Verdict, cited, csv_table, markdown_table
from harness.environment import versions
from harness.errors import HarnessError
from harness.leaderboard.text import plain
from harness.version import __version__


def write(analysis: Analysis, report: Report, folder: Path, command: str) -> dict[str, Any]:
    """Write an analysis's folder; what `result.json` holds.

    Raises:
        HarnessError: the folder cannot be written.
    """
    result = _result(analysis, report, command)
    files = {
        "table.csv": csv_table(report),
        "table.md": markdown_table(report),
        "figure.svg": str(report.figure),
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
    """In how many of its claims the paper was met."""
    counts = Counter(finding.verdict for finding in report.findings)
    return ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])


def _result(analysis: Analysis, report: Report, command: str) -> dict[str, Any]:
    value: dict[str, Any] = plain(
        {
            "schema": 1,
            "analysis": analysis.name,
            "paper": asdict(analysis.paper),
            "places": analysis.places,
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


def _cell(cell: Any) -> Any:
    return asdict(cell) if hasattr(cell, "__dataclass_fields__") else cell


def _page(analysis: Analysis, report: Report, command: str) -> str:
    findings = "".join(
        f"- **{finding.verdict.capitalize()}** ({finding.place}). {finding.claim}\n  Measured: {finding.measured}.\n"
        for finding in report.findings
    )
    sizes = ", ".join(f"{name} {count}" for name, count in report.n.items())
    method = "".join(f"- {text}\n" for text in report.method)
    return (
        f"# {analysis.name}\n\n{analysis.question}.\n\n"
        f"{cited(analysis.paper)}, {analysis.places}. Made by:\n\n```console\n$ {command}\n```\n\n"
        f"## The paper's claims\n\n{findings}\n"
        f"## Measured\n\n![{analysis.name}](figure.svg)\n\n{markdown_table(report)}\n"
        f"Intervals are at 95 %. {sizes[:1].upper()}{sizes[1:]}.\n\n"
        f"## How\n\n{method}"
        "- A verdict is computed from an interval: a claim is undecided where the interval allows both answers.\n"
        "- `result.json` holds the configs, the versions of the libraries and all digits; `table.csv` the table.\n"
    )
