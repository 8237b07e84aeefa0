"""`harness analyze`: every analysis on a tiny config, end to end; the list; mistakes."""

from __future__ import annotations

import csv
import io
import json
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml

from harness import Analysis, hookimpl
from harness.analysis.context import AnalysisContext, AnalysisOptions
from harness.analysis.report import ClaimVerdict
from harness.api.registry import Registry
from harness.cli import main
from harness.cli.analyze import find
from harness.errors import ConfigError, HarnessError, StageError
from harness.run.executors.events import Events, Outcome
from harness.run.graph import Graph
from harness.run.stages import run_stage
from harness.run.stages.context import Context
from harness.store import Store

NAMES = Registry.load().names("analysis")
FILES = {"README.md", "figure.svg", "result.json", "table.csv", "table.md"}


class Inline:
    """An executor that runs every stage in this process, one after the other: worker processes have tests of their own."""

    def __init__(self, workers: int, settings: Mapping[str, Any], logs: Path, *, gpus: Sequence[str]) -> None:
        self.settings = settings

    def run(self, graph: Graph, present: set[str], events: Events) -> Outcome:
        outcome = Outcome()
        context = Context(
            Store(Path(self.settings["store"])), Registry.load(), self.settings["checkpoints"], lambda *progress: None
        )
        for stage in graph:
            if stage.key not in present:
                events.started(stage)
                run_stage(stage, context)
                outcome.ran.add(stage.key)
                events.finished(stage, 0.0, None)
        return outcome


@dataclass(frozen=True)
class Bench:
    """A folder with a tiny config, in which commands run."""

    folder: Path
    printed: str = ""

    def run(self, *arguments: str) -> str:
        """What the command prints; it must succeed."""
        command = ["harness", "analyze", *arguments, "--workers", "1", "--store", "store"]
        out = io.StringIO()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), pytest.raises(SystemExit) as left:
            patch.chdir(self.folder)
            patch.setattr(sys, "argv", command)
            patch.setattr("signal.signal", lambda *_: None)
            patch.setattr("harness.analysis.context.LocalExecutor", Inline)
            main()
        assert not left.value.code
        return out.getvalue()

    def result(self, name: str) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads((self.folder / "out" / name / "result.json").read_text(encoding="utf-8"))
        return answer

    def rows(self, name: str) -> list[dict[str, str]]:
        with (self.folder / "out" / name / "table.csv").open(encoding="utf-8") as stream:
            return list(csv.DictReader(stream))


