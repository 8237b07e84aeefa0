"""A mistake in a config is blamed on the option or on the line that it comes from."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.config.origins import Origins
from harness.errors import ConfigError, Problem

PARENT = """\
name: parent
training:
  learning_rate: 1
  epochs: 2
methods: [sft, dpo]
evaluators:
  - gold_reward
  - name: lm_eval
    limit: 3
"""
CHILD = """\
extends: parent.yaml
training:
  learning_rate: -1
methods:
  - sft
  - {method: dpo, objective.beta: [0.1, -2]}
  - nonsense
"""


@pytest.fixture
def child(tmp_path: Path) -> Path:
    (tmp_path / "parent.yaml").write_text(PARENT)
    (tmp_path / "child.yaml").write_text(CHILD)
    return tmp_path / "child.yaml"


@pytest.mark.parametrize(
    ("field", "origin"),
    [
        ("training.learning_rate", "line 3"),
        ("training.epochs", "{parent}, line 4"),
        ("methods.1.objective.beta", "line 6"),
        ("methods.2.method", "line 7"),  # a bare name has no field, and the parent's list does not count
        ("evaluators.1.limit", "{parent}, line 9"),
        ("source", ""),
    ],
)
def test_lines_of_fields(field: str, origin: str, child: Path) -> None:
    assert Origins(child).of(Problem(field, 0, "")) == origin.format(parent=child.parent / "parent.yaml")


@pytest.mark.parametrize(
    ("field", "origin"),
    [
        ("training.learning_rate", "--set training.learning_rate=0"),
        ("evaluators.1.limit", "--set evaluators.lm_eval.limit=-3"),
        ("budgt", "--set budgt.prompts=3"),
        ("seeds", "--seeds 0,0"),
        ("methods.0.label", "line 7"),  # rows are counted as chosen, lines as in the file
        ("methods.1.objective.beta", "--set methods.dpo.objective={}"),
        ("methods.2.method", "--methods nonsense,dpo,dop"),
        ("training.epochs", "{parent}, line 4"),
    ],
)
def test_options(field: str, origin: str, child: Path) -> None:
    sets = ["training.learning_rate=0", "evaluators.lm_eval.limit=-3", "budgt.prompts=3", "methods.dpo.objective={}"]
    origins = Origins(child, sets, "nonsense,dpo,dop", "0,0")
    assert origins.of(Problem(field, 0, "")) == origin.replace("{parent}", str(child.parent / "parent.yaml"))


@pytest.mark.parametrize(
    ("fields", "head"),
    [
        (["training.learning_rate"], "1 problem in {child}:\n  - line 3: training"),
        (["seeds"], "1 problem in the options:\n  - --seeds x: seeds"),
        (["seeds", "source"], "2 problems in {child} and the options:\n  - --seeds x: seeds = 0: fix\n  - source = 0: fix"),
    ],
)
def test_the_message(fields: list[str], head: str, child: Path) -> None:
    with pytest.raises(ConfigError) as caught, Origins(child, seeds="x").named():
        raise ConfigError([Problem(field, 0, "fix") for field in fields], "elsewhere")
    assert str(caught.value).startswith(head.format(child=child))


def test_a_file_that_is_gone_hides_no_problem(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="elsewhere"), Origins(tmp_path / "gone.yaml").named():
        raise ConfigError([Problem("seeds", 0, "fix")], "elsewhere")
