"""The evidence of a board: what it was built from beside its scores, so that `harness verify` can build it again.

`evidence.json.gz` travels beside `board.json`. It holds three things:

- `builds`: the order of the rows, the metrics and the run's own warnings, as `build_board` was given them.
- `written`: a SHA-256 of each part of the board that nothing computes, such as its name, its config or a row's provenance.
- `stages`: of every stage, what it was asked (payload and inputs, which give its key) and what it made (its manifest in the
  store: facts, seconds, a SHA-256 of each file). From these follow costs, budgets, curves and the facts of data and judges.

`root` is the root of a Merkle tree over the second and the third, so that one line stands for all of it.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from harness.board.entries import unwritable
from harness.board.files import EVIDENCE
from harness.errors import DataError
from harness.store.artifact import canonical

if TYPE_CHECKING:
    from harness.board.board import Board

LARGEST_EVIDENCE = 1 << 26  # bytes after decompression; that of 1,100 stages has 1.5 MB
COMPUTED = frozenset({"rows", "metrics", "statistics", "warnings", "analysis", "files", "models", "across"})
COMPUTED_OF_ROW = frozenset({"method", "scores", "states"})
MANIFEST_FIELDS = ("kind", "facts", "seconds", "files")


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class BuildRecord(_Record):
    """The arguments of `build_board` that a board does not show as they were given.

    Attributes:
        order: labels of the rows; where two rows are equally good, the board keeps it.
        metrics: keys, in the order of the evaluators.
        derived: keys of metrics without scores per example, whose numbers cannot be computed again.
        warnings: of the run; those of the statistics follow from the scores.
        empty: row -> evaluator -> seeds at which it gave no score at all.
    """

    order: tuple[str, ...]
    metrics: tuple[str, ...]
    derived: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    empty: dict[str, dict[str, tuple[int, ...]]] = {}
    mixed_judges: bool = False


class StageEvidence(_Record):
    """One artifact: what it was asked, and what it made.

    Attributes:
        kind: of the stage; of what a stage asked for, its manifest has it.
        title: for people.
        payload, inputs: absent for what a stage asked for beside its inputs, such as samples: its key is taken as it is.
        manifest: as the store wrote it; empty for a stage that failed, or that none was made of.
        ran: made in the run that wrote the board, rather than found in the store.
        history: the lines of a training's log.
        scores: lines of an evaluation's scores, which are in `scores.parquet` or `states.parquet`.
        integers: metrics whose scores it wrote as integers, while Parquet holds them as floating-point numbers.
    """

    kind: str = ""
    title: str = ""
    payload: dict[str, JsonValue] | None = None
    inputs: dict[str, str] = {}
    manifest: Mapping[str, JsonValue] = {}
    ran: bool = False
    history: tuple[dict[str, JsonValue], ...] | None = None
    scores: int | None = None
    integers: tuple[str, ...] = ()

    @property
    def files(self) -> dict[str, str]:
        """SHA-256 of each file that the stage made."""
        files = self.manifest.get("files")
        return {name: str(value) for name, value in files.items()} if isinstance(files, dict) else {}


class PlanEvidence(_Record):
    """The stages of one row at one seed: a `harness.run.graph.RowPlan`, with the label of its starting model.

    Attributes:
        row: its label on the board; None for a trial of a search, which is no row.
        states: of each state its model, round, share, position and evaluations.
    """

    row: str | None
    label: str
    seed: int
    model: str
    groups: tuple[str, ...]
    training: tuple[str, ...]
    evaluations: dict[str, tuple[str, ...]]
    start: str
    training_seed: int
    states: tuple[tuple[str, int, float, float, dict[str, str]], ...] = ()


class StagesEvidence(_Record):
    """The stages of a run.

    Attributes:
        environment: the part of their keys that versions and the kind of device decide.
        versions: kind of stage -> the version of its code.
        cpu: kind of the processor that wrote the board, which decides the last bits of sums.
        failed: key -> why the stage failed.
    """

    environment: dict[str, str]
    versions: dict[str, int]
    stages: dict[str, StageEvidence]
    plans: tuple[PlanEvidence, ...]
    cpu: str = ""
    failed: dict[str, str] = {}


class Evidence(_Record):
    """Everything in `evidence.json.gz`.

    Attributes:
        builds: starting model's label -> its build; "" where the board has one model.
        left_out: warnings about starting models that are not on the board.
        written: part of the board -> SHA-256 of its canonical JSON.
        runs: the stages of the runs that made its rows: one, or several of a merged board; of imported rows there are none.
        root: of the Merkle tree.
    """

    version: Literal[1] = 1
    builds: dict[str, BuildRecord]
    left_out: tuple[str, ...] = ()
    written: dict[str, str] = {}
    runs: tuple[StagesEvidence, ...] = ()
    root: str = ""

    @property
    def leaves(self) -> list[str]:
        """The lines that the Merkle tree is over: a part or a stage's key, and the SHA-256 of what it is."""
        return [
            *(f"{part} {written}" for part, written in sorted(self.written.items())),
            *(f"{key} {hash_of(stage.manifest)}" for run in self.runs for key, stage in sorted(run.stages.items())),
        ]

    def sealed(self, board: Board) -> Evidence:
        """Return it with the hashes of a board's parts, and the root."""
        named = self.model_copy(update={"written": {part: hash_of(value) for part, value in written_parts(board)}})
        return named.model_copy(update={"root": merkle_root(named.leaves)})

    def to_bytes(self) -> bytes:
        """Return the file: canonical JSON, compressed without a time, so that equal evidence gives equal bytes."""
        out = io.BytesIO()
        with gzip.GzipFile(filename="", mode="wb", fileobj=out, mtime=0) as stream:
            content = {"version": self.version, **self.model_dump(mode="json", exclude_defaults=True)}
            stream.write(canonical(content).encode("utf-8"))
        return out.getvalue()

    @classmethod
    def read(cls, content: bytes) -> Evidence:
        """Read a file of unknown origin.

        Raises:
            DataError: it is no evidence, or unpacks to more than any board's.
        """
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
                text = stream.read(LARGEST_EVIDENCE + 1)
            if len(text) > LARGEST_EVIDENCE:
                raise DataError(f"{EVIDENCE} unpacks to more than {LARGEST_EVIDENCE:,} bytes, which no board's evidence has")
            parsed = json.loads(text)
            for problem in unwritable(parsed):
                raise DataError(f"{EVIDENCE} cannot be read as evidence: {problem}")
            return cls.model_validate(parsed)
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            raise DataError(f"{EVIDENCE} cannot be read as evidence: {place[:100]}: {first['msg']}") from error
        except (OSError, EOFError, zlib.error, ValueError, RecursionError) as error:
            raise DataError(f"{EVIDENCE} cannot be read as evidence: {str(error)[:200]}") from error


