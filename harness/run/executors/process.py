"""One worker process, as its parent sees it."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

from harness.run.executors.events import WorkerMessage
from harness.run.graph import Stage

# Single-threaded workers that keep freed memory: measured half again as fast for small models (docs/decisions.md).
WORKER_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "MALLOC_MMAP_THRESHOLD_": str(2**30),
    "MALLOC_TRIM_THRESHOLD_": str(2**30),
    "HF_HUB_DISABLE_TELEMETRY": "1",
}
PATIENCE_SECONDS = 5.0  # for an idle worker to end by itself
PIPE_SECONDS = 1.0  # for the pipe of a dead worker to end
GONE: WorkerMessage = {"event": "gone"}

# A worker and its message, or None and None: the executor was asked to stop. Signal handlers may put into it.
Inbox: TypeAlias = "queue.SimpleQueue[tuple[Worker | None, WorkerMessage | None]]"


class Worker:
    """One worker process and the thread that reads what it says."""

    def __init__(self, number: int, settings: Mapping[str, Any], inbox: Inbox, log: Path, gpu: str | None = None) -> None:
        self.number = number
        self.gpu = gpu
        self.stage: Stage | None = None
        self.began = 0.0
        self.used = False  # whether it was given a stage
        self.ready = False  # whether it has loaded its libraries
        self._inbox = inbox
        device = {} if gpu is None else {"CUDA_VISIBLE_DEVICES": gpu}
        with log.open("ab") as stream:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "harness.run.executors.worker",
                ],  # -P: files in the current folder shadow no library
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                env={**os.environ, **WORKER_ENVIRONMENT, **device},
                process_group=0,  # Ctrl-C is for the parent, which lets a stage end first
            )
        self._say(dict(settings))
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()

    def give(self, stage: Stage, gpus: Sequence[str] = ()) -> None:
        """Hand the worker its next stage.

        Args:
            gpus: names of the GPUs that are the stage's alone, the worker's own first.
        """
        self.stage, self.began, self.used = stage, time.monotonic(), True
        self._say({"stage": asdict(stage), "gpus": list(gpus)})

    def stop(self) -> None:
        """End the process: by itself if it is idle, else at once; what it was making is dropped with its part folder."""
        if self.stage is None:
            self._say({})
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(PATIENCE_SECONDS)
        self._end()
        self.process.wait()
        self.listener.join(PIPE_SECONDS)
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # what a dead worker was still to be told
                self.process.stdin.close()

    def look(self) -> None:
        """See that a process that is gone is said to be, also where a child that it left holds its pipe."""
        if self.process.returncode is None and os.waitid(os.P_PID, self.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
            self._end()
            if self.listener.is_alive():
                self._inbox.put((self, GONE))

    def _end(self) -> None:
        """End the process, and its children where one of them holds its pipe. It is not waited for: until then its number is
        no other's.
        """
        if self.process.returncode is None:
            os.kill(self.process.pid, signal.SIGKILL)
            self.listener.join(PIPE_SECONDS)
            if self.listener.is_alive():
                os.killpg(self.process.pid, signal.SIGKILL)
                self.listener.join(PIPE_SECONDS)

    def _say(self, message: Mapping[str, Any]) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # the listening thread reports the death

    def _listen(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as pipe, contextlib.suppress(ValueError):  # the last line of a killed worker may be cut off
            for line in pipe:
                self._inbox.put((self, json.loads(line)))
        self._inbox.put((self, GONE))
