"""The documentation: generated parts are fresh, links lead somewhere, commands and configs are real, the example runs."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import random
import re
import shlex
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import yaml

from harness import GroupLogps, Logps
from harness.api import hookspecs
from harness.api.registry import Registry
from harness.config import resolve
from harness.run.plan import plan
from harness.sandbox import build_dataset

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "plugins").glob("*/README.md")])
EXAMPLE = ROOT / "docs" / "examples" / "swapped_targets.py"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """docs/generate.py, which is a script and no module of the package."""
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The example as an installed distribution: the module and its metadata in a folder of the path."""
    folder = tmp_path / "site"
    information = folder / "my_methods-0.1.dist-info"
    information.mkdir(parents=True)
    shutil.copy(EXAMPLE, folder)
    (information / "METADATA").write_text("Metadata-Version: 2.1\nName: my-methods\nVersion: 0.1\n")
    (information / "entry_points.txt").write_text("[harness]\nswapped = swapped_targets\n")
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    sys.modules.pop("swapped_targets", None)


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


# Generated parts


def test_generated_parts_are_fresh(generate: ModuleType) -> None:
    registry = Registry.load()
    stale = [named(page) for page in generate.pages() if generate.render(page, registry) != page.read_text(encoding="utf-8")]
    assert not stale, f"stale: {', '.join(stale)}; run `make docs`"


def test_a_stale_page_is_named_and_nothing_is_written(
    generate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "README.md"
    text = "<!-- generated: evaluators -->\nold\n<!-- end of generated -->\n"
    page.write_text(text)
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    assert generate.main(["--check"]) == 1
    assert capsys.readouterr().out == "stale: README.md\nrun `make docs`\n"
    assert page.read_text() == text
    assert generate.main([]) == 0
    assert "`gold_reward`" in page.read_text()
    assert generate.main(["--check"]) == 0


def test_every_generator_is_used_and_every_marker_known(generate: ModuleType) -> None:
    used = {match["name"] for page in PAGES for match in generate.MARKED.finditer(page.read_text(encoding="utf-8"))}
    assert used == set(generate.GENERATORS)


def test_every_marker_is_closed() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert text.count("<!-- generated: ") == text.count("<!-- end of generated -->"), named(page)


def test_every_hook_is_documented() -> None:
    text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    missing = [name for name in vars(hookspecs) if name.startswith("harness_") and f"`{name}`" not in text]
    assert not missing


def test_every_plugin_folder_has_a_page() -> None:
    folders = [path.parent for path in (ROOT / "plugins").glob("*/__init__.py")]
    assert folders
    assert not [folder.name for folder in folders if not (folder / "README.md").is_file()]


# The budget of words


def hand_written_words(text: str) -> int:
    """Return how many words (runs without white space) a page has outside its generated blocks."""
    return len(re.sub(r"<!-- generated: .*?<!-- end of generated -->", "", text, flags=re.DOTALL).split())


def test_generated_blocks_are_not_counted() -> None:
    block = "<!-- generated: evaluators -->\nmany words of a table\n<!-- end of generated -->"
    assert hand_written_words(f"two words\n{block}\nand `three more`\n{block}\n") == 5


def test_the_documentation_keeps_to_its_budget_of_words() -> None:
    # Registers of inputs and of mutants: they grow with the tests.
    pages = [page for page in (ROOT / "docs").rglob("*.md") if page.name not in ("inputs.md", "mutants.md")]
    words = {named(page): hand_written_words(page.read_text(encoding="utf-8")) for page in pages}
    longest = ", ".join(f"{name} {count}" for name, count in sorted(words.items(), key=lambda item: -item[1])[:5])
    assert 10_000 < sum(words.values()) <= 33_000, f"docs/ has {sum(words.values())} hand-written words; longest: {longest}"


def test_the_readme_keeps_to_its_budget_of_words() -> None:
    assert 300 < hand_written_words((ROOT / "README.md").read_text(encoding="utf-8")) <= 1_150


# What the pages say


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL))
    local = [target.partition("#")[0] for target in targets if not re.match(r"https?:|#", target)]
    assert not [target for target in local if not (page.parent / target).exists()]


def test_commands_and_options_exist() -> None:
    import typer

    from harness.cli import app

    root: Any = typer.main.get_command(app)
    lines = [
        line for page in PAGES for line in re.findall(r"^\$ harness (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert lines
    for line in lines:
        if "[OPTIONS]" in line:  # a usage line
            continue
        words = shlex.split(line)
        command = root
        while hasattr(command, "commands"):
            assert words and words[0] in command.commands, line
            command = command.commands[words.pop(0)]
        known = {option for parameter in command.params for option in parameter.opts}
        assert not [word for word in words if word.startswith("--") and word.partition("=")[0] not in known], line


def test_the_config_of_the_configuration_page_is_valid() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    raw = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)[0])
    comparison = resolve(raw, Registry.load())
    assert [variant.label for variant in comparison.rows] == [
        "sft",
        "null",
        "dpo",
        "dpo_strong",
        "contrast_simpo",
        "only_prompting",
    ]
    assert len(plan(comparison).rows) == 12


def test_the_sweep_of_the_configuration_page_is_one_row_per_combination() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    whole, sweep, *_ = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL))
    variants = resolve({**whole, **sweep}, Registry.load()).rows
    found = {
        (variant.rounds[0].training.learning_rate, variant.rounds[0].objective.model_dump()["beta"]) for variant in variants[1:]
    }
    assert found == {(1e-4, 0.1), (1e-4, 0.5), (2e-4, 0.1), (2e-4, 0.5)}


