"""Config inheritance: `extends: PARENT` merges a file over a packaged config or another file.

- Mappings merge, field by field. A mapping whose `name` differs from the parent's is another component and replaces it; one
  without `name` changes the fields of a parent's component, even of one that is written as a bare name.
- Lists and single values replace. `+methods: [...]` appends to the parent's `methods`, and so for every list of a section.
- `null` clears: the field has its default again. Where null itself is a choice (`sft: null`), it is that choice.
- `name` and `description` are not inherited, since they are about one comparison: a config
  without a `name` is called like its file.
- A relative path in a parent file counts from the parent's folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from harness.config.problems import model_at, secrets
from harness.config.schema import Config, raise_all
from harness.config.strict_yaml import RawConfig, read_yaml
from harness.errors import ConfigError, HarnessError, Problem, did_you_mean

EXTENDS = "extends"
_OF_ONE_COMPARISON = ("name", "description")
# Text that names no file, whatever lies in the parent's folder.
_NO_PATH = frozenset({"name", "description", "label", "method", "baseline", "schema", "revision", EXTENDS})
# Fields in which a bare word may be a file or folder; elsewhere it is a component or a choice.
_BARE_PATH = frozenset({"path", "adapter", "dataset", "checkpoint"})


def packaged_names() -> dict[str, Path]:
    """Return the configs that ship with the package, by name: `quickstart`, `papers/self_contrast`, …"""
    root = Path(str(resources.files("harness.configs")))
    files = [*root.glob("*.yaml"), *root.glob("papers/*.yaml"), *root.glob("gpu/*.yaml")]
    return {file.relative_to(root).with_suffix("").as_posix(): file for file in sorted(files)}


def inherit(raw: Mapping[str, Any], path: Path | None = None) -> RawConfig:
    """Return a config with its parents merged under it.

    Args:
        raw: the config as its file has it.
        path: its file; None for a mapping of a script, whose `extends` counts from the working directory.

    Raises:
        ConfigError: a missing parent, a cycle, or a `+field` with nothing to append to.
        HarnessError: a parent that cannot be read, or is no config.
    """
    where = str(path) if path else "the configuration"
    raise_all(list(secrets(raw)), where)  # before any message quotes a value
    merged = _inherited(raw, path, where, (path.resolve(),) if path else ())
    if EXTENDS in raw and "name" not in merged and path is not None:
        merged["name"] = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).lstrip("._-") or "comparison"
    return merged


def _inherited(raw: Mapping[str, Any], path: Path | None, where: str, chain: tuple[Path, ...]) -> RawConfig:
    """Return a config over its parent over its grandparent, and so on.

    Args:
        chain: the files that led here, the child's first; to meet one again is a cycle.
    """
    if EXTENDS not in raw:
        return _merged({}, raw, "", where)
    given = raw[EXTENDS]
    parent = find_parent(given, path, where)
    resolved = parent.resolve()
    if resolved in chain:
        circle = " → ".join(file.name for file in (*chain[chain.index(resolved) :], resolved))
        raise _error(where, EXTENDS, given, f"it leads back to a config that extends it ({circle}): leave one `extends` out")
    try:
        contents = read_yaml(parent)
        raise_all(list(secrets(contents)), str(parent))
        # Before merging, so that the paths of each file count from its own folder, whatever extends it.
        contents = contents if _is_packaged(parent) else _rooted(contents, parent.parent)
        base = _inherited(contents, parent, str(parent), (*chain, resolved))
    except HarnessError as error:
        if len(chain) > 1:
            raise  # the outermost file names the whole way once
        raise HarnessError(f"{where} extends {given!r}: {error}") from error
    base = {field: value for field, value in base.items() if field not in _OF_ONE_COMPARISON}
    return _merged(base, {field: value for field, value in raw.items() if field != EXTENDS}, "", where)


def find_parent(given: Any, path: Path | None, where: str) -> Path:
    """Return the file of a parent: a file that counts from the child's folder, or a packaged config."""
    if not isinstance(given, str) or not given.strip():
        raise _error(where, EXTENDS, given, "write the name of a packaged config, or the path of a YAML file")
    packaged = packaged_names()
    try:
        file = (path.parent if path else Path()) / Path(given).expanduser()
        if file.is_file():
            return file
    except (OSError, RuntimeError, ValueError) as error:  # too long, of a user that does not exist, with a null character
        raise _error(where, EXTENDS, given, f"no file can be called so ({error})") from error
    if given in packaged:
        return packaged[given]
    beside = f" beside {path.name}" if path else ""
    fix = f"no such file{beside}, and no packaged config is called so; {did_you_mean(given, packaged)}"
    raise _error(where, EXTENDS, given, fix)


