"""Low-rank adapters: the reference is the round's starting model, the layouts agree, and what is left is a whole checkpoint."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from architectures import HONOURING, exact, make
from safetensors.torch import load_file
from token_groups import groups
from transformers import PreTrainedModel
from trl_twin import preference_groups

from harness.api.registry import Registry
from harness.config import describe
from harness.errors import StageError
from harness.models.checkpoint import Checkpoint
from harness.models.load import load_model, merged
from harness.models.tokenization import ChatTemplate
from harness.run.graph import CHECKPOINT, Graph
from harness.run.stages import RUNNERS
from harness.run.stages.context import Context
from harness.store import Store
from harness.training.adapters import add_adapters
from harness.training.batch import PLAIN, cut_groups, group_logps, tokenize
from harness.training.layouts.choose import LayoutWarning, choose_layout
from harness.training.layouts.layout import score_bundles
from harness.training.reduction import Totals, reduce_loss
from harness.training.settings import LoraSettings, TrainingSettings
from harness.training.trainer import recompute_layers
from harness_plugins.baselines.dpo import DPO

LORA = LoraSettings(rank=4)


def moved(model: PreTrainedModel, by: float = 0.05) -> PreTrainedModel:
    """The same with other weights."""
    other, generator = copy.deepcopy(model), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(by * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return other


def adapted(name: str):
    """A model whose adapters have begun to do something, in float64."""
    model = add_adapters(make(HONOURING[name]), LORA, 0)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if "lora_B" in key:
                parameter.normal_(std=0.2, generator=torch.Generator().manual_seed(len(key)))
    exact(model)
    return model.train()


def step(model, batch, layout, tokens: int = 10**9) -> tuple[float, torch.Tensor]:
    model.zero_grad()
    value, objective = 0.0, DPO()
    for micro in cut_groups(batch, tokens, layout):
        logps = group_logps(model, micro, objective, layout=layout)
        share = reduce_loss(objective.loss(logps), logps, objective, Totals.of(batch))
        share.backward()
        value += float(share.detach())
    assert all((p.grad is not None) == ("lora_" in name) for name, p in model.named_parameters())
    return value, torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("name", ["llama", "mistral sliding", "gemma3", "gpt2", "opt"])
def test_layouts_and_micro_batches_agree_on_the_adapters(name: str, checkpointing: bool) -> None:
    model = adapted(name)
    batch = groups(model.get_base_model(), 4)
    unique, shared = choose_layout(model, "unique"), choose_layout(model, "shared_prefix")
    if checkpointing:
        recompute_layers(model)
    value, gradient = step(model, batch, unique)
    assert len(list(cut_groups(batch, 40, shared))) > 2
    for layout, tokens in ((choose_layout(model, "expanded"), 10**9), (shared, 10**9), (shared, 40)):
        other, found = step(model, batch, layout, tokens)
        assert abs(other - value) <= 1e-9 * abs(value)
        assert float((found - gradient).norm() / gradient.norm()) <= 1e-9


def test_adapters_that_drop_out_fall_back() -> None:
    model = add_adapters(make(HONOURING["llama"]), LoraSettings(dropout=0.1), 0)
    with pytest.warns(LayoutWarning, match="it has dropout"):
        assert choose_layout(model).name == "unique"


def test_the_first_margin_is_zero_exactly(tiny) -> None:
    """Adapters add nothing at first, and both sides are scored alike."""
    model, batch = tiny[0], groups(tiny[0])
    layout = choose_layout(model)
    scores = [score_bundles(model, [group.bundle()], layout)[0] for group in batch]
    referred = [replace(group, reference={PLAIN: tuple(row)}) for group, row in zip(batch, scores, strict=True)]
    policy = add_adapters(model, LORA, 0).train()
    for group in referred:
        logps = group_logps(policy, [group], DPO(), layout=choose_layout(policy))
        assert torch.equal(DPO().loss(logps).metrics["margin"], torch.zeros(1, group.pairs, dtype=torch.float64))


def test_merging_changes_no_log_probability() -> None:
    model = adapted("llama")
    layout, bundles = choose_layout(model, "unique"), [group.bundle() for group in groups(model.get_base_model(), 3)]
    with torch.no_grad():
        before = layout.logps(model, bundles)
        after = layout.logps(merged(model), bundles)
    assert torch.allclose(before, after, rtol=1e-12, atol=0)


def test_layers_that_are_not_there_are_an_error() -> None:
    with pytest.raises(StageError, match=r"lora\.target_modules = \('q_prj',\) does not fit LlamaForCausalLM"):
        add_adapters(make(HONOURING["llama"]), LoraSettings(target_modules=("q_prj",)), 0)


@pytest.fixture
def trained(tiny_checkpoint: Path, tmp_path: Path):
    """A reference and a train stage with adapters, from an SFT model that has moved away from its base."""
    store = Store(tmp_path / "store")
    context = Context(
        store, Registry.load(), {"base": Checkpoint(str(tiny_checkpoint)).as_dict()}, lambda done, total, note: None
    )
    base, tokenizer = context.load(f"{CHECKPOINT}base", "training")
    start = moved(base)
    with store.draft("sft", "f" * 32) as draft:
        start.save_pretrained(draft.folder / "model")
        tokenizer.save_pretrained(draft.folder / "model")
    with store.draft("groups", "a" * 32) as draft:
        draft.write_lines("groups.jsonl", [asdict(group) for group in preference_groups(6)])
    graph, inputs = Graph(), {"groups": "a" * 32, "model": "f" * 32}
    reference = graph.add("reference", "reference", {"view": PLAIN, "objective": None}, inputs)
    settings = TrainingSettings(lora=LORA, prompts_per_batch=3, learning_rate=1e-2).payload("cpu")
    payload = {"objective": describe(DPO()), "settings": settings, "seed": 0}
    key = graph.add("train", "train", payload, {**inputs, f"reference:{PLAIN}": reference})
    for stage in graph.stages.values():
        with store.draft(stage.kind, stage.key) as draft:
            RUNNERS[stage.kind](stage, context, draft)
    return store, base, start, tokenizer, store.open(reference), store.open(key)


def test_the_reference_is_the_starting_model_and_not_the_base(trained) -> None:
    _, base, start, tokenizer, reference, model = trained
    bundles = [group.bundle() for group in tokenize(preference_groups(6), ChatTemplate(tokenizer), DPO())]
    stored = list(reference.read_lines("logps.jsonl"))
    assert stored == score_bundles(start, bundles, choose_layout(start))
    of_base = score_bundles(base, bundles, choose_layout(base))
    assert all(abs(row[0] - other[0]) > 0.01 for row, other in zip(stored, of_base, strict=True))
    first = next(iter(model.read_lines("history.jsonl")))
    assert abs(first["margin"]) < 1e-5


def test_the_artifact_is_a_whole_checkpoint_with_its_adapter_beside(trained) -> None:
    store, _, start, _, _, artifact = trained
    whole = load_model(artifact / "model")
    assert not hasattr(whole, "peft_config")
    assert whole.state_dict().keys() == start.state_dict().keys()
    weights, before = whole.state_dict(), start.state_dict()
    changed = {name for name in weights if not torch.equal(weights[name], before[name])}
    assert changed and all("proj" in name for name in changed)
    adapter = load_file(artifact / "adapter" / "adapter_model.safetensors")
    assert {name.rpartition(".lora_")[2] for name in adapter} == {"A.weight", "B.weight"}
    config = json.loads((artifact / "adapter" / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["r"]) == ("f" * 32, LORA.rank)
    assert str(store.root) not in "".join(path.read_text() for path in artifact.folder.rglob("*.json"))
