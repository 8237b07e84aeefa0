"""Ways to get the harness: the notebook's cells, the Dockerfile, the release workflow, and the index of plugins."""

from __future__ import annotations

import fnmatch
import json
import runpy
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

import harness
from harness import Board
from harness.config.file import packaged_config

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "examples" / "first_look.ipynb"
ENTRY = {"name": "harness-x", "adds": {"method": ["x"]}, "summary": "A method of one line", "url": "https://x.org/x"}
ENTRY |= {"licence": "Apache-2.0"}


def cells() -> list[str]:
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code), "results are not committed"
    return ["".join(cell["source"]) for cell in code]


def test_the_notebooks_cells_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a committed board in place of the comparisons, and nothing installed."""
    calls: list[tuple[Any, ...]] = []

    def compare(*arguments: Any, **options: Any) -> Board:
        calls.append(arguments)
        return Board.read(ROOT / "leaderboards" / "smollm2")

    commands: list[list[str]] = []
    monkeypatch.setattr(harness, "compare", compare, raising=False)
    monkeypatch.setattr(subprocess, "run", lambda command, **options: commands.append(command))
    namespace: dict[str, Any] = {}
    for number, source in enumerate(cells()):
        exec(compile(source, f"{NOTEBOOK.name}, cell {number}", "exec"), namespace)
    assert [arguments[0] for arguments in calls] == ["first-look", "first-look"]
    changed = calls[1][1].apply(yaml.safe_load(packaged_config("first-look").read_text()))
    assert {"method": "dpo", "objective": {"beta": 0.5}} in changed["methods"]
    assert commands[0][1:4] == ["-m", "pip", "install"] and commands[0][-1].endswith("[train]")


def stages() -> dict[str, list[tuple[str, str]]]:
    """The Dockerfile's instructions by stage."""
    listed: dict[str, list[tuple[str, str]]] = {}
    for line in (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines():
        word, _, rest = line.partition(" ")
        if word == "FROM":
            listed[rest.split(" AS ")[1]] = stage = []
        elif word and not word.startswith("#"):
            stage.append((word, rest))
    return listed


def test_no_image_runs_as_root_and_the_one_for_cpus_is_the_default() -> None:
    assert list(stages()) == ["light", "cuda", "cpu"]
    for name, instructions in stages().items():
        assert [user for word, user in instructions if word == "USER"][-1] == "1000"
        (installed,) = [rest for word, rest in instructions if word == "RUN"]
        assert "constraints.txt" in installed and ("[train]" in installed) == (name != "light")


def test_the_images_get_every_package_and_what_building_it_needs() -> None:
    copied = {source for word, rest in stages()["light"] if word == "COPY" for source in rest.split()[:-1]}
    ignored = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert ignored[0] == "*" and all(f"!{name}" in ignored and (ROOT / name).exists() for name in copied)
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert set(setuptools["package-dir"].values()) | {"pyproject.toml", "README.md", "LICENSE"} <= copied
    assert not any(fnmatch.fnmatch("harness", line) for line in ignored[1:])


def test_only_a_tag_of_the_version_publishes_and_only_after_the_tests() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yaml").read_text())
    jobs = workflow["jobs"]
    assert workflow["permissions"] == {"contents": "read"}
    assert [name for name, job in jobs.items() if "permissions" in job] == ["publish"]
    assert set(jobs["publish"]["needs"]) == jobs.keys() - {"publish"} and "refs/tags/" in jobs["publish"]["if"]
    (check,) = [step["run"] for step in jobs["package"]["steps"] if "GITHUB_REF_NAME" in step.get("run", "")]
    for tag, code in ((f"v{harness.__version__}", 0), ("v99.0.0", 1)):
        done = subprocess.run(["bash", "-c", check], cwd=ROOT, env={"GITHUB_REF_NAME": tag, "PATH": "/usr/bin:/bin"})
        assert done.returncode == code


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"url": "javascript:alert(1)"}, "url"),
        ({"url": "https://x.org/) <script>"}, "url"),
        ({"adds": {}}, "adds"),
        ({"adds": {"recipe": ["x"]}}, "adds"),
        ({"summary": "Ends in a full stop."}, "summary"),
        ({"stars": 5}, "stars"),
    ],
)
def test_a_wrong_entry_of_the_plugin_index_is_refused(tmp_path: Path, change: dict[str, Any], field: str) -> None:
    listed = runpy.run_path(str(ROOT / "docs" / "generate.py"))["listed_plugins"]
    path = tmp_path / "plugins.yaml"
    path.write_text(yaml.safe_dump([ENTRY]))
    assert [plugin.name for plugin in listed(path)] == ["harness-x"]
    path.write_text(yaml.safe_dump([{**ENTRY, **change}]))
    with pytest.raises(ValidationError, match=field):
        listed(path)
    path.write_text(yaml.safe_dump([ENTRY, ENTRY]))
    with pytest.raises(ValueError, match="each once"):
        listed(path)
