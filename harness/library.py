"""`harness.compare`: the comparison as a function, for scripts and notebooks. It reads no environment variable."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.board.board import Board

if TYPE_CHECKING:
    from harness.config.strict_yaml import RawConfig


@dataclass(frozen=True)
class Choice:
    """The part of a config to run and the changes to it, as `--methods`, `--seeds` and `--set` on the command line.

    Attributes:
        methods: these rows and the baseline, by label; or registered methods by name.
        seeds: the seeds to repeat with.
        changes: values by the dotted paths of fields, as in `{"budget.prompts": 200}`.
    """

    methods: Sequence[str] | None = None
    seeds: Sequence[int] | None = None
    changes: Mapping[str, Any] | None = None

    def apply(self, raw: Mapping[str, Any]) -> RawConfig:
        """Return the config with the choice applied."""
        import yaml

        from harness.config.file import chosen_rows, override

        changes = (self.changes or {}).items()
        changed = override(raw, [f"{field}={yaml.safe_dump(value, default_flow_style=True)}" for field, value in changes])
        if self.methods is not None:
            changed["methods"] = chosen_rows(changed.get("methods"), list(self.methods), changed.get("baseline"))
        if self.seeds is not None:
            changed["seeds"] = list(self.seeds)
        return changed


def compare(
    config: str | Path | Mapping[str, Any] = "quickstart",
    choice: Choice | None = None,
    *,
    out: str | Path | None = None,
    store: str | Path = Path("runs") / "store",
    workers: int | None = None,
    progress: bool = True,
) -> Board:
    """Train every method from the same start at the same budget, evaluate all, and return the board.

    Args:
        config: a YAML file, the name of a packaged config, or a config as a mapping.
        choice: the rows and seeds to run, and changes to the config.
        out: the board's folder; default: `runs/<name>`, or `runs/<name>-2` where that has the board of another config.
        store: the folder of artifacts, shared by runs; artifacts in it are not computed again.
        workers: processes on this machine, each on one GPU or one thread; default: one per GPU, or one per core.
        progress: whether to show progress: a bar in a terminal or notebook, else lines on standard error.

    Returns:
        The board as written. A failed row is on it, with the reason in `failed`.

    Raises:
        ConfigError: the config is not valid; raised before any compute, with every problem.
        StageError: the baseline failed, so that there is nothing to compare with.
    """
    from harness.config.file import find_config, load_raw
    from harness.config.inherit import inherit
    from harness.run.compare import RunOptions
    from harness.run.compare import compare as run
    from harness.run.executors.local import LocalExecutor, places, visible_gpus
    from harness.run.observers import display_here

    if isinstance(config, Mapping):
        raw, where = inherit(config), "the configuration"
    else:
        path = find_config(Path(config))
        raw, where = load_raw(path), str(path)
    raw = (choice or Choice()).apply(raw)
    folder = Path(out) if out is not None else Path("runs") / str(raw.get("name", "comparison"))
    gpus = visible_gpus()
    return run(
        raw,
        folder=folder,
        store=Path(store),
        workers=workers or places(gpus),
        options=RunOptions(
            partial(LocalExecutor, gpus=gpus),
            display=display_here() if progress else "none",
            other_board="beside" if out is None else "refuse",
        ),
        command="harness.compare(…)",
        where=where,
    ).board
