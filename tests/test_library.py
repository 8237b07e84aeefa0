"""The comparison as a function, and the examples: what a script or a notebook sees."""

from __future__ import annotations

import importlib
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import harness
from harness.board.views.notebook import Plot
from harness.run.compare import RunOptions

ROOT = Path(__file__).resolve().parents[1]


def example(name: str) -> ModuleType:
    """A script of examples/."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", ROOT / "examples" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_script_compares_and_reads_the_board(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = {"model": {"path": str(tiny_checkpoint)}, "sft": None, "budget.prompts": 8}
    sizes = {"source.sft": 8, "source.train": 16, "source.heldout": 6}
    board = example("compare_in_a_script").main(tmp_path / "out", **small, **sizes)
    assert {row.method for row in board.rows} == {"sft", "dpo", "ipo"}
    assert not [row.failed for row in board.rows if row.failed]
    assert harness.Board.read(tmp_path / "out").to_json() == board.to_json()
    assert "gold_reward/gold" in capsys.readouterr().out
    assert (tmp_path / "out" / "differences.svg").read_text().startswith("<svg xmlns=")


def test_a_choice_that_makes_no_sense(tmp_path: Path) -> None:
    choice = harness.Choice(methods=["dop"], seeds=[-1], changes={"budget.prompts": 0})
    with pytest.raises(harness.ConfigError) as caught:
        harness.compare("quickstart", choice, out=tmp_path, store=tmp_path / "store")
    fields = {problem.field for problem in caught.value.problems}
    assert fields == {"methods.1.method", "seeds", "budget.prompts"}
    with pytest.raises(harness.HarnessError, match="did you mean 'quickstart'"):
        harness.compare("quikstart")
    assert list(tmp_path.iterdir()) == []


def test_each_worker_has_a_gpu_of_its_own_where_there_are_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def run(*_: Any, workers: int, options: RunOptions, **rest: Any) -> Any:
        given[os.environ["CUDA_VISIBLE_DEVICES"]] = (workers, options.executor(workers, {}, tmp_path).gpus)
        return SimpleNamespace(board=None)

    monkeypatch.setattr("harness.run.compare.compare", run)
    for devices in ("2,3", ""):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", devices)
        harness.compare("quickstart", out=tmp_path)
    assert given == {"2,3": (2, ("2", "3")), "": (len(os.sched_getaffinity(0)), ())}


def test_changes_keep_their_types() -> None:
    changes = {"training.learning_rate": 1e-05, "sft": None, "evaluators": ["gold_reward"], "name": "1e3"}
    changed = harness.Choice(changes=changes).apply({"name": "x", "training": {"epochs": 2}})
    assert changed == {
        **{"name": "1e3", "sft": None, "evaluators": ["gold_reward"]},
        "training": {"epochs": 2, "learning_rate": 1e-05},
    }


def test_a_published_board_is_read() -> None:
    better = example("read_a_board").main(ROOT / "leaderboards" / "quickstart")
    board = harness.Board.read(ROOT / "leaderboards" / "quickstart")
    assert better
    assert all(board.row(method).scores[board.primary[0].key].delta.mean > 0 for method in better)  # type: ignore[union-attr]


def test_a_loss_is_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert example("check_a_loss").main("ipo")
    assert "loss of each pair: [[" in capsys.readouterr().out


def test_every_example_is_run_here() -> None:
    names = {path.stem for path in (ROOT / "examples").glob("*.py")}
    elsewhere = {"train_dpo", "llamafactory_dpo"}  # tests/plugins/ trains a row with the first and renders the other
    assert names == {"compare_in_a_script", "read_a_board", "check_a_loss", *elsewhere}


def test_importing_harness_is_quick_and_names_are_not_invented() -> None:
    code = "import harness, sys; print(sorted({'numpy', 'torch', 'pandas', 'jinja2'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    with pytest.raises(AttributeError, match="module 'harness' has no attribute 'comprae'"):
        _ = harness.comprae  # type: ignore[attr-defined]
    assert harness.compare.__module__ == "harness.library"
    importlib.import_module("harness.run.compare")
    assert callable(harness.compare)


def test_a_plot_is_shown_by_notebooks() -> None:
    plot = harness.Board.read(ROOT / "leaderboards" / "quickstart").plot()
    assert isinstance(plot, Plot)
    assert plot._repr_html_() == plot._repr_svg_() == plot.svg
