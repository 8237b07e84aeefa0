"""Peak memory of loading, gathering and saving a model that FSDP spreads over two processes, beyond their shards.

python benchmarks/sharded_memory.py [--millions 120] [--checkpoint]

With `--checkpoint` both also make AdamW's moments (four times the memory) and write a checkpoint's weights and optimiser.

Two CPU processes (gloo) load a Llama of float32 weights, shard it, gather it as the end of a training does, and the first one
saves it. Memory is anonymous resident memory (`RssAnon`), read every 5 ms, over the size of the model; pages of files that the
kernel may drop at any time are not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path


def anonymous() -> int:
    """Return this process's anonymous resident memory in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


class Peak:
    """The most memory that the process has while the block runs, and the block's seconds."""

    def __enter__(self) -> Peak:
        self.bytes, self._over = anonymous(), threading.Event()
        self._began = time.perf_counter()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._over.wait(0.005):
            self.bytes = max(self.bytes, anonymous())

    def __exit__(self, *error: object) -> None:
        self.seconds = time.perf_counter() - self._began
        self._over.set()
        self._thread.join()


def write(folder: Path, millions: float) -> None:
    """Write the model to load: row r of every tensor is r, so that a row in the wrong place is noticed."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    width = 512
    layers = max(1, round((millions * 1e6 - 2 * 8192 * width) / (16 * width * width)))
    config = LlamaConfig(
        vocab_size=8192, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=8
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    model.to_empty(device="cpu")
    for weight in model.parameters():
        rows = torch.arange(len(weight), dtype=weight.dtype)
        weight.detach().copy_(rows.view(-1, *[1] * (weight.dim() - 1)).expand(weight.shape))
    model.save_pretrained(folder)


def rank(place: Path, number: int, count: int, checkpoint: bool) -> None:
    """Be one of the processes; leave the measurement in `rank-<number>.json`."""
    import torch
    from accelerate import Accelerator
    from torch import distributed

    from harness.models.load import load_model
    from harness.training.checkpoint_files import optimizer_state, own_weights, write_state, write_tensors
    from harness.training.ranks import Ranks
    from harness.training.sharded_load import load_by_first, prepare_loaded_by_first
    from harness.training.sharding import shard_on_cpu, whole_weights

    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{place}/meeting", rank=number, world_size=count)
    accelerator, ranks = Accelerator(cpu=True), Ranks.here(sharded=True)
    assert shard_on_cpu(accelerator)
    prepare_loaded_by_first(accelerator, ranks)
    before = anonymous()
    with Peak() as loading:
        model = load_by_first(ranks, lambda: load_model(place / "start", use="training", place="cpu"))
        size = sum(weight.numel() * 4 for weight in model.parameters())
        model, optimizer = accelerator.prepare(model, torch.optim.AdamW(model.parameters()))
    shards = sum(weight.to_local().numel() * 4 for weight in model.parameters())
    for weight in model.parameters():
        rows = weight.detach().to_local()
        if len(rows):
            assert float(rows.reshape(len(rows), -1)[0, 0]) == number * -(-weight.shape[0] // count)
    ready = anonymous()
    with Peak() as gathering:
        whole = load_model(place / "start", use="training", place="cpu") if number == 0 else None
        whole_weights(model, None if whole is None else whole.state_dict())
    with Peak() as saving:
        if whole is not None:
            whole.save_pretrained(place / "model")
    if whole is not None:
        assert all(float(weight.detach().reshape(len(weight), -1)[-1, 0]) == len(weight) - 1 for weight in whole.parameters())
    del whole
    distributed.barrier()
    writing: dict[str, float] = {}
    if checkpoint:
        for weight in model.parameters():
            weight.grad = torch.zeros_like(weight)
        optimizer.step()
        optimizer.zero_grad()
        ready_to_write = anonymous()
        with Peak() as written:
            write_tensors(place / f"model.{number}.safetensors", own_weights(model))
            write_state(place / f"optimizer.{number}.pt", optimizer_state(optimizer))
        writing = {"checkpoint": (written.bytes - ready_to_write) / size, "checkpoint_seconds": round(written.seconds, 1)}
    result = {
        "rank": number,
        "parameters": size // 4,
        "loading": (loading.bytes - before - shards) / size,
        "gathering": (gathering.bytes - ready) / size,
        "saving": (saving.bytes - ready) / size,
        "seconds": [round(peak.seconds, 1) for peak in (loading, gathering, saving)],
        **writing,
    }
    (place / f"rank-{number}.json").write_text(json.dumps(result))
    distributed.barrier()


def main() -> None:
    """Write the model, start two processes and print what each needed, in sizes of the model."""
    from harness.run.stages.devices import launch_environment
    from harness.training.settings import DeviceSettings

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=float, default=120, help="parameters of the model, in millions")
    parser.add_argument("--checkpoint", action="store_true", help="measure a checkpoint of the training too")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank is not None:
        rank(options.place, options.rank, 2, options.checkpoint)
        return
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "start", options.millions)
        words = [sys.executable, __file__, *(["--checkpoint"] if options.checkpoint else []), "--place", folder, "--rank"]
        environment = {**os.environ, **launch_environment(DeviceSettings(count=2, strategy="fsdp")), "OMP_NUM_THREADS": "1"}
        processes = []
        for number in range(2):
            names = {"RANK": number, "LOCAL_RANK": number, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2}
            own = {**environment, **{name: str(value) for name, value in names.items()}}
            processes.append(subprocess.Popen([*words, str(number)], env=own))
        ended = [process.wait() for process in processes]
        if any(ended):
            raise SystemExit("a process failed")
        for number in range(2):
            print(json.dumps(json.loads((Path(folder) / f"rank-{number}.json").read_text())))


if __name__ == "__main__":
    main()
