"""`harness plan --gpu`: formulas on numbers worked out by hand, what a plan counts, what it says where it cannot know."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from harness.cli import main
from harness.errors import HarnessError
from harness.models.size import ModelSize, model_size
from harness.run.estimates import gpu as formula
from harness.run.estimates.gpu import GPUS, Gpu, gpu_of, probe
from harness.training.settings import LoraSettings, TrainingSettings

sys.path.insert(0, str(Path(__file__).parents[1] / "models"))
SIZE = ModelSize(1_100, 1_000, layers=2, hidden=10, intermediate=30, attention=10, keys=5, vocabulary=20, linear=160)
GPU = Gpu("round", 80, 1e12, 1e9, 1e11)
CONFIG = """
name: tiny
source: {name: sandbox, sft: 100, train: 50, tuning: 10, heldout: 20}
model: {path: sandbox}
sft: {epochs: 2, batch_size: 10}
budget: {prompts: 40}
generation: {max_tokens: 16}
methods:
  - sft
  - dpo
  - {method: self_contrast, label: one, data: {samples: 8, keep: 0.5}}
  - {method: self_contrast, label: four, data: {samples: 16, keep: 0.5, negatives: 4}}
evaluators: [preference_accuracy, {name: response_stats, max_tokens: 16}]
seeds: [0]
baseline: sft
"""


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a command in this process: (exit code, standard output, standard error)."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setattr("signal.signal", lambda *_: None)  # the test's own handlers stay

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["harness", *arguments])
        with pytest.raises(SystemExit) as left:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return int(left.value.code or 0), out, err

    return run


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "tiny.yaml").write_text(CONFIG)
    return tmp_path / "tiny.yaml"


def estimate(harness: Any, config: Path, *more: str) -> dict[str, Any]:
    arguments = ("--gpu", "a100-80gb", "--lengths", "10/6", "--json", "--store", str(config.parent / "store"), *more)
    code, out, err = harness("plan", str(config), *arguments)
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)["gpu"]
    return found | {"kinds": {row["kind"]: row for row in found["kinds"]}}


def test_operations_by_hand() -> None:
    forward = 2 * 1_000 * 100 + 2 * 2 * 10 * 50 * 100
    assert formula.forward_flops(SIZE, tokens=100, length=50) == forward
    assert formula.training_flops(SIZE, 100, 50, TrainingSettings()) == 3 * forward
    assert formula.training_flops(SIZE, 100, 50, TrainingSettings(gradient_checkpointing=True)) == 4 * forward
    assert formula.training_flops(SIZE, 100, 50, TrainingSettings(lora=LoraSettings())) == 2 * forward
    assert formula.compute_seconds(4e11, GPU) == 1.0  # 40 % of 1e12
    assert formula.compute_seconds(4e11, GPU, single=True) == 10.0  # 40 % of 1e11: scores are float32


def test_decoding_reads_the_weights_once_a_token_for_all_rows() -> None:
    """512 samples of 7 tokens in two batches: 14 steps; prompts of 3 tokens are read once."""
    step = (2 * 1_100 + 256 * (3 + 3.5) * SIZE.cache_bytes) / 6e8
    reading = formula.compute_seconds(formula.forward_flops(SIZE, 4 * 3, 3), GPU)
    assert formula.generation_seconds(SIZE, GPU, 4, 512, (3, 7)) == pytest.approx(14 * step + reading)


def test_fewer_rows_are_decoded_where_memory_is_short() -> None:
    large = ModelSize(10**9, 10**9, 10, 100, 300, attention=1000, keys=1000, vocabulary=100, linear=0)
    small = Gpu("small", 4, 1e12, 1e9, 1e11)
    left = 4 * 2**30 * 0.9 - 1.5 * 2**30 - 2e9
    assert formula.decoding_rows(large, small, 100) == int(left // (100 * 40_000))
    assert formula.decoding_rows(SIZE, GPU, 100) == 256


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (TrainingSettings(), 16 * 1_100),
        (TrainingSettings(devices=4), 16 * 1_100),
        (TrainingSettings(devices={"count": 4, "strategy": "fsdp"}), 4 * 1_100 + 4 * 1_100),
        (TrainingSettings(devices={"count": 4, "strategy": "fsdp_offload"}), 4 * 1_100),
        (TrainingSettings(lora=LoraSettings(rank=2)), 4 * 1_100 + 16 * 2 * 160),
    ],
)
def test_state_on_each_gpu(settings: TrainingSettings, expected: float) -> None:
    assert formula.state_bytes(SIZE, settings, 4) == expected


def test_seven_billion_parameters_train_on_eight_cards_of_24_gb_where_they_are_sharded() -> None:
    numbers = {"hidden_size": 4096, "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8}
    size = model_size({"model_type": "mistral", "num_hidden_layers": 32, "vocab_size": 32000, **numbers})
    needs = {}
    for strategy in ("fsdp", "replicated"):
        settings = TrainingSettings(
            devices={"count": 8, "strategy": strategy}, gradient_checkpointing=True, tokens_per_micro_batch=2048
        )
        needs[strategy] = formula.training_bytes(size, settings, 2048, 4, whole=False) / 2**30
    assert 7.2e9 < size.parameters < 7.3e9 and needs["fsdp"] < 0.9 * 24 < 100 < needs["replicated"]


def _saved_bytes(model_type: str, layers: int, tokens: int, **numbers: int) -> int:
    """What backward keeps of a pass in bfloat16, weights not counted."""
    from transformers import AutoConfig, AutoModel

    model = AutoModel.from_config(AutoConfig.for_model(model_type, num_hidden_layers=layers, vocab_size=64, **numbers))
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", dtype=torch.bfloat16):
        model.train()(input_ids=torch.zeros((1, tokens), dtype=torch.long), use_cache=False)
    return sum(kept.values())


@pytest.mark.parametrize(
    ("model_type", "least", "most"), [("llama", 0.9, 1.1), ("mistral", 0.9, 1.1), ("qwen3", 0.6, 1.1), ("gpt_neox", 0.9, 2.0)]
)
def test_activations_are_near_what_is_kept(model_type: str, least: float, most: float) -> None:
    """A layer's, from the difference of three layers and one, and of 192 tokens and 64, which leaves out what does not grow."""
    numbers = {"hidden_size": 64, "intermediate_size": 192, "num_attention_heads": 4}
    if model_type != "gpt_neox":
        numbers |= {"num_key_value_heads": 2, "head_dim": 16}
    saved = [[_saved_bytes(model_type, layers, tokens, **numbers) for tokens in (64, 192)] for layers in (1, 3)]
    measured = (saved[1][1] - saved[1][0] - saved[0][1] + saved[0][0]) / 2 / 128
    size = model_size({"model_type": model_type, "num_hidden_layers": 1, "vocab_size": 64, **numbers})
    assert least < formula.activation_bytes(size, 1, recomputed=False) / measured < most


