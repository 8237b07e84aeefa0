"""Packages that a GPU machine without network lacks, as wheels in a folder beside this file.

    python benchmarks/gpu/wheels.py                           # with a network: for CPython 3.12 on Linux x86-64
    python benchmarks/gpu/wheels.py --python 3.11 --have FILE # FILE: `pip list` or `pip freeze` of the machine

Versions are those installed here. `make gpu` installs what its machine really lacks into a folder of the checkout, and puts
that folder on the path: the machine's own packages stay as they are.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import zipfile
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from email import message_from_string
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
WHEELS = Path(__file__).resolve().parent / "wheels"
SITE = ROOT / "build" / "gpu"  # where `make gpu` installs
LIMIT = 60  # MB of all wheels
PLATFORMS = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
EXTRA = ("liger-kernel",)  # in no extra of the harness; TRL is measured with it where it works
# Names of packages on every machine with PyTorch and transformers, or too large to travel: a part that lacks one fails.
ASSUMED = Path(__file__).resolve().parent / "assumed.txt"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default="3.12", help="the machine's version of Python")
    parser.add_argument("--have", type=Path, default=ASSUMED, help=f"packages that the machine has, one a line; {ASSUMED.name}")
    options = parser.parse_args()
    have = named(options.have.read_text())
    # setuptools in any case: it installs the harness, and the machine's may be too old or too new for that.
    wanted = {name: metadata.version(name) for name in (closure(options.python) - have) | {"setuptools"}}
    if WHEELS.exists():
        shutil.rmtree(WHEELS)
    WHEELS.mkdir()
    for name, version in {**wanted, **dict.fromkeys(EXTRA, "")}.items():
        download(f"{name}=={version}" if version else name, options.python)
    size = sum(file.stat().st_size for file in WHEELS.iterdir()) / 1e6
    print(f"{len(list(WHEELS.iterdir()))} wheels, {size:.1f} MB, in {WHEELS}")
    if size > LIMIT:
        largest = sorted(WHEELS.iterdir(), key=lambda file: -file.stat().st_size)[:3]
        sys.exit(f"more than {LIMIT} MB ({', '.join(file.name for file in largest)}): name what the machine has by --have")


def named(text: str) -> frozenset[str]:
    """Names in the output of `pip list` or `pip freeze`."""
    return frozenset(canonicalize_name(match) for match in re.findall(r"^([A-Za-z0-9][\w.-]*)", text, re.MULTILINE))


def requirements() -> list[Requirement]:
    """Everything that the harness needs for comparisons, and setuptools, which installs it."""
    with (ROOT / "pyproject.toml").open("rb") as stream:
        content = tomllib.load(stream)
    project = content["project"]
    extras = project["optional-dependencies"]
    texts = [*project["dependencies"], *extras["train"], *extras["lm-eval"], *content["build-system"]["requires"]]
    return [Requirement(text) for text in texts if not text.startswith("alignment-harness")]


def closure(python: str) -> set[str]:
    """Names of all that the harness needs directly or not, by what is installed here."""
    names: set[tuple[str, tuple[str, ...]]] = set()
    todo = requirements()
    while todo:
        wanted = todo.pop()
        name = canonicalize_name(wanted.name)
        if (key := (name, tuple(sorted(wanted.extras)))) not in names:
            names.add(key)
            todo += needed(metadata.requires(name) or [], wanted.extras, python)
    return {name for name, _ in names}


def needed(texts: Collection[str], extras: Collection[str] = (), python: str = "") -> Iterator[Requirement]:
    """The requirements whose markers hold, for Python of a version or for this one."""
    version = {"python_version": python, "python_full_version": f"{python}.0"} if python else {}
    for text in texts:
        item = Requirement(text)
        if item.marker is None or any(item.marker.evaluate({"extra": extra, **version}) for extra in ("", *extras)):
            yield item


def download(item: str, python: str) -> None:
    """Fetch a wheel, or build it where there is none and it holds Python alone."""
    pip = [sys.executable, "-m", "pip"]
    platforms = [argument for name in PLATFORMS for argument in ("--platform", name)]
    fetch = [*pip, "download", "--quiet", "--no-deps", "--only-binary=:all:", "--python-version", python, *platforms]
    if subprocess.run([*fetch, "--dest", str(WHEELS), item], stderr=subprocess.DEVNULL, check=False).returncode == 0:
        return
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, item], check=True)
        (built,) = Path(folder).iterdir()
        if not built.name.endswith("-none-any.whl"):
            sys.exit(f"{item} has no wheel for Python {python}, and a built one would be for this machine alone")
        shutil.copy(built, WHEELS)


@dataclass(frozen=True)
class Wheel:
    file: Path
    version: str
    requires: tuple[str, ...]

    @classmethod
    def of(cls, file: Path) -> Wheel:
        with zipfile.ZipFile(file) as archive:
            (name,) = (name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name))
            fields = message_from_string(archive.read(name).decode())
        return cls(file, fields["Version"], tuple(fields.get_all("Requires-Dist", [])))


def prepare(device: str) -> tuple[dict[str, str], list[str]]:
    """Install what this machine lacks, where it lacks something.

    Returns:
        The environment variables that parts run with, and sentences on requirements that stay unmet.
    """
    environment = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"), "1")  # no waiting for a network
    if device != "cuda":
        environment["CUDA_VISIBLE_DEVICES"] = ""
    wheels = {canonicalize_name(file.name.split("-")[0]): Wheel.of(file) for file in sorted(WHEELS.glob("*.whl"))}
    absent, problems = lacking(wheels, EXTRA if device == "cuda" and installed("triton") else ())
    alone = installed("alignment-harness") is None
    if not absent and not alone:
        return environment, problems
    if SITE.exists():
        shutil.rmtree(SITE)
    path = os.pathsep.join([str(SITE), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment |= {"PYTHONPATH": path}
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-compile", "--target", str(SITE)]
    pip += ["--disable-pip-version-check", "--root-user-action=ignore"]
    print(f"installing {len(absent)} wheels{' and the harness' if alone else ''} into {SITE} …", flush=True)
    if absent:
        subprocess.run([*pip, *(str(wheel.file) for wheel in absent)], check=True)
    if not alone:
        return environment, problems
    with tempfile.TemporaryDirectory() as folder:  # setuptools writes beside its sources
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(ROOT / name, folder)
        for name in ("harness", "plugins", "configs"):
            shutil.copytree(ROOT / name, Path(folder) / name, ignore=shutil.ignore_patterns("__pycache__"))
        subprocess.run([*pip, "--no-build-isolation", folder], check=True, env={**os.environ, **environment})
    return environment, problems


def lacking(wheels: Mapping[str, Wheel], extra: Collection[str] = ()) -> tuple[list[Wheel], list[str]]:
    """Return the wheels to install, and sentences on requirements that neither the machine nor a wheel meets.

    Args:
        extra: names to install too, where there are wheels of them.
    """
    chosen: dict[str, Wheel] = {}
    problems: list[str] = []
    todo = [*requirements(), *(Requirement(name) for name in extra if name in wheels)]
    walked: set[str] = set()
    while todo:
        item = todo.pop()
        if str(item) in walked:
            continue
        walked.add(str(item))
        name, version = canonicalize_name(item.name), installed(item.name)
        wheel = wheels.get(name)
        if version is not None and item.specifier.contains(version, prereleases=True):
            # What a package of the machine needs is there; what an extra of it needs may not be.
            todo += needed(metadata.requires(name) or [], item.extras) if item.extras else []
        elif wheel is not None and item.specifier.contains(wheel.version, prereleases=True):
            chosen[name] = wheel
            todo += needed(wheel.requires, item.extras)
        else:
            problems.append(f"{item} is needed, and the machine has {version or 'none'}")
    return list(chosen.values()), problems


def installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


if __name__ == "__main__":
    main()
