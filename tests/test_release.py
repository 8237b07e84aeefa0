"""What is released: one version everywhere, and a wheel and an sdist that install and run away from the repository."""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from harness import __version__

ROOT = Path(__file__).resolve().parents[1]
NEEDED = (
    "harness/py.typed",
    "harness_plugins/py.typed",
    "harness/configs/quickstart.yaml",
    "harness/leaderboard/web/picture.css",
    "harness/leaderboard/web/template.html",
    "harness/sandbox/base/model.safetensors",
    "harness/scaffold/method.py.jinja",
)


def test_the_version_is_written_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "harness.version.__version__"}
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_every_package_of_the_tree_is_released() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    listed = set(project["tool"]["setuptools"]["packages"])
    found = {
        ".".join([name, *path.parent.relative_to(ROOT / folder).parts])
        for name, folder in (("harness", "harness"), ("harness_plugins", "plugins"))
        for path in (ROOT / folder).rglob("*.py")
    }
    assert found <= listed, f"add to tool.setuptools.packages: {', '.join(sorted(found - listed))}"


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An sdist of what git tracks, and the wheel that is built from it."""
    folder = tmp_path_factory.mktemp("dist")
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
    for name in filter(None, tracked):
        if (ROOT / name).is_file():
            (folder / "tree" / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / "tree" / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(folder / "tree")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder


@pytest.mark.slow
def test_wheel_and_sdist_hold_what_runs_need(dist: Path) -> None:
    (wheel,), (source,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    assert __version__ in wheel.name and __version__ in source.name
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in NEEDED if name not in names]
    assert not [name for name in names if name.startswith(("tests/", "docs/"))]
    with tarfile.open(source) as archive:
        inside = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "harness/version.py", "configs/quickstart.yaml"} <= inside


@pytest.mark.slow
def test_the_wheel_compares_in_an_environment_of_its_own(dist: Path, tmp_path: Path) -> None:
    """A new environment without the repository on its path; dependencies come from this one, which saves a download of GB."""
    (wheel,) = dist.glob("*.whl")
    environment = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    site = next((environment / "lib").glob("python*/site-packages"))
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(site), str(wheel)]
    subprocess.run(install, check=True)
    (site / "dependencies.pth").write_text("".join(f"{path}\n" for path in sys.path if path.endswith("-packages")))
    small = [
        "budget.prompts=8",
        "source.sft=16",
        "source.train=16",
        "source.heldout=6",
        "sft.epochs=1",
        "evaluators=[gold_reward]",
    ]
    command = [str(python), "-c", "from harness.cli import main; main()", "compare", "--methods", "sft,dpo", "--seeds", "0"]
    command += ["--workers", "1", *(part for setting in small for part in ("--set", setting))]
    clean = {"PATH": os.environ.get("PATH", ""), "HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "runs" / "quickstart" / "index.html").is_file()
    where = subprocess.run(
        [str(python), "-c", "import harness, harness_plugins; print(harness.__file__, harness_plugins.__file__)"],
        **{"cwd": tmp_path, "env": clean, "capture_output": True, "text": True, "check": True},  # type: ignore[call-overload]
    )
    assert all(str(site) in path for path in where.stdout.split())
