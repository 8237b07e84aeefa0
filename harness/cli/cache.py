"""`harness cache`: list, verify and clean the store; export and import artifacts."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from harness.cli.options import JsonOption, MirrorOption, StoreOption, find_config, mirror_url, store_folder

if TYPE_CHECKING:
    from harness.store import Store
    from harness.store.check import StoreFault

app = typer.Typer(
    help="The store: list it, verify it, free space, export and import artifacts.",
    no_args_is_help=True,
    epilog="Example: harness cache ls",
)

KeepOption = Annotated[
    list[Path] | None,
    typer.Option(
        metavar="PATH", help="A config, or a board or its folder, whose artifacts stay; repeatable.", show_default=False
    ),
]
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
DAMAGED = 4  # exit code


@app.command(epilog="Examples: harness cache ls  ·  harness cache ls --all --json")
def ls(
    store: StoreOption = None,
    all_: Annotated[bool, typer.Option("--all", help="List every artifact with its key.")] = False,
    json_: JsonOption = False,
) -> None:
    """List the store's artifacts by kind, and the runs that need them. No artifact is opened."""
    from harness.store.roots import roots

    kept = _store(store)
    sizes: defaultdict[str, list[int]] = defaultdict(list)
    listed: list[tuple[str, str, int]] = []
    for entry in kept.entries():
        sizes[entry.kind].append(entry.size)
        if all_:
            listed.append((entry.key, entry.kind, entry.size))
    kinds = {kind: {"artifacts": len(each), "bytes": sum(each)} for kind, each in sorted(sizes.items())}
    runs = [
        {"name": root.name, "machine": root.machine, "folder": root.folder, "needs": len(root.keys), "gone": root.gone}
        for _, root in roots(kept.root)
        if root is not None
    ]
    if json_:
        answer: dict[str, object] = {"store": str(kept.root), "kinds": kinds, "runs": runs}
        if all_:
            answer["artifacts"] = [{"key": key, "kind": kind, "bytes": size} for key, kind, size in listed]
        typer.echo(json.dumps(answer))
        return
    for key, kind, size in listed:
        typer.echo(f"{key}  {kind:<10} {_size(size):>9}")
    for kind, counted in kinds.items():
        typer.echo(f"{kind:<10} {counted['artifacts']:>9,}  {_size(counted['bytes']):>9}")
    typer.echo(f"{'all':<10} {sum(map(len, sizes.values())):>9,}  {_size(sum(map(sum, sizes.values()))):>9}  {kept.root}")
    for run in runs:
        typer.echo(
            f"{run['folder']} needs {run['needs']:,}{'; its folder is gone, so these may be removed' if run['gone'] else ''}"
        )


@app.command(epilog="Examples: harness cache verify  ·  harness cache verify --repair")
def verify(
    store: StoreOption = None,
    repair: Annotated[
        bool,
        typer.Option(
            "--repair", help="Move what is damaged or foreign to the store's folder `damaged`, and make again what can be."
        ),
    ] = False,
    mirror: MirrorOption = None,
    json_: JsonOption = False,
) -> None:
    """Check everything in the store: files, manifests, index, runs' notes, judges' answers, and what does not belong there.

    --repair fetches damaged artifacts from the mirror, if there is one, makes the index again and keeps the whole lines of
    judges' answers; the next run makes other artifacts again. Exit code 4: something is wrong, or was before the repair.
    """
    from harness.models.judge.answer_files import damaged_files, save_whole_lines
    from harness.models.judge.answers import FOLDER
    from harness.store.check import StoreFault, check, put_aside
    from harness.store.check import repair as repair_store
    from harness.store.mirror import Mirror

    kept = _store(store)
    faults = list(check(kept))
    torn = [
        StoreFault(path, f"{count:,} damaged {'answer' if count == 1 else 'answers'} of judges")
        for path, count in damaged_files(kept.root / FOLDER)
    ]
    keys = [entry.key for entry in kept.entries()]
    damaged = sorted({fault.key for fault in faults if fault.key is not None})
    if repair:
        url = mirror_url(mirror)
        kept.mirror = Mirror(url) if url else None
        repair_store(kept, faults)
        for fault in torn:
            save_whole_lines(fault.place)
            put_aside(kept, fault.place)
    fetched = [key for key in damaged if repair and kept.place(key).exists()]
    faults += torn
    if json_:
        answer = {
            "artifacts": len(keys),
            "damaged": damaged,
            "problems": [
                {"path": fault.place.relative_to(kept.root).as_posix(), "problem": fault.problem, "key": fault.key}
                for fault in faults
            ],
            "repaired": repair,
            "fetched": fetched,
        }
        typer.echo(json.dumps(answer))
    else:
        _print_check(kept, faults, len(keys), damaged, fetched, repair)
    if faults:
        raise typer.Exit(DAMAGED)


