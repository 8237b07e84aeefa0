"""The shared starting point."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from harness.api.types import Example, Prompt, Response
from harness.errors import DataError
from harness.models.tokenization import ChatTemplate
from harness.sandbox import build_dataset
from harness.training.adapters import add_adapters
from harness.training.layouts.choose import LayoutWarning
from harness.training.settings import LoraSettings, SftSettings
from harness.training.sft import fine_tune
from harness.training.trainer import shared_arguments


def test_fine_tuning_lowers_the_loss_and_counts(tiny, tmp_path: Path) -> None:
    examples = [*build_dataset({"sft": 24}, 0.0, 0)["sft"], Example(Prompt.of("bare", "why ?"))]
    settings = SftSettings(epochs=4, batch_size=8, learning_rate=1e-2, warmup_share=0)
    tuned = fine_tune(*tiny, examples, settings, seed=0, scratch=tmp_path)
    history, counts = tuned.history, tuned.counts
    assert len(history) == 12 and tuned.rows == 8
    assert history[-1]["loss"] < history[0]["loss"]
    assert counts["examples"] == 24 and counts["dropped"] == 1 and counts["tokens"] > 24 * 10


def test_longer_examples_are_dropped_whole(tiny, tmp_path: Path) -> None:
    examples = build_dataset({"sft": 24}, 0.0, 0)["sft"]
    counts = fine_tune(*tiny, examples, SftSettings(epochs=1, max_length=30), seed=0, scratch=tmp_path).counts
    assert 0 < counts["dropped"] < 24 and counts["examples"] + counts["dropped"] == 24
    with pytest.raises(DataError, match=r"raise sft\.max_length"):
        fine_tune(*tiny, examples, SftSettings(max_length=8), seed=0, scratch=tmp_path)


def test_micro_batches_change_memory_and_not_the_loss(tiny, tmp_path: Path) -> None:
    examples = build_dataset({"sft": 22}, 0.0, 0)["sft"]  # the last batch is not full
    found = []
    for size in (None, 4, 2):
        settings = SftSettings(epochs=2, batch_size=8, micro_batch_size=size, learning_rate=1e-3, warmup_share=0)
        model = copy.deepcopy(tiny[0])
        found.append(fine_tune(model, tiny[1], examples, settings, seed=0, scratch=tmp_path).history)
    for history in found[1:]:
        assert len(history) == len(found[0]) == 6
        for row, whole in zip(history, found[0], strict=True):
            assert row == pytest.approx(whole, rel=1e-4, abs=1e-6)


def test_a_micro_batch_divides_its_batch_and_is_for_one_device() -> None:
    assert (
        "micro_batch_size" not in SftSettings().payload("cpu")
        and SftSettings(micro_batch_size=4).payload("cpu")["micro_batch_size"] == 4
    )
    with pytest.raises(ValueError, match="it should divide batch_size = 32"):
        SftSettings(micro_batch_size=5)
    with pytest.raises(ValueError, match="`micro_batch_size` is for one device"):
        SftSettings(micro_batch_size=4, devices=2)


@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.parametrize("size", [None, 4])
def test_without_a_fault_weights_are_those_of_trl_s_own_loop(tiny, tmp_path: Path, size: int | None) -> None:
    """Bit for bit, micro-batches as its gradient accumulation makes them."""
    from datasets import Dataset
    from trl import SFTConfig, SFTTrainer

    examples, template = build_dataset({"sft": 22}, 0.0, 0)["sft"], ChatTemplate(tiny[1])
    settings = SftSettings(epochs=2, batch_size=8, micro_batch_size=size, learning_rate=1e-2)
    model = copy.deepcopy(tiny[0])
    history = fine_tune(model, tiny[1], examples, settings, seed=0, scratch=tmp_path).history
    rows = []
    for example in examples:
        prompt, response = template.prompt_ids(example.prompt), template.response_ids(example.prompt, Response(example.target))
        rows.append({"input_ids": prompt + response, "completion_mask": [0] * len(prompt) + [1] * len(response)})
    arguments = SFTConfig(
        output_dir=str(tmp_path), per_device_train_batch_size=size or 8, gradient_accumulation_steps=8 // (size or 8),
        num_train_epochs=2, learning_rate=1e-2, seed=0, data_seed=0, max_length=None, bf16=False, gradient_checkpointing=False,
        completion_only_loss=True, train_sampling_strategy="group_by_length",
        **shared_arguments(settings, 6),
    )  # fmt: skip
    theirs = SFTTrainer(
        model=copy.deepcopy(tiny[0]), args=arguments, train_dataset=Dataset.from_list(rows), processing_class=tiny[1]
    )
    theirs.train()
    assert [row["loss"] for row in history] == [row["loss"] for row in theirs.state.log_history if "loss" in row]
    for name, weight in theirs.model.state_dict().items():
        assert torch.equal(model.state_dict()[name], weight), name


PACKED = SftSettings(epochs=1, batch_size=8, learning_rate=1e-9, layout="packed")  # a rate that leaves the weights


def steps(tiny, folder: Path, settings: SftSettings, monkeypatch: pytest.MonkeyPatch) -> tuple[list[float], torch.Tensor, str]:
    """Loss and gradient of each step, and the layout of the rows."""
    losses, gradients = [], []

    def keep(guard, trainer, model, loss, batch) -> None:
        losses.append(loss)
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).double())

    monkeypatch.setattr("harness.training.guards.FiniteGuard.check", keep)
    model = copy.deepcopy(tiny[0])
    if settings.lora:
        torch.manual_seed(0)
        model = add_adapters(model, settings.lora, 0)
    examples = build_dataset({"sft": 22}, 0.0, 0)["sft"]  # the last batch is not full
    tuned = fine_tune(model, tiny[1], examples, settings, seed=0, scratch=folder)
    assert len(losses) == 3
    return losses, torch.cat(gradients), tuned.layout


def test_a_router_with_a_loss_is_tuned_by_trl_and_that_is_said(tiny, tmp_path: Path) -> None:
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=len(tiny[1]), hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, num_local_experts=2, output_router_logits=True, pad_token_id=None,
    )  # fmt: skip
    examples = build_dataset({"sft": 4}, 0.0, 0)["sft"]
    tuned = fine_tune(MixtralForCausalLM(config), tiny[1], examples, PACKED, seed=0, scratch=tmp_path)
    assert tuned.history and tuned.layout == "" and "loss of its router" in tuned.layout_warning


@pytest.mark.parametrize(
    "change",
    [{}, {"micro_batch_size": 2}, {"gradient_checkpointing": True}, {"lora": LoraSettings(rank=2)}],
    ids=["whole", "micro-batches", "checkpointing", "adapters"],
)
def test_packed_rows_give_trl_s_loss_and_gradient(
    tiny, tmp_path: Path, change: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Padded rows are TRL's own loop, bit for bit (above)."""
    padded = steps(tiny, tmp_path, PACKED.model_copy(update={**change, "layout": "padded"}), monkeypatch)
    packed = steps(tiny, tmp_path, PACKED.model_copy(update=change), monkeypatch)
    assert (padded[2], packed[2]) == ("", "shared_prefix")
    assert packed[0] == pytest.approx(padded[0], rel=1e-5) and padded[1].norm() > 0.1
    assert (packed[1] - padded[1]).norm() < 1e-5 * padded[1].norm()


def test_a_model_that_packs_nothing_is_fine_tuned_with_padded_rows(
    tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    padded = steps(tiny, tmp_path, PACKED.model_copy(update={"layout": "padded"}), monkeypatch)
    monkeypatch.setattr("harness.training.layouts.probe.refusals", lambda model: ["it is asked not to"])
    with pytest.warns(LayoutWarning, match="SFT with padded rows"):
        losses, gradient, layout = steps(tiny, tmp_path, PACKED, monkeypatch)
    assert layout == "unique" and losses == pytest.approx(padded[0], rel=1e-5)
    assert (gradient - padded[1]).norm() < 1e-5 * padded[1].norm()
