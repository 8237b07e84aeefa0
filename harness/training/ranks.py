"""The processes that share one training: who one of them is, and what they tell each other. Imports torch where it is needed.

Every process sees every whole batch and takes its share of it. What they compute is weighted by what the whole batch holds, so
that the sum over processes is the batch's loss and its gradient, however the batch was dealt out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import nn

Value = TypeVar("Value")
BUCKET = 2**26  # elements of gradients that are summed over the processes at once: 256 MiB of float32


@dataclass(frozen=True)
class Ranks:
    """One process of a training.

    Attributes:
        rank: which one, from 0.
        count: how many there are.
        sharded: whether each holds a part of the weights alone. All of them must then pass through the model equally often, and
            gradients are averaged over processes in backward. Otherwise each holds all, and `sum_gradients` adds them up.
    """

    rank: int = 0
    count: int = 1
    sharded: bool = False

    @classmethod
    def here(cls, sharded: bool = False) -> Ranks:
        """This process's place; alone where no process group was joined."""
        from torch import distributed

        if not (distributed.is_available() and distributed.is_initialized()):
            return cls()
        return cls(distributed.get_rank(), distributed.get_world_size(), sharded)

    @property
    def first(self) -> bool:
        """Whether this process writes what all have made."""
        return self.rank == 0

    @property
    def scale(self) -> int:
        """What a loss is multiplied by, so that gradients averaged over processes are their sum."""
        return self.count if self.sharded else 1

    def share(self, costs: Sequence[int]) -> list[int]:
        """Indices of this process's part of a batch, dealt out from the dearest on; none where the batch has too few."""
        if self.count == 1:
            return list(range(len(costs)))
        return sorted(range(len(costs)), key=lambda index: (-costs[index], index))[self.rank :: self.count]

    def gather(self, value: Value) -> list[Value]:
        """Every process's value, by rank; they wait for each other."""
        if self.count == 1:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value)
        return values

    def from_first(self, value: Value) -> Value:
        """The first process's value."""
        if self.count == 1:
            return value
        from torch import distributed

        values = [value]
        distributed.broadcast_object_list(values, 0)
        return values[0]

    def wait(self) -> None:
        """Until every process is here."""
        self.gather(None)

    def sum_gradients(self, model: nn.Module) -> None:
        """The sum over processes as everybody's gradient; nothing to do where backward has averaged them."""
        if self.count == 1 or self.sharded:
            return
        bucket: list[nn.Parameter] = []
        for parameter in (parameter for parameter in model.parameters() if parameter.requires_grad):
            if bucket and sum(other.numel() for other in bucket) + parameter.numel() > BUCKET:
                _sum_gradients(bucket)
                bucket = []
            bucket.append(parameter)
        _sum_gradients(bucket)

    def same_random_numbers(self) -> None:
        """The first process's state of torch's generator, which decides orders, for all."""
        if self.count == 1:
            return
        import torch

        torch.set_rng_state(self.from_first(torch.get_rng_state()))


def _sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """One message for many gradients; a process without a share of the batch has none, which is nought."""
    import torch
    from torch import distributed

    gradients = [torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in parameters]
    total = torch.cat([gradient.reshape(-1) for gradient in gradients])
    distributed.all_reduce(total)
    start = 0
    for parameter in parameters:
        parameter.grad = total[start : start + parameter.numel()].view_as(parameter)
        start += parameter.numel()
