"""SFT where memory runs out, or where the loss or its gradient stops being a number."""

from __future__ import annotations

import copy
import json
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from harness.api.registry import Registry
from harness.errors import StageError
from harness.models.checkpoint import Checkpoint
from harness.run.graph import CHECKPOINT, Graph
from harness.run.stages import run_stage
from harness.run.stages.context import Context
from harness.run.stages.start import sft_memory_warning
from harness.sandbox import build_dataset
from harness.store import Store
from harness.training.adapters import add_adapters
from harness.training.checkpoints import Checkpoints
from harness.training.settings import LoraSettings, SftSettings
from harness.training.sft import FineTuned, fine_tune

EXAMPLES = build_dataset({"sft": 22}, 0.0, 0)["sft"]  # three steps an epoch, the last one of 6 examples
SETTINGS = SftSettings(epochs=2, batch_size=8, learning_rate=1e-2, warmup_share=0)
DROPOUT = SETTINGS.model_copy(update={"lora": LoraSettings(rank=2, dropout=0.3)})
SOURCE = "a" * 32


class Machine:
    """Which holds so many rows: a larger pass fails in its backward, after the gradients of the second layer were made."""

    def __init__(self, start, folder: Path, settings: SftSettings = SETTINGS) -> None:
        model = copy.deepcopy(start[0])
        torch.manual_seed(7)
        self.policy = add_adapters(model, settings.lora, 0) if settings.lora else model
        self.tokenizer, self.settings, self.scratch = start[1], settings, folder
        self.kept = Checkpoints(folder / "partial" / "key", 0)
        self.holds, self.error, self.failures = 10**9, MemoryError(), 0
        model.model.layers[0].register_forward_hook(self._hook)

    def _hook(self, module, inputs, output) -> None:
        if len(output) > self.holds:
            output.register_hook(self._fail)

    def _fail(self, gradient) -> None:
        self.failures += 1
        raise self.error

    def tune(self, report=None) -> FineTuned:
        return fine_tune(
            self.policy, self.tokenizer, EXAMPLES, self.settings, seed=0, scratch=self.scratch, report=report,
            checkpoints=self.kept,
        )  # fmt: skip

    def equals(self, other: Machine) -> bool:
        theirs = other.policy.state_dict()
        return all(torch.equal(weight, theirs[name]) for name, weight in self.policy.state_dict().items())


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory"), MemoryError()],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("settings", [SETTINGS, DROPOUT], ids=["all weights", "dropout"])
def test_passes_are_halved_as_if_they_had_been_asked_for(tiny, tmp_path: Path, settings: SftSettings, error: Exception) -> None:
    small = Machine(tiny, tmp_path / "small", settings)
    small.holds, small.error = 2, error
    asked = Machine(tiny, tmp_path / "asked", settings.model_copy(update={"micro_batch_size": 2}))
    found, expected = small.tune(), asked.tune()
    assert small.failures == 2 and found.rows == expected.rows == 2
    assert found == expected and small.equals(asked)


def test_the_passes_before_the_one_that_failed_are_done_again(tiny, tmp_path: Path) -> None:
    """In the second step's second pass, when that step's first one has left a gradient."""
    small, whole = (
        Machine(tiny, tmp_path / name, SETTINGS.model_copy(update={"micro_batch_size": 4})) for name in ("small", "whole")
    )
    passes: list[int] = []

    def hook(module, inputs) -> None:
        passes.append(len(inputs[0]))
        small.holds = 3 if len(passes) == 4 else 10**9

    small.policy.model.layers[0].register_forward_pre_hook(hook)
    found, expected = small.tune(), whole.tune()
    assert passes[:8] == [4] * 4 + [2] * 4 and set(passes[8:]) == {2}
    assert found.rows == 2 and small.failures == 1
    for row, right in zip(found.history, expected.history, strict=True):
        assert row == pytest.approx(right, rel=1e-4, abs=1e-6)


