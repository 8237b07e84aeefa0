"""The documentation site: it builds without a warning, and nothing that users can name is missing from it."""

from __future__ import annotations

import html
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import harness
import harness.testing
from harness import hookspecs
from harness.config import Config
from harness.registry import KINDS, Registry

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


def test_every_public_name_is_on_the_site(site: Path) -> None:
    text = page(site, "api")
    missing = []
    for module in (harness, harness.testing):
        for name in module.__all__:
            value = getattr(module, name)
            documented = inspect.isclass(value) or inspect.isfunction(value)
            sought = f'id="{value.__module__}.{value.__qualname__}"' if documented else f"<code>{module.__name__}.{name}</code>"
            missing += [name] if sought not in text else []
    assert not missing


def test_every_hook_is_on_the_site(site: Path) -> None:
    text = page(site, "plugins")
    for name, hook in vars(hookspecs).items():
        if name.startswith("harness_"):
            assert f"<td><code>{name}</code></td>" in text, name
            for argument in inspect.signature(hook).parameters:
                assert f"<code>{argument}: " in text, f"{name}({argument})"


def test_every_command_and_option_is_on_the_site(site: Path) -> None:
    import typer

    from harness.cli import app

    text = page(site, "cli")

    def check(command: Any, path: str) -> None:
        assert f"<code>{path}</code></h" in re.sub(r'<a class="headerlink".*?</a>', "", text), path
        for parameter in command.params:
            for option in parameter.opts:
                if option.startswith("--") and option not in ("--help", "--install-completion", "--show-completion"):
                    assert f"<code>{option}" in text or f"{option}</code>" in text or f"{option} " in text, f"{path} {option}"
        for name, child in getattr(command, "commands", {}).items():
            check(child, f"{path} {name}")

    check(typer.main.get_command(app), "harness")


def test_every_field_of_a_config_and_of_components_is_on_the_site(site: Path) -> None:
    text = page(site, "configuration")
    models = [Config, *(info.annotation for info in Config.model_fields.values() if hasattr(info.annotation, "model_fields"))]
    registry = Registry.load()
    own = [
        entry.component
        for kind in KINDS[:-1]
        for entry in registry.entries[kind].values()
        if entry.distribution == "alignment-harness"
    ]
    missing = [
        f"{model.__name__}.{name}"
        for model in (*models, *own)
        for name, info in model.model_fields.items()
        if f"<td><code>{info.alias or name}</code></td>" not in text
    ]
    assert not missing


def test_every_component_is_on_the_site(site: Path) -> None:
    text = page(site, "plugins")
    registry = Registry.load()
    names = {
        entry.name
        for entries in registry.entries.values()
        for entry in entries.values()
        if entry.distribution == "alignment-harness"
    }
    assert not [name for name in names if f"<td><code>{name}</code></td>" not in text]


def test_links_between_repository_files_lead_somewhere_on_the_site(site: Path) -> None:
    for file in [*site.glob("*/index.html"), *site.glob("papers/*/index.html"), site / "index.html"]:
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
