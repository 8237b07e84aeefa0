"""Limits on what files of other people may cost to read: YAML, JSON and Parquet, each in bounded memory and depth.

A few bytes can stand for gigabytes (aliases within aliases, a text that is repeated, brackets without end). What exceeds a
limit is refused with an error that names it, before it is expanded. Lines of data and whole texts have theirs in `texts`,
archives in `harness.store.archive`, replies of servers in `harness.models.transport`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from harness.api.walk import walk
from harness.errors import DataError

LARGEST_YAML = 1_000_000  # bytes; the largest config here has a few thousand
DEEPEST_YAML = 50  # sections within sections
MOST_YAML_VALUES = 100_000  # once every alias is written out, as the rest of the harness sees it
LARGEST_JSON = 64 << 20  # bytes of a JSON file that describes something: a tokenizer's has 10 MB
DEEPEST_JSON = 100
# A Parquet file whose columns unpack to more than this many bytes, and more than this many times its size, is a bomb.
UNPACKED_BYTES, UNPACKED_TIMES = 4 << 30, 200
ROWS_AT_ONCE = 4096
EXPANDED_AT_ONCE = 256 << 20  # bytes of rows that are made into Python objects at a time


# YAML


class StrictLoader(yaml.SafeLoader):
    """YAML within limits, without its quietest trap: a key that occurs twice, where the last one silently wins."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.depth += 1
        if self.depth > DEEPEST_YAML:
            where = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, f"it is nested deeper than {DEEPEST_YAML} levels", where)
        node: yaml.Node | None = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """A value; what Python cannot make of it (a date of a 13th month, 5,000 digits) is an error with its line."""
        try:
            return super().construct_object(node, deep)
        except (ValueError, LookupError, ArithmeticError, AttributeError, TypeError) as error:
            problem = f"{str(node.value)[:40]!r} cannot be read ({str(error)[:80]}); put it in quotes if it is text"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} occurs twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> Any:
    """Return the one document of a text.

    Raises:
        yaml.YAMLError: it is none, or exceeds a limit.
    """
    if len(text) > LARGEST_YAML:
        raise yaml.YAMLError(f"it has more than {LARGEST_YAML:,} characters")
    loader = StrictLoader(text)
    try:
        node = loader.get_single_node()
        if node is not None and _size(node, {}) > MOST_YAML_VALUES:
            problem = f"with its aliases written out it holds more than {MOST_YAML_VALUES:,} values"
            raise yaml.composer.ComposerError(None, None, problem, node.start_mark)
        return None if node is None else loader.construct_document(node)
    finally:
        loader.dispose()


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """Return how many values a node stands for. An alias counts as its content, so that nine of nine of nine count as 729."""
    if id(node) not in known:
        known[id(node)] = 0  # while it is counted
        children = [child for pair in node.value for child in pair] if isinstance(node, yaml.MappingNode) else node.value
        known[id(node)] = 1 + sum(_size(child, known) for child in children if isinstance(node, yaml.CollectionNode))
    elif known[id(node)] == 0:
        raise yaml.composer.ComposerError(None, None, "an anchor that contains itself: write it out", node.start_mark)
    return known[id(node)]


# JSON


def read_json(path: Path) -> Any:
    """Return the value of a small JSON file, such as a checkpoint's `config.json`.

    Raises:
        OSError: it cannot be read.
        ValueError: it is not JSON, or exceeds a limit.
    """
    with path.open("rb") as stream:
        content = stream.read(LARGEST_JSON + 1)
    if len(content) > LARGEST_JSON:
        raise ValueError(f"it has more than {LARGEST_JSON:,} bytes")
    try:
        value = json.loads(content)
    except RecursionError:
        raise ValueError(f"it is nested more than {DEEPEST_JSON} deep") from None
    if any(node.depth > DEEPEST_JSON for node in walk(value, deepest=DEEPEST_JSON)):
        raise ValueError(f"it is nested more than {DEEPEST_JSON} deep")
    return value


