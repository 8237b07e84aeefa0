"""Where a training stands, on disk, so that a later process goes on from there to the same weights, bit for bit.

transformers writes weights (safetensors), optimiser, schedule, random numbers and its own state into the trainer's folder. They
are then summed up and renamed into a folder that outlives the process: what lies there is whole. Nothing is unpickled but our
own optimiser and random states, by `torch.load(weights_only=True)`, whose checksums are verified first. Imports transformers.
"""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from harness.store import canonical, file_hash
from harness.training.ranks import Ranks
from harness.training.shared_trainer import SharedTrainer

MANIFEST = "checkpoint.json"
UNUSED = ("training_args.bin", "pytorch_model_fsdp.bin")  # a pickle, and FSDP's weights once more: nothing here reads them
STOPPED = "stopped"


@dataclass
class Checkpoints:
    """Of one stage.

    Attributes:
        folder: outlives the process; made when first needed.
        seconds: at least so many between two checkpoints; 0 makes one after every step.
        notes: what the last run noted beside its trainer's state; empty at a first beginning.
        earlier_seconds: spent by earlier runs up to the checkpoint that this one began at.
    """

    folder: Path
    seconds: float
    notes: dict[str, Any] = field(default_factory=dict)
    earlier_seconds: float = 0.0

    def resume_together(self, ranks: Ranks) -> Path | None:
        """`resume` by the first of several processes, for all of them."""
        last = self.resume() if ranks.first else None
        last, self.notes, self.earlier_seconds = ranks.from_first((last, self.notes, self.earlier_seconds))
        return last

    def resume(self) -> Path | None:
        """The last checkpoint, its notes read; None, and a clean folder, where there is none that is whole."""
        found = sorted(self.folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
        for checkpoint in reversed(found):
            if (manifest := _verified(checkpoint)) is not None:
                self.notes, self.earlier_seconds = manifest["notes"], manifest["seconds"]
                return checkpoint
            shutil.rmtree(checkpoint, ignore_errors=True)
        return None

    def keep(self, made: Path, notes: dict[str, Any], seconds: float) -> None:
        """Move what the trainer has written to its place, whole or not at all; earlier ones go."""
        for name in UNUSED:
            (made / name).unlink(missing_ok=True)
        files = {str(path.relative_to(made)): file_hash(path) for path in sorted(made.rglob("*")) if path.is_file()}
        manifest = {"notes": notes, "seconds": self.earlier_seconds + seconds, "files": files}
        (made / MANIFEST).write_text(canonical(manifest), encoding="utf-8")
        for name in (*files, MANIFEST):
            with (made / name).open("rb") as stream:
                os.fsync(stream.fileno())
        self.folder.mkdir(parents=True, exist_ok=True)
        earlier = list(self.folder.glob("checkpoint-*"))
        place = self.folder / made.name
        try:
            made.rename(place)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            shutil.rmtree(made, ignore_errors=True)  # whoever took our lease (`harness.store.claims`) has kept the same
        for path in earlier:
            if path != place:
                shutil.rmtree(path, ignore_errors=True)

    def keep_stopped(self, trainer: SharedTrainer, batch: dict[str, Any]) -> str:
        """Weights, optimiser and batch of a training that cannot go on, for a look; where they are, as the store names it."""
        folder = self.folder / STOPPED
        if trainer.ranks.first:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        trainer.ranks.wait()
        trainer.save_model(str(folder))
        trainer._save_optimizer_and_scheduler(str(folder))
        if trainer.ranks.first:
            for name in UNUSED:
                (folder / name).unlink(missing_ok=True)
            trainer.state.save_to_json(str(folder / "trainer_state.json"))
            (folder / "batch.json").write_text(json.dumps(batch, indent=1) + "\n", encoding="utf-8")
        trainer.ranks.wait()  # before any of them ends, and takes the others along
        return f"{self.folder.parent.name}/{self.folder.name}/{STOPPED}"


def _verified(checkpoint: Path) -> dict[str, Any] | None:
    """The checkpoint's manifest if every file is what it says."""
    try:
        manifest: dict[str, Any] = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
        whole = all(file_hash(checkpoint / name) == checksum for name, checksum in manifest["files"].items())
        return manifest if whole and {"notes", "seconds"} <= manifest.keys() else None
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return None


class CheckpointCallback(TrainerCallback):  # type: ignore[misc]
    """Asks the trainer for a checkpoint when one is due, and keeps it; of several processes the first decides and keeps.

    Args:
        notes: what to keep beside the trainer's state, JSON.
    """

    def __init__(self, checkpoints: Checkpoints, ranks: Ranks, notes: Callable[[], dict[str, Any]]) -> None:
        self.checkpoints = checkpoints
        self.ranks = ranks
        self.notes = notes
        self.began = self.last = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        due = self.ranks.from_first(time.monotonic() - self.last >= self.checkpoints.seconds)
        control.should_save = due and state.global_step < state.max_steps

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        made = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        self.last = time.monotonic()
        self.ranks.wait()  # until everybody's files are written
        if self.ranks.first:
            self.checkpoints.keep(made, self.notes(), self.last - self.began)
        self.ranks.wait()


def train_resumably(
    trainer: SharedTrainer,
    checkpoints: Checkpoints | None,
    notes: Callable[[], dict[str, Any]] = dict,
    restore: Callable[[dict[str, Any]], None] = lambda notes: None,
) -> None:
    """`trainer.train`, from the last checkpoint if there is one.

    Args:
        notes: what to keep beside the trainer's own state; JSON.
        restore: takes them back.
    """
    if checkpoints is None:
        trainer.train()
        return
    trainer.add_callback(CheckpointCallback(checkpoints, trainer.ranks, notes))
    last = checkpoints.resume_together(trainer.ranks)
    if last is not None:
        restore(checkpoints.notes)
    trainer.train(resume_from_checkpoint=None if last is None else str(last))
