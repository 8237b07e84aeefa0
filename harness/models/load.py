"""Checkpoints into memory: safetensors only, no remote code unless said, evaluation mode."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.api.limits import read_json
from harness.errors import DataError
from harness.models.added_tokens import add_rows, add_tokens
from harness.models.delta_note import is_delta, read_note
from harness.models.options import KEPT, LoadOptions, Use, weights_dtype

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from harness.models.delta import Locate

GENERATION = "generation_config.json"

HALF_ONLY = "flash"  # attention of this name computes in 16 bits alone


def load_tokenizer(folder: Path, options: LoadOptions | None = None) -> PreTrainedTokenizerBase:
    """The checkpoint's tokenizer, with the template that the options name in place of its own."""
    from transformers import AutoTokenizer

    options = options or LoadOptions()
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=options.trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise DataError(f"the tokenizer in {folder} cannot be loaded: {_first_line(error)}") from error
    if options.added_tokens:
        add_tokens(tokenizer, options.added_tokens)
    if options.chat_template is not None:
        tokenizer.chat_template = options.chat_template
    return tokenizer


def load_model(
    folder: Path,
    options: LoadOptions | None = None,
    *,
    use: Use = "generation",
    device: str | None = None,
    locate: Locate | None = None,
    place: str | None = None,
) -> PreTrainedModel:
    """The checkpoint's model in evaluation mode, dropout off, an adapter merged.

    Args:
        options: those of the checkpoint's own configuration if None, where a run saved it; else the defaults.
        use: what for, which decides the type of its weights: `weights_dtype`.
        device: `cuda` or `cpu`: whose rules decide that type; of this machine if None.
        locate: gives the folder of the model that the checkpoint is a difference from, if it is one (`harness.models.delta`).
        place: `cuda` or `cpu`: where the weights go; to a GPU, if there is one, if None.

    Raises:
        DataError: the files or the options cannot be loaded: attention that is not installed, no quantisation here.
    """
    import torch
    from transformers import AutoModelForCausalLM

    options = options or LoadOptions.of_config(read_config(folder))
    place = place or ("cuda" if torch.cuda.is_available() else "cpu")
    scored, dtype = use == "scoring", weights_dtype(options, device or place, use)
    # What is scored, and what an adapter is added to, are the weights as they are trained: rounded where the options round.
    read = weights_dtype(options, device or place, "training") if scored or options.adapter else dtype
    keywords: dict[str, Any] = {"dtype": getattr(torch, read), "trust_remote_code": options.trust_remote_code}
    attention = options.attn_implementation
    if attention is not None:
        keywords["attn_implementation"] = "sdpa" if scored and attention.startswith(HALF_ONLY) else attention
    if options.quantization is not None:
        keywords |= {"quantization_config": _quantization(), "device_map": {"": place}}
    try:
        if is_delta(folder):
            model = _from_delta(folder, locate, keywords)
        else:
            model = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, **keywords)
    except (OSError, ValueError, ImportError) as error:
        raise DataError(f"the model in {folder} cannot be loaded: {_first_line(error)}") from error
    if options.quantization is None:
        model = model.to(place)
    elif scored:
        model = model.dequantize()
    if options.adapter is not None:
        model = _with_adapter(model, Path(options.adapter))
    if options.added_tokens:
        add_rows(model, load_tokenizer(folder, options), options.added_tokens)
    if options.kept():
        setattr(model.config, KEPT, options.kept())
    return _without_dropout(model if options.quantization and not scored else cast(model, dtype)).eval()


def _from_delta(folder: Path, locate: Locate | None, keywords: Mapping[str, Any]) -> PreTrainedModel:
    """Return the model of a checkpoint that is kept as its difference from another one.

    Raises:
        DataError: that other model is not given, or not the one.
    """
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig

    from harness.models.delta import state_dict

    if locate is None:
        raise DataError(f"{folder} holds the difference from the model {read_note(folder).base.model}: it is loaded with that")
    kept = {"generation_config": GenerationConfig.from_pretrained(folder)} if (folder / GENERATION).is_file() else {}
    config = AutoConfig.from_pretrained(folder)
    with torch.device("meta"):  # for its class: the automatic one takes no weights without a folder
        kind: type[PreTrainedModel] = type(AutoModelForCausalLM.from_config(config))
    weights = state_dict(folder, locate)
    model: PreTrainedModel = kind.from_pretrained(None, config=config, state_dict=weights, **kept, **keywords)
    model.name_or_path = model.config.name_or_path = str(folder)
    return model


