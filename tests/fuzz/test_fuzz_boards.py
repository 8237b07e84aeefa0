"""Boards from anybody: every command that reads one shows it, compares it and writes beside it, or refuses it."""

from __future__ import annotations

import hashlib
import io
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import pyarrow
import pyarrow.parquet
import pytest
import yaml
from fuzz.budget import examples, survives
from fuzz.mutations import changed, damaged
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from harness.api.types import Cost, Imported, Metric, Score
from harness.board.build import Board, ExampleRow, LoadedBoard, RowResult, build_board
from harness.board.diff import changes
from harness.board.files import BOARD, EXAMPLES, SCORES
from harness.board.imports import ImportRequest, import_rows
from harness.board.merge import merge
from harness.board.power import Target, analyse_board
from harness.board.verify import verify
from harness.board.views.latex import to_latex
from harness.board.views.notebook import plot, to_notebook, to_pandas
from harness.board.views.page import render_all
from harness.board.views.site import build_site, model_metadata, site_card
from harness.board.views.terminal import print_table

METRICS = {"gold": [Metric("win", "wins", primary=True), Metric("kl", "drift", False)], "judge": [Metric("win", "judged")]}


def row(label: str, lift: float, kind: Any = "measured") -> RowResult:
    rng = random.Random(label)
    scores = {
        evaluator: {
            seed: [Score(f"p{i}", m.name, rng.random() + lift, question=f"q{i // 2}") for i in range(6) for m in metrics]
            for seed in (0, 1)
        }
        for evaluator, metrics in METRICS.items()
    }
    provenance = {
        "method": label, "source": "arXiv:2305.18290", "backend": {"name": "transformers"},
        "model": {"path": "sandbox", "hash": "abc", "chat_template_sha256": "0" * 64}, "models": {"0": "k0", "1": "k1"},
        "judges": {"judge": {"model": "gpt-4", "versions": ["gpt-4-0613"]}}, "dataset": "0" * 64,
        "notes": {"judge": {"0": {"versions": {"a": 1}, "shots": {"a": 5}}}},
        "imported": [{"tool": "lm_eval", "evaluator": "judge", "files": [{"name": "x", "sha256": "y"}]}],
    }  # fmt: skip
    curves = {seed: [{"step": s, "loss": 1 / (s + 1), "round": 0} for s in range(5)] for seed in (0, 1)}
    costs = {seed: Cost(10.0 + lift, 1000, 100, 50, 0.5) for seed in (0, 1)}
    return RowResult(label, "pairs", "dpo", 1, kind, scores, costs, {"prompts": 8.0, "tokens": 1e4}, provenance, None, curves)


def made() -> Board:
    said = {"dpo": [{"evaluator": "judge", "verdict": "win", "words": "better"}]}
    failed = RowResult("broken", "pairs", "dpo", 1, "measured", {}, {}, {}, {}, "loss became nan")
    return build_board(
        name="fuzzed",
        description="A board to be changed.",
        config={
            "name": "fuzzed", "model": {"path": "sandbox"}, "source": {"name": "sandbox", "train": 8}, "seeds": [0, 1],
            "budget": {"prompts": 8, "pairs": None}, "evaluators": [{"name": "gold"}, {"name": "judge"}],
            "judge": {"model": "gpt-4", "allow_mixed_judges": False}, "methods": [{"method": "dpo", "sweep": {"beta": [1, 2]}}],
        },
        baseline="sft",
        rows=[row("sft", 0.0), row("dpo", 0.3), row("null", 0.01, "null"), row("dpo[beta=0.1]", 0.2), failed],
        metrics=METRICS,
        examples=[ExampleRow(f"p{i}", "prompt", "target", {"sft": "a", "dpo": "b"}, said) for i in range(3)],
        sharing={
            "stages_requested": 9, "stages_run": 5, "stages_reused": 4, "seconds_saved": 12.5, "command": "harness compare",
            "versions": {"torch": "2"}, "by_kind": {"train": [2, 1]},
            "data": {"kept": {"train": 8}, "dropped": {"duplicate": 2}, "too_long": {"train": {"max": 1}}, "contaminated": {}},
        },
        created="2026-01-01T00:00:00+00:00",
        warnings=["a warning"],
    )  # fmt: skip


