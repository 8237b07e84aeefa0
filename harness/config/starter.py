"""`harness new config`: a commented config to start from, with the columns of a data set recognised by reading rows of it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, product
from pathlib import Path
from typing import Any

import yaml

from harness.api.registry import Registry
from harness.api.texts import read_json_rows
from harness.errors import DataError, HarnessError

ROWS = 200  # of a file: enough to tell its layout
# Layouts of the file and hub sources, the most general last: where two read the same rows, the first is chosen.
_LAYOUTS = ("hh_rlhf", "nectar", "standard")
# Columns as data sets call them, by our names; the first that occurs is read.
_COLUMNS: Mapping[str, tuple[str, ...]] = {
    "prompt": ("prompt", "instruction", "question", "query", "input", "problem"),
    "chosen": ("chosen", "chosen_response", "preferred", "better", "response_chosen", "win"),
    "rejected": ("rejected", "rejected_response", "dispreferred", "worse", "response_rejected", "lose"),
    "ranked": ("ranked", "responses", "answers"),
    "target": ("target", "completion", "response", "output", "answer", "solution"),
    "messages": ("messages", "conversations", "dialogue"),
}
# What a layout may be made of; alternatives are tried in this order.
_SHAPES = (("prompt", "chosen", "rejected"), ("chosen", "rejected"), ("prompt", "ranked"), ("prompt", "target"), ("messages",))


@dataclass(frozen=True)
class RecognisedData:
    """A source that reads a data set, and what its rows hold.

    Attributes:
        source: the config's section.
        ranked: whether rows have responses from best to worst, so that methods on preferences can train.
        usable: examples among the rows looked at.
        looked_at: rows looked at; None for a data set of the hub, which is read whole.
    """

    source: Mapping[str, Any]
    ranked: bool
    usable: int
    looked_at: int | None


def recognise(data: str, registry: Registry) -> RecognisedData:
    """Return the source for a local file of JSON lines, JSON or Parquet, or for a hub data set (`owner/name`, or a local copy).

    Raises:
        DataError: no such file or data set, it cannot be read, or no known layout fits its rows.
    """
    path = Path(data).expanduser()
    if not path.is_file():
        return _recognise_hub(data, registry)
    name = "parquet" if path.suffix == ".parquet" else "jsonl"
    rows = list(islice(_rows(path, name), ROWS))
    if not rows:
        raise DataError(f"--data {data}: it holds no rows")
    with tempfile.TemporaryDirectory(prefix="harness-new-") as folder:
        sample = Path(folder, "rows.jsonl")
        sample.write_text("".join(json.dumps(row, default=str) + "\n" for row in rows), encoding="utf-8")
        best = _best(registry, {"name": "jsonl", "path": str(sample)}, _candidates(rows[0]))
    if best is None:
        columns = ", ".join(sorted(map(str, rows[0]))) or "none"
        raise DataError(
            f"--data {data}: no known layout fits its rows (columns: {columns}): write `source` with a `columns` map yourself, "
            "as docs/models-and-data.md shows"
        )
    fields, ranked, usable = best
    return RecognisedData({"name": name, "path": data, **fields}, ranked, usable, len(rows))


def _recognise_hub(data: str, registry: Registry) -> RecognisedData:
    if data.count("/") != 1 and not Path(data).expanduser().is_dir():
        raise DataError(f"--data {data}: there is no such file, and it is no data set of the hub (owner/name)")
    for name in registry.names("source"):  # a data set that a source is for
        field = registry.get("source", name).component.model_fields.get("dataset")
        if field is not None and field.default == data:
            best = _best(registry, {"name": name}, [{}])
            if best is not None:
                return RecognisedData({"name": name}, best[1], best[2], None)
    # Its columns are not known before it is read: the layouts that name their own, and then the usual names.
    maps = [{}, *({"columns": {name: other}} for name in _COLUMNS for other in _COLUMNS[name][1:])]
    pairs = [
        {"columns": {"prompt": prompt, "target": target}}
        for prompt, target in product(_COLUMNS["prompt"], _COLUMNS["target"])
        if (prompt, target) != ("prompt", "target")
    ]
    layouts = [{"format": layout} for layout in _LAYOUTS[:-1]]
    best = _best(registry, {"name": "hub", "dataset": data}, [*layouts, *maps, *pairs], first=True)
    if best is None:
        raise DataError(f"--data {data}: no known layout fits its rows: write `source` with a `columns` map yourself")
    return RecognisedData({"name": "hub", "dataset": data, **best[0]}, best[1], best[2], None)


def _rows(path: Path, name: str) -> Iterator[Mapping[str, Any]]:
    """Yield a file's rows.

    Raises:
        DataError: it cannot be read, or a row is no object.
    """
    if name == "parquet":
        import pyarrow.parquet
        from pyarrow import ArrowException

        try:
            for batch in pyarrow.parquet.ParquetFile(path).iter_batches(batch_size=ROWS):
                yield from batch.to_pylist()
        except (ArrowException, OSError, ValueError) as error:
            raise DataError(f"{path}: it cannot be read as Parquet: {str(error).splitlines()[0]}") from error
        return
    for place, _, row in read_json_rows(path):
        if not isinstance(row, Mapping):
            raise DataError(
                f"{place}: it should be an object with columns" + (f": {row}" if isinstance(row, ValueError) else "")
            )
        yield row


def _candidates(row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the fields of sources that might read rows like this one."""
    names = {name: [other for other in others if other in row] for name, others in _COLUMNS.items()}
    maps = []
    for shape in _SHAPES:
        if all(names[name] for name in shape):
            renamed = {name: names[name][0] for name in shape if names[name][0] != name}
            maps.append({"columns": renamed} if renamed else {})
    return [*({"format": layout} for layout in _LAYOUTS[:-1]), *maps]


