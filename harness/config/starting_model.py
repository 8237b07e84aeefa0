"""Find, pin and check the checkpoints that a config names: the starting model, and those of rows that train nothing.

Mistakes are noted as problems, and none is raised.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from harness.config.rows import RowConfig
from harness.config.schema import MethodEntry, ModelSection
from harness.config.unresolved import UnresolvedConfig
from harness.errors import DataError, Problem, UnreachableError
from harness.extras import missing_extra
from harness.models.checkpoint import SANDBOX, Checkpoint, adapter_folder, checkpoint_hash, locate
from harness.models.fit import check_adapter, language_model_problem
from harness.models.load import generation_eos, load_tokenizer, quantization_problem, read_config
from harness.models.options import LoadOptions
from harness.models.templates import check_template, choose_template, template_hash
from harness.training.settings import SftSettings, TrainingSettings

_MODEL_FIELD = re.compile(rf"\bmodel\.({'|'.join(ModelSection.model_fields)})\b")


def starting_model(
    problems: list[Problem], raw: Any, unreachable: dict[str, str] | None = None, unchecked: dict[str, str] | None = None
) -> Checkpoint | None:
    """The checkpoint with all that decides what it computes, or None with problems noted (or with `scratch`).

    Args:
        unreachable: where it is given, a hub model that cannot be looked up is noted in it under `model`, and is returned
            without a commit, without files and without a template, instead of a problem.
        unchecked: where it is given, takes `model` if its tokenizer or weights cannot be checked without a package.
    """
    try:
        section = ModelSection.model_validate(raw)
    except ValidationError:
        return None  # the shape's problems are noted by `config.validate`
    if section.path is None:
        return None
    return _located(problems, section, "model", unreachable, unchecked)


def locate_rows(unresolved: UnresolvedConfig, unreachable: dict[str, str] | None = None) -> list[RowConfig | None]:
    """Return the rows, each of kind `checkpoint` with its checkpoint; for one that is no good, None and a problem noted.

    Args:
        unreachable: as of `starting_model`, under `methods.N.checkpoint`.
    """
    located: list[RowConfig | None] = []
    for place, row in zip(unresolved.places, unresolved.rows, strict=True):
        if row is None or row.kind != "checkpoint":
            located.append(row)
            continue
        given = MethodEntry.model_validate(unresolved.raw["methods"][int(place.rpartition(".")[2])]).checkpoint
        assert given is not None
        section = ModelSection.model_validate(given.model_dump(exclude_none=True))
        checkpoint = _located(
            unresolved.problems, section, f"{place}.checkpoint", unreachable, unresolved.unchecked, as_it_is=True
        )
        located.append(replace(row, checkpoint=checkpoint) if checkpoint else None)
    return located


def _located(
    problems: list[Problem],
    section: ModelSection,
    field: str,
    unreachable: dict[str, str] | None,
    unchecked: dict[str, str] | None = None,
    *,
    as_it_is: bool = False,
) -> Checkpoint | None:
    """Return a section's checkpoint, or None with a problem noted.

    Args:
        field: the section's place in the config.
        as_it_is: it is evaluated and not trained: the options that a run saved in it hold, and its weights must be whole.
    """
    assert section.path is not None
    options = LoadOptions()
    try:
        options = _options(section)
        checkpoint = replace(locate(section.path, section.revision), options=options, deltas=section.storage == "delta")
        try:
            if as_it_is:
                checkpoint = _with_saved_options(checkpoint, section)
                _check_language_model(checkpoint)
            return _with_adapter(_with_template(checkpoint, section))
        except ModuleNotFoundError as error:
            if unchecked is None or (missing := missing_extra(error)) is None:
                raise
            unchecked[field] = str(missing)
            return checkpoint
    except UnreachableError as error:
        if unreachable is not None:
            unreachable[field] = of_field(str(error), field)
            return Checkpoint(None, section.path, options=options)
        problems.append(_problem(section, field, str(error)))
        return None
    except DataError as error:
        problems.append(_problem(section, field, str(error)))
        return None
    except (OSError, RuntimeError, ValueError) as error:  # a path too long, of a user that is not there, of a broken file
        problems.append(Problem(f"{field}.path", section.path, f"the checkpoint cannot be read ({error})"))
        return None


def _with_saved_options(checkpoint: Checkpoint, section: ModelSection) -> Checkpoint:
    """The checkpoint with the options that a run noted in it: an exported row's model then computes what the row's did."""
    saved = LoadOptions.of_config(read_config(checkpoint.files(weights=False)))
    own, dtype = checkpoint.options, section.dtype if "dtype" in section.model_fields_set else saved.dtype
    options = replace(saved, dtype=dtype, adapter=own.adapter, adapter_hash=own.adapter_hash)
    return replace(checkpoint, options=options)


def _check_language_model(checkpoint: Checkpoint) -> None:
    """Refuse another architecture: transformers would fill in what a language model needs and the files lack, at random."""
    problem = language_model_problem(checkpoint.files(weights=False), whole=checkpoint.hub is None)
    if problem is not None:
        raise DataError(problem)


def check_trained_dtype(
    problems: list[Problem], section: ModelSection, settings: Iterable[SftSettings | TrainingSettings]
) -> None:
    """Refuse to train all weights in a type of 16 bits.

    A bfloat16 weight has 8 binary digits: at a rate of 5e-7 AdamW's steps are far below half of the last one, and 99 % of
    the weights stay where they are (docs/models-and-data.md has the numbers).
    """
    if section.dtype in ("auto", "float32") or all(item.lora is not None for item in settings):
        return
    fix = (
        "all weights are trained, and kept in 16 bits most of their steps would be rounded away: leave it at auto, which keeps "
        "them in float32 and computes as `precision` says, or train adapters (lora)"
    )
    problems.append(Problem("model.dtype", section.dtype, fix))


def _options(section: ModelSection) -> LoadOptions:
    """How it is loaded; the template is decided with the tokenizer at hand."""
    adapter = adapter_folder(section.adapter) if section.adapter else None
    if section.quantization and (problem := quantization_problem()) is not None:
        raise DataError(f"model.quantization = {section.quantization!r}: {problem}")
    return LoadOptions(
        dtype=section.dtype,
        storage="float32" if section.storage == "delta" else section.storage,  # the same numbers, so the same keys
        attn_implementation=section.attn_implementation,
        quantization=section.quantization,
        trust_remote_code=section.trust_remote_code,
        adapter=str(adapter) if adapter else None,
        adapter_hash=checkpoint_hash(adapter) if adapter else None,
        added_tokens=section.add_tokens or None,
    )


def _with_adapter(checkpoint: Checkpoint) -> Checkpoint:
    """The checkpoint with its adapter checked against it, and how that is merged noted, which is part of its key."""
    options = checkpoint.options
    if options.adapter is None:
        return checkpoint
    folder = checkpoint.files(weights=False)
    untied = check_adapter(Path(options.adapter), folder, trust_remote_code=options.trust_remote_code)
    return replace(checkpoint, options=replace(options, merging="untied" if untied else "rounded" if options.rounds else None))


def _with_template(checkpoint: Checkpoint, section: ModelSection) -> Checkpoint:
    """With the chat template chosen and checked; the sandbox's own is known to be good."""
    folder = checkpoint.files(weights=False)
    changed = section.chat_template_kwargs or section.add_tokens or section.system_turns == "empty"
    if section.path == SANDBOX and section.chat_template is None and not changed:
        return replace(checkpoint, template_hash=_file_template_hash(folder))
    _check_code(read_config(folder), section)
    generation_eos(folder)  # raises where it is malformed
    tokenizer = load_tokenizer(folder, checkpoint.options)
    chosen = choose_template(tokenizer, section.chat_template, section.system_turns, section.chat_template_kwargs)
    if chosen is not None:
        tokenizer.chat_template = chosen
    check_template(tokenizer)
    options = replace(checkpoint.options, chat_template=chosen)
    return replace(checkpoint, options=options, template_hash=template_hash(tokenizer))