WHOLE = made()
CONTENT = json.loads(WHOLE.to_json())
FILES: dict[str, bytes] = {}


@pytest.fixture(scope="module", autouse=True)
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The board as it was before anybody changed it."""
    folder = tmp_path_factory.mktemp("whole")
    WHOLE.write(folder)
    FILES.update({path.name: path.read_bytes() for path in folder.iterdir()})
    return folder


COMPILED: dict[str, Any] = {}


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Statistics of few draws, since their inputs are what is tested; and templates that are compiled once."""
    monkeypatch.setattr("harness.board.compare.DRAWS", 20)
    monkeypatch.setattr("harness.board.compare.FLIPS", 20)
    compiled = jinja2.Environment.compile

    def compiled_once(self: Any, source: str, *rest: Any, **options: Any) -> Any:
        if source not in COMPILED:
            COMPILED[source] = compiled(self, source, *rest, **options)
        return COMPILED[source]

    monkeypatch.setattr(jinja2.Environment, "compile", compiled_once)


def shown(place: Path, whole: Path, out: Path) -> None:
    board = Board.read(place)
    print_table(board, Console(file=io.StringIO(), width=100))
    render_all(board, board.example_rows, out)
    to_latex(board).encode()
    to_notebook(board).encode()
    to_pandas(board)
    for picture in ("differences", "cost"):
        survives(lambda: plot(board, picture=picture))  # noqa: B023
    site_card([board], "dataset", "title").encode()
    survives(lambda: model_metadata(board, "dpo", "me/model"))
    board.write(out / "written")
    json.dumps(board.without_times())
    survives(lambda: [found.sentences() for found in analyse_board(board, Target(0.1, 3, None))])


def compared(place: Path, whole: Path, out: Path) -> None:
    for pair in ((whole, place), (place, whole)):
        found = changes(*map(Board.read, pair), all_metrics=True)
        json.dumps(found.as_dict())
        for _, listed in found.sections():
            "".join(map(str, listed)).encode()


def merged(place: Path, whole: Path, out: Path) -> None:
    board = merge([LoadedBoard.read(path) for path in (whole, place)], name="merged", created="")
    board.write(out)
    print_table(board, Console(file=io.StringIO(), width=100))


def merged_first(place: Path, whole: Path, out: Path) -> None:
    board = merge([LoadedBoard.read(path) for path in (place, whole)], name="merged", created="")
    render_all(board, board.example_rows, out)


def published(place: Path, whole: Path, out: Path) -> None:
    build_site([place], out).write(out)
    build_site([whole], out).write(out)


def imported(place: Path, whole: Path, out: Path) -> None:
    found = Imported("other", "gold", (Metric("win", "wins"),), (Score("p1", "win", 1.0),), judge="gpt-4")
    import_rows([found], ImportRequest("fastchat", [], "now"), "name", place).write(out)


def verified(place: Path, whole: Path, out: Path) -> None:
    "".join(verify(place)).encode()


USES: list[Callable[[Path, Path, Path], None]] = [shown, shown, compared, merged, merged_first, published, imported, verified]


def used(data: st.DataObject, files: dict[str, bytes], folder: Path, whole: Path) -> None:
    """A use of a board with these files; what is written lies under `out`."""
    place, out = folder / "board", folder / "out"
    place.mkdir()
    for name, content in files.items():
        (place / name).write_bytes(content)
    before = set(folder.rglob("*"))
    use = data.draw(st.sampled_from(USES))
    survives(lambda: use(place, whole, out))
    assert {path for path in folder.rglob("*") if out not in (path, *path.parents)} == before