@pytest.fixture(scope="module")
def bench(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """Every analysis, run once by `all` on a model that has learnt nothing."""
    folder = tmp_path_factory.mktemp("bench")
    raw = {
        "name": "tiny",
        "source": {"name": "sandbox", "sft": 8, "train": 8, "tuning": 4, "heldout": 6},
        "model": {"path": str(tiny_checkpoint)},
        "sft": None,
        "training": {"prompts_per_batch": 8},
        "generation": {"max_tokens": 6},
        "budget": {"prompts": 8},
        "methods": [
            {"method": "dpo", "training": {"learning_rate": 3.0e-4}},
            {"method": "self_rewarding", "data": {"judge": {"kind": "likelihood"}}},  # its scores can always be read
        ],
        "evaluators": [{"name": "gold_reward", "n": 1, "max_tokens": 6}],
        "seeds": [0],
        "baseline": "dpo",
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(raw))
    return Bench(folder, Bench(folder).run("all", "--config", "tiny.yaml", "--out", "out"))


def test_all_runs_every_analysis_and_says_how_it_ended(bench: Bench) -> None:
    lines = [line for line in bench.printed.splitlines() if line.split(":")[0] in NAMES]  # trainers print too
    assert [line.split(":")[0] for line in lines] == NAMES
    assert all(line.endswith(f"out/{name}/README.md") for line, name in zip(lines, NAMES, strict=True))


@pytest.mark.parametrize("name", NAMES)
def test_an_analysis_leaves_a_page_a_table_and_a_figure(bench: Bench, name: str) -> None:
    folder = bench.folder / "out" / name
    assert {path.name for path in folder.iterdir()} - {"boards"} == FILES
    ET.parse(folder / "figure.svg")
    result = bench.result(name)
    assert result["findings"] and {finding["verdict"] for finding in result["findings"]} <= set(ClaimVerdict)
    assert all(len(row) == len(result["columns"]) for row in result["rows"])
    assert len(bench.rows(name)) == len(result["rows"])
    assert result["command"] == f"harness analyze {name} --config tiny.yaml --out out"
    page = (folder / "README.md").read_text(encoding="utf-8")
    for expected in (f"$ {result['command']}", "![", (folder / "table.md").read_text(encoding="utf-8")):
        assert expected in page
    for finding in result["findings"]:
        assert f"**{finding['verdict'].capitalize()}** ({finding['place']}). {finding['claim']}" in page
    assert str(bench.folder) not in page


def test_a_second_run_finds_everything_and_writes_the_same(bench: Bench) -> None:
    """One analysis of data, one that computes in the command's own process."""
    names = ["negative-rewards", "prompted-rewards"]
    before = {name: bench.result(name) for name in names}
    made = set((bench.folder / "store" / "artifacts").glob("*/*"))
    printed = bench.run(*names, "--config", "tiny.yaml", "--out", "out", "--json")
    assert json.loads(printed) == {"folder": "out", "analyses": before}
    assert set((bench.folder / "store" / "artifacts").glob("*/*")) == made


def test_reward_filtered_data_are_all_true(bench: Bench) -> None:
    (row,) = [row for row in bench.rows("data-accuracy") if row["data"] == "reward_filtered"]
    assert float(row["data accuracy"]) == 1
    (row,) = [row for row in bench.rows("negative-rewards") if row["data"] == "reward_filtered"]
    assert float(row["false negatives"]) == 0


def test_rows_have_the_negatives_and_the_learning_rate_that_they_say(bench: Bench) -> None:
    pairs = {row["row"]: int(row["pairs"]) for row in bench.rows("negatives-count") if row["pairs"]}
    assert pairs["unfiltered[negatives=16]"] == 16 * pairs["unfiltered[negatives=1]"]
    methods = bench.result("negatives-count")["configs"]["rows"]["methods"]
    assert {"method": "dpo", "label": "dpo", "training": {"learning_rate": 3.0e-4}} in methods


def test_one_choice_of_the_weight_is_marked_per_method(bench: Bench) -> None:
    rows = bench.rows("refinement-accuracy")
    assert [row["choice"] for row in rows].count("chosen") == 2  # one of Sr-DPO, one of Sr-IPO
    assert {row["tuples"] for row in rows} == {"2", "4", "8"}


def test_an_untrained_policy_has_uncorrelated_gradients_of_its_own_samples(bench: Bench) -> None:
    row = next(row for row in bench.rows("gradient-variance") if row["case"] == "real gradients, unfiltered")
    assert 0 < float(row["λ"]) < 1
    assert 0 < float(row["error at m = 16, measured"]) < 1


@pytest.mark.slow
def test_what_needs_no_gold_runs_without(bench: Bench, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """On a file of preference pairs: Theorem 1's gradients, and accuracies without rewards."""
    words = ("pear", "plum", "two", "three", "sure", "red", "big", "first")
    rows = [
        {
            side: f"\n\nHuman: name {first} {second}\n\nAssistant: {first} {answer}"
            for side, answer in (("chosen", second), ("rejected", first))
        }
        for first in words
        for second in words
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    raw = {
        "name": "pairs",
        "source": {"name": "hh_rlhf", "path": "pairs.jsonl", "heldout_share": 0.2, "tuning_share": 0.2},
        "model": {"path": str(tiny_checkpoint)},
        "sft": None,
        "generation": {"max_tokens": 6},
        "budget": {"prompts": 4},
        "evaluation": {"prompts": 4},
        "seeds": [0],
    }
    (tmp_path / "pairs.yaml").write_text(yaml.safe_dump(raw))
    pairs = Bench(tmp_path)
    pairs.run("gradient-variance", "refinement-accuracy", "--config", "pairs.yaml", "--out", "out")
    assert all(row["gold"] == "" and row["accuracy, original"] for row in pairs.rows("refinement-accuracy"))
    assert {finding["place"] for finding in pairs.result("refinement-accuracy")["findings"]} == {"Figure 1, Assumption 3.2"}
    assert len(pairs.rows("gradient-variance")) == len(bench.rows("gradient-variance"))


# The list and mistakes, in this process


@pytest.fixture
def analyze(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run `harness analyze` in an empty folder: (exit code, standard output, standard error)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr("signal.signal", lambda *_: None)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["harness", "analyze", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return int(left.value.code or 0), out, err

    return run


def test_the_list(analyze: Any) -> None:
    code, out, _ = analyze("list")
    assert code == 0
    for name in NAMES:
        assert name in out and Registry.load().get("analysis", name).component.paper.arxiv in out
    code, out, _ = analyze("list", "--json")
    assert [row["name"] for row in json.loads(out)] == NAMES
    assert all(row["minutes"] > 0 and row["places"] for row in json.loads(out))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("data-acuracy",), "no analysis is called 'data-acuracy': did you mean 'data-accuracy'?"),
        (("negatives-count", "--config", "none.yaml"), "no config at none.yaml"),
        (("negatives-count", "--set", "budget.prompts=0"), "budget.prompts = 0"),
        (("prompted-rewards", "--set", "budget.prompts=2"), "3 rounds need a prompt each"),
        (("refinement-accuracy", "--set", "budget.prompts=3"), "it should be 4 or more"),
    ],
)
def test_mistakes_are_named_and_leave_nothing(analyze: Any, tmp_path: Path, arguments: Sequence[str], said: str) -> None:
    code, out, err = analyze(*arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert not list(tmp_path.iterdir())


def test_a_source_without_gold_is_named(tmp_path: Path, tiny_checkpoint: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text(json.dumps({side: f"\n\nHuman: Tea?\n\nAssistant: {side}." for side in ("chosen", "rejected")}) + "\n")
    raw = {
        "source": {"name": "hh_rlhf", "path": str(file)},
        "model": {"path": str(tiny_checkpoint)},
        "budget": {"prompts": 1},
    }
    for analysis in find(["all"], Registry.load()):
        options = AnalysisOptions(tmp_path / "out", tmp_path / "store")
        context = AnalysisContext(analysis.name, raw, "tiny.yaml", options)
        assert not context.has_gold
        if "gold" not in analysis.needs:
            context.require(*analysis.needs)
            continue
        with pytest.raises(ConfigError, match=f"'{analysis.name}' needs gold, and this source provides ranked, target"):
            context.run(analysis)
    assert not (tmp_path / "store").exists()


def test_too_little_data_is_said_so(tmp_path: Path, tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(context: AnalysisContext) -> None:
        raise ValueError("the rows have no prompt in common")

    monkeypatch.setattr("harness_plugins.self_contrast.data_accuracy.run", run)
    raw = {"source": "sandbox", "model": {"path": str(tiny_checkpoint)}}
    (analysis,) = find(["data-accuracy"], Registry.load())
    context = AnalysisContext(analysis.name, raw, "tiny.yaml", AnalysisOptions(tmp_path / "out", tmp_path / "store"))
    with pytest.raises(StageError, match=r"data-accuracy has too little data .*: raise budget\.prompts"):
        context.run(analysis)


def test_names_are_taken_once_and_in_order() -> None:
    registry = Registry.load()
    assert [analysis.name for analysis in find(["negatives-count", "all"], registry)] == [
        "negatives-count",
        *[n for n in NAMES if n != "negatives-count"],
    ]
    with pytest.raises(HarnessError, match="known: "):
        find(["x"], registry)


def test_a_field_without_a_default_is_refused_before_any_compute() -> None:
    class Asking(Analysis):
        """An analysis with a field that nothing gives."""

        name: ClassVar[str] = "asking"
        question: ClassVar[str] = "Whether"
        minutes: ClassVar[float] = 1
        share: float

    class Plugin:
        @hookimpl
        def harness_analyses(self) -> list[type[Analysis]]:
            return [Asking]

    with pytest.raises(
        HarnessError, match=r"the analysis 'asking' of .* cannot be created \(share\): give each field a default"
    ):
        find(["asking"], Registry.load(extra=[Plugin()]))
