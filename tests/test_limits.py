"""Small files that stand for gigabytes, and values without an end: refused with one error, in bounded memory."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import yaml

from harness.api import limits
from harness.api.limits import parse_yaml, read_json, read_parquet_rows
from harness.board.published import read_table
from harness.errors import DataError
from harness.models.load import generation_eos, read_config

BILLION_LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{letter}: &{letter} [{', '.join([f'*{before}'] * 9)}]\n" for before, letter in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE_YAML = {
    "deep lists": "[" * 100_000,
    "deep mappings": "".join(f"{' ' * level}a:\n" for level in range(200)),
    "aliases of aliases": BILLION_LAUGHS,
    "an anchor in itself": "a: &a [*a]",
    "too long": "a: " + "x" * 1_000_001,
    "python": "!!python/object/apply:os.system ['true']",
    "a key twice": "a: 1\na: 2",
}


@pytest.mark.parametrize("text", HOSTILE_YAML.values(), ids=HOSTILE_YAML)
def test_hostile_yaml_is_one_error_also_as_a_published_table(text: str, tmp_path: Path) -> None:
    with pytest.raises(yaml.YAMLError):
        parse_yaml(text)
    (tmp_path / "table.yaml").write_text(text)
    with pytest.raises(DataError, match=r"table\.yaml cannot be read as a published table"):
        read_table(tmp_path / "table.yaml")


HOSTILE_JSON = {
    "deep": "[" * 100_000,
    "as deep as python goes": "[" * 900 + "]" * 900,
    "deeper than allowed": "[" * 102 + "]" * 102,
    "no json": "{",
    "no text": b"\xff\xfe\x00",
    "a number of too many digits": "1" * 5000,
}


@pytest.mark.parametrize("text", HOSTILE_JSON.values(), ids=HOSTILE_JSON)
def test_a_hostile_config_of_a_model_is_one_error(text: str | bytes, tmp_path: Path) -> None:
    for name in ("config.json", "generation_config.json"):
        (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    for read in (read_config, generation_eos):
        with pytest.raises(DataError, match=r"config\.json cannot be read"):
            read(tmp_path)


def test_a_json_file_is_read_up_to_its_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = json.loads("[" * 101 + "]" * 101)
    (tmp_path / "a.json").write_text(json.dumps(deep))
    assert read_json(tmp_path / "a.json") == deep
    monkeypatch.setattr(limits, "LARGEST_JSON", 100)
    with pytest.raises(ValueError, match="more than 100 bytes"):
        read_json(tmp_path / "a.json")


LONG = "x" * 1_000_000


def write(path: Path, columns: dict[str, list[object]]) -> Path:
    pyarrow.parquet.write_table(pyarrow.table(columns), path, compression="zstd")
    return path


@pytest.mark.parametrize("cell", [LONG, {"content": LONG}, [{"role": "user", "content": LONG}]], ids=["flat", "struct", "list"])
def test_a_repeated_text_never_fills_the_memory(cell: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of some 10 kB whose 300 rows take 300 MB at once, and 100,000 of them would take 100 GB."""
    path = write(tmp_path / "bomb.parquet", {"a": [cell] * 300, "b": list(range(300))})
    assert path.stat().st_size < 100_000
    monkeypatch.setattr(limits, "EXPANDED_AT_ONCE", 4_000_000)
    tracemalloc.start()
    before = pyarrow.total_allocated_bytes()
    count = 0
    for number, row in enumerate(read_parquet_rows(path)):
        assert (row["a"], row["b"]) == (cell, number)
        count += 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 300
    assert peak < 30_000_000 and pyarrow.total_allocated_bytes() - before < 30_000_000
    monkeypatch.setattr(limits, "EXPANDED_AT_ONCE", 500_000)
    with pytest.raises(DataError, match=r"bomb\.parquet: a row has 1,000,0\d\d bytes, more than 500,000"):
        next(read_parquet_rows(path))


def test_a_file_that_says_that_it_unpacks_to_far_more_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.parquet"
    table = pyarrow.table({"a": ["x" * 50_000 + str(number) for number in range(100)]})
    pyarrow.parquet.write_table(table, path, compression="zstd", use_dictionary=False)
    monkeypatch.setattr(limits, "UNPACKED_BYTES", 1_000_000)
    monkeypatch.setattr(limits, "UNPACKED_TIMES", 10)
    with pytest.raises(DataError, match="it unpacks to more than 1,000,000 bytes"):
        list(read_parquet_rows(path))


@pytest.mark.parametrize(
    "columns",
    [
        {"a": ["x", None, "y"], "b": [1, 2, None], "c": [b"\x00", b"", None]},
        {"messages": [[{"role": "user", "content": "hi"}], [], None], "chosen": [["a", "b"], ["a"], []]},
    ],
    ids=["flat", "nested"],
)
def test_rows_are_those_of_the_file(columns: dict[str, list[object]], tmp_path: Path) -> None:
    path = write(tmp_path / "rows.parquet", columns)
    assert list(read_parquet_rows(path)) == pyarrow.parquet.read_table(path).to_pylist()


@pytest.mark.parametrize("limit", [64, 1 << 20])
def test_rows_of_a_group_that_is_partly_written_with_shared_text(limit: int, tmp_path: Path) -> None:
    rows = [[{"role": "user", "content": f"{number} {'x' * 50}"}] for number in range(3000)]
    path = tmp_path / "rows.parquet"
    table = pyarrow.table({"a": rows})
    pyarrow.parquet.write_table(table, path, dictionary_pagesize_limit=limit, data_page_size=1000, row_group_size=2000)
    assert [row["a"] for row in read_parquet_rows(path)] == rows


def test_what_is_no_parquet_is_one_error(tmp_path: Path) -> None:
    whole = write(tmp_path / "whole.parquet", {"a": ["x"] * 100}).read_bytes()
    for number, content in enumerate((b"", b"PAR1", whole[:100], whole[:-40])):
        (tmp_path / f"{number}.parquet").write_bytes(content)
        with pytest.raises(DataError, match="cannot be read as Parquet"):
            list(read_parquet_rows(tmp_path / f"{number}.parquet"))
