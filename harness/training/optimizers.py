"""The optimisers that `training.optimizer` may name: those of transformers that a plain training can use."""

from __future__ import annotations

from importlib.util import find_spec

from harness.errors import did_you_mean

DEFAULT = "adamw_torch"

# What begins or ends a name -> the module that it needs beyond torch. The first that fits counts.
_MODULES = {
    "adamw_torch_4bit": "torchao",
    "adamw_torch_8bit": "torchao",
    "adamw_anyprecision": "torchdistx",
    "adamw_torch_xla": "torch_xla",
    "adamw_torch_npu": "torch_npu",
    "grokadamw": "grokadamw",
    "schedule_free": "schedulefree",
    "stable_adamw": "optimi",
    **dict.fromkeys(("adamw_bnb", "adamw_8bit", "ademamix", "lion", "paged", "rmsprop_bnb"), "bitsandbytes"),
}
# These take steps of their own within the backward pass, or a list of layers, which this section has no field for.
_UNUSABLE = {
    **dict.fromkeys(
        ("lomo", "adalomo"), "it updates weights within the backward pass, before gradients are summed and clipped"
    ),
    **dict.fromkeys(
        ("galore", "apollo"), "it needs a list of layers (`optim_target_modules`), which this section has no field for"
    ),
}
# Numbers in float32 that an optimiser keeps of each trained parameter.
_MOMENTS = {"sgd": 0, "rmsprop": 1, "adagrad": 1, "lion_32bit": 1}


def wrong_optimizer(name: str) -> str | None:
    """Return why an optimiser cannot be used, and the fix; None if it can."""
    if name == DEFAULT:
        return None
    from transformers.training_args import OptimizerNames  # late: it takes seconds, and few configs name another

    names = [known.value for known in OptimizerNames]
    if name not in names:
        return f"transformers knows no optimiser of this name; {did_you_mean(name, names)}"
    if why := next((why for start, why in _UNUSABLE.items() if name.startswith(start)), None):
        return f"{why}: choose another"
    module = next((module for start, module in _MODULES.items() if name.startswith(start)), None)
    if module is not None and find_spec(module) is None:
        return f"it needs the Python module {module}, which is not installed: install it, or choose adamw_torch or rmsprop"
    return None


def on_this_machine(name: str, strategy: str = "replicated") -> str:
    """Return the form of an optimiser that trains: AdamW in one kernel on GPUs that hold what they train.

    On CPUs the fused form gives other last digits than the stored artifacts have (and is 6 times as fast: name
    `adamw_torch_fused` for it); with `fsdp_offload` the weights lie there, and DeepSpeed replaces the optimiser itself.

    Args:
        strategy: of `training.devices`.
    """
    import torch

    fused = name == DEFAULT and torch.cuda.is_available() and strategy in ("replicated", "fsdp")
    return "adamw_torch_fused" if fused else name


def moments(name: str) -> int:
    """Return how many float32 numbers an optimiser keeps of each trained parameter, two where that is not known."""
    return _MOMENTS.get(name, 2)
