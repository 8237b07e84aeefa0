"""A scripted judge: an OpenAI-compatible server on this machine that answers as a test says, and fails when told to."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from harness.models.server import HttpReply, completion, judge_server

Script = Callable[[str, int], Any]


@dataclass
class ScriptedJudge:
    """`script(prompt, times)` gives the words of the judge, or a whole `HttpReply`; `times` counts what was asked before.

    Attributes:
        asked: prompt -> how often it arrived.
        bodies: every request.
        headers: of every request.
    """

    script: Script
    version: str = "judge-2026-01-01"
    asked: Counter[str] = field(default_factory=Counter)
    bodies: list[Mapping[str, Any]] = field(default_factory=list)
    url: str = ""
    stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, body: Mapping[str, Any]) -> HttpReply:
        prompt = body["messages"][-1]["content"]
        with self._lock:
            times = self.asked[prompt]
            self.asked[prompt] += 1
            self.bodies.append(body)
        said = self.script(prompt, times)
        return said if isinstance(said, HttpReply) else HttpReply(completion(said, self.version, prompt))

    @contextmanager
    def serving(self) -> Iterator[ScriptedJudge]:
        server = judge_server(self, "scripted")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        self.url = server.url
        try:
            yield self
        finally:
            self.stop.set()
            server.shutdown()
            server.server_close()
            thread.join()


@dataclass
class FakeClock:
    """Time that passes only when somebody sleeps."""

    seconds: float = 0.0
    slept: list[float] = field(default_factory=list)

    def now(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds
