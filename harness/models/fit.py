"""Whether an adapter fits a model, and whether a checkpoint is a reward model: from configurations and the headers of files.

No weight is read: models are built on torch's `meta` device, and of safetensors files only names and shapes are taken. So it is
cheap enough for planning, where mistakes should be found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api.limits import read_json
from harness.errors import DataError

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel

Shape = tuple[int, ...]
ADAPTER_WEIGHTS = "adapter_model.safetensors"
INDEX = "model.safetensors.index.json"
WRAPPED = "base_model.model."  # what PEFT puts before the names of the model's own modules
_COPIES = (".modules_to_save", ".original_module")  # of a layer that is trained whole
_OTHER_TASKS = ("Classification", "MaskedLM", "QuestionAnswering", "Reward", "MultipleChoice")  # in names of architectures
_SUFFIXES = (
    ".lora_A.weight",
    ".lora_B.weight",
    ".lora_embedding_A",
    ".lora_embedding_B",
    ".base_layer.weight",
    ".weight",
    ".bias",
)


def shapes(files: Iterable[Path]) -> dict[str, Shape]:
    """Return the shapes of the weights in safetensors files, by name.

    Raises:
        DataError: a file is none, or is not whole.
    """
    from safetensors import SafetensorError, safe_open

    known: dict[str, Shape] = {}
    for file in files:
        try:
            with safe_open(file, "pt") as weights:
                known |= {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise DataError(f"{file} cannot be read as safetensors ({error}): is it whole?") from error
    return known


def check_adapter(adapter: Path, folder: Path, *, trust_remote_code: bool = False) -> bool:
    """Check a PEFT adapter against the model it is to be merged into; return whether it needs tied embeddings kept apart.

    Args:
        adapter: its folder.
        folder: the model's, of which only the configuration is read.
        trust_remote_code: whether code that comes with the model may run.

    Raises:
        DataError: it cannot be merged at all, or one of its weights has no place in the model or another size.
    """
    _check_mergeable(adapter)
    model = _on_meta(folder, trust_remote_code)
    modules = dict(model.named_modules())
    ends = {id(model.get_input_embeddings()): "input", id(model.get_output_embeddings()): "output"}
    tied = model.get_input_embeddings().weight is getattr(model.get_output_embeddings(), "weight", None)
    untied = False
    for name, shape in shapes([adapter / ADAPTER_WEIGHTS]).items():
        suffix = next((end for end in _SUFFIXES if name.endswith(end)), None)
        if suffix is None:
            continue  # a vector of DoRA's, a few tokens' rows: they go by the weights beside them
        place = name.removesuffix(suffix).removeprefix(WRAPPED)
        for inner in _COPIES:
            place = place.removesuffix(inner)
        module = modules.get(place)
        if module is None:
            raise DataError(
                f"model.adapter = {str(adapter)!r}: it holds {place}, and the model has no such layer "
                f"({type(model).__name__}): give the model that it was trained on as model.path"
            )
        end = ends.get(id(module))
        untied = untied or (tied and end is not None and ".lora_" in suffix)
        for have, need, what in _sizes(module, suffix, shape):
            if have != need:
                raise DataError(f"model.adapter = {str(adapter)!r}: {_misfit(place, have, need, what, end is not None)}")
    return untied


def _check_mergeable(adapter: Path) -> None:
    from peft import PeftType
    from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING

    try:
        kind = read_json(adapter / "adapter_config.json")["peft_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"model.adapter = {str(adapter)!r}: its adapter_config.json cannot be read ({type(error).__name__}: {error})"
        ) from error
    if kind not in PeftType.__members__:
        raise DataError(f"model.adapter = {str(adapter)!r}: PEFT knows no adapters of type {kind!r}: upgrade peft")
    if not hasattr(PEFT_TYPE_TO_TUNER_MAPPING.get(PeftType[kind]), "merge_and_unload"):
        raise DataError(
            f"model.adapter = {str(adapter)!r}: adapters of type {kind} cannot be merged into weights: give one of type LORA"
        )


def _on_meta(folder: Path, trust_remote_code: bool) -> PreTrainedModel:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code)
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
    model.tie_weights()
    return model


def _sizes(module: nn.Module, suffix: str, shape: Shape) -> list[tuple[int, int, str]]:
    """Return the sizes that must agree: of the adapter, of the model, and of what."""
    own: Any = getattr(module, "weight", None)
    weight: Shape = () if own is None else tuple(own.shape)
    if len(weight) == 2:
        rows, columns = weight if type(module).__name__ != "Conv1D" else weight[::-1]
        table = {
            ".lora_A.weight": (shape[-1], columns, "inputs"),
            ".lora_B.weight": (shape[0], rows, "outputs"),
            ".lora_embedding_A": (shape[-1], rows, "outputs"),
            ".lora_embedding_B": (shape[0], columns, "inputs"),
        }
        if suffix in table:
            return [table[suffix]]
    if suffix in (".weight", ".base_layer.weight"):
        return [
            (have, need, "outputs" if axis == 0 else "inputs")
            for axis, (have, need) in enumerate(zip(shape, weight, strict=False))
        ]
    return []


def _misfit(place: str, have: int, need: int, what: str, end: bool) -> str:
    if end and what == "outputs":
        return (
            f"it was trained with a vocabulary of {have:,} tokens ({place}), and the model has one of {need:,}: load that "
            f"model, call resize_token_embeddings({have}), save it with the adapter's tokenizer and give it as model.path"
        )
    return f"its {place} has {have:,} {what}, and the model's has {need:,}: give the model that it was trained on as model.path"


def language_model_problem(folder: Path, *, whole: bool) -> str | None:
    """Return why a checkpoint is no causal language model with all its weights, and what to do; None if it is one.

    Args:
        folder: its files.
        whole: as of `classifier_problem`.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    config = _config(folder)
    if isinstance(config, str):
        return config
    named = ", ".join(config.architectures or ["no architecture"])
    if config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or any(
        task in name for task in _OTHER_TASKS for name in config.architectures or ()
    ):
        return f"it is of type {config.model_type!r} ({named}), which is no causal language model: give one that generates text"
    names = _names(folder, whole)
    if names is None:
        return None
    # Names in files may be older than those in memory (GPT-NeoX's head was `embed_out`), so a head is any weight that is not
    # the backbone's. A head that is tied to the input embeddings is in no file.
    model = _on_meta(folder, trust_remote_code=False)
    prefix = f"{model.base_model_prefix}."
    inner = {name.removeprefix(prefix) for name in model.state_dict() if name.startswith(prefix)}
    tied = model.get_input_embeddings().weight is getattr(model.get_output_embeddings(), "weight", None)
    if not tied and all(name.startswith(prefix) or name in inner for name in names):
        return f"its weights lack a language model's head (config.json names {named}): give a causal language model, whole"
    return None


