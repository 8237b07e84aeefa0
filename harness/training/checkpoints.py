"""The state of a training on disk, from which a later process goes on to the same weights, bit for bit.

The trainer writes weights (safetensors), optimiser, schedule, random numbers and its own state into its folder; a sharded
training a part of the first two for each process. Their checksums go into a manifest, those of large files as they were
written, and the folder is renamed to a place that outlives the process, so that every folder there is complete. Nothing is
unpickled but our own optimiser and random states, by `torch.load(weights_only=True)`, after their checksums were verified.
Imports transformers.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError
from transformers import TrainerCallback, TrainerState
from transformers.trainer import TRAINER_STATE_NAME

from harness.errors import StageError, TimeOverError
from harness.store import canonical, file_hash
from harness.store.reading import read_plain
from harness.training.ranks import Ranks

if TYPE_CHECKING:
    from transformers import Trainer

    from harness.training.step_trainer import StepTrainer

MANIFEST = "checkpoint.json"
UNUSED = ("training_args.bin",)  # a pickle that nothing here reads
COST = 0.05  # the most of a training's time that writing checkpoints takes
STOPPED = "stopped"


class Manifest(BaseModel):
    """A checkpoint's description of itself.

    Attributes:
        notes: state of the training beside the trainer's own, such as its history.
        seconds: of training up to this checkpoint, by all runs.
        files: checksums of all other files.
    """

    notes: dict[str, object]
    seconds: float
    files: dict[str, str]


@dataclass
class Checkpoints:
    """The checkpoints of one stage.

    Attributes:
        folder: outlives the process; made when first needed.
        seconds: at least so many between two checkpoints, more where writing one takes more than `COST` of them; 0 makes one
            after every step.
        notes: `Manifest.notes` of the checkpoint that this run began at; empty where it began anew.
        earlier_seconds: `Manifest.seconds` of that checkpoint.
        share: the training ends after this share of its steps, with a checkpoint to go on from; None where it ends by itself.
        reached: steps done, and steps in all, once the training has begun.
        ends_at: the time (seconds since the epoch) from which the next step is the process's last; None for never.
    """

    folder: Path
    seconds: float
    share: float | None = None
    notes: Mapping[str, object] = field(default_factory=dict)
    earlier_seconds: float = 0.0
    reached: tuple[int, int] = (0, 0)
    ends_at: float | None = None

    @property
    def time_over(self) -> bool:
        """Whether the run's time is over."""
        return self.ends_at is not None and time.time() >= self.ends_at

    def last_step(self, steps: int) -> int:
        """Return the step after which a training of so many ends.

        Raises:
            StageError: it has too few for a state between its start and its end.
        """
        if self.share is None:
            return steps
        if steps < 2:
            raise StageError(f"its training takes {steps} step, so there is no state between its start and its end")
        return min(max(1, round(self.share * steps)), steps - 1)

    def resume_together(self, ranks: Ranks) -> Path | None:
        """Return `resume` of the first of several processes, for all of them."""
        last = self.resume() if ranks.first else None
        last, self.notes, self.earlier_seconds = ranks.from_first((last, self.notes, self.earlier_seconds))
        return last

    def resume(self) -> Path | None:
        """Return the last complete checkpoint and read its notes; None where there is none, with broken ones removed."""
        paths = sorted(self.folder.glob("checkpoint-*"), key=lambda path: int(path.name.rpartition("-")[2]))
        for checkpoint in reversed(paths):
            if (manifest := _verified(checkpoint)) is not None and not self._is_beyond(checkpoint):
                self.notes, self.earlier_seconds = manifest.notes, manifest.seconds
                return checkpoint
            shutil.rmtree(checkpoint, ignore_errors=True)
        return None

    def _is_beyond(self, checkpoint: Path) -> bool:
        """Return whether a checkpoint is later than the share at which the training ends."""
        if self.share is None:
            return False
        state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        return int(state.global_step) > self.last_step(int(state.max_steps))

    def pause(self, writing: float) -> float:
        """Return the seconds of training between two checkpoints.

        Args:
            writing: seconds that the last one took; 0 before the first.
        """
        return max(self.seconds, writing * (1 / COST - 1)) if self.seconds else 0.0

    def keep(
        self, written: Path, notes: Mapping[str, object], seconds: float, checksums: Mapping[str, str] | None = None
    ) -> None:
        """Move a checkpoint that the trainer has written to its place, complete or not at all, and remove earlier ones.

        Args:
            seconds: of training in this process.
            checksums: of files that were hashed as they were written; the others are read again for theirs.
        """
        for name in UNUSED:
            (written / name).unlink(missing_ok=True)
        names = [str(path.relative_to(written)) for path in sorted(written.rglob("*")) if path.is_file()]
        known = checksums or {}
        files = {name: known[name] if name in known else file_hash(written / name) for name in names}
        manifest = Manifest(notes=dict(notes), seconds=self.earlier_seconds + seconds, files=files)
        (written / MANIFEST).write_text(canonical(manifest.model_dump()), encoding="utf-8")
        for name in (*files, MANIFEST):  # a rename may reach the disk before the files' content does
            with (written / name).open("rb") as stream:
                os.fsync(stream.fileno())
        self.folder.mkdir(parents=True, exist_ok=True)
        earlier = list(self.folder.glob("checkpoint-*"))
        place = self.folder / written.name
        try:
            written.rename(place)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            shutil.rmtree(written, ignore_errors=True)  # the process that took our lease (`harness.store.claims`) kept the same
        for path in earlier:
            if path != place:
                shutil.rmtree(path, ignore_errors=True)

    def keep_stopped(self, trainer: StepTrainer, batch: Mapping[str, object]) -> str:
        """Keep weights, optimiser and batch of a training that cannot go on, for a person; return their folder in the store."""
        folder = self.folder / STOPPED
        if trainer.ranks.first:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        trainer.ranks.wait()
        trainer.save_stopped(folder)
        if trainer.ranks.first:
            for name in UNUSED:
                (folder / name).unlink(missing_ok=True)
            (folder / "batch.json").write_text(json.dumps(batch, indent=1) + "\n", encoding="utf-8")
        trainer.ranks.wait()  # before any of them ends, and takes the others along
        return f"{self.folder.parent.name}/{self.folder.name}/{STOPPED}"


