"""The `model` section while planning: each mistake is a problem of its own field, and nothing is loaded before it is found."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.api.registry import Registry
from harness.config import resolve
from harness.config.schema import validate
from harness.config.starting_model import starting_model
from harness.errors import ConfigError, Problem
from harness.models.checkpoint import checkpoint_hash

sys.path.insert(0, str(Path(__file__).parent / "models"))
from checkpoints import FORGETFUL, GEMMA, make_checkpoint


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_checkpoint(tmp_path_factory.mktemp("base"), "gpt_neox", template=None)


def problem(section: dict[str, Any]) -> Problem:
    problems: list[Problem] = []
    assert starting_model(problems, section) is None
    (found,) = problems
    return found


@pytest.mark.parametrize(
    ("changes", "field", "words"),
    [
        ({}, "model.chat_template", "the checkpoint has no chat template, and none is assumed"),
        ({"chat_template": "zephir"}, "model.chat_template", "FastChat has none; did you mean 'zephyr'"),
        ({"chat_template": "/no/such.jinja"}, "model.chat_template", "cannot be read"),
        ({"adapter": "/no/such"}, "model.adapter", "no adapter_config.json in it"),
        ({"quantization": "4bit"}, "model.quantization", ""),
        ({"revision": "main"}, "model.revision", "is a folder, and only hub models have revisions"),
    ],
)
def test_a_mistake_names_its_field_and_value(base: Path, changes: dict[str, Any], field: str, words: str) -> None:
    if "quantization" in changes:
        import torch

        if torch.cuda.is_available():
            pytest.skip("a CUDA device is here")
        words = "bitsandbytes is not installed" if not _has_bitsandbytes() else "need a CUDA device"
    found = problem({"path": str(base), **changes})
    assert found.field == field
    assert found.value == changes.get(field.removeprefix("model."))
    assert words in found.fix


def _has_bitsandbytes() -> bool:
    from importlib.util import find_spec

    return find_spec("bitsandbytes") is not None


def test_a_template_that_gives_wrong_prompts_is_found_while_planning(tmp_path: Path) -> None:
    make_checkpoint(tmp_path, "qwen2", template=FORGETFUL)
    assert "it ignores add_generation_prompt" in problem({"path": str(tmp_path)}).fix


def test_code_of_its_own_runs_only_if_the_config_says_so(tmp_path: Path) -> None:
    make_checkpoint(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for own, words in (
        ({"auto_map": {"AutoConfig": "own.Own"}}, "comes with code of its own"),
        ({}, "knows no model type 'own'"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**config, "model_type": "own", **own}))
        found = problem({"path": str(tmp_path)})
        assert words in found.fix
        assert found.field == ("model.trust_remote_code" if own else "model.path")


def test_the_named_template_and_the_merging_rule_are_in_the_key(base: Path, tmp_path: Path) -> None:
    make_checkpoint(tmp_path, "gemma3", template=GEMMA)
    sections = [
        {"path": str(base), "chat_template": "zephyr"},
        {"path": str(base), "chat_template": "TinyLlama"},
        {"path": str(base), "chat_template": "vicuna"},
        {"path": str(tmp_path)},
        {"path": str(tmp_path), "system_turns": "merge"},
    ]
    found = [starting_model([], section) for section in sections]
    checkpoints = [checkpoint for checkpoint in found if checkpoint is not None]
    assert len(checkpoints) == len(sections)
    assert checkpoints[0].template_hash == checkpoints[1].template_hash  # TinyLlama was trained with zephyr's
    assert len({checkpoint.digest for checkpoint in checkpoints}) == 4
    assert len({checkpoint.template_hash for checkpoint in checkpoints}) == 4
    assert checkpoints[3].digest == checkpoint_hash(tmp_path)


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"path": "sandbox", "scratch": {}}, "give exactly one of `path` and `scratch`"),
        ({"scratch": {}, "dtype": "bfloat16"}, "`dtype` is for a model by `path`"),
        ({"path": "sandbox", "quantization": "4bit", "adapter": "a"}, "an adapter cannot be merged into 4-bit weights"),
    ],
)
def test_sections_that_contradict_themselves(model: dict[str, Any], words: str) -> None:
    raw = {"name": "a", "source": "sandbox", "model": model, "methods": ["sft"], "evaluators": ["x"], "baseline": "sft"}
    assert words in " ".join(problem.fix for problem in validate(raw)[1])


def test_limits_need_a_models_tokens() -> None:
    raw = {
        "name": "a",
        "source": "sandbox",
        "model": {"scratch": {}},
        "methods": ["sft"],
        "evaluators": ["x"],
        "baseline": "sft",
    }
    assert any("`limits` count tokens" in problem.fix for problem in validate({**raw, "limits": {"max_tokens": 9}})[1])


@pytest.mark.parametrize(
    ("dtype", "sft", "training", "refused"),
    [
        ("bfloat16", {"lora": {}}, {}, True),
        ("bfloat16", {}, {"lora": {}}, True),
        ("float16", None, {}, True),
        ("bfloat16", {"lora": {}}, {"lora": {}}, False),
        ("bfloat16", None, {"lora": {}}, False),
        ("float32", {}, {}, False),
        ("auto", {}, {}, False),
    ],
)
def test_all_weights_are_not_trained_in_16_bits(dtype: str, sft: Any, training: dict[str, Any], refused: bool) -> None:
    """Steps of fine-tuning are smaller than what such weights can hold, and the training would silently do nothing."""
    raw = {"name": "a", "source": "sandbox", "model": {"path": "sandbox", "dtype": dtype}, "methods": ["sft", "dpo"]}
    raw |= {"evaluators": ["preference_accuracy"], "baseline": "sft", "sft": sft, "training": training}
    if not refused:
        assert resolve(raw, Registry.load()).config.model.dtype == dtype
        return
    with pytest.raises(ConfigError, match=r"model.dtype = 'b?float16': all weights are trained") as caught:
        resolve(raw, Registry.load())
    assert [found.field for found in caught.value.problems] == ["model.dtype"]


def test_a_bfloat16_weight_does_not_feel_a_small_step() -> None:
    """Why: 100 steps of AdamW at 5e-7 move 1 % of such weights, and all of those in float32."""
    moved = {}
    for dtype in (torch.float32, torch.bfloat16):
        first = (0.02 * torch.randn(10_000, generator=torch.Generator().manual_seed(0))).to(dtype)
        weight = torch.nn.Parameter(first.clone())
        optimizer = torch.optim.AdamW([weight], lr=5e-7, weight_decay=0.0)
        for _ in range(100):
            weight.grad = torch.ones_like(weight)
            optimizer.step()
        moved[dtype] = float((weight.detach() != first).float().mean())
    assert moved[torch.float32] == 1.0 and moved[torch.bfloat16] < 0.05


@pytest.mark.network
def test_a_real_hub_model_is_pinned_and_checked() -> None:
    checkpoint = starting_model([], {"path": "HuggingFaceTB/SmolLM2-135M-Instruct"})
    assert checkpoint is not None
    assert len(checkpoint.commit or "") == 40
    assert checkpoint.template_hash


def test_malformed_end_tokens_are_found_while_planning(tmp_path: Path) -> None:
    folder = make_checkpoint(tmp_path / "base", "qwen2")
    (folder / "generation_config.json").write_text('{"eos_token_id": "</s>"}')
    found = problem({"path": str(folder)})
    assert found.field == "model.path" and "generation_config.json: eos_token_id = '</s>' is neither" in found.fix
