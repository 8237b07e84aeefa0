"""Folders of runs: where a run may write its board, and a list of the runs under a folder."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

from pydantic import JsonValue, ValidationError

from harness.board.board import Board
from harness.board.by_model import SEPARATOR
from harness.board.files import BOARD, write_text
from harness.board.views.site import write_index
from harness.config import Comparison
from harness.config.file import called
from harness.config.schema import Config
from harness.errors import DataError, HarnessError, did_you_mean
from harness.run.executors.journal import STATUS, read_status
from harness.store.reading import read_plain

# What to do where the folder holds a board that the run would not make again: refuse to run, take a folder beside it, or
# replace it.
OtherBoard: TypeAlias = Literal["refuse", "beside", "replace"]
RUNS = "runs"  # the folder that has an index of its boards
RUN = "run.json"  # in a run's folder from its first second: what it computes, and where
NO_RESULT = frozenset({"name", "description", "run"})  # sections of a config that change no result


def board_folder(folder: Path, comparisons: Sequence[Comparison], raw: Mapping[str, Any], other: OtherBoard) -> Path:
    """Return the folder that a run may write its board to, so that no board of another comparison is lost.

    Args:
        folder: the wanted folder.
        comparisons: the run's, one for each starting model.
        raw: the config that they were resolved from.

    Raises:
        HarnessError: `folder` holds the board of another comparison, and `other` is `refuse`.
    """
    if other == "replace":
        return folder
    for candidate in itertools.chain([folder], (folder.with_name(f"{folder.name}-{n}") for n in itertools.count(2))):
        if (difference := _lost(candidate, comparisons, raw)) is None:
            return candidate
        if other == "refuse":
            raise HarnessError(
                f"{candidate} holds the board of another comparison ({difference}): choose another folder with --out, "
                "or give --replace to lose that board"
            )
    raise AssertionError("an endless loop")


def _lost(folder: Path, comparisons: Sequence[Comparison], raw: Mapping[str, Any]) -> str | None:
    """Return what a run would lose of the board in `folder`; None where it makes every row of it again, or there is none."""
    if not (folder / BOARD).exists():
        return None
    try:
        board = Board.read(folder, examples=False)
    except DataError as error:
        return str(error)
    labels = {
        row.label if comparison.start is None else f"{comparison.start}{SEPARATOR}{row.label}"
        for comparison in comparisons
        for row in comparison.rows
    }
    if missing := [row.method for row in board.rows if row.method not in labels]:
        return f"its row {missing[0]!r} is not in this run"
    if _is_noted(folder, raw):
        return None  # the same command; a board's config may differ from it, as a search settles fields
    if board.sharing.get("merged"):
        return "it was merged from several boards"
    try:
        before = _configs(board.config)
    except (ValidationError, KeyError, TypeError):
        return "its config is of another version"
    now = {comparison.start: comparison.config for comparison in comparisons}
    if before.keys() - now.keys():
        return "its starting model is not in this run"
    differences = (_difference(_content(config), _content(now[start])) for start, config in before.items())
    return next((difference for difference in differences if difference is not None), None)


def check_merge_folder(folder: Path, merged: Board) -> None:
    """Refuse to write a merged board over one that is not an earlier merge of the same boards, or has a row more.

    Raises:
        HarnessError: a board would be lost; names it and the way out.
    """
    if not (folder / BOARD).exists():
        return
    reason = None
    try:
        board = Board.read(folder, examples=False)
    except DataError as error:
        reason = str(error)
    else:
        before, now = (sorted(source["name"] for source in each.sharing.get("merged", ())) for each in (board, merged))
        labels = {row.method for row in merged.rows}
        if not before and not board.is_published:
            reason = "a run or an import made it"
        elif before != now:
            reason = f"it was merged from {', '.join(before) or 'a published table'}"
        elif missing := [row.method for row in board.rows if row.method not in labels]:
            reason = f"its row {missing[0]!r} is not in the merged board"
    if reason is not None:
        raise HarnessError(
            f"--out {folder} holds another board ({reason}): choose another folder, or give --replace to lose that board"
        )


def _is_noted(folder: Path, raw: Mapping[str, Any]) -> bool:
    """Return whether the run that made the folder's board, or began to make it again, had the same config."""
    try:
        return bool(read_run(folder).config == json.loads(json.dumps(raw, default=str)))
    except HarnessError:
        return False


def _configs(config: Mapping[str, Any]) -> dict[str | None, Config]:
    """Return a board's config for each starting model, by its label; fields that are newer get their defaults."""
    models = config.get("model")
    if not isinstance(models, list):
        return {None: Config.model_validate(config)}
    sections = {str(model["label"]): {name: value for name, value in model.items() if name != "label"} for model in models}
    return {label: Config.model_validate({**config, "model": section}) for label, section in sections.items()}


def _content(config: Config) -> dict[str, JsonValue]:
    content: dict[str, JsonValue] = config.model_dump(mode="json", by_alias=True)
    return {name: value for name, value in content.items() if name not in NO_RESULT}


def _difference(before: Mapping[str, JsonValue], now: Mapping[str, JsonValue], path: str = "") -> str | None:
    """Return the first field that differs, with both values. Rows, evaluators and seeds may be added."""
    for name in [*before, *(name for name in now if name not in before)]:
        field, old, new = f"{path}{name}", before.get(name), now.get(name)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            return _difference(old, new, f"{field}.")
        if field in ("methods", "evaluators", "seeds") and isinstance(old, list) and isinstance(new, list):
            lost = next((item for item in old if item not in new), None)
            if lost is not None:
                return f"{field}: {called(lost)} is not in this run, or has other settings"
            continue
        return f"{field}: {_brief(old)} there, {_brief(new)} now"
    return None


