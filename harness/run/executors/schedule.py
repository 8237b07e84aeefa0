"""Choose the stage that runs next.

Every executor asks here, so all run the same order; the cost of a step grows with the logarithm of the graph.
"""

from __future__ import annotations

import heapq
from collections import defaultdict

from harness.run.executors.events import Outcome
from harness.run.graph import DROPPABLE, Graph, Stage

WITHOUT_MODEL = frozenset({"source"})  # kinds that no GPU would make faster
ATTEMPTS = 2  # for a stage whose worker is killed


def wants_gpu(stage: Stage) -> bool:
    """Whether a stage computes with a model."""
    return stage.kind not in WITHOUT_MODEL


class Schedule:
    """The longest way to go first, and of stages that share samples one at a time.

    A stage on several devices begins as soon as so many are free at once, before any other. Until then stages on fewer go on:
    they are to be run anyway, and devices that were kept free would stand idle.
    """

    def __init__(self, graph: Graph, present: set[str], models_first: bool = False, devices: int | None = None) -> None:
        """Begin with the stages that need no other.

        Args:
            models_first: whether stages that use a row's model go before all others, so that it can be dropped soon.
            devices: how many there are: a stage that asks for more gets all; None where the caller counts them.
        """
        self.graph, self.devices = graph, devices
        self.outcome = Outcome()
        self.waiting = {stage.key for stage in graph if stage.key not in present}
        self.running: dict[str, Stage] = {}
        self._urgency = ways_to_go(graph)
        if models_first:
            longest = max(self._urgency.values(), default=0.0)
            for key in users_of_models(graph):
                self._urgency[key] += longest
        self._children: defaultdict[str, list[str]] = defaultdict(list)
        self._missing: dict[str, int] = {}
        # By whether a GPU is wanted, and how many devices.
        self._ready: defaultdict[tuple[bool, int], list[tuple[float, str]]] = defaultdict(list)
        self._parked: defaultdict[str, list[Stage]] = defaultdict(list)  # until who shares their samples is done
        self._busy: set[str] = set()
        self._attempts: defaultdict[str, int] = defaultdict(int)
        for stage in graph:
            if stage.key in self.waiting:
                before = (stage.parents | set(stage.after)) & self.waiting
                self._missing[stage.key] = len(before)
                for earlier in before:
                    self._children[earlier].append(stage.key)
                if not before:
                    self._offer(stage)

    @property
    def done(self) -> bool:
        return not self.waiting and not self.running

    def take(self, gpu: bool | None = None, free: int | None = None) -> Stage | None:
        """The next stage to run, or None while none may.

        Args:
            gpu: whether it must, or must not, want a GPU; None for any.
            free: devices that nothing uses; None where the caller counts them.
        """
        while (queue := self._most_urgent(gpu, free)) is not None:
            stage = self.graph.stages[heapq.heappop(queue)[1]]
            if stage.key not in self.waiting:
                continue  # skipped since it was offered
            if stage.shares and stage.shares in self._busy:
                self._parked[stage.shares].append(stage)
                continue
            self.waiting.discard(stage.key)
            self.running[stage.key] = stage
            if stage.shares:
                self._busy.add(stage.shares)
            self._attempts[stage.key] += 1
            return stage
        return None

    def needed(self, stage: Stage) -> int:
        """Return how many devices a stage takes for itself."""
        return stage.devices if self.devices is None else max(1, min(stage.devices, self.devices))

    def finish(self, stage: Stage, error: str | None) -> None:
        """Note how a stage ended; a failure skips all that need it."""
        self._leave(stage)
        if error is not None:
            self.outcome.failed[stage.key] = error
            self._skip(stage.key)
            return
        self.outcome.ran.add(stage.key)
        for child in self._children[stage.key]:
            self._release(child)

    def again(self, stage: Stage, attempts: int = ATTEMPTS) -> bool:
        """Put a stage back whose worker was killed; False if it has had its attempts."""
        if self._attempts[stage.key] >= attempts:
            return False
        self.put_back(stage)
        return True

    def put_back(self, stage: Stage) -> None:
        """Let a running stage wait again, as if it had not begun."""
        self._leave(stage)
        self.waiting.add(stage.key)
        self._offer(stage)

    def _leave(self, stage: Stage) -> None:
        """A stage runs no more: those that wait for its samples may."""
        del self.running[stage.key]
        if stage.shares:
            self._busy.discard(stage.shares)
            for other in self._parked.pop(stage.shares, ()):
                self._offer(other)

    def _release(self, key: str) -> None:
        """One stage less to wait for."""
        self._missing[key] -= 1
        if not self._missing[key] and key in self.waiting:
            self._offer(self.graph.stages[key])

    def _skip(self, failed: str) -> None:
        """Skip all that need a stage; what only comes after one of them goes on without it."""
        lost = [failed]
        while lost:
            key = lost.pop()
            for child in self._children[key]:
                if key not in self.graph.stages[child].parents:
                    self._release(child)
                elif child in self.waiting:
                    self.waiting.discard(child)
                    self.outcome.skipped[child] = failed
                    lost.append(child)

    def _offer(self, stage: Stage) -> None:
        heapq.heappush(self._ready[wants_gpu(stage), self.needed(stage)], (-self._urgency[stage.key], stage.key))

    def _most_urgent(self, gpu: bool | None, free: int | None) -> list[tuple[float, str]] | None:
        queues = [
            (-needed if free is not None else 0, queue)
            for (wanted, needed), queue in self._ready.items()
            if queue and gpu in (None, wanted) and (free is None or needed <= free)
        ]
        return min(queues, key=lambda each: (each[0], each[1][0]), default=(0, None))[1]


def users_of_models(graph: Graph) -> set[str]:
    """Return the stages that load a model which may be dropped after them."""
    models = {stage.key for stage in graph if stage.kind in DROPPABLE}
    return {stage.key for stage in graph if stage.parents & models}


def ways_to_go(graph: Graph) -> dict[str, float]:
    """Weight of the heaviest way from each stage to the end of the graph."""
    ways: dict[str, float] = {stage.key: stage.weight for stage in graph}
    for stage in reversed(list(graph)):
        for parent in stage.parents | set(stage.after):
            ways[parent] = max(ways[parent], graph.stages[parent].weight + ways[stage.key])
    return ways