def _print_check(
    store: Store, faults: Sequence[StoreFault], artifacts: int, damaged: Sequence[str], fetched: Sequence[str], repaired: bool
) -> None:
    from harness.board.views.text import visible
    from harness.store.roots import roots

    typer.echo(f"{artifacts - len(damaged):,} of {artifacts:,} artifacts are as they were written")
    for fault in faults:
        # Foreign names are shown with their control characters written out.
        typer.echo(visible(f"{fault.place.relative_to(store.root)}: {fault.problem}"))
    if not faults:
        return
    if not repaired:
        typer.echo("nothing was changed: add --repair to move this aside and make again what can be")
        return
    lost = set(damaged) - set(fetched)
    typer.echo(f"moved to {store.root / 'damaged'}; {len(fetched):,} artifacts came from the mirror")
    for _, root in roots(store.root):
        if root is not None and (needed := lost.intersection(root.keys)):
            typer.echo(visible(f"{root.folder} needs {len(needed):,} of them: run {root.name} again, and they are made again"))


@app.command(
    epilog="Examples: harness cache gc  ·  harness cache gc --delete --max-size 20GB  ·  "
    "harness cache gc --keep my.yaml --delete"
)
def gc(
    store: StoreOption = None,
    keep: KeepOption = None,
    max_size: Annotated[
        str | None,
        typer.Option(help="Remove only until the store is smaller than this, e.g. 20GB.", show_default=False),
    ] = None,
    unused_hours: Annotated[float, typer.Option(min=0, help="Keep artifacts that were used in the last hours.")] = 24.0,
    delete: Annotated[bool, typer.Option("--delete", help="Remove the artifacts; without this they are only listed.")] = False,
    json_: JsonOption = False,
) -> None:
    """Remove artifacts that no run and no --keep needs, the longest unused first; a dry run without --delete.

    A run's artifacts are kept until its folder is deleted. A removed artifact costs nothing but the time to make it again.
    """
    from harness.store.collect import Rules, choose, collect, collecting, needed_by_runs, with_used

    kept = _store(store)
    rules = Rules(_bytes(max_size), unused_hours * 3600)
    wanted = with_used(kept, {key for path in keep or () for key in _keys(path)})
    with collecting(kept):
        choice = choose(kept, wanted | needed_by_runs(kept), rules)
        if delete:
            collect(kept, choice, rules)
    remaining = choice.total_bytes - choice.remove_bytes
    if json_:
        answer = {
            "removed" if delete else "would_remove": [entry.key for entry in choice.remove],
            "bytes": choice.remove_bytes,
            "needed": choice.needed,
            "recent": choice.recent,
            "left_bytes": remaining,
        }
        typer.echo(json.dumps(answer))
        return
    action = "removed" if delete else "would remove"
    typer.echo(
        f"{action} {len(choice.remove):,} of {choice.total:,} artifacts, {_size(choice.remove_bytes)}; {_size(remaining)} stay"
    )
    typer.echo(
        f"of these, runs and --keep need {choice.needed:,} ({_size(choice.needed_bytes)}), and {choice.recent:,} were used "
        f"in the last {unused_hours:g} hours ({_size(choice.recent_bytes)})"
    )
    if rules.limit is not None and remaining > rules.limit:
        typer.echo("the rest is larger than --max-size: delete the folder of a run, or lower --unused-hours")
    if not delete and choice.remove:
        typer.echo("nothing was removed: add --delete to remove them")


