"""Corpus statistics on rows of Nectar typed by hand: samples, turns, lengths and the writers of the first rank."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from harness.analysis.report import shown
from harness.testing.analyses import analysis_context
from harness_plugins.self_contrast.analyses import CorpusStatistics
from harness_plugins.sources.formats import read_nectar


def row(number: int, writer: str, turns: int) -> dict[str, object]:
    asked = "".join(f"\n\nHuman: Say {number} of {turn}.\n\nAssistant: Yes." for turn in range(turns - 1))
    answers = [{"answer": "no", "rank": 2.0, "model": "other"}, {"answer": "yes " * (5 + number), "rank": 1.0, "model": writer}]
    return {"prompt": f"{asked}\n\nHuman: Say {number}.\n\nAssistant: ", "answers": answers}


def test_nectars_reader_keeps_the_model_of_the_first_rank() -> None:
    assert read_nectar(row(1, "gpt-4", 1), "last").writer == "gpt-4"
    del (unnamed := row(1, "gpt-4", 1))["answers"][1]["model"]  # type: ignore[attr-defined]
    assert read_nectar(unnamed, "last").writer is None


def test_writers_turns_and_lengths_are_counted(tmp_path: Path) -> None:
    rows = [row(number, "gpt-4" if number < 9 else "llama", 2 if number % 3 == 0 else 1) for number in range(12)]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(item) + "\n" for item in rows))
    own = tmp_path / "own.jsonl"
    own.write_text("".join(json.dumps(row(number, "gpt-4", 1)) + "\n" for number in range(50, 54)))
    context = analysis_context(tmp_path / "context", "corpus-statistics")
    source = {"name": "jsonl", "path": str(file), "format": "nectar", "splits": {"heldout": str(own)}}
    report = CorpusStatistics().run(replace(context, base={**context.base, "source": source}))
    (sft, heldout) = (dict(zip(report.columns, cells, strict=True)) for cells in report.rows)  # `train` is the same rows
    assert (sft["split"], sft["samples"], sft["most frequent writer"], sft["its share"]) == ("sft", 12, "gpt-4", 0.75)
    assert (heldout["split"], heldout["samples"]) == ("heldout", 4)
    assert shown(sft["turns"]).startswith("1.333 [") and shown(heldout["turns"]).startswith("1.000")
    assert report.figure.panels[0].axes.places == ["gpt-4", "llama"]
    assert report.figure.panels[0].lines[0].points == [0.75, 0.25]
    assert [claim.place for claim in report.findings] == ["Table 3", "Table 3"]
