"""Changes to a board on a disk, as somebody makes them who wants another board to be believed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from harness.board import Board
from harness.board.evidence import Evidence
from harness.board.files import EVIDENCE, SCORES, digest, read_scores, scores_bytes

Content = dict[str, Any]
Place = tuple[str | int, ...]
NAMED_BY_CONTENT = {"rows", "scores", "curves", "models", "judges", "notes", "seeds", "printed"}  # keys that are no schema's


def leaves(value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every value of a JSON tree that is no mapping or list with members, with its place."""
    if isinstance(value, dict | list) and value:
        for name, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from leaves(item, (*place, name))
    else:
        yield place, value


def changed(value: Any) -> Any:
    """Another value of the same type."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    return "other" if value is None else {"other": 1} if value == {} else ["other"] if value == [] else f"{value}x"


def schema_place(place: Place) -> Place:
    """A place without names that the schema does not give: one for all rows, metrics and seeds."""
    names: list[str | int] = []
    for number, name in enumerate(place):
        before = place[number - 1] if number else ""
        free = isinstance(name, int) or "/" in name or name.isdecimal() or before in NAMED_BY_CONTENT
        names.append("*" if free else name)
    return tuple(names)


def change(content: Content, place: Place, value: Any) -> None:
    """Put a value at a place."""
    target: Any = content
    for name in place[:-1]:
        target = target[name]
    target[place[-1]] = value


def copied(folder: Path, new: Path) -> Content:
    """Copy a board's folder; return the content of its `board.json`."""
    shutil.copytree(folder, new, dirs_exist_ok=True)
    content: Content = json.loads((new / "board.json").read_text())
    return content


def save(content: Content, folder: Path, *, hashes: bool = True) -> None:
    """Write `board.json`, with the hashes that the files beside it have now."""
    for name in content["files"] if hashes else ():
        content["files"][name] = digest((folder / name).read_bytes())
    (folder / "board.json").write_text(json.dumps(content))


def edit_scores(folder: Path, edit: Callable[[Any], None]) -> None:
    scores = read_scores(folder / SCORES)
    edit(scores)
    (folder / SCORES).write_bytes(scores_bytes(scores))


def edit_evidence(folder: Path, edit: Callable[[Content], None]) -> None:
    """Change the evidence, with the root that it then has."""
    content = Evidence.read((folder / EVIDENCE).read_bytes()).model_dump(mode="json", exclude_defaults=True)
    edit(content)
    (folder / EVIDENCE).write_bytes(Evidence.model_validate(content).to_bytes())


def reseal(folder: Path) -> None:
    """Make the evidence's hashes those of a changed board, as a forger does who knows how they are made."""
    content = json.loads((folder / "board.json").read_text())
    save(content, folder)
    board = Board.read(folder)
    evidence = board.evidence
    assert evidence is not None
    (folder / EVIDENCE).write_bytes(evidence.sealed(board).to_bytes())
    save(content, folder)
