"""What a stage needs of a Ray cluster: room on one node, since it runs on one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from harness.errors import HarnessError
from harness.run.executors.schedule import wants_gpu
from harness.run.graph import Stage
from harness.run.stages.devices import devices_of

Node = Mapping[str, Any]  # as `ray.nodes()` describes it


def resources(stage: Stage, nodes: Sequence[Node], gpus: int | None, memory_bytes: int) -> dict[str, Any]:
    """What Ray is to keep for a stage. CPUs may be fewer than its devices.

    Args:
        nodes: those that are alive.
        gpus: 0 to keep stages off GPUs.
        memory_bytes: for each stage; 0: not counted.

    Raises:
        HarnessError: no node is so large.
    """
    devices = devices_of(stage)
    count = devices.count if devices else 1
    gpu = wants_gpu(stage) and gpus != 0 and any(_has(node, "GPU") >= 1 for node in nodes)
    need = {"CPU": 1, "GPU": count if gpu else 0, "memory": memory_bytes}
    fitting = [node for node in nodes if all(_has(node, kind) >= amount for kind, amount in need.items())]
    if not fitting:
        largest = max(nodes, key=lambda node: [_has(node, kind) for kind in ("GPU", "memory", "CPU")], default={})
        raise HarnessError(
            f"{stage.title} needs a Ray node with {_amounts(need)}, and the largest of {len(nodes)}, "
            f"{largest.get('NodeManagerHostname')}, has {_amounts({kind: _has(largest, kind) for kind in need})}: "
            "ask for fewer devices or a smaller --ray-memory-gb, or start Ray on a larger node"
        )
    cpus = min(count, int(max(_has(node, "CPU") for node in fitting)))
    return {"num_cpus": cpus, "num_gpus": need["GPU"]} | ({"memory": memory_bytes} if memory_bytes else {})


def _has(node: Node, kind: str) -> float:
    return float(node.get("Resources", {}).get(kind, 0))


def _amounts(amounts: Mapping[str, float]) -> str:
    memory = amounts["memory"]
    return f"{amounts['CPU']:g} CPU, {amounts['GPU']:g} GPU and {memory / 1e9:.1f} GB of memory"
