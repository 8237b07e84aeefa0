"""The processes that share one training: their ranks, shares and messages. Imports torch where it is needed.

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
        """Whether this is the process that writes files for all."""
        return self.rank == 0

    @property
    def scale(self) -> int:
        """The factor of each process's loss that makes a sum of gradients which backward averages over processes."""
        return self.count if self.sharded else 1

    def share(self, costs: Sequence[int]) -> list[int]:
        """Return the indices of this process's part of a batch; none where the batch has fewer items than there are processes.

        Items are dealt out from the dearest on, so that the shares cost nearly the same.
        """
        if self.count == 1:
            return list(range(len(costs)))
        return sorted(range(len(costs)), key=lambda index: (-costs[index], index))[self.rank :: self.count]

    def gather(self, value: Value) -> list[Value]:
        """Return every process's value, by rank; all must call it, and wait for each other."""
        if self.count == 1:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value)
        return values

    def from_first(self, value: Value) -> Value:
        """Return the first process's value; all must call it."""
        if self.count == 1:
            return value
        from torch import distributed

        values = [value]
        distributed.broadcast_object_list(values, 0)
        return values[0]

    def wait(self) -> None:
        """Wait until every process has called this."""
        self.gather(None)

    def sum_gradients(self, model: nn.Module) -> None:
        """Give every process the sum of all processes' gradients; nothing to do where backward has averaged them."""
        if self.count == 1 or self.sharded:
            return
        # In buckets, for one message per parameter would be slow, and one for all would copy all gradients at once. Every
        # process walks the parameters in one order, so that the buckets match.
        bucket: list[nn.Parameter] = []
        for parameter in (parameter for parameter in model.parameters() if parameter.requires_grad):
            if bucket and sum(other.numel() for other in bucket) + parameter.numel() > BUCKET:
                _sum_gradients(bucket)
                bucket = []
            bucket.append(parameter)
        _sum_gradients(bucket)

    def same_random_numbers(self) -> None:
        """Give every process the first one's state of torch's generator, from which orders are drawn."""
        if self.count == 1:
            return
        import torch

        torch.set_rng_state(self.from_first(torch.get_rng_state()))


def _sum_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Sum many gradients in one message; a process without a share of the batch has none and sends zeros."""
    import torch
    from torch import distributed

    gradients = [torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in parameters]
    total = torch.cat([gradient.reshape(-1) for gradient in gradients])
    distributed.all_reduce(total)
    start = 0
    for parameter in parameters:
        parameter.grad = total[start : start + parameter.numel()].view_as(parameter)
        start += parameter.numel()
