"""How a checkpoint is loaded: what the `model` section says beside where it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Storage = Literal["float32", "bfloat16", "float16"]
Kept = Literal[Storage, "delta"]  # delta is float32, written as its difference from the starting model
Quantization = Literal["4bit"]
ScoringLayout = Literal["padded", "shared_prefix"]
SystemTurns = Literal["error", "merge", "empty"]

Use = Literal["generation", "scoring", "training"]
KEPT = "harness_loading"  # in a trained checkpoint's config.json: the options that its later loads need
_LASTING = ("dtype", "attn_implementation", "storage")


@dataclass(frozen=True)
class LoadOptions:
    """Everything beside the files that decides what a loaded checkpoint computes. All defaults: the files alone do.

    Attributes:
        dtype: of the weights in memory; what `auto` means depends on their use (`weights_dtype`).
        storage: of the weights that training leaves on disk.
        trained: whether a run trained and saved it: its weights are then read as they are stored.
        attn_implementation: as transformers calls it (`eager`, `sdpa`, `flash_attention_2`); its own choice if None.
        quantization: `4bit` is NF4 with double quantisation, computing in bfloat16 (QLoRA, arXiv 2305.14314).
        trust_remote_code: whether code that comes with the checkpoint may run.
        adapter: a local folder with a PEFT adapter, merged into the weights at load.
        adapter_hash: of the adapter's files.
        merging: how the adapter is merged, where that takes more than an addition: `untied` where it lies on embeddings that
            input and output share, `rounded` where `dtype` rounds the sum.
        chat_template: a Jinja template in place of the checkpoint's own.
        added_tokens: special tokens added to its vocabulary.
    """

    dtype: Dtype = "auto"
    storage: Storage = "float32"
    trained: bool = False
    attn_implementation: str | None = None
    quantization: Quantization | None = None
    trust_remote_code: bool = False
    adapter: str | None = None
    adapter_hash: str | None = None
    merging: Literal["untied", "rounded"] | None = None
    chat_template: str | None = None
    added_tokens: Sequence[str] | None = None

    @property
    def rounds(self) -> bool:
        """Tell whether training finds weights in memory that have fewer digits than float32."""
        return weights_dtype(self, "cpu", "training") != "float32" or self.quantization is not None

    def changed(self) -> dict[str, object]:
        """Return the options that differ from their defaults, for a key: an adapter counts by its content, not by its path."""
        given = asdict(self)
        return {
            field.name: given[field.name]
            for field in fields(self)
            if field.name != "adapter" and given[field.name] != field.default
        }

    def kept(self) -> dict[str, object]:
        """Return the options that hold once the checkpoint is trained and saved: adapter and template are then in its files."""
        lasting = {name: value for name, value in self.changed().items() if name in _LASTING}
        return {**lasting, "trained": True} if lasting else {}

    @classmethod
    def of_config(cls, config: Mapping[str, Any]) -> LoadOptions:
        """Return the options saved in a checkpoint of ours, or the defaults. `trust_remote_code` is never restored."""
        kept = config.get(KEPT)
        names = (*_LASTING, "trained")
        return cls(**{name: kept[name] for name in names if name in kept}) if isinstance(kept, Mapping) else cls()


def weights_dtype(options: LoadOptions, device: str, use: Use) -> str:
    """Return the type in which weights lie in memory, by what they are used for.

    Scoring is always in float32: the log-probabilities of two models that a small update lies between differ by less than what
    bfloat16 rounds away. Weights that `dtype` rounds are rounded first, so that the model which is scored is the one that is
    trained. What a training has moved is not rounded by `dtype` any more, unless it was stored so.

    Args:
        options: how the checkpoint is loaded.
        device: `cuda` or `cpu`, as `harness.store.environment.device_kind` gives it; decides what `auto` means for generation.
        use: what the weights are for.
    """
    if use == "scoring":
        return "float32"
    if use == "training" and options.trained and options.storage != options.dtype:
        return "float32"
    if options.dtype != "auto":
        return options.dtype
    return "bfloat16" if use == "generation" and device == "cuda" else "float32"
