"""The papers' configs and those for GPUs: offline they fail for want of the network alone; with local stand-ins they plan."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from harness import ConfigError, HarnessError
from harness.api.registry import Registry
from harness.config import resolve
from harness.config.file import load_raw
from harness.run.estimates.gpu import gpu_of, gpu_report
from harness.run.estimates.makespan import makespan, weighted
from harness.run.plan import plan
from harness.run.shards import with_shards

CONFIGS = Path(__file__).parent.parent / "configs"
FILES = sorted([*(CONFIGS / "papers").glob("*.yaml"), *(CONFIGS / "gpu").glob("*.yaml")])


@pytest.fixture(scope="module")
def registry() -> Registry:
    return Registry.load()


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def stand_in(raw: dict[str, Any], checkpoint: Path, folder: Path) -> dict[str, Any]:
    """The config with a local model and data set in place of the hub's, and an evaluator that reads no files."""
    folder.mkdir()
    row = {"chosen": "\n\nHuman: hi\n\nAssistant: good day", "rejected": "\n\nHuman: hi\n\nAssistant: no"}
    (folder / "train.jsonl").write_text(json.dumps(row) + "\n")
    source = {**raw["source"], "dataset": str(folder)}
    model = {
        name: value
        for name, value in raw["model"].items()
        if name not in ("revision", "chat_template", "chat_template_kwargs", "add_tokens")
    }
    pairs = {"name": "hub", "dataset": str(folder), "format": "hh_rlhf"}
    methods = [row if isinstance(row, str) or "source" not in row else {**row, "source": pairs} for row in raw["methods"]]
    methods = [row for row in methods if isinstance(row, str) or "checkpoint" not in row]  # released ones are the hub's
    methods = [row if isinstance(row, str) else {name: row[name] for name in row if name != "tuning"} for row in methods]
    rest = {
        "methods": methods,
        "evaluators": ["response_stats"],
        "statistics": None,
        "judge": None,
        "reward": None,
        "tuning": None,
    }
    return {**raw, "source": source, "model": {**model, "path": str(checkpoint)}, **rest}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_offline_the_only_problem_is_the_network(path: Path, registry: Registry, offline: None) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(load_raw(path), registry)
    problems = {problem.field: problem.fix for problem in caught.value.problems}
    network = {field for field, fix in problems.items() if "needs network: the hub cannot be reached" in fix}
    assert {"model.path", "source"} <= network
    # A paper's own evaluators read files that are not the project's to ship.
    assert all(
        field.startswith(("evaluators.", "reward.")) and "no such f" in problems[field] for field in problems.keys() - network
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_plan_needs_no_network(path: Path, registry: Registry, offline: None) -> None:
    """Stages, tokens, memory and GPU-hours; what could not be looked up is named, and no key is one of a run's."""
    comparison = resolve(load_raw(path), registry, offline=True)
    assert {"model", "source"} <= set(comparison.unreachable)
    graph = plan(comparison)
    report = gpu_report(comparison, graph, set(), gpu_of("a100-80gb"), None, None)
    kinds = {work.kind: work for work in report.works}
    assert sum(work.stages for work in report.works) == len(graph) and report.hours == report.hours_left > 0.5
    assert kinds["train"].trained > 1e7 and kinds["answers"].generated > 1e5 and kinds["reference"].scored > 1e7
    assumed = (
        "what lm_eval computes is not counted",
        "the first process of a sharded training gathers",
        "the size of the embedder",
    )
    assert report.too_large == [] and [note for note in report.notes if not note.startswith(assumed)] == []
    assert 0.5e9 < report.size.parameters < 8e9 and "assumed" in report.lengths.origin


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.name == "papers"], ids=lambda path: path.stem)
def test_eight_gpus_are_in_use_for_nine_tenths_of_a_papers_config(path: Path, registry: Registry, offline: None) -> None:
    """Simulated: trainings on all of eight made-up GPUs, everything else in shards on one each."""
    comparison = resolve(load_raw(path), registry, offline=True)
    graph = plan(comparison)
    report = gpu_report(comparison, graph, set(), gpu_of("a100-80gb"), None, None)
    graph = weighted(graph, report.by_stage)
    spread = makespan(with_shards(graph, set(), comparison.config.run.shards, 8), set(), 8)
    assert spread.busy == pytest.approx(report.hours)  # shards lose no work, and do none twice
    assert 0.9 * spread.length <= spread.busy / 8 <= spread.bound <= spread.length < makespan(graph, set(), 8).length


