"""The documentation site: it builds without a warning, and nothing that users can name is missing from it."""

from __future__ import annotations

import html
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import harness
import harness.testing
import harness.testing.strategies
from harness.api import hookspecs
from harness.api.registry import KINDS, Kind, Registered, Registry
from harness.config.schema import Config

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a warning is an error."""
    pytest.importorskip("mkdocs", reason="the extra `docs` is not installed")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def page(site: Path, name: str) -> str:
    return html.unescape((site / name / "index.html").read_text(encoding="utf-8"))


def sections(text: str) -> dict[str, str]:
    """What stands under each heading, by its own and those above it: `Evaluators/lm_eval`."""
    found, path = {}, [""] * 7
    parts = re.split(r'<h([1-6]) id="[^"]*">(.*?)</h\1>', text, flags=re.DOTALL)
    for level, heading, body in zip(parts[1::3], parts[2::3], parts[3::3], strict=True):
        said = re.sub(r'<a class="headerlink".*?</a>|<[^>]+>', "", heading, flags=re.DOTALL).strip()
        path[int(level) :] = [said, *[""] * (6 - int(level))]
        found["/".join(filter(None, path[2:]))] = body
    return found


def missing_names(text: str) -> list[str]:
    missing = []
    for module in (harness, harness.testing, harness.testing.strategies):
        for name in public(module):
            value = getattr(module, name)
            documented = inspect.isclass(value) or inspect.isfunction(value)
            here = f'id="{value.__module__}.{name}"' if documented else f"<code>{module.__name__}.{name}</code>"
            missing += [f"{module.__name__}.{name}"] if here not in text else []
    return missing


def public(module: ModuleType) -> list[str]:
    own = [name for name, value in vars(module).items() if inspect.isfunction(value) and value.__module__ == module.__name__]
    return list(getattr(module, "__all__", [name for name in own if not name.startswith("_")]))


def missing_hooks(text: str) -> list[str]:
    missing = []
    for name, hook in vars(hookspecs).items():
        if name.startswith("harness_"):
            row = next(
                (row for row in re.findall(r"<tr>.*?</tr>", text, re.DOTALL) if f"<td><code>{name}</code></td>" in row), ""
            )
            arguments = [argument for argument in inspect.signature(hook).parameters if f"<code>{argument}: " not in row]
            missing += [name] if not row else [f"{name}({argument})" for argument in arguments]
    return missing


def missing_options(text: str) -> list[str]:
    import typer

    from harness.cli import app

    found, missing = sections(text), []

    def check(command: Any, path: str) -> None:
        (body,) = [body for heading, body in found.items() if heading.rpartition("/")[2] == path] or [""]
        missing.extend([path] if not body else [])
        shown = [parameter for parameter in command.params if not getattr(parameter, "hidden", False)]
        for option in (option for parameter in shown for option in parameter.opts if option.startswith("-")):
            if option != "--help" and not re.search(rf"<code>[^<]*(?<![\w-]){re.escape(option)}(?![\w-])", body):
                missing.append(f"{path} {option}")
        for name, child in getattr(command, "commands", {}).items():
            check(child, f"{path} {name}")

    check(typer.main.get_command(app), "harness")
    return missing if "<code>--help</code>" in text else [*missing, "--help"]


def missing_fields(text: str) -> list[str]:
    """Each field in the table of its own section or component, with a description."""
    found, missing = sections(text), []
    models = [(f"Sections/{path or 'The whole file'}", model) for path, model in generate().sections(Config)]
    for kind in (kind for kind in KINDS if kind not in ("method", "analysis")):  # which have no fields
        title = generate().KIND_TITLES[kind]
        models += [(f"Fields of components/{title}/{entry.name}", entry.component) for entry in own(kind)]
    for heading, model in models:
        cells = [
            re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL)
            for row in re.findall(r"<tr>.*?</tr>", found.get(heading, ""), re.DOTALL)
        ]
        rows = {row[0].removeprefix("<code>").removesuffix("</code>"): row[-1] for row in cells if row}
        names = [info.alias or name for name, info in model.model_fields.items()]
        missing += [f"{heading}: {name}" for name in names if rows.get(name, "").strip() in ("", "–")]
        missing += [heading] if heading not in found else []
    return missing


def missing_components(text: str) -> list[str]:
    """Each component in the table of its kind."""
    found = sections(text)
    tables = {kind: found.get(f"What ships/{generate().KIND_TITLES[kind]}", "") for kind in KINDS}
    return [f"{kind} {e.name}" for kind in KINDS for e in own(kind) if f"<td><code>{e.name}</code></td>" not in tables[kind]]


def own(kind: Kind) -> list[Registered]:
    entries = Registry.load().entries[kind].values()
    return [entry for entry in entries if entry.distribution == "alignment-harness"]


@cache
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


COMPLETE: list[tuple[str, Callable[[str], list[str]], str, str]] = [
    # page, what it must hold, a text that is taken out, and what is then missed
    ("api", missing_names, 'id="harness.api.interfaces.objective.Objective"', "harness.Objective"),
    ("api", missing_names, 'id="harness.testing.strategies.group_logps"', "harness.testing.strategies.group_logps"),
    ("plugins", missing_hooks, "<td><code>harness_sources</code></td>", "harness_sources"),
    ("plugins", missing_hooks, "<code>cached: ", "harness_run_started(cached)"),
    ("plugins", missing_components, "<td><code>ultrachat</code></td>", "source ultrachat"),
    ("cli", missing_options, "<code>--workers", "harness compare --workers"),
    ("cli", missing_options, "<code>--install-completion", "harness --install-completion"),
    (
        "configuration",
        missing_fields,
        "<td><code>rating_scale</code></td>",
        "Fields of components/Objectives/sr_dpo: rating_scale",
    ),
    ("configuration", missing_fields, "<td><code>warmup_share</code></td>", "Sections/training: warmup_share"),
]


@pytest.mark.parametrize(("name", "missing", "taken", "missed"), COMPLETE, ids=lambda value: getattr(value, "__name__", None))
def test_everything_that_users_can_name_is_on_the_site(
    site: Path, name: str, missing: Callable[[str], list[str]], taken: str, missed: str
) -> None:
    text = page(site, name)
    assert missing(text) == []
    assert taken in text
    assert missed in missing(text.replace(taken, "")), "the test overlooks what is not there"


def test_every_evaluator_has_a_page_with_its_metrics_and_fields(site: Path) -> None:
    for entry in own("evaluator"):
        text = page(site, f"evaluators/{entry.name}")
        found = sections(text)
        assert {"Fields", "Use", "How it is computed", "What to mind", "What was checked"} <= set(found), entry.name
        for field in entry.component.model_fields:
            assert f"<td><code>{field}</code></td>" in found["Fields"], f"{entry.name}.{field}"


def test_every_paper_of_a_method_has_its_place_on_the_site(site: Path) -> None:
    pages = [path.read_text(encoding="utf-8") for path in site.glob("papers/*/index.html")]
    cited = {entry.component.paper.arxiv for kind in ("method", "objective") for entry in own(kind) if entry.component.paper}
    assert cited and not [number for number in cited if not any(f"arxiv.org/abs/{number}" in text for text in pages)]
    parts = ("What it claims", "Its equations", "Here", "What was checked", "What our runs showed", "At full size")
    for name in ("self-contrast", "only-prompting", "self-refined"):
        assert set(parts) <= set(sections(page(site, f"papers/{name}"))), name


def test_the_tools_that_people_ask_about_are_compared(site: Path) -> None:
    text = page(site, "comparison")
    assert [
        tool for tool in ("TRL", "LLaMA-Factory", "HALOs", "oxRL", "EvalScope", "lm-eval") if f">{tool}</a>" not in text
    ] == []
    assert re.search(r"As of \w+ 20\d\d", text)


def test_links_between_repository_files_lead_somewhere_on_the_site(site: Path) -> None:
    for file in [
        *site.glob("*/index.html"),
        *site.glob("papers/*/index.html"),
        *site.glob("evaluators/*/index.html"),
        site / "index.html",
    ]:
        for target in re.findall(r'href="([^"#]+)', file.read_text(encoding="utf-8")):
            if not re.match(r"[a-z]+:|/", target):
                place = (file.parent / target).resolve()
                assert place.exists(), f"{file.relative_to(site)}: {target}"


def test_the_site_fetches_nothing_from_elsewhere(site: Path) -> None:
    text = (site / "index.html").read_text(encoding="utf-8")
    assert not re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="https?:', text)


def test_every_page_is_in_the_navigation() -> None:
    import yaml

    listed = set(re.findall(r"([\w/-]+\.md)", yaml.dump(yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"])))
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert not pages - listed, "add them to nav in mkdocs.yml"
