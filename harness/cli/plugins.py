"""`harness plugins`: list, show and check components."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, NotRequired, TypedDict

import typer

from harness.cli import complete
from harness.cli.options import JsonOption

if TYPE_CHECKING:
    from rich.console import Console

    from harness.api.registry import Registered

BROKEN = 1  # exit code

app = typer.Typer(
    help="Components: methods, builders, objectives, evaluators, backends, sources, importers, analyses.",
    no_args_is_help=True,
    epilog="Example: harness plugins show self_contrast",
)


@app.command(name="list", epilog="Example: harness plugins list --kind objective")
def list_(
    kind: Annotated[
        str | None,
        typer.Option(
            help="Only this kind: data, objective, evaluator, backend, source, importer, method or analysis.",
            show_default=False,
        ),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """List every component with its origin."""
    from harness.api.registry import KINDS, Registry
    from harness.errors import HarnessError, did_you_mean

    if kind is not None and kind not in KINDS:
        raise HarnessError(f"--kind {kind!r}: {did_you_mean(kind, KINDS)}")
    registry = Registry.load()
    entries = [entry for name in KINDS if kind in (None, name) for _, entry in sorted(registry.entries[name].items())]
    if json_:
        rows = [
            {"kind": e.kind, "name": e.name, "summary": e.summary, "distribution": e.distribution, "module": e.module}
            for e in entries
        ]
        typer.echo(json.dumps(rows))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in ("kind", "name", "what it is", "from"):
        table.add_column(column, no_wrap=column in ("kind", "name"))
    for entry in entries:
        table.add_row(entry.kind, Text(entry.name, style="bold"), Text(entry.summary), Text(entry.distribution, style="dim"))
    Console().print(table)


@app.command(epilog="Example: harness plugins show self_contrast")
def show(
    name: Annotated[str, typer.Argument(help="A component's name.", autocompletion=complete.components)],
    json_: JsonOption = False,
) -> None:
    """Show a component's documentation: purpose, paper, every field with bounds and default."""
    from harness.api.registry import KINDS, Registry
    from harness.errors import PluginError, did_you_mean

    registry = Registry.load()
    entries = registry.find(name)
    if not entries:
        known = {known for kind in KINDS for known in registry.names(kind)}
        raise PluginError(f"nothing is called {name!r}: {did_you_mean(name, known)}")
    documents = [_document(entry) for entry in entries]
    if json_:
        typer.echo(json.dumps(documents, default=str))
        return
    from rich.console import Console

    console = Console()
    for document in documents:
        _print(console, document)


class ComponentPage(TypedDict):
    """A component's documentation; `fields` are JSON schemas by name, `spaces` the search spaces of `tuning:` in words."""

    kind: str
    name: str
    distribution: str
    module: str
    paper: dict[str, str] | None
    text: str
    method: NotRequired[dict[str, object]]
    question: NotRequired[str]
    analysis: NotRequired[dict[str, object]]
    fields: NotRequired[dict[str, Any]]
    spaces: NotRequired[dict[str, dict[str, str]]]


def _document(entry: Registered) -> ComponentPage:
    import inspect

    from harness.api.spaces import declared_spaces

    component = entry.component
    paper = component.paper
    document: ComponentPage = {
        "kind": entry.kind,
        "name": entry.name,
        "distribution": f"{entry.distribution} {entry.distribution_version}".strip(),
        "module": entry.module,
        "paper": None if paper is None else {"title": paper.title, "arxiv": paper.arxiv, "equations": paper.equations},
        "text": component.description if entry.kind == "method" else inspect.getdoc(component) or "",
    }
    if entry.kind == "method":
        document["method"] = component.model_dump(mode="json", exclude={"paper", "description"})
        return document
    if entry.kind == "analysis":
        document["question"] = component.question
        document["analysis"] = {"needs": sorted(component.needs), "minutes": component.minutes}
    document["fields"] = component.model_json_schema().get("properties", {})
    if spaces := declared_spaces(component):
        document["spaces"] = {name: {"space": str(space), "source": space.source} for name, space in spaces.items()}
    return document


