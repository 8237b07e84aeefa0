"""docs/first-method.md, followed word for word; and the Python of the other pages."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import harness
from harness.api.registry import Registry
from harness.config import resolve
from harness.models.judge.settings import JudgeSettings
from harness.testing import check

DOCS = Path(__file__).resolve().parents[1] / "docs"
TUTORIAL = (DOCS / "first-method.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ (.*)$", TUTORIAL, re.MULTILINE)
PAGE = {"name": "page", "source": "sandbox", "model": {"path": "sandbox"}, "evaluators": ["gold_reward"], "baseline": "sft"}
CODE, TEST = re.findall(r"```python\n(.*?)```", TUTORIAL, re.DOTALL)
SMALL = ["source.sft=16", "source.train=16", "source.heldout=6", "budget.prompts=8", "sft=null", "evaluators=[gold_reward]"]


def followed(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """A command of the page. pip installs into a folder of the test; a comparison gets a small model and small numbers."""
    words = shlex.split(line)
    if words[0] == "pytest":
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), *words[1:]]
    elif words[:2] == ["pip", "install"]:
        options = ["--no-deps", "--no-build-isolation", "--quiet", "--no-input", "--disable-pip-version-check"]
        assert words[2] == "-e"
        command = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder / "site"), *words[3:]]
    else:
        assert words[0] == "harness"
        command = [sys.executable, "-c", "from harness.cli import main; main()", *words[1:]]
        if words[1] == "compare":
            settings = [f"model.path={folder.parent / 'tiny'}", *SMALL]
            command += ["--workers", "1", "--seeds", "0", *(part for setting in settings for part in ("--set", setting))]
    environment = {"PYTHONPATH": str(folder / "site"), "OMP_NUM_THREADS": "1", "HOME": str(folder), "PATH": "/usr/bin:/bin"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def test_the_tutorial_gives_a_plugin_and_a_board_that_contains_it(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    (tmp_path / "tiny").symlink_to(tiny_checkpoint)
    compared = False
    for line in COMMANDS:
        if line.startswith("harness compare") and compared:
            continue  # the first look is the same rows with other numbers
        done = followed(line, folder)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        compared = compared or line.startswith("harness compare")
        if line.startswith("harness new"):
            made = folder / "harness-shuffled-words"
            named = set(re.findall(r"^\| `([^`]+)` \|", TUTORIAL, re.MULTILINE))
            assert {str(path.relative_to(made)) for path in made.rglob("*") if path.is_file()} == named
            (made / "harness_shuffled_words.py").write_text(CODE)
            (made / "tests" / "test_shuffled_words.py").write_text(TEST)
        if line.startswith("harness plugins list"):
            assert "shuffled_words" in done.stdout
        if line.startswith("pytest"):
            assert "2 passed" in done.stdout
    board = harness.Board.read(folder / "runs" / "shuffled_words")
    assert {row.method: row.failed for row in board.rows} == dict.fromkeys(("shuffled_words", "dpo", "null", "sft"))


def test_the_code_of_the_tutorial_is_short() -> None:
    assert len([line for line in CODE.splitlines() if line.strip()]) < 60


def test_the_rows_of_the_tutorial_are_valid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "harness_shuffled_words.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("harness_shuffled_words", None)  # another test's
    import harness_shuffled_words  # type: ignore[import-not-found]

    registry = Registry.load(extra=[harness_shuffled_words])
    crossed, search = re.findall(r"```yaml\n(.*?)```", TUTORIAL, re.DOTALL)
    assert rows_of(crossed, registry) == ["sft", "shuffled_words", "our_data_dpo", "their_data_our_loss", "dpo"]
    searched = resolve({**PAGE, "methods": ["sft", "shuffled_words"], **yaml.safe_load(search)}, registry)
    assert searched.tuning is not None and searched.config.tuning is not None and searched.config.tuning.trials == 8


def test_the_fault_that_the_tutorial_shows_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "harness_shuffled_words.py").write_text(CODE.replace("-logsigmoid(margin)", "-logsigmoid(margin).mean()"))
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("harness_shuffled_words", None)  # another test's
    import harness_shuffled_words

    registry = Registry.load(extra=[harness_shuffled_words])
    (verdict,) = [verdict for verdict in check("shuffled_words", registry=registry) if not verdict.ok]
    assert [finding.check for finding in verdict.failed] == ["loss"]
    assert "has shape []" in verdict.failed[0].said
    assert "return [4, 3], [G, M]" in verdict.failed[0].fix


# The other pages are lists of what can be run, and of what came out.
PAPERS = [page for page in sorted((DOCS / "papers").glob("*.md")) if page.stem not in ("coverage", "twins")]


@pytest.mark.parametrize(
    "page",
    PAPERS,
    ids=lambda page: page.stem,
)
def test_the_rows_of_a_papers_page_are_valid(page: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert len(rows_of(block, Registry.load())) > 1


@pytest.mark.parametrize("page", sorted((DOCS / "evaluators").glob("*.md")), ids=lambda page: page.stem)
def test_the_evaluators_of_an_evaluators_page_are_valid(page: Path) -> None:
    (block,) = re.findall(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    listed = yaml.safe_load(block)
    registry = Registry.load()
    for given in listed["evaluators"]:
        fields = {"name": given} if isinstance(given, str) else dict(given)
        component = registry.get("evaluator", fields.pop("name")).component
        assert component.model_validate(fields).metrics()
    assert any(page.stem in str(given) for given in listed["evaluators"])
    assert "judge" not in listed or JudgeSettings.model_validate(listed["judge"])


def rows_of(block: str, registry: Registry) -> list[str]:
    """The labels of a page's rows beside the baseline, resolved on the sandbox."""
    methods = ["sft", *yaml.safe_load(block)["methods"]]
    return [variant.label for variant in resolve({**PAGE, "methods": methods}, registry).rows]


def test_the_python_of_the_library_page_compiles_and_names_what_exists() -> None:
    for block in re.findall(r"```python\n(.*?)```", (DOCS / "library.md").read_text(encoding="utf-8"), re.DOTALL):
        compile(block, "library.md", "exec")
        assert all(hasattr(harness, name) for name in re.findall(r"harness\.(\w+)", block))