def _verified(checkpoint: Path) -> Manifest | None:
    """Return the checkpoint's manifest if every file has its checksum."""
    try:
        manifest = Manifest.model_validate_json(read_plain(checkpoint / MANIFEST))
        complete = all(file_hash(checkpoint / name) == checksum for name, checksum in manifest.files.items())
    except (OSError, ValidationError, ValueError):
        return None
    return manifest if complete else None


class Reached(Exception):  # noqa: N818 (it is no error)
    """The checkpoint that a training resumes from is the state that was asked for."""


class CheckpointCallback(TrainerCallback):  # type: ignore[misc]
    """Ask the trainer for a checkpoint when one is due, and keep it; of several processes the first decides and keeps.

    Args:
        notes: what to keep beside the trainer's state, JSON.
        checksums: of files that this process hashed as it wrote them, by name.
    """

    def __init__(
        self,
        checkpoints: Checkpoints,
        ranks: Ranks,
        notes: Callable[[], Mapping[str, object]],
        checksums: Mapping[str, str] | None = None,
    ) -> None:
        self.checkpoints = checkpoints
        self.ranks = ranks
        self.notes = notes
        self.checksums = {} if checksums is None else checksums
        self.began = self.last = self.asked = time.monotonic()
        self.writing = 0.0  # seconds that the last checkpoint took
        self.ending = False  # whether the run's time is over, by the first process's clock

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._reach(state)
        if self.checkpoints.share is not None and self._is_at_end(state):
            raise Reached  # weights and state of the checkpoint are loaded: the step that follows would be one too many

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._reach(state)
        self.asked = time.monotonic()
        passed = self.asked - self.last >= self.checkpoints.pause(self.writing)
        due, self.ending = self.ranks.from_first((passed, self.checkpoints.time_over))
        control.should_save = (due or self.ending) and state.global_step < state.max_steps
        if self.checkpoints.share is not None and self._is_at_end(state):
            control.should_save = control.should_training_stop = True

    def _reach(self, state: Any) -> None:
        self.checkpoints.reached = (int(state.global_step), int(state.max_steps))

    def _is_at_end(self, state: Any) -> bool:
        return int(state.global_step) >= self.checkpoints.last_step(int(state.max_steps))

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        written = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        seconds = time.monotonic() - self.began
        parts = self.ranks.gather(dict(self.checksums))  # which waits until everybody's files are written
        if self.ranks.first:
            known = {name: checksum for part in parts for name, checksum in part.items()}
            self.checkpoints.keep(written, self.notes(), seconds, known)
        self.ranks.wait()
        self.last = time.monotonic()
        self.writing = self.last - self.asked
        if self.ending and not (self.checkpoints.share is not None and self._is_at_end(state)):
            raise TimeOverError("the run's time is over: the training goes on from its checkpoint")


def train_resumably(
    trainer: Trainer,
    checkpoints: Checkpoints | None,
    notes: Callable[[], Mapping[str, object]],
    restore: Callable[[Mapping[str, object]], None],
) -> None:
    """Train, from the last checkpoint if there is one.

    Args:
        trainer: a `StepTrainer`, or any trainer of transformers' in a single process.
        notes: gives the state to keep beside the trainer's own; JSON.
        restore: takes the notes of the checkpoint.
    """
    if checkpoints is None:
        trainer.train()
        return
    ranks = getattr(trainer, "ranks", Ranks.here())
    trainer.add_callback(CheckpointCallback(checkpoints, ranks, notes, getattr(trainer, "checksums", None)))
    last = checkpoints.resume_together(ranks)
    if last is not None:
        restore(checkpoints.notes)
    with contextlib.suppress(Reached):
        trainer.train(resume_from_checkpoint=None if last is None else str(last))
