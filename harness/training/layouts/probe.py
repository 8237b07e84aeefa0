"""Test whether a model honours the shared-prefix layout: some fail silently with wrong numbers.

Refused by configuration: what is known not to work. Tried on a small float32 copy: numbers and gradients against the padded
rows, and two tests of who sees whom. In float32 right is below 1e-5 and wrong above 5e-2; in bfloat16 the two come close.

Imports torch and transformers; import it where training begins.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from transformers import PreTrainedModel

from harness.models.load import HALF_ONLY
from harness.models.logps import Head, vocabulary_size
from harness.training.layouts.attention import IMPLEMENTATION, SEGMENTS, Segments, install, register, shared_prefix_attention
from harness.training.layouts.choose import Attention
from harness.training.layouts.layout import Bundle, Layout
from harness.training.layouts.padded import UniqueRows
from harness.training.layouts.shared_prefix import SharedPrefix
from harness.training.layouts.small import build, shrink

TOLERANCE = 1e-3  # relative, of log-probabilities and gradient in float32
LAYER_TYPES = {"full_attention", "sliding_attention"}
CHUNKED = Head(chunked=True, logits=0)
LARGE = 2**13  # tokens of a vocabulary below which its logits are small beside the rest


def choose_shared_prefix(model: PreTrainedModel) -> SharedPrefix:
    """The layout in the form that the model honours.

    Raises:
        NotImplementedError: it honours none; says why.
    """
    for reason in refusals(model):
        raise NotImplementedError(reason)
    register()
    try:
        twin = build(model, shrink(model.config))
        rows = _logps_and_gradient(twin, UniqueRows())
        install(twin)
        _check_numbers(rows, _logps_and_gradient(twin, SharedPrefix()))
        check_leaks(twin, SharedPrefix())
    except NotImplementedError:
        raise
    except Exception as error:  # an architecture may fail in any way
        raise NotImplementedError(f"a small copy of it fails with {type(error).__name__}: {error}") from error
    return SharedPrefix(_head(twin, rows, SharedPrefix(CHUNKED)))


def choose_head(model: PreTrainedModel) -> Head:
    """The head for padded rows; tried only where a vocabulary is large enough to matter."""
    if vocabulary_size(model) < LARGE:
        return Head()
    try:
        twin = build(model, shrink(model.config))
        rows = _logps_and_gradient(twin, UniqueRows())
    except Exception:  # an architecture may fail in any way
        return Head()
    return _head(twin, rows, UniqueRows(head=CHUNKED))


def _head(twin: PreTrainedModel, rows: tuple[Tensor, Tensor], chunked: Layout) -> Head:
    """Chunked, unless that gives other numbers: the output embedding is then not the whole way to the logits."""
    try:
        _check_numbers(rows, _logps_and_gradient(twin, chunked))
    except Exception:
        return Head()
    return Head(chunked=True)


def check_attention(device: torch.device, attention: Attention) -> None:
    """Compare a way to attend with sdpa: output and gradients of random states on the device that trains.

    In float32 for `flex`, in bfloat16 for `varlen`, which knows 16 bits alone; there a wrong mask is off by more than 0.3.

    Raises:
        NotImplementedError: it gives other numbers.
    """
    if attention == "sdpa":
        return
    dtype, tolerance = (torch.bfloat16, 0.05) if attention == "varlen" else (torch.float32, TOLERANCE)
    bundles, generator = probe_bundles(), torch.Generator().manual_seed(0)
    tokens = SharedPrefix().tokens(bundles)
    states = [torch.randn(1, heads, tokens, 64, generator=generator).to(device, dtype) for heads in (4, 2, 2)]
    weights = torch.randn(1, tokens, 4, 64, generator=generator).to(device, dtype)
    grouped = torch.nn.Module()
    grouped.num_key_value_groups = 2  # type: ignore[assignment]
    results = []
    ways: tuple[Attention, Attention] = ("sdpa", attention)
    for way in ways:
        query, key, value = (state.clone().requires_grad_() for state in states)
        structure = {SEGMENTS: Segments.of(bundles, way)}
        output, _ = shared_prefix_attention(grouped, query, key, value, None, **structure)
        results.append([output, *torch.autograd.grad((output * weights).sum(), (query, key, value))])
    for name, right, value in zip(("output", "query", "key", "value"), *results, strict=True):
        error = float((value - right).float().norm() / right.float().norm())
        if not error < tolerance:
            raise NotImplementedError(f"its {name} is off by {error:.1g}")


def refusals(model: PreTrainedModel) -> list[str]:
    """Return the reasons in the configuration that rule the layout out."""
    config = model.config
    found = []
    if config.get_text_config() is not config:
        found.append("its configuration is made of several")
    if not (hasattr(model, "_can_set_attn_implementation") and model._can_set_attn_implementation()):
        found.append("its attention function cannot be set")
    if config._attn_implementation not in ("sdpa", IMPLEMENTATION) and not config._attn_implementation.startswith(HALF_ONLY):
        found.append(f"its attention implementation is {config._attn_implementation!r}, not 'sdpa'")
    other = set(getattr(config, "layer_types", None) or ()) - LAYER_TYPES
    if other or getattr(config, "attention_chunk_size", None):
        found.append(f"it has {', '.join(sorted(other)) or 'chunked attention'} layers")
    capped = [name for name, value in config.to_dict().items() if "softcap" in name and value]
    if capped:
        found.append(f"it caps logits ({', '.join(capped)})")
    if any(name.endswith("sinks") for name, _ in model.named_parameters()):
        found.append("its attention has sinks")
    if dropped := dropout(model):
        found.append(f"it has dropout ({', '.join(dropped)})")
    return found


def dropout(model: PreTrainedModel) -> list[str]:
    """Return the names of the model's dropout in training: modules with p > 0 and layers' own probabilities."""
    names = set()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout) and module.p > 0:
            names.add("nn.Dropout")
        names |= {name for name, value in vars(module).items() if "drop" in name and isinstance(value, float) and value > 0}
    return sorted(names)


def probe_bundles() -> list[Bundle]:
    """Two bundles of unequal lengths and numbers of responses; the prompts are short enough for any window to reach back."""
    generator = torch.Generator().manual_seed(1)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(torch.randint(3, 100, (length,), generator=generator).tolist())

    return [Bundle(ids(5), (ids(6), ids(3), ids(7))), Bundle(ids(3), (ids(4), ids(8)))]


def _logps_and_gradient(model: PreTrainedModel, layout: Layout) -> tuple[Tensor, Tensor]:
    model.train()
    model.zero_grad()
    values = layout.logps(model, probe_bundles())
    (values * torch.arange(1, len(values) + 1)).sum().backward()  # type: ignore[no-untyped-call]
    gradient = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return values.detach(), torch.cat(gradient).double()


def _check_numbers(expected: tuple[Tensor, Tensor], found: tuple[Tensor, Tensor]) -> None:
    for what, right, value in zip(("log-probabilities", "gradient"), expected, found, strict=True):
        error = float((value - right).norm() / right.norm())
        if not error < TOLERANCE:
            raise NotImplementedError(f"its {what} would be off by {error:.1g}")


def check_leaks(model: PreTrainedModel, layout: Layout) -> None:
    """Another last rejected response leaves the others as they are, bit for bit; another first prompt token changes all.

    Raises:
        NotImplementedError: not so.
    """
    first, second = probe_bundles()
    last = tuple(token + 1 for token in first.responses[2])
    changed = replace(first, responses=(*first.responses[:2], last))
    moved = replace(first, prompt=(first.prompt[0] + 1, *first.prompt[1:]))
    with torch.no_grad():
        before, after, other = (layout.logps(model, [bundle, second]) for bundle in (first, changed, moved))
    same = before == after
    if not (same[[0, 1, 3, 4]].all() and not same[2]):
        raise NotImplementedError("a response's log-probability would depend on another response")
    same = before == other
    if not (same[3:].all() and not same[:3].any()):
        raise NotImplementedError("a response would not see its own prompt, or see another's")