def _file_template_hash(folder: Path) -> str:
    return hashlib.sha256((folder / "chat_template.jinja").read_bytes()).hexdigest()


def _check_code(config: Mapping[str, Any], section: ModelSection) -> None:
    """Refuse a checkpoint that brings its own code for a type that transformers has not."""
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    kind = config.get("model_type")
    if kind in CONFIG_MAPPING_NAMES or section.trust_remote_code:
        return
    if "auto_map" in config:
        raise DataError(
            f"model.trust_remote_code = False: {section.path!r} is of type {kind!r}, which comes with code of its own: read "
            "that code, then set it to true"
        )
    raise DataError(f"model.path = {section.path!r}: transformers knows no model type {kind!r} (config.json)")


def _problem(section: ModelSection, field: str, message: str) -> Problem:
    """A message that begins with `model.FIELD = value: ` as a problem of that field; any other of the section's `path`."""
    head, separator, fix = message.partition(": ")
    name = head.partition(" = ")[0].removeprefix("model.")
    if separator and head.startswith("model.") and name in ModelSection.model_fields:
        return Problem(f"{field}.{name}", getattr(section, name), of_field(fix, field))
    return Problem(f"{field}.path", section.path, of_field(message, field))


def of_field(message: str, field: str) -> str:
    """A message with the fields of the `model` section named as those of another section."""
    return _MODEL_FIELD.sub(rf"{field}.\1", message)