def text(content: Any) -> bytes:
    return json.dumps(content).encode()


@examples(30)
@given(data=st.data(), content=changed(CONTENT, 4))
def test_a_changed_board(data: st.DataObject, content: Any, whole: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    used(data, {**FILES, BOARD: text(content)}, tmp_path_factory.mktemp("fuzz"), whole)


PARTS = st.sampled_from(("config", "sharing", "rows", "metrics", "analysis", "statistics", "files", "examples", "warnings"))


@examples(60)
@given(data=st.data(), part=PARTS)
def test_a_changed_part_of_a_board(
    data: st.DataObject, part: str, whole: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = {**CONTENT, part: data.draw(changed(CONTENT[part], 2))}
    used(data, {**FILES, BOARD: text(content)}, tmp_path_factory.mktemp("fuzz"), whole)


@examples(30)
@given(data=st.data(), label=st.sampled_from(("sft", "dpo", "null", "broken")))
def test_a_changed_row(data: st.DataObject, label: str, whole: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    rows = [data.draw(changed(entry, 3)) if entry["method"] == label else entry for entry in CONTENT["rows"]]
    used(data, {**FILES, BOARD: text({**CONTENT, "rows": rows})}, tmp_path_factory.mktemp("fuzz"), whole)


@examples(30)
@given(data=st.data(), name=st.sampled_from((BOARD, EXAMPLES, SCORES)))
def test_damaged_files(data: st.DataObject, name: str, whole: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    used(data, {**FILES, name: data.draw(damaged(FILES[name]))}, tmp_path_factory.mktemp("fuzz"), whole)


@examples(30)
@given(data=st.data())
def test_changed_examples(data: st.DataObject, whole: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    rows = [json.loads(line) for line in FILES[EXAMPLES].splitlines()]
    drawn = data.draw(changed(rows))
    content = b"".join(text(row) + b"\n" for row in (drawn if isinstance(drawn, list) else [drawn]))
    used(data, {**FILES, EXAMPLES: content}, tmp_path_factory.mktemp("fuzz"), whole)


@examples(30)
@given(data=st.data())
def test_changed_scores(data: st.DataObject, whole: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    table = pyarrow.parquet.read_table(io.BytesIO(FILES[SCORES]))
    columns = table.to_pydict()
    name = data.draw(st.sampled_from(sorted(columns)))
    odd: list[Any] = data.draw(st.lists(st.sampled_from(_ODD[table.schema.field(name).type]), min_size=1, max_size=5))
    columns[name] = [*odd, *columns[name][len(odd) :]]
    sink = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(columns, schema=table.schema), sink)
    content = {**CONTENT, "files": {**CONTENT["files"], SCORES: hashlib.sha256(sink.getvalue()).hexdigest()}}
    used(data, {**FILES, SCORES: sink.getvalue(), BOARD: text(content)}, tmp_path_factory.mktemp("fuzz"), whole)


_ODD = {
    pyarrow.string(): (None, "", "a\x00b", "\u202e", "no such row", "x" * 5000),
    pyarrow.int64(): (None, 0, -1, 2**62),
    pyarrow.int32(): (None, 0, -1, 2**30),
    pyarrow.float64(): (None, float("nan"), float("inf"), 1e308, -1e308, 0.0),
}


TABLE = yaml.safe_load((Path(__file__).parents[2] / "leaderboards" / "papers" / "sr-dpo-open-llm.yaml").read_text())


@examples(40)
@given(content=changed(TABLE))
def test_a_changed_published_table(content: Any, tmp_path: Path, whole: Path) -> None:
    path = tmp_path / "table.yaml"
    path.write_text(yaml.safe_dump(content))
    survives(lambda: LoadedBoard.read(path))
    survives(lambda: merge([LoadedBoard.read(path)], name="x", created="").write(tmp_path / "out"))
