"""Write what a machine can write of the documentation: the text between `<!-- generated: NAME -->` markers.

    python docs/generate.py           writes every page
    python docs/generate.py --check   writes nothing; names stale pages, exit code 1 if there are any

Everything comes from the code: hooks, registered components, config models and the command line's own help.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

import harness
import harness.testing
from harness.api import hookspecs
from harness.api.registry import KINDS, Kind, Registered, Registry
from harness.board.board import Scores, board_scores
from harness.config.schema import Config, Named

ROOT = Path(__file__).resolve().parents[1]
OWN_DISTRIBUTION = "alignment-harness"
KIND_TITLES: dict[Kind, str] = {
    "data": "Data builders",
    "objective": "Objectives",
    "evaluator": "Evaluators",
    "backend": "Backends",
    "source": "Sources",
    "importer": "Importers",
    "method": "Methods",
    "analysis": "Analyses",
    "trainer": "Trainers",
}
TYPES = {"str": "text", "int": "whole number", "float": "number", "bool": "true or false"}
SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
MARKED = re.compile(r"(<!-- generated: (?P<name>[\w ]+) -->\n).*?(<!-- end of generated -->)", re.DOTALL)
NO_DESCRIPTION = "–"


def pages() -> list[Path]:
    """Every page that has generated parts."""
    candidates = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), *sorted((ROOT / "plugins").glob("*/README.md"))]
    return [page for page in candidates if MARKED.search(page.read_text(encoding="utf-8"))]


def render(page: Path, registry: Registry) -> str:
    """The page as it should be.

    Raises:
        KeyError: a marker names no generator.
    """

    def fill(match: re.Match[str]) -> str:
        return f"{match[1]}\n{GENERATORS[match['name']](registry, page).strip()}\n\n{match[3]}"

    return MARKED.sub(fill, page.read_text(encoding="utf-8"))


def main(arguments: list[str]) -> int:
    registry = Registry.load()
    stale = {page: text for page in pages() if (text := render(page, registry)) != page.read_text(encoding="utf-8")}
    check = "--check" in arguments
    for page, text in stale.items():
        if not check:
            page.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{'stale' if check else 'written'}: {page.relative_to(ROOT)}\n")
    if check and stale:
        sys.stdout.write("run `make docs`\n")
    return int(check and bool(stale))


# Markdown


def table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A Markdown table; cells lose line breaks, and bars are escaped."""
    lines = [list(header)]
    lines += [["---"] * len(lines[0])]
    lines += [[re.sub(r"\s+", " ", cell).strip().replace("|", "\\|") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def code(value: str) -> str:
    return f"`{value}`"


# Components


def own(registry: Registry, kind: Kind) -> list[Registered]:
    """What ships with the package; what else happens to be installed stays out of its documentation."""
    return [entry for _, entry in sorted(registry.entries[kind].items()) if entry.distribution == OWN_DISTRIBUTION]


def plugin_folder(entry: Registered) -> str:
    return entry.module.removeprefix("harness_plugins.").partition(".")[0]


def said(entry: Registered) -> str:
    """A component's summary as a cell."""
    return entry.summary.rstrip(".")


def cited(entry: Registered) -> str:
    """The component's paper, as a link where it has an arXiv number."""
    paper = entry.component.paper
    if paper is None:
        return ""
    title = f"[{paper.title}](https://arxiv.org/abs/{paper.arxiv})" if paper.arxiv else paper.title
    return f"{title}, {paper.equations}" if paper.equations else title


def component_table(entries: Iterable[Registered], link: str) -> str:
    """Name, summary, paper and plugin folder; `link` goes before the folder's name."""
    rows = [[code(e.name), said(e), cited(e), f"[{plugin_folder(e)}]({link}{plugin_folder(e)}/README.md)"] for e in entries]
    return table(["name", "what it is", "paper", "plugin"], rows)


def all_components(registry: Registry, page: Path) -> str:
    return "\n\n".join(f"### {KIND_TITLES[kind]}\n\n{component_table(own(registry, kind), '../plugins/')}" for kind in KINDS)


def folder_components(registry: Registry, page: Path) -> str:
    """What one plugin folder registers."""
    entries = [(kind, entry) for kind in KINDS for entry in own(registry, kind) if plugin_folder(entry) == page.parent.name]
    return table(["kind", "name", "what it is", "paper"], [[kind, code(e.name), said(e), cited(e)] for kind, e in entries])


def rows_of_the_board(registry: Registry, page: Path) -> str:
    """The methods, those that are compared before those that they are held against."""
    entries = sorted(own(registry, "method"), key=lambda entry: (entry.component.kind != "measured", entry.name))
    rows = [
        [
            code(e.name),
            "method" if e.component.kind == "measured" else e.component.kind,
            said(e),
            _recipe(e),
            cited(e),
        ]
        for e in entries
    ]
    return table(["name", "row", "what it is", "data × objective", "paper"], rows)


def _recipe(entry: Registered) -> str:
    method = entry.component
    return f"`{method.data}` × `{method.objective}`" if method.data else "none"


def evaluators(registry: Registry, page: Path) -> str:
    """A line per evaluator, with a link to its page."""
    link = "docs/evaluators" if page.parent == ROOT else "evaluators"
    rows = [[f"[`{e.name}`]({link}/{e.name}.md)", said(e)] for e in own(registry, "evaluator")]
    return table(["name", "what it measures"], rows)


def evaluator(registry: Registry, page: Path) -> str:
    """One evaluator: the page of its name has what it reports, what it needs and its fields."""
    entry = registry.get("evaluator", page.stem)
    component = entry.component
    required = {name: REQUIRED[name] for name, info in component.model_fields.items() if info.is_required()}
    better = {True: "more", False: "less", None: "neither"}
    rows = [
        [code(metric.name), metric.description, better[metric.higher_is_better], "yes" if metric.primary else ""]
        for metric in component(**required).metrics()
    ]
    needs = ", ".join(map(code, sorted(component.needs))) or "nothing beside prompts"
    fixed = isinstance(inspect.getattr_static(component, "needs"), frozenset)
    parts = [
        f"{entry.summary}",
        f"Paper: {cited(entry)}." if component.paper else "",
        f"Needs of the source{'' if fixed else ', with its defaults'}: {needs}."
        + (" Asks [the config's judge](../judges.md)." if component.judged else ""),
        "With its defaults it reports:" if len(rows) > 1 else "It reports:",
        table(["metric", "what it is", "better is", "primary"], rows),
    ]
    return "\n\n".join(filter(None, parts))


def evaluator_fields(registry: Registry, page: Path) -> str:
    component = registry.get("evaluator", page.stem).component
    return field_table(component) if component.model_fields else "None."


# Stand-ins for fields without a default; they change no metric.
REQUIRED = {"checker": "gsm8k", "reward": {"model": "path-or-name"}}


def component_fields(registry: Registry, page: Path) -> str:
    """Every field of every component, by kind."""
    parts = []
    for kind in (kind for kind in KINDS if kind not in ("method", "analysis")):
        parts.append(f"### {KIND_TITLES[kind]}")
        for entry in own(registry, kind):
            parts.append(f"#### `{entry.name}`\n\n{entry.summary}")
            parts.append(field_table(entry.component) if entry.component.model_fields else "No fields.")
            for path, inner in sections(entry.component)[1:]:
                parts.append(f"In `{path}`: {_first_paragraph(inner)}\n\n{field_table(inner)}")
    return "\n\n".join(parts)


# Hooks


def hooks(registry: Registry, page: Path) -> str:
    found = {name: hook for name, hook in vars(hookspecs).items() if name.startswith("harness_")}
    rows = []
    for hook_name, hook in found.items():
        signature = inspect.signature(hook)
        arguments = ", ".join(code(f"{name}: {parameter.annotation}") for name, parameter in signature.parameters.items())
        returned = "" if signature.return_annotation == "None" else code(str(signature.return_annotation))
        rows.append([code(hook_name), arguments or "none", returned or "nothing", inspect.getdoc(hook) or ""])
    return table(["hook", "arguments", "returns", "what it is for"], rows)


# Config


def config_reference(registry: Registry, page: Path) -> str:
    """Every section of a config, outermost first."""
    parts = []
    for path, model in sections(Config):
        title = f"### `{path}`" if path else "### The whole file"
        parts.append(f"{title}\n\n{_first_paragraph(model)}\n\n{field_table(model)}")
    return "\n\n".join(parts)


def sections(model: type[BaseModel], path: str = "") -> list[tuple[str, type[BaseModel]]]:
    """The model and those inside it, each with its dotted path; `N` stands for a position in a list."""
    found = [(path, model)]
    for name, info in model.model_fields.items():
        inside = _models_in(info.annotation)
        for inner, listed in inside:
            here = ".".join(part for part in (path, info.alias or name, "N" if listed else "") if part)
            # A section of several forms has a heading for each, by the form's first field.
            found += sections(inner, f"{here} with {next(iter(inner.model_fields))}" if len(inside) > 1 else here)
    return found


def _models_in(annotation: Any, listed: bool = False) -> list[tuple[type[BaseModel], bool]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [] if annotation is Named else [(annotation, listed)]
    inside = listed or get_origin(annotation) is tuple
    return [found for argument in get_args(annotation) for found in _models_in(argument, inside)]


def field_table(model: type[BaseModel]) -> str:
    documented = _attributes(model)
    rows = [
        [
            code(info.alias or name),
            type_name(info.annotation),
            bounds(info),
            default(info),
            info.description or documented.get(name, NO_DESCRIPTION),
        ]
        for name, info in model.model_fields.items()
    ]
    return table(["field", "type", "bounds", "default", "what it is"], rows)


def type_name(annotation: Any) -> str:
    """A type in the words of someone who writes YAML."""
    if get_origin(annotation) is Annotated:
        return type_name(get_args(annotation)[0])
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return type_name(arguments[0])
    if origin is Literal:
        return " or ".join(code(str(value)) for value in arguments)
    if origin in (Union, UnionType):
        names = ("null" if argument is NoneType else type_name(argument) for argument in arguments)
        return " or ".join(dict.fromkeys(part for name in names for part in name.split(" or ")))  # each kind once
    if origin is tuple:
        return "list of " + re.sub(r"(text|number|section|component)$", r"\1s", type_name(arguments[0]))
    if origin in (dict, Mapping) or annotation is dict or getattr(origin, "__name__", "") == "Mapping":
        return "mapping"
    if annotation is Named:
        return "component"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "section"
    return TYPES.get(annotation.__name__, str(annotation.__name__))


def bounds(info: FieldInfo) -> str:
    said = []
    for item in info.metadata:
        said += [f"{sign} {getattr(item, name):g}" for name, sign in SIGNS.items() if getattr(item, name, None) is not None]
        if getattr(item, "min_length", None):
            said.append("not empty" if item.min_length == 1 else f"length ≥ {item.min_length}")
        if getattr(item, "pattern", None):
            said.append(code(item.pattern))
    return ", ".join(said)


def default(info: FieldInfo) -> str:
    if info.is_required():
        return "required"
    value = info.get_default(call_default_factory=True)
    if isinstance(value, Named):
        return code(value.name)
    if isinstance(value, BaseModel):
        return "its defaults"
    text = json.dumps(value, ensure_ascii=False, default=list)
    return code(text)


def _first_paragraph(model: type[BaseModel]) -> str:
    return re.sub(r"\s+", " ", (inspect.getdoc(model) or "").split("\n\n")[0])


def _attributes(model: type[BaseModel]) -> dict[str, str]:
    """Descriptions from a docstring's `Attributes:`, for models that keep them there."""
    _, _, text = (inspect.getdoc(model) or "").partition("Attributes:\n")
    return {name: text.strip().rstrip(".") for name, text in re.findall(r"^    (\w+): (.*(?:\n      .*)*)", text, re.MULTILINE)}


# Command line


def command_line(registry: Registry, page: Path) -> str:
    """The command line's own help, by typer's documentation writer, a heading deeper."""
    import typer
    from typer.cli import get_docs_for_click

    from harness.cli import app

    root = typer.main.get_command(app)
    text = get_docs_for_click(obj=root, ctx=typer.Context(root, info_name="harness"), name="harness")
    text = re.sub(r"^\* `--help`.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"\*\*Options\*\*:\n\n(?=\n|\Z|Example)", "", text)
    text = re.sub(r"^#", "##", _whole_lists(text, root), flags=re.MULTILINE)
    text = re.sub(r"^(Examples?): (.*)$", _example, text, flags=re.MULTILINE)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(_without_tags(line) for line in text.splitlines()))


def _whole_lists(text: str, root: Any) -> str:
    """The lists of commands with the whole first line of each one's help, which typer cuts short."""
    group, lines = root, []
    for line in text.splitlines():
        if heading := re.match(r"#+ `harness ?([\w-]*)", line):
            group = root.commands.get(heading[1], root)
        if (entry := re.match(r"\* `([\w-]+)`: ", line)) and entry[1] in getattr(group, "commands", {}):
            line = entry[0] + str(group.commands[entry[1]].help).strip().splitlines()[0]
        lines.append(line)
    return "\n".join(lines)


def _example(match: re.Match[str]) -> str:
    return f"{match[1]}:\n\n```console\n" + "\n".join(f"$ {part.strip()}" for part in match[2].split("  ·  ")) + "\n```"


def _without_tags(line: str) -> str:
    """Angle brackets outside code are escaped, or a renderer would take `<name>` for a tag."""
    parts = line.split("`")
    return "`".join(part if index % 2 else part.replace("<", "\\<") for index, part in enumerate(parts))


# Analyses


def analyses(registry: Registry, page: Path) -> str:
    """What every analysis answers, and how it came out where it was published."""
    parts = []
    for analysis in (entry.component for entry in own(registry, "analysis")):
        place = f"leaderboards/analyses/{analysis.name}"
        paper = f"[{analysis.paper.title}](https://arxiv.org/abs/{analysis.paper.arxiv})"
        head = f"### {analysis.name}\n\n{analysis.question}. {paper}, {analysis.paper.equations}; "
        claims = committed_claims(analysis.name)
        if claims is None:
            parts.append(f"{head}not committed: run `harness analyze {analysis.name}`.")
            continue
        rows = [[item["claim"], item["place"], item["measured"], f"**{item['verdict']}**"] for item in claims]
        parts.append(
            f"{head}[table, figure and how it was measured](../{place}/README.md).\n\n"
            f"{table(['the paper says', 'where', 'measured', 'the numbers'], rows)}"
        )
    return "\n\n".join(parts)


def committed_claims(name: str) -> list[dict[str, str]] | None:
    """Return an analysis's claims with their verdicts, as leaderboards/analyses has them; None where it was not committed."""
    file = ROOT / "leaderboards" / "analyses" / name / "result.json"
    return list(json.loads(file.read_text(encoding="utf-8"))["findings"]) if file.is_file() else None


# Papers


def findings(registry: Registry, page: Path) -> str:
    """The analyses of this page's paper, and how many of its claims each found to hold."""
    arxiv = re.findall(r"arxiv\.org/abs/([\d.]+)", page.read_text(encoding="utf-8"))[0]
    verdicts = ("agrees", "disagrees", "undecided")
    rows = []
    for analysis in (entry.component for entry in own(registry, "analysis") if entry.component.paper.arxiv == arxiv):
        counts = Counter(finding["verdict"] for finding in committed_claims(analysis.name) or ())
        link = f"[{analysis.name}](../analyses.md#{analysis.name})"
        rows.append([link, analysis.question, analysis.paper.equations, *(str(counts[verdict]) for verdict in verdicts)])
    return table(["analysis", "what it asks", "of the paper", *verdicts], rows)


class Covered(NamedTuple):
    """One method, baseline, ablation, analysis, table or figure of a paper, and how to run it.

    Attributes:
        kind: method, baseline, ablation, analysis, table or figure.
        needs: the hardware, files and keys that `full` needs.
        here: the command that ran on this project's CPUs.
        result: what came out of `here`, with a link.
        full: the command at the paper's size.
        never: why there is no such command; one of the two is empty.
    """

    item: str
    kind: str
    needs: str
    here: str
    result: str
    full: str = ""
    never: str = ""


class CoveredPaper(NamedTuple):
    """A file of docs/papers/coverage."""

    title: str
    arxiv: str
    items: tuple[Covered, ...]


def covered_papers() -> list[CoveredPaper]:
    """Read docs/papers/coverage, a file for each paper, in the order of their names.

    Raises:
        TypeError: an item lacks a field or has an unknown one.
    """
    papers = []
    for file in sorted((ROOT / "docs" / "papers" / "coverage").glob("*.yaml")):
        raw = yaml.safe_load(file.read_text(encoding="utf-8"))
        papers.append(CoveredPaper(raw["title"], raw["arxiv"], tuple(Covered(**item) for item in raw["items"])))
    return papers


def coverage(registry: Registry, page: Path) -> str:
    """A table for each paper: what is in it, the command at full size, what that needs, the command here, the outcome."""
    parts = []
    for paper in covered_papers():
        rows = [
            [item.item, item.kind, code(item.full) if item.full else item.never, item.needs, code(item.here), item.result]
            for item in paper.items
        ]
        header = ["of the paper", "kind", "at full size", "what that needs", "on two CPU cores", "what came out"]
        parts.append(f"## [{paper.title}](https://arxiv.org/abs/{paper.arxiv})\n\n{table(header, rows)}")
    return "\n\n".join(parts)


def twins(registry: Registry, page: Path) -> str:
    """The claims of docs/papers/claims against the scores of the boards that stand for the papers' tables here.

    A file names a `board`, its `title`, the `config` that makes it, what `differs` from the paper, and `claims`: in words, with
    their place in the paper, a metric, and the rows of which the one has `more` of it than the other has, `less`. The verdict
    is that of `harness analyze`.
    """
    parts = []
    for file in sorted((ROOT / "docs" / "papers" / "claims").glob("*.yaml")):
        twin = yaml.safe_load(file.read_text(encoding="utf-8"))
        head = f"## {twin['title']}\n\n`harness compare {twin['config']}`. {twin['differs'].strip()}"
        folder = ROOT / "leaderboards" / "papers" / twin["board"]
        if not folder.is_dir():
            asked = [[claim["claim"], claim["place"], _compared(claim)] for claim in twin["claims"]]
            parts.append(
                f"{head} No board of it is committed.\n\n{table(['the paper says', 'where', 'to be measured'], asked)}"
            )
            continue
        scores = board_scores(folder)
        rows = [_claim_row(claim, scores) for claim in twin["claims"]]
        header = ["the paper says", "where", "measured", "verdict"]
        parts.append(f"{head} [Board](../../leaderboards/papers/{twin['board']}/board.md).\n\n{table(header, rows)}")
    return "\n\n".join(parts)


def _compared(claim: Mapping[str, str]) -> str:
    return f"`{claim['metric']}` of `{claim['more']}` less that of `{claim['less']}`"


def _claim_row(claim: Mapping[str, str], scores: Scores) -> list[str]:
    evaluator, _, metric = claim["metric"].partition("/")
    more, less = (harness.Values.from_scores(scores[claim[side]][evaluator], metric) for side in ("more", "less"))
    gap = harness.contrast([more, less], [1, -1])
    checked = harness.CheckedClaim.above_zero(claim["claim"], claim["place"], _compared(claim), gap)
    return [checked.claim, checked.place, checked.measured, f"**{checked.verdict.value}**"]


def board_rows(registry: Registry, page: Path) -> str:
    """Every row of the board `sandbox-full` that trains one of the page's methods, by the primary metric."""
    board = harness.Board.read(ROOT / "leaderboards" / "sandbox-full")
    key = board.primary[0].key
    names = {entry.name for entry in own(registry, "method") if f"`{entry.name}`" in _without_generated(page)}
    rows = []
    for row in board.rows:
        score = row.scores.get(key)
        if score is not None and (row.method in names or re.sub(r"_\d+$", "", row.method) in names):
            delta = (
                "the baseline" if score.delta is None else interval(score.delta.mean, score.delta.low, score.delta.high, "+")
            )
            rows.append([code(row.method), interval(score.mean, score.low, score.high), delta])
    return table(["row", key, f"difference to `{board.baseline}`"], rows)


def _without_generated(page: Path) -> str:
    return MARKED.sub("", page.read_text(encoding="utf-8"))


def interval(mean: float, low: float, high: float, sign: str = "") -> str:
    return f"{mean:{sign}.3f} [{low:{sign}.3f}, {high:{sign}.3f}]".replace("-", "−")


# Layers


def layers(registry: Registry, page: Path) -> str:
    """The import contract's layers, highest first."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = next(item for item in project["tool"]["importlinter"]["contracts"] if item["id"] == "layers")
    lines = ["".join(f"{name.strip():<16}" for name in layer.split("|")).rstrip() for layer in contract["layers"]]
    return "```text\n" + "\n".join(lines) + "\n```"


# Examples


def example_plugin(registry: Registry, page: Path) -> str:
    return _example_file("swapped_targets.py")


def example_analysis(registry: Registry, page: Path) -> str:
    return _example_file("negative_lengths.py")


def tutorial_plugin(registry: Registry, page: Path) -> str:
    return _example_file("shuffled_words.py")


def tutorial_test(registry: Registry, page: Path) -> str:
    return _example_file("test_shuffled_words.py")


def _example_file(name: str) -> str:
    source = (ROOT / "docs" / "examples" / name).read_text(encoding="utf-8")
    return f"```python\n{source.strip()}\n```"


# API


def api(registry: Registry, page: Path) -> str:
    """Every public name, for mkdocstrings; values that are neither class nor function in a table."""
    parts, values = [], []
    for module, names in (("harness", harness.__all__), ("harness.testing", harness.testing.__all__)):
        blocks = []
        for name in sorted(names, key=str.lower):
            value = getattr(sys.modules[module], name)
            if inspect.isclass(value) or inspect.isfunction(value):
                blocks.append(f"::: {value.__module__}.{value.__qualname__}")
            else:
                values.append([code(f"{module}.{name}"), VALUES[name]])
        parts.append(f"## `{module}`\n\n" + "\n\n".join(blocks))
    blocks = [f"::: harness.testing.strategies.{name}" for name in sorted(strategies())]
    parts.append("## `harness.testing.strategies`\n\n" + "\n\n".join(blocks))
    return "\n\n".join([*parts, "## Values", table(["name", "what it is"], values)])


def strategies() -> list[str]:
    """The public functions of `harness.testing.strategies`, which not every environment can import: it needs hypothesis."""
    tree = ast.parse((ROOT / "harness" / "testing" / "strategies.py").read_text(encoding="utf-8"))
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]


VALUES = {
    "Cell": "a cell of `Report.rows`: text, a number, an `Interval` or None",
    "API_VERSION": "version of what plugins may rely on; raised when a name, a hook or a meaning goes",
    "DELIMITERS": "pairs of strings that begin and end a model's thoughts, as `divide` takes them unless told others",
    "Reward": "the type of a field that takes a `RewardModel`, a `Verifier` or a `JudgeReward`, told apart by their fields",
    "TrainingReward": "the type of a field that takes `gold`, a `Reward` or a `PolicyReward`",
    "UNREAD_METRICS": "what a judged evaluator reports of judgments without a value: unparsed, declined, cut off",
    "__version__": "version of the distribution",
    "hookimpl": "the mark above a plugin's hooks",
}

# What a simulation found of the statistics


SEQUENTIAL = ("trainings per row", "differences found", "rows that may be best", "false stars", "best missed")


def calibration(registry: Registry, page: Path) -> str:
    """The tables of `benchmarks/results/calibration.json`: rates in per cent ± their Monte Carlo standard error."""
    found = json.loads((ROOT / "benchmarks/results/calibration.json").read_text(encoding="utf-8"))
    groups: dict[str, list[dict[str, Any]]] = {}
    for cell in found["cells"]:
        groups.setdefault(cell["group"], []).append(cell)
    parts = [f"{found['boards']:,} boards per cell of the grid; per cent ± Monte Carlo standard error."]
    of_restless = ("mean of the restless row", "difference of the restless row")
    columns = ("mean", "difference", *of_restless, "ranks", "stars", "may be best")
    rows = [
        [
            str(cell["seeds"]),
            str(cell["prompts"]),
            cell["scores"],
            "one × 10" if cell["restless"] else "equal",
            *(_rate(cell, name) for name in columns),
            _too_wide(cell),
        ]
        for cell in groups.get("grid", [])
    ]
    header = [
        "seeds",
        "prompts",
        "scores",
        "variances",
        "mean",
        "difference",
        "restless row's mean",
        "its difference",
        "rank",
        "false stars",
        "best missed",
    ]
    parts.append(table([*header, "why above 97 %"], rows))
    floors = [cell for cell in groups.get("grid", []) if "noise floor" in cell["rates"]]
    rows = [[str(c["seeds"]), str(c["prompts"]), c["scores"], _rate(c, "noise floor"), _rate(c, "equivalence")] for c in floors]
    parts.append(
        "A change of seeds stays within the noise floor (95 %), and rows exactly at the margin pass as equivalent (5 %):"
    )
    parts.append(table(["seeds", "prompts", "scores", "within the floor", "false equivalence"], rows))
    parts.append("A difference that `harness power` says is found 80 % of the time, at Holm's first step:")
    rows = [[str(c["seeds"]), str(c["prompts"]), str(c["seed deviation"]), _rate(c, "power")] for c in groups.get("power", [])]
    parts.append(table(["seeds", "prompts", "seed deviation", "found"], rows))
    parts.append("Metrics that are a function of a fit:")
    rows = [
        [group, str(c["seeds"]), str(c["prompts"]), *(_rate(c, name) for name in c["rates"])]
        for group in ("length-controlled", "strengths")
        for c in groups.get(group, [])
    ]
    parts.append(table(["fit", "seeds", "prompts", "difference", "false stars"], rows))
    parts.append(
        "Seeds added where they decide, from 2 to 8, beside the same number of seeds for every row, and beside what one who "
        "knew all verdicts of six seeds beforehand would train:"
    )
    rows = []
    for cell in groups.get("sequential", []):
        for design in dict.fromkeys(name.partition(": ")[0] for name in cell["rates"]):
            rows.append([cell["board"], design, *(_rate(cell, f"{design}: {column}") for column in SEQUENTIAL)])
    parts.append(table(["board", "design", *SEQUENTIAL], rows))
    parts.append("Prompts added where they decide, from 100 to 805, beside the same number of prompts for every row:")
    rows, columns = [], ("prompts per row", *SEQUENTIAL[1:])
    for cell in groups.get("sequential prompts", []):
        for design in dict.fromkeys(name.partition(": ")[0] for name in cell["rates"]):
            rates = (_rate(cell, f"{design}: {column}") for column in columns)
            rows.append([cell["board"], str(cell["seeds"]), design, *rates])
    parts.append(table(["board", "seeds", "design", *columns], rows))
    return "\n\n".join(parts)


def _rate(cell: Mapping[str, Any], name: str) -> str:
    if name not in cell["rates"]:
        return NO_DESCRIPTION
    rate, error = cell["rates"][name]["rate"], cell["rates"][name]["error"]
    if name.endswith("prompts per row"):
        return f"{rate:.0f} ± {error:.0f}"
    counted = name.endswith(("rows that may be best", "trainings per row"))
    return f"{rate:.2f} ± {error:.2f}" if counted else f"{100 * rate:.1f} ± {100 * error:.1f}"


def _too_wide(cell: Mapping[str, Any]) -> str:
    """Why intervals of means or differences cover more than 97 %."""
    if max(cell["rates"][name]["rate"] for name in ("mean", "difference")) <= 0.97:
        return ""
    reasons = {
        "rare events": cell["scores"] == "binary 3 %",
        "few prompts": cell["prompts"] == 40,
        "two seeds": cell["seeds"] == 2,
        "the restless row widens the pool": cell["restless"],
    }
    return ", ".join(reason for reason, holds in reasons.items() if holds) or "a row may leave the pool by chance"


class ListedPlugin(BaseModel):
    """An entry of docs/plugin-index.yaml.

    Attributes:
        name: of the distribution.
        adds: kind of component -> names.
        url: an address with https, or a page of docs/.
        licence: an SPDX identifier.
    """

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    adds: dict[Kind, list[str]] = Field(min_length=1)
    summary: str = Field(min_length=10, max_length=200, pattern=r"[^.]$")
    url: str = Field(pattern=r"^(https://[^\s()<>]+|[a-z-]+\.md)$")
    licence: str = Field(pattern=r"^[A-Za-z0-9.+-]+$")


# Where this file is loaded by its path, pydantic cannot look the name up.
ListedPlugin.model_rebuild(_types_namespace={"Kind": Kind})


def listed_plugins(path: Path = ROOT / "docs" / "plugin-index.yaml") -> list[ListedPlugin]:
    """Read the index; an entry that lacks a field, or has another, is an error."""
    plugins = [ListedPlugin.model_validate(item) for item in yaml.safe_load(path.read_text(encoding="utf-8"))]
    names = [plugin.name for plugin in plugins]
    if names != sorted(set(names)):
        raise ValueError(f"{path}: put the entries in the order of their names, each once")
    return plugins


def plugin_index(registry: Registry, page: Path) -> str:
    rows = []
    for plugin in listed_plugins():
        added = "; ".join(f"{kind} {', '.join(map(code, names))}" for kind, names in plugin.adds.items())
        summary = plugin.summary.replace("|", "\\|").replace("<", "&lt;")
        rows.append((f"[{plugin.name}]({plugin.url})", added, summary, plugin.licence))
    return table(("plugin", "adds", "what it does", "licence"), rows)


GENERATORS: dict[str, Callable[[Registry, Path], str]] = {
    "hooks": hooks,
    "components": all_components,
    "folder components": folder_components,
    "rows": rows_of_the_board,
    "evaluators": evaluators,
    "evaluator": evaluator,
    "evaluator fields": evaluator_fields,
    "findings": findings,
    "board rows": board_rows,
    "coverage": coverage,
    "twins": twins,
    "component fields": component_fields,
    "config": config_reference,
    "command line": command_line,
    "analyses": analyses,
    "layers": layers,
    "example plugin": example_plugin,
    "example analysis": example_analysis,
    "tutorial plugin": tutorial_plugin,
    "tutorial test": tutorial_test,
    "api": api,
    "calibration": calibration,
    "plugin index": plugin_index,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