def _is_packaged(path: Path) -> bool:
    return path.resolve().is_relative_to(Path(str(resources.files("harness.configs"))).resolve())


def _error(where: str, field: str, value: Any, fix: str) -> ConfigError:
    return ConfigError([Problem(field, value, fix)], where)


# Merging


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any], place: str, where: str) -> RawConfig:
    """Return a section of the parent with the child's changes; nothing in it is shared with either."""
    merged = {field: copied(value) for field, value in base.items()}
    for field, value in changes.items():
        at = f"{place}.{field}" if place else f"{field}"
        if isinstance(field, str) and field.startswith("+"):
            name = field[1:]
            if name in changes:
                raise _error(
                    where, at, value, f"`{name}` stands beside it, and would replace what it appends to: leave one out"
                )
            merged[name] = [*_list_to_append_to(base, name, at, value, where), *copied(value)]
        elif value is None and field in base:
            if _takes_null(at):
                merged[field] = None
            else:
                del merged[field]
        elif isinstance(value, Mapping) and (section := _section_under(base.get(field), value)) is not None:
            merged[field] = _merged(section, value, at, where)
        else:
            merged[field] = copied(value)
    return merged


def _section_under(inherited: Any, value: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the parent's section that a child's section changes; None where the child's replaces it."""
    if isinstance(inherited, str):
        inherited = {"name": inherited}  # a component by its bare name
    if not isinstance(inherited, Mapping) or value.get("name", inherited.get("name")) != inherited.get("name"):
        return None
    return inherited


def _list_to_append_to(base: Mapping[str, Any], name: str, at: str, value: Any, where: str) -> list[Any]:
    """Return the parent's list under a field's name, which a child's `+field` appends to."""
    if not isinstance(value, list):
        raise _error(where, at, value, "it appends to a list: write a list")
    if name not in base:
        raise _error(
            where, at, value, f"no parent has `{name}`, which it would append to: write `{name}`, or a parent in `extends`"
        )
    if not isinstance(base[name], list):
        raise _error(where, at, value, f"the parent's `{name}` is {base[name]!r:.40}, and only a list can be appended to")
    items: list[Any] = copied(base[name])
    return items


def _takes_null(place: str) -> bool:
    """Whether null is a choice of its own for a field of the schema: it is allowed and not what an absent field means."""
    *sections, field = place.split(".")
    model = model_at(Config, sections)
    info = next((info for name, info in model.model_fields.items() if field in (name, info.alias)), None) if model else None
    return info is not None and not info.is_required() and info.default is not None and type(None) in _options(info.annotation)


def _options(annotation: Any) -> tuple[Any, ...]:
    return getattr(annotation, "__args__", (annotation,))


def copied(value: Any) -> Any:
    """Return a deep copy in which nothing is shared: an anchor used twice may be changed in one place."""
    if isinstance(value, Mapping):
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if isinstance(value, list) else value


# A parent's paths


def _rooted(value: Any, folder: Path, field: str = "") -> Any:
    """Return a parent's value with the files it names as paths from the working directory."""
    if isinstance(value, Mapping):
        return {key: _rooted(item, folder, key if isinstance(key, str) else "") for key, item in value.items()}
    if isinstance(value, list):
        # Each of several starting models may be written as its path alone.
        return [_rooted(item, folder, "path" if field == "model" else field) for item in value]
    if not isinstance(value, str) or field in _NO_PATH or value.startswith("~") or not value:
        return value
    # `./x` is a path in any case; other text is one where it looks like a path and the parent's folder has the file: hub
    # names (`owner/name`) and addresses look like paths, too.
    explicit = value in (".", "..") or value.startswith(("./", "../"))
    pathlike = field in _BARE_PATH or "/" in value or bool(Path(value).suffix)
    return str(folder / value) if explicit or (pathlike and _exists(folder / value)) else value


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # text that no file can be called: too long, with a null character
        return False