def test_the_rounds_of_the_configuration_page_begin_with_dpo() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    whole, _, rounds, *_ = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL))
    _, variant = resolve({**whole, **rounds}, Registry.load()).rows
    assert [(round_.builder.name, round_.objective.name) for round_ in variant.rounds] == [
        ("preference", "dpo"),
        ("only_prompting", "simpo"),
        ("only_prompting", "simpo"),
    ]


# The example plugin


def test_the_example_is_short() -> None:
    lines = [line for line in EXAMPLE.read_text(encoding="utf-8").splitlines() if line.strip()]
    assert len(lines) <= 40


def test_the_example_is_found_with_its_origin(installed: Path) -> None:
    registry = Registry.load()
    for kind, name in (("data", "swapped_targets"), ("objective", "example_hinge"), ("method", "swapped")):
        entry = registry.get(kind, name)  # type: ignore[arg-type]
        assert (entry.distribution, entry.distribution_version, entry.module) == ("my-methods", "0.1", "swapped_targets")


def test_the_rows_of_the_plugin_page_are_valid(installed: Path) -> None:
    text = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    rows = yaml.safe_load(re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)[0])["methods"]
    raw = {
        "name": "example",
        "source": "sandbox",
        "model": {"path": "sandbox"},
        "methods": ["sft", *rows],
        "evaluators": ["gold_reward"],
        "baseline": "sft",
    }
    labels = [variant.label for variant in resolve(raw, Registry.load()).rows]
    assert labels == ["sft", "swapped", "swapped_dpo"]


def test_the_example_builds_swapped_pairs(installed: Path) -> None:
    examples = build_dataset({"sft": 1, "train": 20, "tuning": 0, "heldout": 1}, 0.12, 0)["train"]
    dropped: Counter[str] = Counter()
    task = SimpleNamespace(examples=examples, round=0, rng=random.Random(0), count=lambda reason: dropped.update([reason]))
    builder = Registry.load().get("data", "swapped_targets").component()
    groups = list(builder.build(task))
    targets = {example.target for example in examples}
    assert len(groups) == 20 and not dropped
    for group, example in zip(groups, examples, strict=True):
        assert group.chosen.text == example.target
        assert group.rejected[0].text in targets - {example.target}


def test_the_example_counts_what_it_drops(installed: Path) -> None:
    examples = build_dataset({"sft": 1, "train": 1, "tuning": 0, "heldout": 1}, 0.12, 0)["train"]
    dropped: Counter[str] = Counter()
    task = SimpleNamespace(examples=examples, round=0, rng=random.Random(0), count=lambda reason: dropped.update([reason]))
    assert list(Registry.load().get("data", "swapped_targets").component().build(task)) == []
    assert dropped == {"no target, or no other one": 1}


def test_the_example_loss_on_numbers_by_hand(installed: Path) -> None:
    import torch

    def logps(chosen: list[float], rejected: list[float]) -> Logps:
        ones = torch.ones(2, dtype=torch.float64)
        return Logps(
            torch.tensor(chosen, dtype=torch.float64),
            torch.tensor(rejected, dtype=torch.float64)[:, None],
            ones,
            ones[:, None],
            ones[:, None] > 0,
        )

    objective = Registry.load().get("objective", "example_hinge").component(beta=0.1)
    batch = GroupLogps(policy=logps([-4.0, -1.0], [-10.0, -30.0]), reference=logps([-5.0, -2.0], [-8.0, -12.0]))
    # h⁺ − h⁻: 1 + 2 = 3 and 1 + 18 = 19; 1 − 0.1 · 3 = 0.7, and 1 − 1.9 < 0.
    assert objective.loss(batch).per_pair.squeeze(1).tolist() == pytest.approx([0.7, 0.0])


@pytest.mark.slow  # docs/first-method.md is followed to a board by a quicker test
def test_the_example_runs_to_a_board(installed: Path, tmp_path: Path) -> None:
    small = [
        "budget.prompts=16",
        "source.sft=32",
        "source.train=32",
        "source.heldout=8",
        "sft.epochs=1",
        "evaluators=[gold_reward]",
    ]
    command = [
        sys.executable,
        "-c",
        "from harness.cli import main; main()",
        "compare",
        "--methods",
        "sft,swapped",
        "--seeds",
        "0",
    ]
    command += [word for assignment in small for word in ("--set", assignment)]
    command += ["--workers", "1", "--out", str(tmp_path / "board"), "--store", str(tmp_path / "store"), "--json"]
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    run = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=300
    )
    assert run.returncode == 0, run.stderr
    rows = {row["method"]: row for row in json.loads(run.stdout)["board"]["rows"]}
    assert set(rows) == {"sft", "swapped"}
    assert (rows["swapped"]["data"], rows["swapped"]["objective"]) == ("swapped_targets", "example_hinge")
    assert math.isfinite(rows["swapped"]["scores"]["gold_reward/gold"]["delta"]["mean"])


@pytest.mark.slow  # it builds data, twice, in worker processes
def test_the_example_of_an_analysis_conforms() -> None:
    from harness.testing import check

    spec = importlib.util.spec_from_file_location("negative_lengths", ROOT / "docs" / "examples" / "negative_lengths.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (verdict,) = check("negative-lengths", registry=Registry.load(extra=[module]))
    assert {finding.status for finding in verdict.findings} <= {"passed", "advice"}, str(verdict)