@app.command(epilog="Example: harness cache export quickstart.tar --keep runs/quickstart")
def export(
    archive: Annotated[Path, typer.Argument(help="The file to write: .tar, or compressed, .tar.gz or .tar.xz.")],
    store: StoreOption = None,
    keep: KeepOption = None,
    json_: JsonOption = False,
) -> None:
    """Write artifacts into one file: those that the configs and boards of --keep need, or all without it."""
    from harness.store.collect import with_used
    from harness.store.exchange import export_artifacts

    kept = _store(store)
    present = {entry.key for entry in kept.entries()}
    keys = with_used(kept, {key for path in keep for key in _keys(path)}) if keep else present
    count = export_artifacts(kept, keys & present, archive)
    absent = len(keys - present)
    answer = {"archive": str(archive), "artifacts": count, "absent": absent}
    text = f"{count:,} artifacts written to {archive}; {absent:,} were not in the store"
    typer.echo(json.dumps(answer) if json_ else text)


@app.command(name="import", epilog="Example: harness cache import quickstart.tar")
def import_(
    archive: Annotated[Path, typer.Argument(help="A file that `harness cache export` wrote.")],
    store: StoreOption = None,
    json_: JsonOption = False,
) -> None:
    """Import artifacts from a file, each verified against its checksums. Checksums find damage only: trust the sender."""
    from harness.store import Store
    from harness.store.exchange import import_artifacts

    kept = Store(store_folder(store))
    new, known = import_artifacts(kept, archive)
    typer.echo(
        json.dumps({"new": new, "known": known})
        if json_
        else f"{new:,} new artifacts in {kept.root}; {known:,} were already in it"
    )


def _store(given: Path | None) -> Store:
    """Return the store; unlike a run, do not create it."""
    from harness.errors import StoreError
    from harness.store import Store

    folder = store_folder(given)
    if not folder.is_dir():
        raise StoreError(f"no store at {folder}: give its folder with --store")
    return Store(folder)


def _keys(path: Path) -> set[str]:
    """Return the keys of all stages of a config, or of a board's config."""
    from harness.api.registry import Registry
    from harness.config import resolve_each
    from harness.run.plan import plan

    return {key for comparison in resolve_each(_raw(path), Registry.load(), str(path)) for key in plan(comparison).stages}


def _raw(path: Path) -> Mapping[str, object]:
    from harness.board.build import Board
    from harness.config.file import load_raw

    if path.is_dir():
        path = path / "board.json"
    return Board.read(path).config if path.suffix == ".json" else load_raw(find_config(path))


def _bytes(text: str | None) -> int | None:
    """Return the bytes of a size with a unit, such as 20GB."""
    from harness.errors import HarnessError

    if text is None:
        return None
    match = re.fullmatch(r"\s*([\d.]+)\s*([KMGT]?I?)B?\s*", text.upper())
    try:
        return int(float(match[1]) * UNITS[match[2]]) if match else int(text)
    except (ValueError, KeyError):
        raise HarnessError(f"--max-size {text!r}: write a number with a unit, for example --max-size 20GB") from None


def _size(count: int) -> str:
    """Return a size in a fitting unit: 1.2 GB."""
    value, units = float(count), iter(("B", "kB", "MB", "GB", "TB", "PB"))
    unit = next(units)
    while value >= 1000 and unit != "PB":
        value, unit = value / 1000, next(units)
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
