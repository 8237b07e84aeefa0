"""Data from anybody: rows in every layout, plain, gzipped and as Parquet, load or are refused with file and line."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from fuzz.budget import examples, survives
from fuzz.mutations import changed, damaged
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import DataError
from harness_plugins.sources import HHRLHF, Hub, Jsonl, Parquet
from harness_plugins.sources.arrow_json import check_json
from harness_plugins.sources.formats import READERS

PAIR = {"chosen": "\n\nHuman: hi\n\nAssistant: good day", "rejected": "\n\nHuman: hi\n\nAssistant: no"}
SAID = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "good day"}]
ROWS: tuple[dict[str, Any], ...] = (
    {"prompt": "hi", "chosen": "good day", "rejected": "no"},
    {"prompt": SAID[:1], "ranked": ["good day", "no"], "target": "good day"},
    {"messages": SAID},
    {"chosen": SAID, "rejected": [SAID[0], {"role": "assistant", "content": "no"}]},
    PAIR,
    {"prompt": "\n\nHuman: hi\n\nAssistant:", "answers": [{"answer": "good day", "rank": 1.0}, {"answer": "no", "rank": 2}]},
)
LAYOUTS = sorted(READERS)


def lines(rows: list[Any]) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


rows = st.lists(st.sampled_from(ROWS).flatmap(changed), min_size=1, max_size=4)
contents = st.one_of(
    rows.map(lines),
    st.sampled_from([lines([row] * 3) for row in ROWS]).flatmap(damaged),
    st.binary(max_size=60),
    st.sampled_from([b"[" * 100_000, b'{"a":' * 50_000, b'{"prompt": ' + b"9" * 5000 + b"}", b"\xff\xfe", b"NaN", b"null"]),
)
files = st.one_of(contents, contents.map(gzip.compress), contents.map(gzip.compress).flatmap(damaged))


@examples(200)
@given(content=files, layout=st.sampled_from(LAYOUTS), turn=st.sampled_from(("last", "first")))
def test_lines_load_or_are_refused(content: bytes, layout: Any, turn: Any, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(content)
    survives(Jsonl(path=str(path), format=layout, turn=turn, heldout_share=0).load)


@examples(100)
@given(content=st.one_of(files, st.lists(changed(PAIR), max_size=3).map(lines)))
def test_hh_rlhf_loads_or_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl.gz"
    path.write_bytes(content)
    survives(HHRLHF(path=str(path)).load)


@examples(100)
@given(content=rows.map(lines), columns=st.dictionaries(st.sampled_from(("prompt", "chosen", "x")), st.text(max_size=6)))
def test_any_column_map(content: bytes, columns: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl"
    path.write_bytes(content)
    survives(Jsonl(path=str(path), columns=columns).load)


def parquet(table: Any) -> bytes:
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(table, sink)
    return bytes(sink.getvalue())


TABLES = [pyarrow.Table.from_pylist([row, row]) for row in ROWS]
COLUMNS = st.sampled_from(
    (
        pyarrow.array([b"\xff\xfe", None]),
        pyarrow.array([1.5, float("nan")]),
        pyarrow.array([{"role": "user", "content": None}, None]),
        pyarrow.array([[None], []], type=pyarrow.list_(pyarrow.string())),
        pyarrow.array([[("a", 1)], []], type=pyarrow.map_(pyarrow.string(), pyarrow.int64())),
        pyarrow.array([10**18, -(10**18)], type=pyarrow.timestamp("us")),
        pyarrow.array([2**62, -1], type=pyarrow.duration("s")),
        pyarrow.nulls(2),
    )
)


@examples(150)
@given(data=st.data(), layout=st.sampled_from(LAYOUTS))
def test_parquet_loads_or_is_refused(data: st.DataObject, layout: Any, tmp_path: Path) -> None:
    table = data.draw(st.sampled_from(TABLES))
    name = data.draw(st.sampled_from(("prompt", "chosen", "rejected", "messages", "answers", "extra")))
    if data.draw(st.booleans()):
        kept = [column for column in table.column_names if column != name]
        table = table.select(kept).append_column(name, data.draw(COLUMNS))
    content = parquet(table)
    path = tmp_path / "data.parquet"
    path.write_bytes(data.draw(damaged(content)) if data.draw(st.booleans()) else content)
    survives(Parquet(path=str(path), format=layout, heldout_share=0).load)


repositories = st.one_of(
    contents.map(lambda content: ("train.jsonl", content)),
    contents.map(lambda content: ("train.json", content)),
    st.sampled_from(TABLES).map(parquet).flatmap(damaged).map(lambda content: ("train.parquet", content)),
)


@examples(25)
@given(file=repositories)
def test_a_copy_of_a_hub_repository_loads_or_is_refused(
    file: tuple[str, bytes], tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datasets

    folder = tmp_path_factory.mktemp("repository")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(folder.parent / "cache"))
    (folder / file[0]).write_bytes(file[1])
    survives(Hub(dataset=str(folder)).load)


@pytest.mark.parametrize(
    "content", [b"null", b'{"a": 1}\n null', b"[" * 600, b'{"a": ' * 600], ids=["null", "a null", "[", "{"]
)
def test_what_ends_arrows_reader_is_found_before_it(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_bytes(content)
    with pytest.raises(DataError, match=r"train\.jsonl, line \d: (null stands where a row should|nested deeper)"):
        Hub(dataset=str(tmp_path)).load()


def test_depth_and_nulls_inside_texts_and_rows_are_no_news(tmp_path: Path) -> None:
    rows = [
        {"prompt": "[" * 600 + '"\\ null', "chosen": "a null", "rejected": "b", "extra": None},
        {**ROWS[0], "extra": [None]},
    ]
    (tmp_path / "train.jsonl").write_bytes(lines(rows))
    check_json(tmp_path / "train.jsonl")


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """A gzipped line without an end: 64 MB of one character are 64 kB."""
    import tracemalloc

    path = tmp_path / "bomb.jsonl"
    with gzip.open(path, "wb") as stream:
        for _ in range(128):
            stream.write(b"a" * 1_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match=r"bomb\.jsonl, line 1: .* longer than"):
            Jsonl(path=str(path)).load()
        assert tracemalloc.get_traced_memory()[1] < 80_000_000
    finally:
        tracemalloc.stop()
