"""Any program as a trainer: started with the places of its inputs, followed by its output, ended with all its processes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import re
import shlex
import shutil
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, ClassVar, Literal

from pydantic import Field, field_validator

from harness import StageError, Trainer, TrainingTask, TrainingUse, supervised_command

NEEDED = ("start", "data", "out", "seed")
UNITS = ("pairs", "tokens", "updates", "generated")
# What a program needs to run as in the user's shell, and no secret: keys and tokens have to be named in `environment`.
PASSED = (
    *("PATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV", "CONDA_PREFIX"),
    *("CUDA_VISIBLE_DEVICES", "CUDA_HOME", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE"),
)
LINE_BYTES = 2**16  # longer lines are read in pieces
SHOWN_LINES = 5
VERSION_SECONDS = 60.0
JOIN_SECONDS = 2.0


class Command(Trainer):
    """Any program: a command line with places for the start, the data, the output and the seed."""

    name: ClassVar[str] = "command"

    command: str = Field(
        min_length=1,
        description="split into words as a shell would, and run without one. {start}, {data}, {out} and {seed} are filled in; "
        "{updates}, {tokens}, {pairs} or {generated} with the budget's limit, {kept} with a folder for checkpoints that "
        "outlives a kill",
    )
    files: tuple[str, ...] = Field(
        (), description="files and folders that decide what it does; their content is part of the key"
    )
    version_command: str | None = Field(
        None, description="a command that prints the version of what is run; its output is part of the key"
    )
    environment: tuple[str, ...] = Field(
        (), description="names of environment variables that it gets beside PATH, HOME, CUDA_VISIBLE_DEVICES and their like"
    )
    hours: float = Field(24.0, gt=0, le=8760, description="it is ended after so long")
    devices: int = Field(
        1,
        ge=1,
        le=64,
        exclude_if=lambda devices: devices == 1,  # keys of rows that leave it at that stay as they were
        description="GPUs that it gets as CUDA_VISIBLE_DEVICES; {devices} is their names, {processes} their number",
    )
    max_lines: int = Field(100_000, ge=1, le=10_000_000, description="lines of output; it is ended when it prints more")

    @field_validator("command", "version_command")
    @classmethod
    def _splits(cls, text: str | None) -> str | None:
        try:
            words = shlex.split(text) if text is not None else ["none"]
        except ValueError as error:
            raise ValueError(f"it cannot be split into words ({error}): close its quotes") from error
        if not words:
            raise ValueError("it holds no word")
        return text

    @field_validator("environment")
    @classmethod
    def _names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                raise ValueError(f"{name!r} is no name of a variable: give names alone, their values stay where they are")
        return names

    def trains_on(self) -> Literal["either"]:
        return "either"

    def units(self) -> frozenset[str]:
        return frozenset(unit for unit in UNITS if f"{{{unit}}}" in self.command)

    def gpus(self) -> int:
        return self.devices

    def problems(self) -> Sequence[tuple[str, str]]:
        problems = []
        if missing := [name for name in NEEDED if f"{{{name}}}" not in self.command]:
            places = " and ".join(f"{{{name}}}" for name in missing)
            problems.append(("command", f"it lacks {places}, which stand for what a trainer has to be told"))
        for name, text in (("command", self.command), ("version_command", self.version_command)):
            program = shlex.split(text)[0] if text else ""
            if program and "{" not in program and shutil.which(program) is None:
                problems.append((name, f"no program {program!r} can be run here: correct the name, or install it"))
        problems += [("files", f"{file!r} is not there: correct the path") for file in self.files if not Path(file).exists()]
        if not problems and self.version_command is not None:
            try:
                self._version()
            except StageError as error:
                problems.append(("version_command", str(error)))
        return problems

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for file in self.files:
            path = Path(file)
            for each in sorted(path.rglob("*")) if path.is_dir() else [path]:
                if each.is_file() and "__pycache__" not in each.parts:
                    digest.update(f"{each} {hashlib.sha256(each.read_bytes()).hexdigest()}\n".encode())
        with contextlib.suppress(StageError):  # `problems` says what is wrong with it
            digest.update(self._version().encode())
        return digest.hexdigest()[:32] if self.files or self.version_command else ""

    def _version(self) -> str:
        """The output of the version command."""
        if self.version_command is None:
            return ""
        try:
            asked = subprocess.run(
                shlex.split(self.version_command),
                capture_output=True,
                check=True,
                timeout=VERSION_SECONDS,
                env=self._variables(),
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise StageError(f"it fails ({error}): give a command that prints a version and ends with code 0") from error
        return asked.stdout.decode("utf-8", "replace")

    def _variables(self) -> dict[str, str]:
        allowed = {*PASSED, *self.environment}
        return {**{name: value for name, value in os.environ.items() if name in allowed}, "PYTHONUNBUFFERED": "1"}

    def train(self, task: TrainingTask) -> TrainingUse:
        task.kept.mkdir(parents=True, exist_ok=True)
        places: dict[str, Any] = {"start": task.start, "data": task.data, "out": task.out, "seed": task.seed, "kept": task.kept}
        places |= {"devices": ",".join(task.devices), "processes": self.devices}
        words = [_filled(word, {**places, **task.limit}) for word in shlex.split(self.command)]
        variables = self._variables() | ({"CUDA_VISIBLE_DEVICES": ",".join(task.devices)} if task.devices else {})
        # The paths of start and data are absolute; the program runs in the folder that the harness was started in.
        reading = _Reading(task, self.max_lines)
        with _running(words, variables) as program:
            for stream, line in program.lines(time.monotonic() + 3600 * self.hours, self.hours):
                reading.take(stream, line)
            code = program.code()
        if code:
            raise StageError(f"the command ended with code {code}{reading.tail()}")
        ids = {group.prompt.id for group in task.groups} or {example.prompt.id for example in task.examples}
        return reading.use(len(ids))


def _filled(word: str, places: Mapping[str, Any]) -> str:
    for name, value in places.items():
        word = word.replace(f"{{{name}}}", str(value))
    return word


@dataclass
class _Program:
    """A supervised program and its lines of output."""

    process: subprocess.Popen[bytes]
    inbox: queue.Queue[tuple[str, bytes]]
    readers: list[threading.Thread]

    def lines(self, deadline: float, hours: float) -> Iterator[tuple[str, bytes]]:
        """Yield (`out` or `err`, a line) until the program has ended.

        Raises:
            StageError: the time is over.
        """
        while True:
            if time.monotonic() > deadline:
                raise StageError(f"the command ran longer than its limit, hours = {hours:g}, and was ended: raise it")
            try:
                yield self.inbox.get(timeout=0.1)
            except queue.Empty:
                if self.process.poll() is not None:
                    break
        for reader in self.readers:  # a process that left the group may hold a pipe open: it is not waited for
            reader.join(JOIN_SECONDS)
        while not self.inbox.empty():
            yield self.inbox.get()

    def code(self) -> int:
        """Return the exit code; negative codes of signals come from the supervisor as 128 and more."""
        return self.process.wait()


@contextlib.contextmanager
def _running(words: Sequence[str], variables: Mapping[str, str]) -> Iterator[_Program]:
    """Run a program; when the block ends, however that comes about, it and all its processes are ended."""
    process = subprocess.Popen(
        supervised_command(words),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=dict(variables),
        start_new_session=True,
    )
    assert process.stdin is not None and process.stdout is not None and process.stderr is not None
    inbox: queue.Queue[tuple[str, bytes]] = queue.Queue(maxsize=1000)  # a program that prints faster has to wait
    stopped = threading.Event()
    readers = [
        threading.Thread(target=_read, args=(name, pipe, inbox, stopped), daemon=True)
        for name, pipe in (("out", process.stdout), ("err", process.stderr))
    ]
    for reader in readers:
        reader.start()
    try:
        yield _Program(process, inbox, readers)
    finally:
        stopped.set()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        process.wait()
        for reader in readers:
            reader.join(JOIN_SECONDS)
            if not reader.is_alive():
                (process.stdout if reader is readers[0] else process.stderr).close()


def _read(name: str, pipe: IO[bytes], inbox: queue.Queue[tuple[str, bytes]], stopped: threading.Event) -> None:
    while line := pipe.readline(LINE_BYTES):
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                inbox.put((name, line), timeout=0.1)
                break


@dataclass
class _Reading:
    """The output of a program so far, read line by line.

    JSON objects on standard output are read: `step` and `total` are progress, other numbers a point of the training curve,
    `used` counts what the training used by unit. Everything goes to the run's log.
    """

    task: TrainingTask
    max_lines: int
    lines: int = 0
    step: int | None = None
    used: dict[str, int] = field(default_factory=dict)
    last: deque[str] = field(default_factory=lambda: deque(maxlen=SHOWN_LINES))

    def take(self, stream: str, line: bytes) -> None:
        """Read a line.

        Raises:
            StageError: there were too many, a number is not finite, or a count is none.
        """
        self.lines += 1
        if self.lines > self.max_lines:
            raise StageError(f"the command printed more than max_lines = {self.max_lines:,} lines and was ended: print less")
        text = line.decode("utf-8", "replace").rstrip()
        self.task.log(text)
        self.last.append(text[:200])
        if stream == "out" and text.startswith("{"):
            with contextlib.suppress(json.JSONDecodeError, RecursionError):
                message = json.loads(text)
                if isinstance(message, dict):
                    self._note(message)

    def _note(self, message: Mapping[str, Any]) -> None:
        numbers = {
            name: float(value)
            for name, value in message.items()
            if isinstance(value, float) or (type(value) is int and abs(value) < 2**63)
        }
        total = numbers.pop("total", None)
        if numbers.keys() - {"step"}:
            self.task.point(numbers)
        if (step := numbers.get("step")) is not None:
            self.step = max(self.step or 0, int(step))
            if total is not None:
                self.task.progress(int(step), max(int(total), int(step)), str(message.get("note", ""))[:80])
        counts = message.get("used", {})
        for unit, amount in counts.items() if isinstance(counts, dict) else ():
            if unit not in TrainingUse.__dataclass_fields__ or unit == "notes":
                known = ", ".join(name for name in TrainingUse.__dataclass_fields__ if name != "notes")
                raise StageError(f"the command says that it used {unit!r}, which is no unit: one of {known}")
            if isinstance(amount, bool) or not isinstance(amount, int) or amount < 0:
                raise StageError(f"the command says that it used {amount!r} {unit}: write a whole number")
            self.used[unit] = amount

    def tail(self) -> str:
        """The last lines, for an error."""
        return "".join(f"\n    {line}" for line in self.last)

    def use(self, prompts: int) -> TrainingUse:
        """Return the training's use: as the program reported it, else the prompts it was given and its last step."""
        return TrainingUse(**{"prompts": prompts, "updates": self.step, **self.used})
