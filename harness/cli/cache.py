"""`harness cache`: the store, looked at, checked, cleaned, carried elsewhere."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from harness.cli.options import JsonOption, StoreOption, find_config, store_folder

if TYPE_CHECKING:
    from harness.store import Store

app = typer.Typer(
    help="The store: list it, verify it, make room, carry artifacts elsewhere.",
    no_args_is_help=True,
    epilog="Example: harness cache ls",
)

KeepOption = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="PATH", help="A config, a board or its folder whose artifacts stay too; repeatable.", show_default=False
    ),
]
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
DAMAGED_FOUND = 4


@app.command(epilog="Examples: harness cache ls  ·  harness cache ls --all --json")
def ls(
    store: StoreOption = None,
    all_: Annotated[bool, typer.Option("--all", help="Every artifact, with its key.")] = False,
    json_: JsonOption = False,
) -> None:
    """What the store holds, by kind, and which runs need it. No artifact is opened."""
    from harness.store.roots import roots

    kept = _store(store)
    sizes: defaultdict[str, list[int]] = defaultdict(list)
    listed = []
    for entry in kept.entries():
        sizes[entry.kind].append(entry.size)
        if all_:
            listed.append({"key": entry.key, "kind": entry.kind, "bytes": entry.size})
    kinds = {kind: {"artifacts": len(found), "bytes": sum(found)} for kind, found in sorted(sizes.items())}
    runs = [
        {"name": root.name, "machine": root.machine, "folder": root.folder, "needs": len(root.keys), "gone": root.gone}
        for _, root in roots(kept.root)
        if root is not None
    ]
    if json_:
        typer.echo(
            json.dumps({"store": str(kept.root), "kinds": kinds, "runs": runs} | ({"artifacts": listed} if all_ else {}))
        )
        return
    for item in listed:
        typer.echo(f"{item['key']}  {item['kind']:<10} {_size(item['bytes']):>9}")  # type: ignore[arg-type]
    for kind, counted in kinds.items():
        typer.echo(f"{kind:<10} {counted['artifacts']:>9,}  {_size(counted['bytes']):>9}")
    typer.echo(f"{'all':<10} {sum(map(len, sizes.values())):>9,}  {_size(sum(map(sum, sizes.values()))):>9}  {kept.root}")
    for run in runs:
        typer.echo(f"{run['folder']} needs {run['needs']:,}{' no more: the folder is gone' if run['gone'] else ''}")


@app.command(epilog="Example: harness cache verify")
def verify(store: StoreOption = None, json_: JsonOption = False) -> None:
    """Read every artifact against its checksums; a damaged one is put aside, and the next run makes it again.

    Exit code 4 if there was one.
    """
    kept = _store(store)
    found = [entry.key for entry in kept.entries()]
    damaged = [key for key in found if not kept.holds(key)]
    if json_:
        typer.echo(json.dumps({"artifacts": len(found), "damaged": damaged}))
    else:
        typer.echo(f"{len(found) - len(damaged):,} of {len(found):,} artifacts are as they were written")
        for key in damaged:
            typer.echo(f"damaged, put aside in {kept.root / 'damaged'}: {key}")
    if damaged:
        raise typer.Exit(DAMAGED_FOUND)


@app.command(
    epilog="Examples: harness cache gc  ·  harness cache gc --delete --max-size 20GB  ·  "
    "harness cache gc --keep my.yaml --delete"
)
def gc(
    store: StoreOption = None,
    keep: KeepOption = None,
    max_size: Annotated[
        str | None,
        typer.Option(help="Remove only as much as brings the store below this, e.g. 20GB.", show_default=False),
    ] = None,
    unused_hours: Annotated[float, typer.Option(min=0, help="What was used in the last hours stays.")] = 24.0,
    delete: Annotated[bool, typer.Option("--delete", help="Remove it; without this it is only shown.")] = False,
    json_: JsonOption = False,
) -> None:
    """Remove what no board and no config needs, the longest unused first; shows what would go unless --delete is given.

    Every run notes what it needs, until its folder is deleted. Deleting an artifact loses nothing but time.
    """
    from harness.store.collect import Rules, choose, collect, collecting, needed_by_runs, with_used

    kept = _store(store)
    rules = Rules(_bytes(max_size), unused_hours * 3600)
    wanted = with_used(kept, {key for path in keep or () for key in _keys(path)})
    with collecting(kept):
        found = choose(kept, wanted | needed_by_runs(kept), rules)
        if delete:
            collect(kept, found, rules)
    left = found.total_bytes - found.remove_bytes
    if json_:
        answer = {
            "removed" if delete else "would_remove": [entry.key for entry in found.remove],
            "bytes": found.remove_bytes,
            "needed": found.needed,
            "recent": found.recent,
            "left_bytes": left,
        }
        typer.echo(json.dumps(answer))
        return
    did = "removed" if delete else "would remove"
    typer.echo(f"{did} {len(found.remove):,} of {found.total:,} artifacts, {_size(found.remove_bytes)}; {_size(left)} stay")
    typer.echo(
        f"of these, runs and --keep need {found.needed:,} ({_size(found.needed_bytes)}), and {found.recent:,} were used "
        f"in the last {unused_hours:g} hours ({_size(found.recent_bytes)})"
    )
    if rules.limit is not None and left > rules.limit:
        typer.echo("that is more than --max-size: delete the folder of a run, or lower --unused-hours")
    if not delete and found.remove:
        typer.echo("nothing was touched; add --delete to remove it")


@app.command(epilog="Example: harness cache export quickstart.tar --keep runs/quickstart")
def export(
    archive: Annotated[Path, typer.Argument(help="The file to write; .tar, or .tar.gz and .tar.xz compressed.")],
    store: StoreOption = None,
    keep: KeepOption = None,
    json_: JsonOption = False,
) -> None:
    """Write artifacts into one file: those that the configs and boards of --keep need, or all."""
    from harness.store.collect import with_used
    from harness.store.exchange import export_artifacts

    kept = _store(store)
    present = {entry.key for entry in kept.entries()}
    keys = with_used(kept, {key for path in keep for key in _keys(path)}) if keep else present
    count = export_artifacts(kept, keys & present, archive)
    said = {"archive": str(archive), "artifacts": count, "absent": len(keys - present)}
    typer.echo(
        json.dumps(said) if json_ else f"{count:,} artifacts written to {archive}; {said['absent']:,} were not in the store"
    )


@app.command(name="import", epilog="Example: harness cache import quickstart.tar")
def import_(
    archive: Annotated[Path, typer.Argument(help="A file that `harness cache export` wrote.")],
    store: StoreOption = None,
    json_: JsonOption = False,
) -> None:
    """Take the artifacts of a file, each verified against its checksums: import what you trust its sender to have computed."""
    from harness.store import Store
    from harness.store.exchange import import_artifacts

    kept = Store(store_folder(store))
    new, known = import_artifacts(kept, archive)
    said = {"new": new, "known": known}
    typer.echo(json.dumps(said) if json_ else f"{new:,} new artifacts in {kept.root}; {known:,} were there already")


def _store(given: Path | None) -> Store:
    """The store that is there; looking at one makes none."""
    from harness.errors import StoreError
    from harness.store import Store

    folder = store_folder(given)
    if not folder.is_dir():
        raise StoreError(f"no store at {folder}: give its folder with --store")
    return Store(folder)


def _keys(path: Path) -> set[str]:
    """The keys of all stages of a config, or of the config in a board."""
    from harness.api.registry import Registry
    from harness.config import resolve
    from harness.run.plan import plan

    comparison = resolve(_raw(path), Registry.load(), str(path))
    return set(plan(comparison).stages)


def _raw(path: Path) -> dict[str, Any]:
    from harness.board.build import Board
    from harness.config.file import load_raw

    if path.is_dir():
        path = path / "board.json"
    return dict(Board.read(path).config) if path.suffix == ".json" else load_raw(find_config(path))


def _bytes(text: str | None) -> int | None:
    """A size as people write it."""
    from harness.errors import HarnessError

    if text is None:
        return None
    match = re.fullmatch(r"\s*([\d.]+)\s*([KMGT]?I?)B?\s*", text.upper())
    try:
        return int(float(match[1]) * UNITS[match[2]]) if match else int(text)
    except (ValueError, KeyError):
        raise HarnessError(f"--max-size {text!r}: write a number with a unit, for example --max-size 20GB") from None


def _size(count: int) -> str:
    """Bytes as people read them."""
    value, units = float(count), iter(("B", "kB", "MB", "GB", "TB", "PB"))
    unit = next(units)
    while value >= 1000 and unit != "PB":
        value, unit = value / 1000, next(units)
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
