"""Peak memory of gathering and saving a model that FSDP has spread over two processes, beyond their shards.

python benchmarks/sharded_memory.py [--millions 120]

Two CPU processes (gloo) shard a Llama of float32 weights made up in memory, gather it as the end of a training does, and the
first one saves it. Memory is anonymous resident memory (`RssAnon`), read every 5 ms, over the size of the model; pages of
files that the kernel may drop at any time are not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path


def anonymous() -> int:
    """Return this process's anonymous resident memory in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


class Peak:
    """The most memory that the process has while the block runs."""

    def __enter__(self) -> Peak:
        self.bytes, self._over = anonymous(), threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._over.wait(0.005):
            self.bytes = max(self.bytes, anonymous())

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()


def rank(place: Path, number: int, count: int, millions: float) -> None:
    """Be one of the processes; leave the measurement in `rank-<number>.json`."""
    import torch
    from torch import distributed
    from torch.distributed.fsdp import fully_shard
    from transformers import LlamaConfig, LlamaForCausalLM

    from harness.training.sharding import whole_weights

    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{place}/meeting", rank=number, world_size=count)
    width = 512
    layers = max(1, round((millions * 1e6 - 2 * 8192 * width) / (16 * width * width)))
    config = LlamaConfig(
        vocab_size=8192, hidden_size=width, intermediate_size=4 * width, num_hidden_layers=layers, num_attention_heads=8
    )
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    size = sum(weight.numel() * 4 for weight in model.parameters())
    for layer in model.model.layers:
        fully_shard(layer)
    fully_shard(model)
    model.to_empty(device="cpu")
    for weight in model.parameters():
        weight.detach().to_local().fill_(number + 1.0)
    before = anonymous()
    with Peak() as peak:
        whole = None
        if number == 0:
            with torch.device("meta"):
                whole = LlamaForCausalLM(config)
            whole.to_empty(device="cpu")
        whole_weights(model, None if whole is None else whole.state_dict())
        if whole is not None:
            whole.save_pretrained(place / "model")
    if whole is not None:
        norm = whole.model.norm.weight.detach()
        assert float(norm[0]) == 1.0 and float(norm[-1]) == count  # the rows of the first process, and those of the last
    result = {"rank": number, "parameters": size // 4, "beyond_shards": (peak.bytes - before) / size}
    (place / f"rank-{number}.json").write_text(json.dumps(result))
    distributed.barrier()


def main() -> None:
    """Start two processes and print what each needed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--millions", type=float, default=120, help="parameters of the model, in millions")
    parser.add_argument("--rank", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.rank is not None:
        rank(options.place, options.rank, 2, options.millions)
        return
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, __file__, "--millions", str(options.millions), "--place", folder, "--rank"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        processes = [subprocess.Popen([*words, str(number)], env=environment) for number in range(2)]
        ended = [process.wait() for process in processes]
        if any(ended):
            raise SystemExit("a process failed")
        for number in range(2):
            print(json.dumps(json.loads((Path(folder) / f"rank-{number}.json").read_text())))


if __name__ == "__main__":
    main()
