"""`harness publish`: publish boards as a static site, on the Hugging Face hub, or by a repository's workflows."""

from __future__ import annotations

import json
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NotRequired, TypedDict

import typer

from harness.cli import complete
from harness.cli.options import JsonOption

if TYPE_CHECKING:
    from harness.board.views.site import Site

HUB = "hub"


class RepositoryKind(StrEnum):
    """The kinds of repositories on the hub."""

    space = "space"
    dataset = "dataset"
    model = "model"


class Publication(TypedDict):
    """The files that were written, with sizes in bytes, or a model card's metadata; planned ones in a dry run."""

    written: bool
    folder: NotRequired[str]
    repository: NotRequired[str]
    kind: NotRequired[str]
    files: NotRequired[dict[str, int]]
    metadata: NotRequired[dict[str, object]]
    url: NotRequired[str]


def register(app: typer.Typer) -> None:
    app.command(
        name="publish",
        epilog="Examples: harness publish leaderboards/*/board.json --to site  ·  "
        "harness publish runs/quickstart --to hub --repository me/boards --dry-run  ·  harness publish --workflows .",
    )(publish)


def publish(
    boards: Annotated[
        list[Path] | None, typer.Argument(help="Boards or their folders.", show_default=False, autocompletion=complete.boards)
    ] = None,
    to: Annotated[
        str | None, typer.Option(metavar="DIR|hub", help="A folder for the site, or the Hugging Face hub.", show_default=False)
    ] = None,
    repository: Annotated[
        str | None,
        typer.Option(metavar="OWNER/NAME", help="The repository on the hub; created if it does not exist.", show_default=False),
    ] = None,
    kind: Annotated[
        RepositoryKind, typer.Option(help="A Space with the site, a data set, or a model's card.")
    ] = RepositoryKind.space,
    row: Annotated[
        str | None,
        typer.Option(
            help="With --kind model: the row whose results go there.", show_default=False, autocompletion=complete.rows
        ),
    ] = None,
    title: Annotated[str, typer.Option(help="Title of the index.")] = "Leaderboards",
    signers: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Allowed signers: the index names who signed a board.", show_default=False),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would be written, and write nothing.")] = False,
    workflows: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write GitHub workflows into this repository, and nothing else.", show_default=False),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Publish boards as a static site: an index, and a page, tables, scores and a history of changes for each.

    The folder must be empty, or a site that this command made. A board that is published again into it keeps its earlier
    versions. The hub gets one commit, with your token
    (`hf auth login`). The workflows verify boards in pull requests, and publish them on GitHub Pages.
    """
    from harness.board.views.site import Site, build_site, check_folder
    from harness.board.views.site import workflows as templates
    from harness.errors import HarnessError

    if workflows is not None:
        if boards or to:
            raise HarnessError("--workflows writes the workflows alone: leave out boards and --to")
        existing = [name for name in templates() if (workflows / name).exists() and not dry_run]
        if existing:
            raise HarnessError(f"{workflows / existing[0]} exists already: remove it first")
        _write(Site(templates()), workflows, dry_run, json_, workflows=True)
        return
    if not boards or not to:
        raise HarnessError("name the boards, and with --to a folder, or hub")
    if to != HUB:
        if repository or row or kind is not RepositoryKind.space:
            raise HarnessError("--repository, --kind and --row go with --to hub")
        check_folder(Path(to))
        _write(build_site(boards, Path(to), title, signers), Path(to), dry_run, json_)
        return
    if not repository:
        raise HarnessError("--to hub needs --repository owner/name")
    from harness.models.hub import NAME

    if NAME.fullmatch(repository) is None:
        raise HarnessError(f"--repository {repository!r}: write owner/name")
    answer = _to_hub(boards, repository, kind, row, title, dry_run, signers)
    typer.echo(json.dumps(answer) if json_ else _summary(answer))


def _write(site: Site, folder: Path, dry_run: bool, json_: bool, *, workflows: bool = False) -> None:
    """Write the site unless it is a dry run, and print its files."""
    if not dry_run:
        site.write(folder) if workflows else site.publish(folder)
    files = {name: len(content) for name, content in site.files.items()}
    answer: Publication = {"folder": str(folder), "written": not dry_run, "files": files}
    typer.echo(json.dumps(answer) if json_ else _summary(answer))


def _summary(answer: Publication) -> str:
    where = answer.get("folder") or answer.get("repository")
    if "metadata" in answer:
        import yaml

        return f"{'Written to' if answer['written'] else 'Not written to'} the card of {where}:\n" + str(
            yaml.safe_dump(answer["metadata"], sort_keys=False)
        )
    lines = [f"{size:>10,} bytes  {name}" for name, size in answer["files"].items()]
    total = f"{len(lines)} files written to {where}." if answer["written"] else f"{len(lines)} files, none written to {where}."
    return "\n".join([*([] if answer["written"] else lines), total, *([answer["url"]] if answer.get("url") else [])])


def _to_hub(
    boards: list[Path],
    repository: str,
    kind: RepositoryKind,
    row: str | None,
    title: str,
    dry_run: bool,
    signers: Path | None,
) -> Publication:
    from harness.board.board import Board
    from harness.board.views.site import Site, build_site, model_metadata, site_card
    from harness.errors import HarnessError
    from harness.models.hub import hub_model_metadata, hub_upload

    answer: Publication = {"repository": repository, "kind": kind.value, "written": not dry_run}
    message = "Publish boards with harness"
    if kind is RepositoryKind.model:
        if len(boards) != 1 or row is None:
            raise HarnessError("--kind model takes one board, and with --row one of its rows")
        answer["metadata"] = model_metadata(Board.read(boards[0]), row, repository.split("/")[1])
        if not dry_run:
            answer["url"] = hub_model_metadata(repository, answer["metadata"], message)
        return answer
    if row is not None:
        raise HarnessError("--row goes with --kind model")
    with tempfile.TemporaryDirectory() as folder:
        site = build_site(boards, Path(folder), title, signers)
        card = site_card([Board.read(path) for path in boards], "space" if kind is RepositoryKind.space else "dataset", title)
        site = Site({**site.files, "README.md": card.encode("utf-8")})
        answer["files"] = {name: len(content) for name, content in site.files.items()}
        if not dry_run:
            site.write(Path(folder))
            answer["url"] = hub_upload(Path(folder), repository, kind.value, message)  # type: ignore[arg-type]
    return answer