def classifier_problem(folder: Path, *, whole: bool) -> str | None:
    """Return why a checkpoint is no sequence classifier with one label and a chat template, and what to do; None if it is one.

    Args:
        folder: its files.
        whole: whether the weights are among them; otherwise their names are those of an index, if there is one, and what
            config.json calls the architecture has to do.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer
    from transformers.models.auto.modeling_auto import MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES

    config = _config(folder)
    if isinstance(config, str):
        return config
    if config.model_type not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        return f"transformers has no sequence classifier of type {config.model_type!r}: give another reward model"
    with torch.device("meta"):
        classifier = AutoModelForSequenceClassification.from_config(config)
    head = [name for name in classifier.state_dict() if not name.startswith(f"{classifier.base_model_prefix}.")]
    names = _names(folder, whole)
    if names is None:
        named = config.architectures or []
        lacking = [] if not named or any("SequenceClassification" in name for name in named) else head
    else:
        lacking = [name for name in head if name not in names]
    if lacking:
        return (
            f"it has no classification head (its weights lack {', '.join(lacking[:3])}; config.json names "
            f"{', '.join(config.architectures or ['no architecture'])}): give a checkpoint that was trained as a reward model"
        )
    if config.num_labels != 1:
        return f"it has {config.num_labels} labels, and a reward has one: give a checkpoint with num_labels = 1"
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        return f"its tokenizer cannot be loaded ({str(error).splitlines()[0]})"
    return None if tokenizer.chat_template else "its tokenizer has no chat template, and none is assumed: add one"


def starling_problem(folder: Path, *, whole: bool) -> str | None:
    """Return why a checkpoint has not Starling's layout, and what to do; None if it has, or if that cannot be told yet."""
    from harness.models.starling import missing_weights

    config, names = _config(folder), _names(folder, whole)
    if isinstance(config, str) or names is None:
        return config if isinstance(config, str) else None
    if missing := missing_weights(config, names):
        return (
            f"it has not Starling's layout: it lacks {', '.join(missing[:3])}; leave `layout` out for a sequence classifier, "
            "or convert it as docs/backends.md says"
        )
    return None


def _config(folder: Path) -> PretrainedConfig | str:
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        return f"its config.json cannot be read ({(str(error).splitlines() or [''])[0]})"


def _names(folder: Path, whole: bool) -> set[str] | None:
    """Return the names of a checkpoint's weights; None where no file that is there tells them."""
    if whole:
        return set(shapes(sorted(folder.glob("*.safetensors"))))
    try:
        index: Mapping[str, Any] = read_json(folder / INDEX)
        return set(index["weight_map"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
