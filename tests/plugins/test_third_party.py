"""`tests/third_party`, a distribution of its own with one component of each kind, installed by pip and used."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.api.registry import KINDS, Kind, Registry
from harness.testing.conformance import check_registered

THIRD_PARTY = Path(__file__).resolve().parents[1] / "third_party"
COMPONENTS: list[tuple[Kind, str]] = [
    ("data", "tp_truncated"),
    ("objective", "tp_squared"),
    ("evaluator", "tp_first_word"),
    ("backend", "tp_parrot"),
    ("source", "tp_sums"),
    ("importer", "tp_first_words"),
    ("method", "tp_method"),
    ("analysis", "tp-half-targets"),
    ("trainer", "tp_shrunk"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The distribution, built from a copy and installed into a folder."""
    folder = tmp_path_factory.mktemp("third_party")
    source = shutil.copytree(THIRD_PARTY, folder / "source")
    options = ["--no-deps", "--no-build-isolation", "--quiet", "--no-input", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder / "site"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "site"


@pytest.fixture
def registry(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", str(site))  # for worker processes
    yield Registry.load()
    for name in [name for name in sys.modules if name.partition(".")[0] == "third_party_methods"]:
        del sys.modules[name]


def test_every_kind_has_one() -> None:
    assert [kind for kind, _ in COMPONENTS] == list(KINDS)


def test_one_of_each_kind_is_found_with_its_origin(registry: Registry) -> None:
    found = [
        (kind, entry.name)
        for kind, entries in registry.entries.items()
        for entry in entries.values()
        if entry.distribution == "third-party-methods"
    ]
    assert sorted(found) == sorted(COMPONENTS)
    assert registry.get("objective", "tp_squared").distribution_version == "2.3"
    assert "StageLog" in {type(plugin).__name__ for plugin in registry.manager.get_plugins()}


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_each_conforms(kind: Kind, name: str, registry: Registry) -> None:
    verdict = check_registered(registry.get(kind, name), registry, {})
    assert verdict.ok, str(verdict)
    assert not [finding for finding in verdict.findings if finding.status == "not run"]


def test_a_comparison_of_their_parts_and_ours(site: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    config = {
        "name": "third",
        "source": {"name": "tp_sums", "each": 8},
        "model": {"path": str(tiny_checkpoint)},
        "sft": None,
        "budget": {"prompts": 8},
        "generation": {"backend": "tp_parrot"},
        "methods": [
            "sft",
            "tp_method",
            {"label": "ours_on_theirs", "data": "tp_truncated", "objective": "dpo"},
            {"label": "theirs_on_ours", "data": "preference", "objective": "tp_squared"},
            {"label": "their_trainer", "data": "tp_truncated", "trainer": {"name": "tp_shrunk", "factor": 0.5}},
            {"label": "on_prompts", "trainer": "tp_shrunk"},
        ],
        "evaluators": ["tp_first_word"],
        "seeds": [0],
        "baseline": "sft",
    }
    (tmp_path / "third.yaml").write_text(json.dumps(config))  # JSON is YAML
    command = [sys.executable, "-c", "from harness.cli import main; main()", "compare", "third.yaml", "--json"]
    environment = {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1", "HOME": str(tmp_path), "PATH": ""}
    command += ["--out", "board", "--store", "store", "--workers", "1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    rows = {row["method"]: row for row in answer["board"]["rows"]}
    assert (
        set(rows) == {"sft", "tp_method", "ours_on_theirs", "theirs_on_ours", "their_trainer", "on_prompts"}
        and not answer["failed"]
    )
    assert all("tp_first_word/first_word" in row["scores"] for row in rows.values())
    fits = {metric["key"]: metric.get("fit") for metric in answer["board"]["metrics"]}
    assert fits == {"tp_first_word/first_word": None, "tp_first_word/characters_per_word": "run"}
    lines = (tmp_path / "board" / "examples.jsonl").read_text().splitlines()
    examples = [json.loads(line)["answers"]["tp_method"] for line in lines]
    ratio = rows["tp_method"]["scores"]["tp_first_word/characters_per_word"]
    assert ratio["n"] == len(examples)  # so that the examples are all of the answers
    expected = sum(map(len, examples)) / sum(len(text.split()) + 1 for text in examples)
    assert ratio["mean"] == pytest.approx(expected, abs=1e-9)
    assert "wins" not in ratio["delta"] and "wins" in rows["tp_method"]["scores"]["tp_first_word/first_word"]["delta"]
    assert rows["their_trainer"]["budget"] == {"prompts": 8, "pairs": 0, "updates": 1, "tokens": 0}
    assert (rows["on_prompts"]["data"], rows["on_prompts"]["objective"]) == (None, "tp_shrunk")
    assert "done train tp_method · seed 0" in (tmp_path / "board" / "stages.txt").read_text().splitlines()


def test_results_that_their_importer_reads_stand_on_a_board(site: Path, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps({"one": {"a": 1, "b": 0}, "other": {"a": 1, "b": 1}}))
    command = [sys.executable, "-c", "from harness.cli import main; main()", "import", "tp_first_words", "results.json"]
    environment = {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1", "HOME": str(tmp_path), "PATH": ""}
    done = subprocess.run([*command, "--out", "board"], capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "board" / "board.json").read_text())["rows"]
    assert {row["method"]: row["scores"]["tp_first_word/first_word"]["mean"] for row in rows} == {"one": 0.5, "other": 1.0}


@pytest.mark.slow
def test_their_analysis_runs_and_is_repeated_from_the_store(site: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    config = {
        "name": "third",
        "source": {"name": "tp_sums", "each": 6},
        "model": {"path": str(tiny_checkpoint)},
        "sft": None,
        "budget": {"prompts": 6},
        "generation": {"backend": "tp_parrot"},
        "seeds": [0],
    }
    (tmp_path / "third.yaml").write_text(json.dumps(config))
    command = [sys.executable, "-c", "from harness.cli import main; main()", "analyze"]
    environment = {"PYTHONPATH": str(site), "OMP_NUM_THREADS": "1", "HOME": str(tmp_path), "PATH": "", "COLUMNS": "200"}

    def harness(*arguments: str) -> str:
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, cwd=tmp_path, env=environment)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "arXiv 2401.00001, Table 1 · needs target, gold" in harness("list")
    arguments = ("tp-half-targets", "--config", "third.yaml", "--store", "store", "--workers", "1", "--json")
    result = json.loads(harness(*arguments))["analyses"]["tp-half-targets"]
    assert [row[0] for row in result["rows"]] == ["sft", "squared", "dpo"]
    assert result["n"] == {"evaluated prompts": 6, "seeds": 1}
    assert result["findings"][0]["verdict"] in ("agrees", "disagrees", "undecided")
    folder = tmp_path / "runs" / "analyses" / "tp-half-targets"
    assert "[Half a Sum](https://arxiv.org/abs/2401.00001), Table 1" in (folder / "README.md").read_text()
    artifacts = set((tmp_path / "store" / "artifacts").glob("*/*"))
    assert artifacts
    assert json.loads(harness(*arguments))["analyses"]["tp-half-targets"] == result
    assert set((tmp_path / "store" / "artifacts").glob("*/*")) == artifacts
