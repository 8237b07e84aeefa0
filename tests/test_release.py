"""What is released: one version everywhere, and a wheel and an sdist that install and run away from the repository."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

from harness import __version__
from harness.api.registry import KINDS
from harness.extras import EXTRA_OF

ROOT = Path(__file__).resolve().parents[1]
LIGHT_MEGABYTES = 500
NEEDED = (
    "harness/py.typed",
    "harness_plugins/py.typed",
    "harness/configs/quickstart.yaml",
    "harness/board/views/web/picture.css",
    "harness/board/views/web/template.html",
    "harness/sandbox/base/model.safetensors",
    "harness/testing/scaffold/method.py.jinja",
)


def test_the_version_is_written_once() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert project["project"]["dynamic"] == ["version"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "harness.version.__version__"}
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__
    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_citation_is_one() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= set(cited), "the format asks for these"
    assert cited["cff-version"] == "1.2.0" and cited["type"] == "software"
    assert all("name" in author or "family-names" in author for author in cited["authors"])
    assert cited["license"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"]


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


@pytest.fixture(scope="module")
def environment(dist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel and nothing of the repository; its dependencies are those of this one, which are GB."""
    (wheel,) = dist.glob("*.whl")
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    site = next((folder / "lib").glob("python*/site-packages"))
    (site / "dependencies.pth").write_text("".join(f"{path}\n" for path in sys.path if path.endswith("-packages")))
    install(folder, "--no-index", "--ignore-installed", str(wheel))
    return folder


def install(environment: Path, *arguments: str) -> None:
    pip = [sys.executable, "-m", "pip", "--python", str(environment / "bin" / "python"), "--disable-pip-version-check"]
    done = subprocess.run([*pip, "install", "--quiet", "--no-deps", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def harness(environment: Path, folder: Path, *arguments: str) -> str:
    """What the installed command prints, run in `folder`."""
    clean = {"PATH": f"{environment / 'bin'}:/usr/bin:/bin", "HOME": str(folder), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(["harness", *arguments], cwd=folder, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_wheel_compares_in_an_environment_of_its_own(environment: Path, tmp_path: Path) -> None:
    small = ["budget.prompts=8", "source.sft=16", "source.train=16", "source.heldout=6", "sft.epochs=1"]
    settings = [part for setting in [*small, "evaluators=[gold_reward]"] for part in ("--set", setting)]
    harness(environment, tmp_path, "compare", "--methods", "sft,dpo", "--seeds", "0", "--workers", "1", *settings)
    assert (tmp_path / "runs" / "quickstart" / "index.html").is_file()
    code = "import harness, harness_plugins; print(harness.__file__, harness_plugins.__file__)"
    done = subprocess.run([str(environment / "bin" / "python"), "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert [path.startswith(str(environment)) for path in done.stdout.split()] == [True, True], done.stderr


@pytest.mark.slow
@pytest.mark.network
def test_a_light_install_opens_and_verifies_every_board(dist: Path, tmp_path: Path) -> None:
    """From the package index, into an empty environment of at most 500 MB, without a package of an extra."""
    (wheel,) = dist.glob("*.whl")
    folder = tmp_path / "light"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "-c", str(ROOT / "constraints.txt"), str(wheel)], check=True)
    size = sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))
    assert size < LIGHT_MEGABYTES * 2**20
    listed = json.loads(subprocess.run([*pip, "list", "--format", "json"], capture_output=True, check=True).stdout)
    names = {package["name"].lower().replace("-", "_") for package in listed}
    assert {"numpy", "pyarrow"} < names and not names & EXTRA_OF.keys()
    boards = sorted(path.parent for path in (ROOT / "leaderboards").rglob("board.json"))
    assert len(boards) > 15
    for board in boards:
        assert "holds" in (said := harness(folder, tmp_path, "verify", str(board))) or "Published numbers only" in said
        assert "Board: " in harness(folder, tmp_path, "report", str(board), "--out", "rendered")
    assert json.loads(harness(folder, tmp_path, "plan", "--json"))["unchecked"]


@pytest.mark.slow
def test_the_whole_quickstart_is_planned_there(environment: Path, tmp_path: Path) -> None:
    assert harness(environment, tmp_path, "plan").startswith("quickstart · ")
    assert harness(environment, tmp_path, "--version").strip().endswith(__version__)
    assert "_HARNESS_COMPLETE" in harness(environment, tmp_path, "--show-completion", "bash")


@pytest.mark.slow
def test_somebody_elses_distribution_is_installed_beside_it(environment: Path, tmp_path: Path) -> None:
    source = shutil.copytree(ROOT / "tests" / "third_party", tmp_path / "third_party")
    install(environment, "--no-build-isolation", str(source))
    listed = json.loads(harness(environment, tmp_path, "plugins", "list", "--json"))
    found = {entry["kind"] for entry in listed if entry["distribution"] == "third-party-methods"}
    assert found == set(KINDS)
    assert "conforms" in harness(environment, tmp_path, "plugins", "check", "tp_squared")