def _brief(value: JsonValue) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:39]}…"


@dataclass(frozen=True)
class RunSummary:
    """A run's folder in one line.

    Attributes:
        state: as `harness status` says it; `board` for a board without a journal, such as a merged or copied one.
        date: of the board, or of the last sign of life; ISO 8601 in UTC.
        rows, failed: on the board; None without one.
        best: label of the first row on the first primary metric; `score` is its mean there.
        done, stages: of the last run; None without a journal.
    """

    folder: str
    name: str
    state: str
    date: str
    rows: int | None = None
    failed: int | None = None
    best: str | None = None
    metric: str | None = None
    score: float | None = None
    done: int | None = None
    stages: int | None = None
    problem: str | None = None


def run_folders(root: Path) -> Iterator[Path]:
    """Yield every folder under `root`, itself included, that holds a board or a run's journal; nothing inside of them."""
    for place, folders, files in os.walk(root):
        if BOARD in files or STATUS in files:
            folders.clear()
            yield Path(place)
        if "artifacts" in folders and "roots" in folders:  # a store
            folders.clear()
        folders.sort()


def list_runs(root: Path) -> list[RunSummary]:
    """Return the runs under a folder, the latest first."""
    return sorted(map(summarise, run_folders(root)), key=lambda run: run.date, reverse=True)


def summarise(folder: Path) -> RunSummary:
    """Return a run's state, and the best row where it has a board."""
    state, date, name, done, stages, problem = "board", "", folder.name, None, None, None
    if (folder / STATUS).exists():
        try:
            status = read_status(folder)
            state, date, name = str(status["state"]), str(status["updated"]), str(status["name"])
            done, stages = int(status["done"]), int(status["stages"])
        except (HarnessError, KeyError, TypeError, ValueError) as error:
            problem = str(error)
    if not (folder / BOARD).exists():
        return RunSummary(str(folder), name, state, date, done=done, stages=stages, problem=problem)
    try:
        board = Board.read(folder, examples=False)
    except DataError as error:
        return RunSummary(str(folder), name, state, date or _changed(folder), done=done, stages=stages, problem=str(error))
    answer = board.answer
    return RunSummary(
        folder=str(folder),
        name=board.name,
        state=state,
        date=board.created or date or _changed(folder),
        rows=len(board.rows),
        failed=sum(row.failed is not None for row in board.rows),
        best=answer.row.method if answer else None,
        metric=answer.metric.key if answer else None,
        score=answer.score.mean if answer else None,
        done=done,
        stages=stages,
        problem=problem,
    )


def _changed(folder: Path) -> str:
    return datetime.fromtimestamp((folder / BOARD).stat().st_mtime, UTC).isoformat(timespec="seconds")


def find_board(name: str, root: Path) -> Path:
    """Return the path of a board that a person names: a file, a folder, or the name of a run under `root`.

    Raises:
        HarnessError: there is none.
    """
    path = Path(name)
    if path.exists():
        return path
    if path.parent == Path() and (root / name / BOARD).exists():
        return root / name
    known = [folder.relative_to(root).as_posix() for folder in run_folders(root) if (folder / BOARD).exists()]
    raise HarnessError(f"no board at {name}, and no run of that name under {root}: {did_you_mean(name, known)}")


def latest_boards(root: Path, count: int) -> list[Path]:
    """Return the folders of the latest boards under `root`, the oldest of them first.

    Raises:
        HarnessError: there are fewer than `count`.
    """
    folders = [Path(run.folder) for run in list_runs(root) if run.rows is not None]
    if len(folders) < count:
        raise HarnessError(f"{len(folders)} boards under {root}, and {count} are needed: name them, or run `harness compare`")
    return folders[:count][::-1]


def update_index(folder: Path) -> None:
    """Write the index of all boards beside `folder`, where that is a folder called `runs`.

    Raises:
        HarnessError: the index cannot be written.
    """
    parent = folder.resolve().parent
    if parent.name == RUNS:
        write_index(parent, "Runs")


@dataclass(frozen=True)
class NotedRun:
    """The content of `run.json`: the config with overrides applied, the store's folder, and the command line."""

    config: dict[str, Any]
    store: str
    command: str


def note_run(folder: Path, config: Mapping[str, Any], store: Path, command: str) -> None:
    """Write `run.json` as a run begins.

    Raises:
        StoreError: the folder cannot be written.
    """
    content = {"version": 1, "config": config, "store": str(store.absolute()), "command": command}
    write_text(folder / RUN, json.dumps(content, indent=1, default=str) + "\n")


def read_run(folder: Path) -> NotedRun:
    """Read `run.json`.

    Raises:
        HarnessError: there is none, or it cannot be read.
    """
    path = folder / RUN
    try:
        content = json.loads(read_plain(path))
        return NotedRun(dict(content["config"]), str(content["store"]), str(content["command"]))
    except FileNotFoundError:
        raise HarnessError(f"{path} is missing: a run writes it when it starts; start the run again") from None
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise HarnessError(f"{path} cannot be read ({error}): start the run again, which writes a new one") from error