def test_a_plan_counts_tokens_and_shares_samples(config: Path, harness: Any) -> None:
    """40 prompts; both Self-Contrast rows share 16 samples each; the prefix layout has each prompt once."""
    found = estimate(harness, config)
    kinds = found["kinds"]
    assert kinds["sft"]["trained"] == 2 * 100 * 16
    assert kinds["groups"]["generated"] == 40 * 16 * 6
    assert kinds["train"]["trained"] == 40 * ((10 + 2 * 6) + (10 + 2 * 6) + (10 + 5 * 6))
    assert kinds["reference"]["scored"] == 40 * 16 * (2 + 2 + 5)
    assert kinds["answers"]["generated"] >= 4 * 20 * 6
    assert kinds["evaluate"]["scored"] == 8 * 4 * 20 * 16
    assert found["hours"] == pytest.approx(sum(row["hours"] for row in kinds.values())) and found["hours"] > 0
    assert found["hours_left"] == found["hours"] and found["fits"] and found["lengths"] == "given by --lengths"


def test_rows_at_hand_are_measured(config: Path, harness: Any) -> None:
    code, out, _ = harness("plan", str(config), "--gpu", "L4-24GB", "--json", "--store", str(config.parent / "store"))
    found = json.loads(out)["gpu"]
    assert code == 0 and found["lengths"] == "measured on 50 training rows" and 5 < found["prompt_tokens"] < 60


@pytest.mark.parametrize(("limit", "prompts"), [("updates: 5", 5 * 16), ("pairs: 20", 20), ("tokens: 640", 640 / (2 * 16))])
def test_a_budget_with_a_limit(config: Path, harness: Any, limit: str, prompts: float) -> None:
    found = estimate(harness, config, "--set", f"budget={{prompts: 40, {limit}}}", "--methods", "dpo")
    assert found["kinds"]["train"]["trained"] == prompts * (10 + 2 * 6)