def test_the_command_says_what_it_could_not_look_up(
    offline: None, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    from harness.cli import main

    monkeypatch.setattr("signal.signal", lambda *_: None)
    for flags in ((), ("--json",)):
        monkeypatch.setattr("sys.argv", ["harness", "plan", str(FILES[0]), "--gpu", "rtx4090-24gb", *flags])
        with pytest.raises(SystemExit) as left:
            main()
        out = capsys.readouterr().out
        assert not left.value.code and "needs network: the hub cannot be reached" in " ".join(out.split())
    found = json.loads(out)
    assert set(found["unreachable"]) == {"model", "source"} and found["data"] is None and found["gpu"]["fits"] is True


def test_a_plan_prices_a_papers_table_and_lists_at_once_what_this_machine_lacks(
    offline: None, capsys: pytest.CaptureFixture[str], monkeypatch: Any, tmp_path: Path
) -> None:
    """The hub's model and data sets, the benchmarks' files and the judge's key; `harness compare` refuses with the same."""
    from harness.cli import main

    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.chdir(tmp_path)
    config = str(CONFIGS / "papers" / "self_contrast.yaml")
    monkeypatch.setattr("sys.argv", ["harness", "plan", config, "--gpu", "a100-80gb", "--json"])
    with pytest.raises(SystemExit) as left:
        main()
    found = json.loads(capsys.readouterr().out)
    assert not left.value.code and found["gpu"]["hours"] > 10
    lacking = ("zephyr-7b-sft-full", "ultrachat_200k", "ultrafeedback", "alpaca_eval.json", "data/hub", "OPENAI_API_KEY")
    assert [next((name for name in lacking if name in line), None) for line in found["lacking"]] == list(lacking)
    monkeypatch.setattr("sys.argv", ["harness", "plan", config])
    with pytest.raises(SystemExit):
        main()
    out = " ".join(capsys.readouterr().out.split())
    assert "This machine lacks 6 things, without which `harness compare` refuses to start" in out
    monkeypatch.setattr("sys.argv", ["harness", "compare", config, "--out", str(tmp_path / "run")])
    with pytest.raises(SystemExit) as left:
        main()
    assert left.value.code == 2 and not (tmp_path / "run").exists()
    error = " ".join(capsys.readouterr().err.split())
    assert all(name in error for name in lacking[:-1])  # the key is asked for once there is something to ask about


def test_a_model_that_no_table_names_has_no_estimate(registry: Registry, offline: None) -> None:
    raw = load_raw(FILES[0])
    comparison = resolve({**raw, "model": {"path": "someone/unknown"}}, registry, offline=True)
    with pytest.raises(HarnessError, match=r"--gpu: the size of someone/unknown is not known, because the hub"):
        gpu_report(comparison, plan(comparison), set(), gpu_of("l4-24gb"), None, (10, 10))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_figure_has_its_source(path: Path) -> None:
    """Of a paper's config, each line with a hyper-parameter says where it is from, or that nobody does."""
    if path.parent.name != "papers":
        pytest.skip("no paper's")
    text = path.read_text()
    named = ("scripts", "section", "appendix", "Table", "Eq.", "Details", "SimPO's", "not said", "ours", "Setup", "Figure")
    for field in ("learning_rate", "prompts_per_batch", "budget", "seeds", "generation", "beta", "samples", "most"):
        for number, line in enumerate(text.splitlines()):
            if f"{field}:" in line.partition("#")[0]:
                near = "\n".join(text.splitlines()[max(0, number - 8) : number + 2])
                assert any(word in near for word in named), f"{path.name}: {line.strip()}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_with_local_stand_ins_it_plans(path: Path, registry: Registry, tiny_checkpoint: Path, tmp_path: Path) -> None:
    raw = stand_in(load_raw(path), tiny_checkpoint, tmp_path / "data")
    comparison = resolve(raw, registry)
    graph = plan(comparison)
    assert len(graph.rows) == len(comparison.rows) * len(comparison.config.seeds)
    assert all("NOT RUN by this project" in line for line in [path.read_text()])


@pytest.mark.network
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_online_every_revision_is_pinned(path: Path, registry: Registry) -> None:
    comparison = resolve(load_raw(path), registry)
    assert comparison.checkpoint is not None and len(comparison.checkpoint.commit or "") == 40
    assert len(comparison.source.revision) == 40  # type: ignore[attr-defined]
