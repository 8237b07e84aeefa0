"""Trainings that one process and several must do alike; as a script, one of the several.

python together.py CHECKPOINT FOLDER RANK COUNT
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from token_groups import groups

from harness.api.interfaces import Objective
from harness.errors import StageError
from harness.models.load import load
from harness.sandbox import build_dataset
from harness.training.adapters import add_adapters
from harness.training.checkpoints import Checkpoints
from harness.training.layouts.choose import choose_layout
from harness.training.ranks import Ranks
from harness.training.settings import LoraSettings, SftSettings, TrainingSettings
from harness.training.sft import fine_tune
from harness.training.sharded_load import load_by_first
from harness.training.sharding import whole_weights
from harness.training.trainer import train
from harness_plugins.baselines.dpo import DPO
from harness_plugins.baselines.kto import KTO
from harness_plugins.self_refined import SrDPO

# 7 groups in batches of 3, 3 and 1: uneven shares, and a batch with fewer groups than processes; several micro-batches each.
SETTINGS = TrainingSettings(learning_rate=5e-3, prompts_per_batch=3, epochs=2, tokens_per_micro_batch=60)
SFT = SftSettings(epochs=2, batch_size=4, learning_rate=1e-2)
EXAMPLES = build_dataset({"sft": 9}, 0.0, 0)["sft"]  # in batches of 4, 4 and 1


@dataclass(frozen=True)
class Case:
    """A training. `forgets`: where the first process finds no memory once: forward, backward, or computing a layer again."""

    objective: Objective | None
    settings: TrainingSettings = SETTINGS
    forgets: str = ""
    sft: SftSettings = SFT


CASES = {
    "dpo": Case(DPO()),
    "kto": Case(KTO()),
    "views": Case(SrDPO()),
    "adapters": Case(DPO(), SETTINGS.model_copy(update={"lora": LoraSettings(rank=2)})),
    "tied": Case(DPO(), SETTINGS.model_copy(update={"lora": LoraSettings(rank=2, target_modules=("q_proj", "lm_head"))})),
    "memory": Case(DPO(), SETTINGS.model_copy(update={"tokens_per_micro_batch": 4096}), "forward"),
    "memory-recompute": Case(
        KTO(), SETTINGS.model_copy(update={"tokens_per_micro_batch": 4096, "gradient_checkpointing": True}), "recompute"
    ),
    "sft": Case(None),
    "sft-memory": Case(None, forgets="backward"),
    "sft-packed": Case(None, forgets="backward", sft=SFT.model_copy(update={"layout": "packed"})),
}
SHARDED = ("dpo", "kto", "adapters", "tied", "sft", "memory", "memory-recompute", "sft-memory", "sft-packed")
BY_FIRST = ("dpo", "tied", "sft")  # again, with a model that the first process alone loads


def run(
    case: Case, checkpoint: Path, scratch: Path, by_first: bool = False
) -> tuple[dict[str, Any], Mapping[str, torch.Tensor]]:
    """History and micro-batches' tokens at the end; all weights."""
    model, tokenizer = load(checkpoint, use="training")

    def policy() -> torch.nn.Module:
        whole = load(checkpoint, use="training")[0]
        return add_adapters(whole, case.settings.lora, 0) if case.settings.lora else whole

    start = load_by_first(Ranks.here(), policy) if by_first else policy()
    assert not by_first or Ranks.here().first or all(weight.is_meta for weight in start.parameters())
    if case.objective is None:
        if case.forgets and Ranks.here().first:
            _forget_once(start, case.forgets)
        tuned = fine_tune(start, tokenizer, EXAMPLES, case.sft, seed=0, scratch=scratch)
        return {"history": tuned.history, "rows": tuned.rows}, whole_weights(start) or start.state_dict()
    batch = groups(model, 7)
    layout = choose_layout(start)
    if case.forgets and Ranks.here().first:
        _forget_once(start, case.forgets)
    trained = train(start, batch, case.objective, case.settings, seed=0, scratch=scratch, layout=layout)
    return {"history": trained.history, "tokens": trained.tokens}, whole_weights(start) or start.state_dict()


def resume(checkpoint: Path, scratch: Path) -> tuple[dict[str, Any], Mapping[str, torch.Tensor]]:
    """`run` of the case `tied`, whose processes end after three steps and begin anew; the first one loads the model."""
    case, kept = CASES["tied"], Checkpoints(scratch / "partial" / "resumed", 0)
    batch = groups(load(checkpoint, use="training")[0], 7)

    def end(done: int, total: int, note: str) -> None:
        if done == 4:
            raise KeyboardInterrupt

    def policy() -> torch.nn.Module:
        return add_adapters(load(checkpoint, use="training")[0], case.settings.lora, 0)

    for report in (end, None):
        start = load_by_first(Ranks.here(), policy)
        with suppress(KeyboardInterrupt):
            options = {"seed": 0, "scratch": scratch, "report": report, "layout": choose_layout(start), "checkpoints": kept}
            trained = train(start, batch, case.objective, case.settings, **options)
    assert len(kept.notes["history"]) == 3
    return {"history": trained.history, "tokens": trained.tokens}, whole_weights(start)


def stop(checkpoint: Path, scratch: Path) -> str:
    """What each process says when the gradient of the first one's share of a batch is no number."""
    model, tokenizer = load(checkpoint, use="training")
    if Ranks.here().first:
        model.get_input_embeddings().weight.register_hook(lambda gradient: gradient * float("nan"))
    kept = Checkpoints(scratch / "partial" / "key", 0)
    try:
        fine_tune(model, tokenizer, EXAMPLES, SFT, seed=0, scratch=scratch, checkpoints=kept)
    except StageError as error:
        return str(error)
    return "trained"


def _forget_once(model: torch.nn.Module, way: str) -> None:
    """Find no memory within a pass: for the last layer, for the first one's gradient, or for the first one once more."""
    layers, calls = model.get_decoder().layers, 0

    def hook(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == (2 if way == "recompute" else 1):
            handle.remove()
            raise MemoryError

    if way == "backward":
        handle = layers[0].register_full_backward_pre_hook(hook)
    else:
        handle = layers[-1 if way == "forward" else 0].register_forward_pre_hook(hook)


def _main(checkpoint: Path, folder: Path, rank: int, count: int) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=count)
    _save({name: run(case, checkpoint, folder) for name, case in CASES.items()}, folder, rank, "replicated")
    (folder / f"stopped-{rank}.txt").write_text(stop(checkpoint, folder))
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    from harness.run.stages.devices import launch_environment
    from harness.training.settings import DeviceSettings

    os.environ.update(launch_environment(DeviceSettings(count=count, strategy="fsdp")))
    _save({name: run(CASES[name], checkpoint, folder) for name in SHARDED}, folder, rank, "fsdp")
    _save({name: run(CASES[name], checkpoint, folder, True) for name in BY_FIRST}, folder, rank, "by-first")
    _save({"tied": resume(checkpoint, folder)}, folder, rank, "resumed")


def _save(results: Mapping[str, Any], folder: Path, rank: int, strategy: str) -> None:
    for name, (found, weights) in results.items():
        (folder / f"{strategy}-{name}-{rank}.json").write_text(json.dumps(found))
        if rank == 0:
            save_file({key: value.clone() for key, value in weights.items()}, folder / f"{strategy}-{name}.safetensors")


if __name__ == "__main__":
    _main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
    torch.distributed.destroy_process_group()