def written_parts(board: Board) -> Iterator[tuple[str, JsonValue]]:
    """Yield each part of a board that nothing computes: its place, and its content as JSON."""
    content = board.model_dump(mode="json", by_alias=True)
    for name in sorted(content.keys() - COMPUTED):
        value = content[name]
        if isinstance(value, dict):  # in parts, so that a difference can be named
            yield from ((f"{name} {key}", item) for key, item in sorted(value.items()))
        else:
            yield name, value
    yield from ((f"metrics {metric['key']}", metric) for metric in content["metrics"])
    for row in content["rows"]:
        yield from _written_of_row(row)
    yield from _written_statistics("statistics", content["statistics"])
    for model in content.get("models") or ():
        yield f"models {model['label']}", True
        yield from _written_statistics(f"models {model['label']} statistics", model["statistics"])
    for name, digest in sorted((content.get("files") or {}).items()):
        if name != EVIDENCE:  # which cannot hold its own
            yield f"files {name}", digest


def _written_of_row(row: Mapping[str, JsonValue]) -> Iterator[tuple[str, JsonValue]]:
    place = f"rows {row['method']}"
    yield place, True  # that there is this row
    for name in sorted(row.keys() - COMPUTED_OF_ROW):
        value = row[name]
        if isinstance(value, dict) and name in ("provenance", "curves"):
            yield from ((f"{place} {name} {key}", item) for key, item in sorted(value.items()))
        else:
            yield f"{place} {name}", value
    states = row.get("states")
    if isinstance(states, list):
        yield f"{place} states", [[state[key] for key in ("position", "round", "share")] for state in states]  # type: ignore[index,call-overload]


def _written_statistics(place: str, statistics: Mapping[str, JsonValue]) -> Iterator[tuple[str, JsonValue]]:
    """Yield the statistics that scores do not give: their version, judges asked again, trainings, blocks of prompts."""
    yield f"{place} methods", statistics.get("methods")
    if "judges" in statistics:
        yield f"{place} judges", statistics["judges"]
    if isinstance(looks := statistics.get("sequential"), dict):
        yield f"{place} sequential", [looks.get(name) for name in ("trainings", "trainings_fixed")]
    if isinstance(looks := statistics.get("sequential_prompts"), dict):
        yield f"{place} sequential_prompts", [looks[name] for name in ("start", "most", "evaluators", "blocks")]


def hash_of(value: JsonValue | Mapping[str, JsonValue]) -> str:
    """Return the SHA-256 of a value as the store writes JSON: canonical, with a line break at its end."""
    return hashlib.sha256(f"{canonical(value)}\n".encode()).hexdigest()


def merkle_root(leaves: Sequence[str]) -> str:
    """Return the root of the Merkle tree of RFC 6962 over lines of text; "" without any."""
    level = [hashlib.sha256(b"\0" + leaf.encode("utf-8", "surrogatepass")).digest() for leaf in leaves]
    while len(level) > 1:
        pairs = [hashlib.sha256(b"\1" + level[i] + level[i + 1]).digest() for i in range(0, len(level) - 1, 2)]
        level = [*pairs, *(level[-1:] if len(level) % 2 else [])]
    return level[0].hex() if level else ""
