"""The sandbox's reward model: it agrees with gold on questions that it never saw, and its training knows pairs alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from harness import Prompt, Response, RewardModel
from harness.cli import app
from harness.models.reward import RewardScorer
from harness.sandbox import build_dataset
from harness.sandbox.reward_model import RewardRecipe, agreement

SHIPPED = RewardModel(model="sandbox")


def test_the_shipped_one_agrees_with_gold_on_held_out_pairs() -> None:
    """It says `sandbox` in configs; pairs without label noise, of a split that no training text holds."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    assert not SHIPPED.problems("reward")
    folder = SHIPPED.folder()
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    pairs = build_dataset({"heldout": 100}, 0.0, 0)["heldout"]
    assert agreement(model, AutoTokenizer.from_pretrained(folder), pairs) > 0.7  # chance is 0.5
    prompts = [example.prompt for example in pairs[:20]]
    values, cut = RewardScorer(SHIPPED).rewards(
        prompts, [[Response(text) for text in example.ranked] for example in pairs[:20]]
    )
    assert not cut and sum(better > worse for better, worse in values) > 12  # the service reads the same dialogues


def test_it_is_trained_again_by_a_command(tmp_path: Path, tiny_checkpoint: Path) -> None:
    arguments = ["sandbox", "train-reward", "--model", str(tiny_checkpoint), "--pairs", "32"]
    for name in ("first", "second"):
        done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / name)])
        assert done.exit_code == 0, done.output
    assert f"written to {tmp_path / 'second'}; use it as a reward: {{model: {tmp_path / 'second'}}}" in done.output.replace(
        "\n", ""
    )
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("first", "second")]
    assert weights[0] == weights[1]
    reward = RewardModel(model=str(tmp_path / "first"))
    assert not reward.problems("reward")
    ((value, other),), _ = RewardScorer(reward).rewards(
        [Prompt.of("0", "name two fruits .")], [[Response("pear"), Response("plum")]]
    )
    assert value != other  # it began at 0 for every answer


@pytest.mark.parametrize("field", ["pairs", "label_noise", "seed"])
def test_the_shipped_recipe_is_the_default(field: str) -> None:
    import json

    recipe = json.loads((SHIPPED.folder() / "recipe.json").read_text())
    assert recipe[field] == getattr(RewardRecipe(), field) and recipe["epochs"] == RewardRecipe().epochs