# Parquet


def read_parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a Parquet file, a few at a time.

    Text that the file repeats stays shared until its row is made, so that a small file never stands for gigabytes at once.

    Raises:
        DataError: it cannot be read as Parquet, or exceeds a limit.
    """
    import pyarrow
    import pyarrow.parquet

    number = 0
    try:
        metadata = pyarrow.parquet.read_metadata(path)
        check_parquet_size(path, metadata)
        for group in range(metadata.num_row_groups):
            for rows in _group_rows(path, metadata, group):
                number += len(rows)
                yield from rows
    except (pyarrow.ArrowException, OSError, ValueError, OverflowError) as error:
        problem = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}, after row {number}: cannot be read as Parquet ({problem}); is it whole?") from error


def _group_rows(path: Path, metadata: Any, group: int) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows of one row group, a few at a time."""
    import pyarrow
    import pyarrow.parquet

    leaves = [metadata.schema.column(place) for place in range(metadata.num_columns)]
    texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY" and leaf.logical_type.type != "DECIMAL"]
    done = 0
    try:
        for batch in pyarrow.parquet.ParquetFile(path, read_dictionary=texts).iter_batches(ROWS_AT_ONCE, [group]):
            for rows in _expanded(batch, path):
                done += len(rows)
                yield rows
    except pyarrow.ArrowNotImplementedError:
        # Arrow cannot keep shared text within lists where a group is only partly written so. Then so few rows are read at a
        # time that they have room even if each were as large as all texts of the group.
        sizes = [metadata.row_group(group).column(place).total_uncompressed_size for place in range(metadata.num_columns)]
        step = max(1, min(ROWS_AT_ONCE, EXPANDED_AT_ONCE // max(sizes)))
        flat = [name for name in texts if "." not in name]
        for batch in pyarrow.parquet.ParquetFile(path, read_dictionary=flat).iter_batches(step, [group]):
            for rows in _expanded(batch, path):
                unread = rows[max(0, done) :]
                done -= len(rows) - len(unread)
                yield unread


def check_parquet_size(path: Path, metadata: Any) -> None:
    """Refuse a Parquet file that says of itself that it unpacks to far more than its size.

    Raises:
        DataError: it does.
    """
    most = max(UNPACKED_BYTES, UNPACKED_TIMES * path.stat().st_size)
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    if sum(group.total_byte_size for group in groups) > most:
        raise DataError(
            f"{path}: it unpacks to more than {most:,} bytes, {UNPACKED_TIMES} times its size: is it the right file?"
        )


def _expanded(batch: Any, path: Path) -> Iterator[list[dict[str, Any]]]:
    """Yield a batch's rows as Python objects, in parts whose texts are not too much at a time."""
    size = sum(map(_expanded_bytes, batch.columns))
    if size <= EXPANDED_AT_ONCE:
        yield batch.to_pylist()
    elif batch.num_rows == 1:
        raise DataError(f"{path}: a row has {size:,} bytes, more than {EXPANDED_AT_ONCE:,}: is it the right file?")
    else:
        half = batch.num_rows // 2
        yield from _expanded(batch.slice(0, half), path)
        yield from _expanded(batch.slice(half), path)


def _expanded_bytes(array: Any) -> int:
    """Return the bytes of an array with each repeated text written out."""
    import pyarrow
    import pyarrow.compute

    if isinstance(array, pyarrow.DictionaryArray):
        lengths = pyarrow.compute.binary_length(array.dictionary).take(array.indices)
        return pyarrow.compute.sum(lengths).as_py() or 0
    if isinstance(array, pyarrow.StructArray):
        return sum(map(_expanded_bytes, array.flatten()))
    if isinstance(array, pyarrow.ListArray | pyarrow.LargeListArray | pyarrow.FixedSizeListArray):
        return _expanded_bytes(array.flatten())
    return int(array.nbytes)