def test_what_does_not_fit_says_what_to_do(config: Path, harness: Any) -> None:
    many = "training.tokens_per_micro_batch=100000000"
    code, out, _ = harness("plan", str(config), "--gpu", "l4-24gb", "--set", many, "--store", str(config.parent / "store"))
    said = " ".join(out.split())
    assert code == 0 and "GiB on each GPU, and l4-24gb has 24: lower training.tokens_per_micro_batch" in said
    assert "tokens in millions" in said and "0.00" in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--gpu", "a100-80"), "--gpu 'a100-80': did you mean 'a100-80gb'"),
        (("--gpu", "toaster"), "known: a100-40gb"),
        (("--gpu", "l4-24gb", "--lengths", "12"), "--lengths '12': write tokens of a prompt and of a response"),
        (("--gpu", "l4-24gb", "--set", "model={scratch: {}}"), "there is nothing to estimate"),
    ],
)
def test_a_mistake_is_one_sentence(config: Path, harness: Any, arguments: tuple[str, ...], words: str) -> None:
    code, _, err = harness("plan", str(config), *arguments)
    assert code == 2 and words in " ".join(err.split())


def test_a_template_that_refuses_system_turns_is_named_by_the_plan(tmp_path: Path, harness: Any) -> None:
    from checkpoints import GEMMA, make_checkpoint

    make_checkpoint(tmp_path / "gemma", "gemma3", template=GEMMA)
    asked = [{"role": "system", "content": "be kind ."}, {"role": "user", "content": "hot ?"}]
    rows = [
        {"prompt": [*asked[:1], {**asked[1], "content": f"{n} hot ?"}], "chosen": "yes", "rejected": "no"} for n in range(30)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "a.yaml").write_text(
        f"name: a\nsource: {{name: jsonl, path: {tmp_path}/rows.jsonl}}\nmodel: {{path: {tmp_path}/gemma}}\n"
        "budget: {prompts: 8}\n"
        "methods: [sft, dpo]\nevaluators: [preference_accuracy]\nbaseline: sft\n"
    )
    code, _, err = harness("plan", str(tmp_path / "a.yaml"))
    assert code == 2 and "set model.system_turns to merge" in err
    assert harness("plan", str(tmp_path / "a.yaml"), "--set", "model.system_turns=merge")[0] == 0


def test_names_of_gpus_are_their_own() -> None:
    assert gpu_of("H100-80GB").memory == 80 and all(name.endswith(f"{gpu.memory:g}gb") for name, gpu in GPUS.items())
    with pytest.raises(HarnessError, match="--gpu 'none'"):
        gpu_of("none")


def test_every_builder_that_ships_can_be_probed() -> None:
    from harness.api.registry import Registry

    registry = Registry.load()
    for name in registry.names("data"):
        builder = registry.get("data", name).component()
        assert probe(builder).known, name
    contrast = registry.get("data", "self_contrast").component(samples=64, negatives=16)
    demand = probe(contrast)
    assert (list(demand.samples.values()), demand.negatives) == ([64], 16)
    prompted = probe(registry.get("data", "only_prompting").component())
    assert (list(prompted.samples.values()), prompted.negatives) == ([1, 1], 1)


def test_sft_in_micro_batches_needs_less(config: Path, harness: Any) -> None:
    whole, cut = (estimate(harness, config, "--set", f"sft.micro_batch_size={size}")["kinds"]["sft"] for size in ("null", "1"))
    assert cut["memory_gib"] < whole["memory_gib"] and cut["trained"] == whole["trained"]


def test_a_sentence_embedder_reads_targets_and_samples_once(
    harness: Any, config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "embedder"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"0" * 4_000_000)  # a million parameters
    monkeypatch.setattr("harness.models.sentence.SentenceEmbedder.problems", lambda self, field: ())
    before = estimate(harness, config)["kinds"]["groups"]
    embedder = f"{{name: sentence_transformers, model: {folder}}}"
    text = CONFIG
    for label in ("samples: 8,", "samples: 16,"):
        text = text.replace(label, f"{label} embedder: {embedder},")
    config.write_text(text)
    after = estimate(harness, config)["kinds"]["groups"]
    seconds = 2 * 1_000_000 * 40 * (1 + 16) * 6 / (GPUS["a100-80gb"].flops * formula.COMPUTE)
    assert 3600 * (after["hours"] - before["hours"]) == pytest.approx(seconds, rel=1e-3)
