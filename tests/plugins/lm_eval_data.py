"""The six's data sets laid out as on the hub: real rows where the reference data are at hand, else rows typed here."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]
SHOTS = 26  # rows to draw shots from
DOCUMENTS = 3


def write(folder: Path, splits: Mapping[str, Iterable[Mapping[str, Any]]]) -> None:
    folder.mkdir(parents=True)
    for split, rows in splits.items():
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def hellaswag(number: int) -> dict[str, Any]:
    start = f"A person picks up {number} plates."
    endings = [f"washes {number} of them .", "sings [substeps] loudly.", "flies away.", "counts them again."]
    return {
        "ind": number, "activity_label": "Washing dishes", "ctx_a": start, "ctx_b": "then the person", "ctx": f"{start} then",
        "endings": endings, "source_id": f"made~{number}", "split": "val", "split_type": "indomain", "label": str(number % 4),
    }  # fmt: skip


def winogrande(number: int) -> dict[str, Any]:
    sentence = f"The trophy {number} did not fit into the suitcase because the _ was too large."
    return {"sentence": sentence, "option1": "trophy", "option2": "suitcase", "answer": str(1 + number % 2)}


def write_typed(data: Path) -> None:
    """HellaSwag and Winogrande, of which no real rows are at hand."""
    for path, make in (("Rowan/hellaswag/data", hellaswag), ("allenai/winogrande/winogrande_xl", winogrande)):
        write(data / path, {"train": [make(n) for n in range(SHOTS)], "validation": [make(100 + n) for n in range(DOCUMENTS)]})


def lines(path: Path, number: int) -> Rows:
    with path.open(encoding="utf-8") as rows:
        return [json.loads(line) for line, _ in zip(rows, range(number), strict=False)]


def write_real(data: Path, reference: Path, documents: int) -> None:
    """ARC, MMLU, TruthfulQA and GSM8K from their published files."""
    arc, gsm8k = reference / "arc", reference / "gsm8k"
    write(
        data / "allenai/ai2_arc/ARC-Challenge",
        {"train": lines(arc / "ARC-Challenge-train.jsonl", 60), "test": lines(arc / "ARC-Challenge-test.jsonl", documents)},
    )
    write(
        data / "openai/gsm8k/main",
        {"train": lines(gsm8k / "train.jsonl", 40), "test": lines(gsm8k / "test.jsonl", documents)},
    )
    with zipfile.ZipFile(reference / "mmlu" / "mmlu.zip") as archive:
        subjects = sorted(
            Path(name).name.removesuffix("_test.csv") for name in archive.namelist() if name.endswith("_test.csv")
        )
        for subject in subjects:
            write(
                data / "cais/mmlu" / subject,
                {split: _mmlu(archive, subject, split)[: documents if split == "test" else 5] for split in ("dev", "test")},
            )
    with (reference / "truthfulqa" / "TruthfulQA.csv").open(encoding="utf-8") as table:
        rows = [row for row, _ in zip(csv.DictReader(table), range(documents), strict=False)]
    write(data / "truthfulqa/truthful_qa/multiple_choice", {"validation": [_truthful(row) for row in rows]})


def _mmlu(archive: zipfile.ZipFile, subject: str, split: str) -> Rows:
    with archive.open(f"data/{split}/{subject}_{split}.csv") as content:
        rows = list(csv.reader(io.TextIOWrapper(content, encoding="utf-8")))
    return [{"question": row[0], "subject": subject, "choices": row[1:5], "answer": "ABCD".index(row[5])} for row in rows]


def _truthful(row: Mapping[str, str]) -> dict[str, Any]:
    """`mc2_targets` as the hub's data set has them: all correct answers, then all incorrect ones."""
    good, bad = (
        [text.strip() for text in row[f"{kind} Answers"].split(";") if text.strip()] for kind in ("Correct", "Incorrect")
    )
    all_of_them = {"choices": good + bad, "labels": [1] * len(good) + [0] * len(bad)}
    return {
        "question": row["Question"],
        "mc1_targets": {"choices": [row["Best Answer"]], "labels": [1]},
        "mc2_targets": all_of_them,
    }
