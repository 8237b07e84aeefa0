"""Adapters and models that do not fit each other, and checkpoints that are no reward model, are refused while planning.

What does fit gives, once merged and saved, what the model gives with the adapter beside it, tied embeddings or not.
"""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedModel

from harness.api.registry import Registry
from harness.config import resolve
from harness.config.starting_model import starting_model
from harness.errors import ConfigError, DataError
from harness.models.fit import check_adapter
from harness.models.load import load_model, load_tokenizer, merged
from harness.models.options import LoadOptions
from harness.models.reward import RewardModel
from harness.training.adapters import add_adapters, save_adapters
from harness.training.settings import LoraSettings

sys.path.insert(0, str(Path(__file__).parent))
from checkpoints import make_checkpoint

IDS = torch.arange(5, 17)[None]
KINDS: dict[str, dict[str, Any]] = {
    "inner layers": {"target_modules": ["q_proj"]},
    "output": {"target_modules": ["lm_head"]},
    "input": {"target_modules": ["embed_tokens"]},
    "both ends": {"target_modules": ["lm_head", "embed_tokens", "q_proj"]},
    "output whole": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
    "input whole": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens"]},
    "both whole": {"target_modules": ["q_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    "tied by PEFT": {"target_modules": ["lm_head"], "ensure_weight_tying": True},
    "a few tokens": {"target_modules": ["q_proj"], "trainable_token_indices": [7, 8]},
}


def llama(folder: Path, tied: bool, vocabulary: int = 50) -> PreTrainedModel:
    """A tiny Llama, saved."""
    config = LlamaConfig(
        vocab_size=vocabulary, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        tie_word_embeddings=tied, initializer_range=0.3,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config).eval()
    model.save_pretrained(folder)
    return model


def adapter(model: PreTrainedModel, folder: Path, prompts: bool = False, **config: Any) -> PeftModel:
    """An adapter of the model that does something, saved; the model inside it."""
    own = PromptTuningConfig(num_virtual_tokens=2) if prompts else LoraConfig(r=4, **config)
    own.task_type = "CAUSAL_LM"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        wrapped = get_peft_model(model, own).eval()
        with torch.no_grad():
            for number, parameter in enumerate(wrapped.parameters()):
                if parameter.requires_grad:
                    parameter.normal_(std=0.2, generator=torch.Generator().manual_seed(number))
        wrapped.save_pretrained(folder)
    return wrapped


@torch.no_grad()
def logits(model: Any) -> torch.Tensor:
    return model(IDS).logits


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_adapter_gives_what_it_gave_beside_the_model(tmp_path: Path, kind: str, tied: bool) -> None:
    if kind == "tied by PEFT" and not tied:
        pytest.skip("there is nothing to tie")
    base, own, saved = (tmp_path / name for name in ("base", "adapter", "saved"))
    wanted = logits(adapter(llama(base, tied), own, **KINDS[kind]))
    assert (wanted - logits(llama(tmp_path / "again", tied))).abs().max() > 0.1  # the adapter matters
    apart = check_adapter(own, base)
    assert apart == (tied and kind in ("output", "input", "both ends", "tied by PEFT"))
    model = load_model(base, LoadOptions(adapter=str(own)), use="training")
    assert (logits(model) - wanted).abs().max() < 1e-4
    model.save_pretrained(saved)
    assert (logits(load_model(saved)) - wanted).abs().max() < 1e-4
    assert (logits(AutoModelForCausalLM.from_pretrained(saved)) - wanted).abs().max() < 1e-4  # as other tools load it


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
@pytest.mark.parametrize("targets", [("lm_head",), ("embed_tokens",), ("q_proj", "lm_head"), "all-linear"])
def test_trained_adapters_give_merged_what_they_gave_beside_the_model(tmp_path: Path, targets: Any, tied: bool) -> None:
    model = llama(tmp_path / "base", tied)
    policy = add_adapters(model, LoraSettings(rank=4, target_modules=targets), 0).eval()
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.2, generator=torch.Generator().manual_seed(len(name)))
    wanted = logits(policy)
    save_adapters(policy, tmp_path / "adapter", "start")
    assert all("lora_" in name for name in load_file(tmp_path / "adapter" / "adapter_model.safetensors"))
    whole = merged(policy)
    assert (logits(whole) - wanted).abs().max() < 1e-4
    whole.save_pretrained(tmp_path / "saved")
    assert (logits(load_model(tmp_path / "saved")) - wanted).abs().max() < 1e-4
    again = load_model(tmp_path / "base", LoadOptions(adapter=str(tmp_path / "adapter")))
    assert (logits(again) - wanted).abs().max() < 1e-4


def test_convolutions_that_are_linear_layers_are_measured_the_right_way_round(tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=40, n_embd=16, n_layer=1, n_head=2, bos_token_id=1, eos_token_id=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "base")
    adapter(GPT2LMHeadModel(config), tmp_path / "adapter", target_modules=["c_fc"])
    assert not check_adapter(tmp_path / "adapter", tmp_path / "base")


@pytest.mark.parametrize(
    ("kind", "layer"),
    [("output", "lm_head"), ("input", "embed_tokens"), ("output whole", "lm_head"), ("both whole", "embed_tokens")],
)
def test_a_resized_vocabulary_is_told_with_sizes_and_fix(tmp_path: Path, kind: str, layer: str) -> None:
    llama(tmp_path / "base", True)
    adapter(llama(tmp_path / "grown", True, 53), tmp_path / "adapter", **KINDS[kind])
    with pytest.raises(DataError) as caught:
        check_adapter(tmp_path / "adapter", tmp_path / "base")
    said = str(caught.value)
    assert said.startswith(f"model.adapter = {str(tmp_path / 'adapter')!r}: it was trained with a vocabulary of 53 tokens (")
    assert layer in said or "lm_head" in said
    assert "the model has one of 50" in said and "resize_token_embeddings(53)" in said and "as model.path" in said


def test_an_adapter_of_another_model_is_told_with_the_layer(tmp_path: Path) -> None:
    llama(tmp_path / "base", False)
    model = llama(tmp_path / "other", False)
    adapter(model, tmp_path / "adapter", target_modules=["q_proj"])
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    weights = load_file(file)
    name = next(name for name in weights if name.endswith("lora_A.weight"))
    save_file({**weights, name: torch.zeros(4, 24)}, file)
    with pytest.raises(DataError, match=r"its model\.layers\.0\.self_attn\.q_proj has 24 inputs, and the model's has 16"):
        check_adapter(tmp_path / "adapter", tmp_path / "base")
    save_file({name.replace("layers.0", "layers.7"): value for name, value in weights.items()}, file)
    with pytest.raises(DataError, match=r"it holds model\.layers\.7\.self_attn\.q_proj, and the model has no such layer"):
        check_adapter(tmp_path / "adapter", tmp_path / "base")
    file.write_bytes(file.read_bytes()[:40])
    with pytest.raises(DataError, match="cannot be read as safetensors"):
        check_adapter(tmp_path / "adapter", tmp_path / "base")


def test_adapters_that_cannot_be_merged_are_refused(tmp_path: Path) -> None:
    adapter(llama(tmp_path / "base", False), tmp_path / "adapter", prompts=True)
    with pytest.raises(DataError, match="adapters of type PROMPT_TUNING cannot be merged into weights"):
        check_adapter(tmp_path / "adapter", tmp_path / "base")
    described = tmp_path / "adapter" / "adapter_config.json"
    described.write_text(json.dumps({**json.loads(described.read_text()), "peft_type": "NEWEST"}))
    with pytest.raises(DataError, match="PEFT knows no adapters of type 'NEWEST'"):
        check_adapter(tmp_path / "adapter", tmp_path / "base")
    described.write_text("[]")
    with pytest.raises(DataError, match=r"adapter_config\.json cannot be read"):
        check_adapter(tmp_path / "adapter", tmp_path / "base")


def test_planning_finds_it_and_names_the_field(tmp_path: Path) -> None:
    base = make_checkpoint(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(base)
    tokens = model.config.vocab_size
    model.resize_token_embeddings(tokens + 3)
    adapter(model, tmp_path / "grown", target_modules=["q_proj"], modules_to_save=["lm_head"])
    problems: list[Any] = []
    assert starting_model(problems, {"path": str(base), "adapter": str(tmp_path / "grown")}) is None
    (problem,) = problems
    assert (problem.field, problem.value) == ("model.adapter", str(tmp_path / "grown"))
    assert f"a vocabulary of {tokens + 3:,} tokens" in problem.fix and f"resize_token_embeddings({tokens + 3})" in problem.fix


def test_how_an_adapter_is_merged_is_part_of_the_key(tmp_path: Path) -> None:
    """Where it was merged wrongly, or rounded twice, an older result must not be found; elsewhere it must."""
    digests = {}
    for tied in (True, False):
        base = make_checkpoint(tmp_path / f"base-{tied}")
        config = json.loads((base / "config.json").read_text()) | {"tie_word_embeddings": tied}
        (base / "config.json").write_text(json.dumps(config))
        adapter(AutoModelForCausalLM.from_pretrained(base), tmp_path / f"adapter-{tied}", target_modules=["lm_head"])
        for dtype in ("auto", "bfloat16"):
            checkpoint = starting_model([], {"path": str(base), "adapter": str(tmp_path / f"adapter-{tied}"), "dtype": dtype})
            assert checkpoint is not None
            digests[tied, dtype] = checkpoint.options.merging
    assert digests == {
        (True, "auto"): "untied", (True, "bfloat16"): "untied", (False, "auto"): None, (False, "bfloat16"): "rounded",
    }  # fmt: skip


def config(reward: dict[str, Any]) -> dict[str, Any]:
    raw: dict[str, Any] = {
        "name": "a",
        "source": "sandbox",
        "model": {"path": "sandbox"},
        "methods": ["sft"],
        "baseline": "sft",
    }
    return raw | {"evaluators": [{"name": "reward_model", "reward": reward}]}


def test_a_language_model_as_a_reward_model_is_refused_while_planning(tiny_checkpoint: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        resolve(config({"model": str(tiny_checkpoint)}), Registry.load())
    (problem,) = caught.value.problems
    assert problem.field == "evaluators.0.reward.model" and problem.value == str(tiny_checkpoint)
    assert "no classification head (its weights lack score.weight; config.json names LlamaForCausalLM)" in problem.fix


def test_a_classifier_is_taken_and_its_faults_are_told(tiny_classifier: Path, tmp_path: Path) -> None:
    assert not RewardModel(model=str(tiny_classifier)).problems("reward")
    for name in ("two", "mute", "none"):
        (tmp_path / name).mkdir()
        for file in tiny_classifier.iterdir():
            (tmp_path / name / file.name).write_bytes(file.read_bytes())
    own = json.loads((tmp_path / "two" / "config.json").read_text())
    (tmp_path / "two" / "config.json").write_text(json.dumps({**own, "id2label": {"0": "a", "1": "b"}}))
    tokenizer = load_tokenizer(tmp_path / "mute")
    tokenizer.chat_template = None
    (tmp_path / "mute" / "chat_template.jinja").unlink(missing_ok=True)
    tokenizer.save_pretrained(tmp_path / "mute")
    (tmp_path / "none" / "config.json").write_text("{")
    for name, words in (("two", "it has 2 labels"), ("mute", "no chat template"), ("none", "config.json cannot be read")):
        ((field, fix),) = RewardModel(model=str(tmp_path / name)).problems("reward")
        assert field == "reward.model" and words in fix
    ((field, fix),) = RewardModel(model=str(tiny_classifier), layout="starling").problems("reward")
    assert field == "reward.model" and "it has not Starling's layout: it lacks v_head.weight" in fix


@pytest.mark.parametrize(
    ("architectures", "index", "refused"),
    [
        (["LlamaForCausalLM"], None, True),
        (["LlamaForSequenceClassification"], None, False),
        (["LlamaForSequenceClassification"], ["model.norm.weight"], True),
        (["LlamaForCausalLM"], ["model.norm.weight", "score.weight"], False),
    ],
)
def test_a_hub_model_goes_by_its_index_or_its_configuration(
    tiny_classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, architectures: list[str], index: Any, refused: bool
) -> None:
    for file in tiny_classifier.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    own = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**own, "architectures": architectures}))
    if index:
        (tmp_path / "model.safetensors.index.json").write_text(
            json.dumps({"weight_map": dict.fromkeys(index, "model-1.safetensors")})
        )
    monkeypatch.setattr("harness.models.reward.hub_snapshot", lambda *_: tmp_path)
    problems = RewardModel(model="owner/name", revision="abc").problems("reward")
    assert bool(problems) == refused
    assert not refused or "no classification head" in problems[0][1]