def _best(
    registry: Registry, source: Mapping[str, Any], candidates: Sequence[Mapping[str, Any]], *, first: bool = False
) -> tuple[Mapping[str, Any], bool, int] | None:
    """Return the fields that make most examples of the rows, whether they are ranked, and how many they are.

    Args:
        first: take the first that reads the rows at all, since each try reads a whole data set.
    """
    best: tuple[Mapping[str, Any], bool, int] | None = None
    for fields in candidates:
        component = registry.get("source", source["name"]).component
        try:
            # Everything in the training split, so that all usable rows are counted.
            shares = {"heldout_share": 0.0, "tuning_share": 0.0}
            loaded = component.model_validate({**{k: v for k, v in source.items() if k != "name"}, **shares, **fields}).load()
        except DataError as error:
            if first and "cannot be read" in str(error):
                raise
            continue
        examples = loaded.splits["train"]
        ranked = sum(len(example.ranked) > 1 for example in examples) * 2 > len(examples)
        if best is None or (len(examples), ranked) > (best[2], best[1]):
            best = (fields, ranked, len(examples))
        if first:
            break
    return best


def starter(name: str, data: RecognisedData | None) -> str:
    """Return the text of a commented config: on a data set, or on the sandbox."""
    source, comment = ("{name: sandbox, train: 800}", "the embedded world: nothing to download, and a gold reward")
    if data is not None:
        shares = {"heldout_share": 0.1, "tuning_share": 0.05}
        source = _flow({**data.source, **shares})
        of = f" of the first {data.looked_at:,} rows" if data.looked_at is not None else ""
        comment = (
            f"{data.usable:,}{of} can be used; {'with' if data.ranked else 'without'} preferences. `harness data` shows them"
        )
    model = "model: {path: sandbox}  # a checkpoint folder, or owner/name of the hub"
    if data is not None:
        model = (
            "# A small model made from the data's own text, to try the config; for answers worth reading give a checkpoint:\n"
            "#   model: {path: Qwen/Qwen3-0.6B-Base}\n"
            "model: {scratch: {}}"
        )
    ranked = data is None or data.ranked
    rows = ["sft  # the starting model itself", '"null"  # the same with other seeds: how far rows differ by chance']
    if ranked:
        rows += ["dpo", "ipo", "{method: simpo, training: {learning_rate: 1.0e-4}}"]
    rows += ["{method: self_contrast, data: {samples: 8, embedder: tfidf}}  # on targets and own samples, without preferences"]
    gold = ["gold_reward"] if data is None else []
    evaluators = [*gold, *(["preference_accuracy"] if ranked else []), "response_stats"]
    return f"""\
# Written by `harness new config`. Check it with `harness plan {name}.yaml`, see the examples with `harness data {name}.yaml`,
# run it with `harness compare {name}.yaml`. docs/configuration.md lists every field; `extends: FILE` inherits from another
# config, and `harness plan --resolved` prints the whole with its defaults.
schema: 1
name: {name}

# {comment}.
source: {source}

{model}

# Supervised fine-tuning on the targets before all methods; null to skip it.
sft: {{epochs: 1, learning_rate: 5.0e-4, batch_size: 32}}

# Defaults of every row; a row may change them.
training: {{learning_rate: 1.0e-4, prompts_per_batch: 16}}

# The same for every row: prompts seen. Add pairs, tokens or updates for a limit on the training with them.
budget: {{prompts: {min(100, max(1, (data.usable * 3) // 4)) if data else 400}}}

methods:
{chr(10).join(f"  - {row}" for row in rows)}

evaluators: [{", ".join(evaluators)}]

seeds: [0, 1]  # the whole comparison is repeated with each; more seeds narrow the intervals
baseline: sft
"""


def write_starter(name: str, into: Path, text: str) -> Path:
    """Write a config; an existing file is never replaced.

    Raises:
        HarnessError: the name cannot be used, the file exists, or it cannot be written.
    """
    from harness.config.schema import names_a_folder

    if not names_a_folder(name):
        raise HarnessError(f"NAME {name!r}: write it with letters, digits and . _ - only, a letter or digit first")
    path = into / f"{name}.yaml"
    try:
        into.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise HarnessError(f"{path} exists: choose another name, or another folder with --into") from None
    except OSError as error:
        raise HarnessError(f"{path} cannot be written ({error.strerror}): choose another folder with --into") from error
    return path


def _flow(value: Any) -> str:
    """Return a value as YAML on one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, allow_unicode=True, width=10**6)
    return text.strip()
