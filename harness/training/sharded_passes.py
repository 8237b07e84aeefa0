"""Passes through a model that FSDP shards, which all processes end together, also where memory runs out in one of them.

In each pass FSDP gathers weights and sums gradients layer by layer, in one order in all processes; one that stops within a pass
leaves the others waiting for ever. So it passes once more, with as little as it can: what it had sent in the failed pass is not
sent again, and the rest goes out in its place. Then all processes know of the failure, forget the batch's gradients and try
smaller passes (`PassSize.fit`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import FSDPModule

from harness.errors import StageError
from harness.training.guards import PassesEndedError, is_out_of_memory
from harness.training.ranks import Ranks

# The names in torch 2.13, and those before.
_gather = getattr(distributed, "all_gather_single", None) or distributed.all_gather_into_tensor
_scatter = getattr(distributed, "reduce_scatter_single", None) or distributed.reduce_scatter_tensor


class ShardedPasses:
    """The passes of one sharded model.

    Args:
        model: as FSDP has sharded it.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.units = [module for module in model.modules() if isinstance(module, FSDPModule)]
        self.sent = self.left_out = 0  # messages of this pass; messages still to be left out of its repetition
        # Older versions of torch cannot begin anew after a pass that failed.
        self.recovers = isinstance(model, FSDPModule) and hasattr(model, "reset_iter_state")
        if self.recovers:
            for unit in self.units:
                cast(Any, unit).set_custom_all_gather(_Gather(self))  # Any, since their protocols are private to torch
                cast(Any, unit).set_custom_reduce_scatter(_Scatter(self))

    def run(self, count: int, ranks: Ranks, one: Callable[[int, bool], None], empty: Callable[[bool], object]) -> None:
        """Make as many passes, forward and backward, as the process that has the most; all processes must call this.

        Args:
            count: passes of this process.
            one: makes one of them; takes its number, and whether it is the batch's last.
            empty: makes a pass that adds nothing to the gradient, as small as possible; takes whether it is the last.

        Raises:
            PassesEndedError: memory ran out in this process; the other processes have ended their passes.
            StageError: it ran out in an empty pass.
        """
        failure, most = "", max(ranks.gather(count))
        if self.recovers:
            for unit in self.units:  # a pass without gradient leaves some gathered: all passes must send the same messages
                unit.reshard()
        for number in range(most):
            self.sent = 0
            if number < count and not failure:
                try:
                    one(number, number == most - 1)
                    continue
                except (MemoryError, RuntimeError) as error:
                    if not (self.recovers and is_out_of_memory(error)):
                        raise
                    failure = str(error) or type(error).__name__
                # Outside `except`: the error's traceback, which holds the failed pass's tensors, is gone.
                cast(Any, self.model).reset_iter_state()
                torch.cuda.empty_cache()
                self.left_out = self.sent
            try:
                empty(number == most - 1)
            except (MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                raise StageError(
                    "memory ran out in a training whose weights are spread over processes, even for its smallest pass: set "
                    "gradient_checkpointing, or take more devices"
                ) from error
        if failure:
            raise PassesEndedError(failure)

    def sends(self) -> bool:
        """Count a message; return whether it must be sent."""
        if self.left_out:
            self.left_out -= 1
            return False
        self.sent += 1
        return True


class _Message:
    """FSDP's own way to find memory for a message."""

    def __init__(self, passes: ShardedPasses) -> None:
        self.passes = passes

    def allocate(self, size: Any, *, dtype: torch.dtype, device: torch.device) -> Tensor:
        return torch.empty(*size, dtype=dtype, device=device)


class _Gather(_Message):
    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: distributed.ProcessGroup, async_op: bool = False
    ) -> Any:
        if self.passes.sends():
            return _gather(output_tensor, input_tensor, group=group, async_op=async_op)
        output_tensor.zero_()
        return None


class _Scatter(_Message):
    def __call__(
        self, output_tensor: Tensor, input_tensor: Tensor, group: distributed.ProcessGroup, op: Any, async_op: bool = False
    ) -> Any:
        if self.passes.sends():
            return _scatter(output_tensor, input_tensor, op=op, group=group, async_op=async_op)
        output_tensor.zero_()
        return None