def load(
    folder: Path, options: LoadOptions | None = None, *, use: Use = "generation"
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer of one checkpoint folder."""
    return load_model(folder, options, use=use), load_tokenizer(folder, options)


def read_config(folder: Path) -> dict[str, Any]:
    """The checkpoint's config.json.

    Raises:
        DataError: there is none, or it holds no object.
    """
    try:
        config = read_json(folder / "config.json")
    except (OSError, ValueError) as error:
        raise DataError(f"{folder / 'config.json'} cannot be read ({error}): a checkpoint needs it") from error
    if not isinstance(config, dict):
        raise DataError(f"{folder / 'config.json'} holds no object: it is no checkpoint's")
    return config


def generation_eos(folder: Path) -> tuple[int, ...]:
    """Return the end tokens that a checkpoint folder names: `eos_token_id` of generation_config.json, one or several.

    Without that file they are config.json's, as in transformers. A negative id stands for none.

    Raises:
        DataError: the file cannot be read, or `eos_token_id` is neither an id nor a list of ids.
    """
    path = folder / GENERATION
    try:
        config = read_json(path) if path.is_file() else read_config(folder)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read ({error}): mend it, or remove it") from error
    if not isinstance(config, dict):
        raise DataError(f"{path} holds no object: mend it, or remove it")
    end_ids = config.get("eos_token_id")
    if path.is_file() or end_ids is not None or not isinstance(config.get("text_config"), dict):
        return _ids(end_ids, path if path.is_file() else folder / "config.json")
    return _ids(config["text_config"].get("eos_token_id"), folder / "config.json")


def model_eos(model: PreTrainedModel) -> tuple[int, ...]:
    """Return the end tokens of a model in memory: what `generation_eos` gives for the folder it was loaded from."""
    config = getattr(model, "generation_config", None)
    return _ids(getattr(config, "eos_token_id", None), "generation_config")


def _ids(value: Any, place: object) -> tuple[int, ...]:
    ids = value if isinstance(value, list | tuple) else [] if value is None else [value]
    if not all(isinstance(item, int) and not isinstance(item, bool) for item in ids):
        raise DataError(f"{place}: eos_token_id = {value!r} is neither the id of a token nor a list of them: correct it")
    return tuple(item for item in ids if item >= 0)


def quantization_problem() -> str | None:
    """Why nothing can be quantised on this machine, or None."""
    import torch

    if find_spec("bitsandbytes") is None:
        return "bitsandbytes is not installed: pip install 'alignment-harness[quantization]'"
    return None if torch.cuda.is_available() else "4-bit weights need a CUDA device, and this machine has none: leave it out"


def _quantization() -> Any:
    import torch
    from transformers import BitsAndBytesConfig

    if (problem := quantization_problem()) is not None:
        raise DataError(f"model.quantization: {problem}")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def cast(model: PreTrainedModel, dtype: str) -> PreTrainedModel:
    """Give the model weights of another type, in place; tables that it computes itself, as of positions, stay as they are."""
    import torch

    for parameter in model.parameters():
        parameter.data = parameter.data.to(getattr(torch, dtype))
    return model


def _with_adapter(model: PreTrainedModel, adapter: Path) -> PreTrainedModel:
    """Return the model with a PEFT adapter's update added to its weights, which are float32 from then on.

    Raises:
        DataError: the adapter does not fit the model.
    """
    from peft import PeftModel

    try:
        with warnings.catch_warnings():
            quiet_peft()
            wrapped = PeftModel.from_pretrained(cast(model, "float32"), adapter)
        return merged(wrapped, safe=True)
    except (OSError, ValueError, RuntimeError, KeyError, AttributeError) as error:
        raise DataError(f"model.adapter = {str(adapter)!r}: it does not fit the model: {_first_line(error)}") from error


def merged(wrapped: PeftModel, *, safe: bool = False) -> PreTrainedModel:
    """Return the model inside PEFT's wrapper with the adapters added to its weights: a checkpoint like any other.

    An adapter of the input or the output embeddings belongs to that one alone, also where the model shares their weights:
    those are then kept apart, which the configuration of the merged model says (`tie_word_embeddings`).

    Args:
        wrapped: the model with its adapters; changed in place.
        safe: whether to refuse updates that are no numbers, which takes a copy of each layer.
    """
    with warnings.catch_warnings():
        quiet_peft()
        _untie(wrapped.get_base_model())
        whole: PreTrainedModel = wrapped.merge_and_unload(safe_merge=safe)
    return whole


def _untie(model: PreTrainedModel) -> None:
    """Give the output embedding weights of its own where it shares the input's and an adapter lies on either of them."""
    from peft.tuners.tuners_utils import BaseTunerLayer
    from torch import nn

    ends = model.get_input_embeddings(), model.get_output_embeddings()
    if not any(isinstance(layer, BaseTunerLayer) for layer in ends):
        return
    inner, outer = (layer.get_base_layer() if isinstance(layer, BaseTunerLayer) else layer for layer in ends)
    if inner.weight is not outer.weight:
        return
    outer.weight = nn.Parameter(outer.weight.detach().clone(), requires_grad=False)
    for config in (model.config, model.config.get_text_config()):
        config.tie_word_embeddings = False


def quiet_peft() -> None:
    """Silence PEFT where it says what is taken care of here; inside `catch_warnings`."""
    warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`", category=FutureWarning)
    warnings.filterwarnings("ignore", message="Model (has|with) `tie_word_embeddings=True` and")
    warnings.filterwarnings("ignore", message="Input and output embeddings are no longer tied")


def _without_dropout(model: PreTrainedModel) -> PreTrainedModel:
    import torch

    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        for name in [name for name, value in vars(module).items() if "drop" in name and isinstance(value, float)]:
            setattr(module, name, 0.0)  # OPT's and others' own probabilities, given to a function
    return model


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