def test_what_was_cut_is_remembered_by_the_next_process(tiny, tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    def kill(done: int, total: int, note: str) -> None:
        if done == 4:
            raise KilledError

    first, second = (Machine(tiny, tmp_path / "killed") for _ in range(2))
    asked = Machine(tiny, tmp_path / "asked", SETTINGS.model_copy(update={"micro_batch_size": 2}))
    first.holds = 2
    with pytest.raises(KilledError):
        first.tune(kill)
    assert second.tune() == asked.tune()
    assert second.equals(asked) and second.kept.earlier_seconds > 0


def test_an_example_that_does_not_fit_alone_and_other_errors_end_it(tiny, tmp_path: Path) -> None:
    machine = Machine(tiny, tmp_path)
    machine.holds = 0
    with pytest.raises(StageError, match=r"one example \(\d+ tokens\) does not fit in memory: set sft\.gradient_checkpointing"):
        machine.tune()
    machine.error = RuntimeError("shapes")
    with pytest.raises(RuntimeError, match="shapes"):
        machine.tune()


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_number_that_is_none_stops_before_it_reaches_the_weights(tiny, tmp_path: Path, what: str) -> None:
    """At the third step: checkpoint and kept state are what the second one left."""
    machine, done = Machine(tiny, tmp_path), 0

    def report(step: int, steps: int, note: str) -> None:
        nonlocal done
        done = step

    def hook(module, inputs, output):
        if done < 2:
            return None
        if what == "loss":
            return output * float("nan")
        output.register_hook(lambda gradient: gradient * float("nan"))
        return None

    machine.policy.model.norm.register_forward_hook(hook)
    said = rf"the {what} of SFT is nan at step 3 of 6: lower sft\.learning_rate \(now 0\.01\); prompts: .*; weights.*/stopped"
    with pytest.raises(StageError, match=said) as raised:
        machine.tune(report)
    folder = machine.kept.folder
    assert {path.name for path in folder.iterdir()} == {"checkpoint-2", "stopped"}
    before = load_file(folder / "checkpoint-2" / "model.safetensors")
    for weights in (machine.policy.state_dict(), load_file(folder / "stopped" / "model.safetensors")):
        assert all(torch.equal(weights[name], weight) and weight.isfinite().all() for name, weight in before.items())
    stopped = json.loads((folder / "stopped" / "batch.json").read_text())
    assert stopped["step"] == 3 and stopped[what] == "nan" and len(stopped["history"]) == 2
    ids = [row["id"] for row in stopped["examples"]]
    assert set(ids) <= {example.prompt.id for example in EXAMPLES} and all(name in str(raised.value) for name in ids)


def test_the_stage_says_what_was_cut(tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.training.sft_trainer import SftTrainer

    whole = SftTrainer.compute_loss

    def small(self, model, inputs, **options):
        if len(inputs["input_ids"]) > 4:
            raise MemoryError
        return whole(self, model, inputs, **options)

    monkeypatch.setattr(SftTrainer, "compute_loss", small)
    context = Context(Store(tmp_path), Registry.load(), {"tiny": Checkpoint(str(tiny_checkpoint)).as_dict()}, lambda *_: None)
    with context.store.draft("source", SOURCE) as draft:
        draft.facts.update({"splits": {"sft": len(EXAMPLES)}, "dropped": {}})
        draft.write_lines("sft.jsonl", [asdict(example) for example in EXAMPLES])
    payload = {"settings": {"batch_size": 8, "epochs": 1}, "seed": 0}
    graph = Graph()
    key = graph.add("sft", "SFT · seed 0", payload, {"source": SOURCE, "model": f"{CHECKPOINT}tiny"})
    run_stage(graph.stages[key], context)
    warning = context.store.open(key).facts["memory_warning"]
    assert warning == sft_memory_warning(8, 4)
    assert "passes were cut to 4 examples instead of 8" in warning and sft_memory_warning(8, 8) == ""