def _print(console: Console, document: ComponentPage) -> None:
    from rich.text import Text

    console.print(
        Text.assemble(
            (document["name"], "bold"), f"  {document['kind']}  ", (f"{document['module']} ({document['distribution']})", "dim")
        )
    )
    if paper := document["paper"]:
        where = f", arXiv {paper['arxiv']}" if paper["arxiv"] else ""
        equations = f", {paper['equations']}" if paper["equations"] else ""
        console.print(Text(f"{paper['title']}{where}{equations}", style="italic"))
    if question := document.get("question"):
        console.print(Text(f"\n{question}."))
    console.print(Text(f"\n{document['text']}\n"))
    for name, schema in document.get("fields", {}).items():
        default = _words(schema["default"]) if "default" in schema else "(required)"
        console.print(Text.assemble((f"  {name}", "bold"), f" = {default}  ", (_bounds(schema), "dim")))
        console.print(Text(f"      {schema.get('description', '')}"))
        if space := document.get("spaces", {}).get(name):
            console.print(Text(f"      tuned over {space['space']} ({space['source'] or 'no source given'})", style="dim"))
    for name, value in document.get("method", document.get("analysis", {})).items():
        if value not in (None, {}, [], 0) and name != "name":
            for number, part in enumerate(value if name == "rounds" and isinstance(value, list) else [value], start=1):
                label = f"round {number}" if name == "rounds" else name
                console.print(Text.assemble((f"  {label}", "bold"), f"  {_words(part)}"))
    console.print()


def _words(value: object) -> str:
    """Return a value as a person would write it in a config, with components as `name (field: value)`."""
    if isinstance(value, dict):
        fields = {key: item for key, item in value.items() if item not in (None, {}, []) and key != "name"}
        inner = ", ".join(f"{key}: {_words(item)}" for key, item in fields.items())
        name = value.get("name")
        return (f"{name} ({inner})" if inner else str(name)) if name else inner or "no fields"
    if isinstance(value, list | tuple):
        return ", ".join(map(_words, value)) or "none"
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)


def _bounds(schema: Mapping[str, Any]) -> str:
    """Return a field's values, or its type and bounds, from its JSON schema."""
    if "enum" in schema:
        return "one of " + ", ".join(str(value) for value in schema["enum"])
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = ", ".join(f"{sign} {schema[name]:g}" for name, sign in signs.items() if name in schema)
    return " ".join(part for part in (str(schema.get("type", "")), bounds) if part)


@app.command(
    epilog="Examples: harness plugins check dpo  ·  harness plugins check lm_eval --set limit=2  ·  "
    "harness plugins check my_loss --json",
)
def check(
    names: Annotated[list[str], typer.Argument(metavar="NAME…", help="Components' names.", autocompletion=complete.components)],
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="FIELD=VALUE", help="Check with this field, e.g. --set beta=0.5; repeatable.", show_default=False
        ),
    ] = None,
    json_: JsonOption = False,
) -> None:
    """Check that a component does what the host relies on; exit code 1 if something needs a fix.

    An objective: shapes, masks, finite gradients, float64, views without gradient, the order of negatives, repeatability.
    A data builder or evaluator: its output on a scripted policy, that no prompt is lost, repeatability (of builders in
    another process too). An analysis: its report on a tiny comparison, run twice. A trainer: a training of a tiny model, run
    twice. Every component: name, documentation of every field, paper, fields as JSON. Checks that an earlier fault makes fail
    are skipped. `note` is advice, and `skip` could not run here; neither changes the exit code.
    """
    from harness.api.registry import Registry
    from harness.config.file import override
    from harness.testing import check as verdicts_of

    registry, fields = Registry.load(), override({}, set_ or [])
    verdicts = [verdict for name in names for verdict in verdicts_of(name, fields, registry=registry)]
    if json_:
        typer.echo(json.dumps([verdict.as_dict() for verdict in verdicts]))
    else:
        from harness.board.views.text import visible

        typer.echo(visible("\n\n".join(map(str, verdicts))))
    if not all(verdict.ok for verdict in verdicts):
        raise typer.Exit(BROKEN)
