"""What `harness new` writes: whole packages that install, conform and run; or nothing."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import HarnessError, StoreError, __version__
from harness.api.registry import Registry
from harness.config import resolve
from harness.testing.scaffold import _REGISTERS, KINDS, ComponentKind, create, render


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, registry: Registry) -> Path:
    """A package of each kind, installed by pip into one folder."""
    folder = tmp_path_factory.mktemp("scaffold")
    made = [create(kind, f"my_{kind.replace('-', '_')}", folder, registry).folder for kind in KINDS]
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--no-input", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder / "site"), *map(str, made)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The same on the path, forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(site)
    yield site
    for name in set(sys.modules) - before:
        if name.startswith("harness_my_"):
            del sys.modules[name]


@pytest.mark.parametrize("kind", KINDS)
def test_a_package_is_whole(kind: ComponentKind, tmp_path: Path, registry: Registry) -> None:
    made = create(kind, "my_idea", tmp_path, registry)
    assert made.folder == tmp_path / "harness-my-idea"
    assert made.files == ("README.md", "harness_my_idea.py", "pyproject.toml", "tests/test_my_idea.py")
    assert sorted(str(path.relative_to(made.folder)) for path in made.folder.rglob("*") if path.is_file()) == sorted(made.files)
    project = tomllib.loads((made.folder / "pyproject.toml").read_text())["project"]
    assert project["name"] == "harness-my-idea"
    assert project["entry-points"] == {"harness": {"my_idea": "harness_my_idea"}}
    assert project["dependencies"] == [f"alignment-harness[train]>={__version__}"]
    assert [path.name for path in tmp_path.iterdir()] == ["harness-my-idea"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_plugin_is_short_and_clean(kind: ComponentKind, tmp_path: Path, registry: Registry) -> None:
    code = render(kind, "my_idea")["harness_my_idea.py"]
    assert len([line for line in code.splitlines() if line.strip()]) < 60
    assert not re.search(r"[{}]{2}|{%", "".join(render(kind, "my_idea").values()))
    folder = create(kind, "my_idea", tmp_path, registry).folder
    for check in (["check", "--select", "E,F,W,B,UP"], ["format", "--check"]):
        command = [sys.executable, "-m", "ruff", *check, "--isolated", "--line-length", "128", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_installed_packages_are_found_with_their_origin(installed: Path) -> None:
    registry = Registry.load()
    for kind in KINDS:
        name = f"my_{kind.replace('-', '_')}"
        for registered in _REGISTERS[kind]:
            entry = registry.get(registered, name)
            assert (entry.distribution, entry.distribution_version) == (f"harness-{name.replace('_', '-')}", "0.1.0")


def test_rows_of_new_methods_stand_beside_dpo(installed: Path) -> None:
    raw = {
        "name": "new",
        "source": "sandbox",
        "model": {"path": "sandbox"},
        "methods": ["sft", "my_data_builder", "my_objective", "my_method", "dpo"],
        "evaluators": ["gold_reward", "my_evaluator"],
        "baseline": "sft",
    }
    labels = [variant.label for variant in resolve(raw, Registry.load()).rows]
    assert labels == ["sft", "my_data_builder", "my_objective", "my_method", "dpo"]


@pytest.mark.slow
def test_their_own_tests_pass(installed: Path) -> None:
    tests = [str(path) for path in sorted(installed.parent.glob("harness-my-*/tests/test_*.py"))]
    assert len(tests) == len(KINDS)
    options = ["-q", "-p", "no:cacheprovider", "-W", "error", "--rootdir", str(installed.parent)]
    command = [sys.executable, "-m", "pytest", *options, *tests]
    environment = {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1", "PATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=installed.parent)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{2 * len(KINDS)} passed" in done.stdout


@pytest.mark.slow  # the tutorial does the same with a file of its own
def test_a_new_method_is_tuned_and_compared(installed: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    small = [f"model.path={tiny_checkpoint}", "budget.prompts=8", "source.sft=8", "source.train=8", "source.heldout=4"]
    small += ["sft=null", "evaluators=[my_evaluator]", "source.tuning=8", "tuning.trials=2"]
    command = [sys.executable, "-c", "from harness.cli import main; main()", "compare", "--methods", "my_method,dpo", "--json"]
    command += ["--seeds", "0", "--workers", "1", "--out", str(tmp_path / "board"), "--store", str(tmp_path / "store")]
    command += [part for setting in small for part in ("--set", setting)]
    environment = {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1", "HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    rows = {row["method"]: row for row in answer["board"]["rows"]}
    assert {"my_method", "dpo"} <= set(rows) and not answer["failed"]
    assert "my_evaluator/distinct" in rows["my_method"]["scores"]
    tuning = rows["my_method"]["tuning"]
    assert len(tuning["trials"]) == 2 and set(tuning["chosen"]) == {"training.learning_rate", "objective.beta"}


# What is refused


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("My-Loss", "for example 'my_loss'"),
        ("../x", "for example 'x'"),
        ("9lives", "a letter first"),
        ("", "a letter first"),
        ("a" * 41, "at most 40"),
        ("a__b", "single underscores"),
        ("{{ 7 }}", "a letter first"),
    ],
)
def test_names_that_cannot_be_used(name: str, said: str, tmp_path: Path, registry: Registry) -> None:
    with pytest.raises(HarnessError, match="is no name for a component") as caught:
        create("objective", name, tmp_path, registry)
    assert said in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["all", "list"])
def test_words_of_the_command_are_no_names_of_analyses(name: str, tmp_path: Path, registry: Registry) -> None:
    with pytest.raises(HarnessError, match=f"`harness analyze {name}` means something else: choose another name"):
        create("analysis", name, tmp_path, registry)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("kind", "name"), [("objective", "dpo"), ("data-builder", "oracle"), ("evaluator", "gold_reward")])
def test_names_that_are_taken(kind: ComponentKind, name: str, tmp_path: Path, registry: Registry) -> None:
    with pytest.raises(HarnessError, match=f"{name!r} exists already, in harness_plugins.*: choose another name"):
        create(kind, name, tmp_path, registry)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_exists_is_left_alone(tmp_path: Path, registry: Registry) -> None:
    (tmp_path / "harness-mine").mkdir()
    with pytest.raises(HarnessError, match="harness-mine exists: choose another name, or another folder with --into"):
        create("method", "mine", tmp_path, registry)
    assert list((tmp_path / "harness-mine").iterdir()) == []


def test_a_folder_that_cannot_be_written(tmp_path: Path, registry: Registry) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="choose another folder with --into"):
        create("method", "mine", tmp_path / "file", registry)


def test_nothing_is_left_when_writing_fails(tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(StoreError, match="No space left on device"):
        create("method", "mine", tmp_path, registry)
    assert list(tmp_path.iterdir()) == []
