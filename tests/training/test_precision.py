"""bfloat16: matrix products alone; weights, sums and what the parts add up to are as in float32."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from token_groups import groups

from harness.training.adapters import add_adapters
from harness.training.batch import PLAIN, group_logps
from harness.training.layouts.choose import choose_layout
from harness.training.layouts.layout import score_bundles
from harness.training.precision import autocast, recast_in_backward
from harness.training.settings import LoraSettings, TrainingSettings
from harness.training.trainer import train
from harness_plugins.baselines.dpo import DPO

SETTINGS = TrainingSettings(learning_rate=2e-3, prompts_per_batch=4, epochs=2, precision="bfloat16")


def trained(start, batch, folder: Path, **changes):
    """The policy as it is after training, and its history."""
    settings, model = SETTINGS.model_copy(update=changes), copy.deepcopy(start)
    policy = add_adapters(model, settings.lora, 0) if settings.lora else model
    return policy, train(policy, batch, DPO(), settings, seed=0, scratch=folder).history


@pytest.mark.parametrize("lora", [None, LoraSettings(rank=4)], ids=["all weights", "adapters"])
@pytest.mark.parametrize("layout", ["unique", "shared_prefix"])
def test_micro_batches_change_nothing_but_rounding(tiny, tmp_path: Path, layout: str, lora: LoraSettings | None) -> None:
    batch = groups(tiny[0])
    policy, whole = trained(tiny[0], batch, tmp_path, layout=layout, lora=lora)
    _, cut = trained(tiny[0], batch, tmp_path, layout=layout, lora=lora, tokens_per_micro_batch=40)
    _, exact = trained(tiny[0], batch, tmp_path, layout=layout, lora=lora, precision="float32")
    assert {parameter.dtype for parameter in policy.parameters()} == {torch.float32}
    assert whole != exact  # it does compute in bfloat16
    for row, other, right in zip(whole, cut, exact, strict=True):
        assert [row["loss"], other["loss"]] == pytest.approx([right["loss"]] * 2, rel=0.05)
        assert [row["gradient_norm"], other["gradient_norm"]] == pytest.approx([right["gradient_norm"]] * 2, rel=0.1)


@pytest.mark.filterwarnings("ignore:CUDA is not available")
def test_a_model_whose_shards_lie_in_the_cpu_s_memory_computes_as_on_its_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    class Offloaded(torch.nn.Parameter):
        device_mesh = SimpleNamespace(device_type="cuda")

    model = torch.nn.Linear(2, 2)
    model.device = torch.device("cpu")
    assert isinstance(autocast(model), nullcontext)
    model.weight = Offloaded(model.weight.detach())
    monkeypatch.setattr("harness.training.precision.DTensor", Offloaded)
    context = autocast(model)
    assert isinstance(context, torch.autocast) and (context.device, context.fast_dtype) == ("cuda", torch.bfloat16)


def test_gradient_checkpointing_changes_nothing(tiny, tmp_path: Path) -> None:
    batch = groups(tiny[0], 4)
    for layout, lora in (("expanded", None), ("unique", LoraSettings(rank=4)), ("shared_prefix", None)):
        options = {"layout": layout, "lora": lora, "precision": "float32"}
        kept, history = trained(tiny[0], batch, tmp_path, **options)
        made_again, other = trained(tiny[0], batch, tmp_path, **options, gradient_checkpointing=True)
        bare = made_again.get_base_model() if lora else made_again
        assert bare.model.gradient_checkpointing and history == other
        assert all(torch.equal(a, b) for a, b in zip(kept.parameters(), made_again.parameters(), strict=True))


def _kept_copies(model, tokens: torch.Tensor) -> tuple[float, torch.Tensor, list[torch.Tensor]]:
    """Rounded weights that backward keeps, as a share of all weights; the loss, and the gradients."""
    shapes = {shape for weight in model.parameters() for shape in (tuple(weight.shape), tuple(reversed(weight.shape)))}
    copies: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.dtype == torch.bfloat16 and tuple(tensor.shape) in shapes:
            copies[tensor.untyped_storage().data_ptr()] = tensor.numel()
        return tensor

    model.zero_grad()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), autocast(model, "bfloat16"):
        loss = model(input_ids=tokens, labels=tokens, use_cache=False).loss
    loss.backward()
    share = sum(copies.values()) / sum(weight.numel() for weight in model.parameters())
    return share, loss.detach(), [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]


def test_under_fsdp_no_rounded_copy_of_the_weights_stays(tiny) -> None:
    model = copy.deepcopy(tiny[0]).train()
    tokens = torch.arange(6, 29).view(1, -1)  # 23: no weight of the model has a side as long
    before, loss, gradients = _kept_copies(model, tokens)
    recast_in_backward(model)
    after, same_loss, same = _kept_copies(model, tokens)
    assert after <= 0.1 and before > 0.9
    assert torch.equal(loss, same_loss) and len(same) == len(gradients) > 10
    assert all(torch.equal(one, other) for one, other in zip(gradients, same, strict=True))


def test_policy_and_reference_are_rounded_alike(tiny) -> None:
    """At the first step the margin is zero exactly; with a reference in float32 it would not be."""
    model, margins = tiny[0], {}
    layout = choose_layout(model)
    for precision in ("bfloat16", "float32"):
        found = []
        for group in groups(model):
            with autocast(model, precision):
                row = score_bundles(model, [group.bundle()], layout)[0]
            with autocast(model, "bfloat16"):
                logps = group_logps(model, [replace(group, reference={PLAIN: tuple(row)})], DPO(), layout=layout)
            found.append(float(DPO().loss(logps).metrics["margin"].detach().abs().max()))
        margins[precision] = max(found)
    assert margins["bfloat16"] == 0 < margins["float32"]
