"""The responses of one generation, on disk as they come, so that a later process goes on from there to the same ones.

A chunk is one file: a checksum, and the responses since the chunk before it with the backend's state after them, as JSON. Each
names the checksum of the one before it, and the first one the request. So what follows a damaged chunk is not gone on from, nor
is what another request or another process has left there. Chunks are written where the store keeps unfinished work, which goes
with the artifact's publication.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.api.types import Prompt, Response, Sampling
from harness.errors import TimeOverError
from harness.run.stages.context import answer_rows
from harness.store import canonical
from harness.store.atomic import write_atomically
from harness.store.reading import open_plain

CHUNK = "chunk"


@dataclass
class KeptChunks:
    """`Chunks` of one request.

    Attributes:
        folder: outlives the process; made when first needed.
        prompts: how many the request has.
        seconds: at least so many between two chunks; 0 keeps whatever is added at once.
        responses: of this process and the ones before it, by the place of their prompt.
        state: the backend's, after the last of them.
        ends_at: the time (seconds since the epoch) after which no further responses are drawn; None for never.
        earlier_seconds: spent by earlier processes up to the chunk that this one began at.
        show: takes a prompt's place and one of its responses, as they are added.
    """

    folder: Path
    prompts: int
    seconds: float
    responses: dict[int, list[Response]] = field(default_factory=dict)
    state: bytes = b""
    earlier_seconds: float = 0.0
    ends_at: float | None = None
    show: Callable[[int, Response], None] = lambda place, response: None
    _number: int = 0
    _last: str = ""  # checksum of the last chunk, or the request's
    _new: dict[int, list[Response]] = field(default_factory=dict)
    _began: float = 0.0
    _kept: float = 0.0  # when the last chunk was

    @classmethod
    def of(
        cls, folder: Path, prompts: Sequence[Prompt], sampling: Sampling, seconds: float, ends_at: float | None = None
    ) -> KeptChunks:
        """Read the chunks of a request from a folder: up to the first that is missing or damaged; remove the others."""
        request = canonical([[asdict(prompt) for prompt in prompts], asdict(sampling)])
        now = time.monotonic()
        chunks = cls(folder, len(prompts), seconds, ends_at=ends_at, _last=_checksum(request), _began=now, _kept=now)
        while (found := _read(chunks._place(chunks._number + 1), chunks._last)) is not None:
            chunks._number += 1
            chunks._last, said = found
            chunks.responses |= {place: [Response(*fields) for fields in row] for place, row in said["responses"]}
            chunks.state, chunks.earlier_seconds = bytes.fromhex(said["state"]), said["seconds"]
        for path in folder.glob(f"{CHUNK}-*"):
            if path.name > chunks._place(chunks._number).name:
                path.unlink(missing_ok=True)
        return chunks

    def add(self, responses: Mapping[int, list[Response]], state: bytes = b"") -> None:
        """Keep responses, with those added before, unless the last chunk is younger than `seconds` or nothing is missing.

        Raises:
            TimeOverError: responses are missing, and the run's time is over; those that came are kept.
        """
        self._new |= responses
        self.responses |= responses
        self.state = state
        for place, row in responses.items():
            self.show(place, row[0])
        if len(self.responses) == self.prompts:
            return
        over = self.ends_at is not None and time.time() >= self.ends_at
        if over or time.monotonic() - self._kept >= self.seconds:
            self.keep()
        if over:
            raise TimeOverError("the run's time is over: the generation goes on from the responses that came")

    def know(self, responses: Mapping[int, list[Response]]) -> None:
        """Take responses that no chunk need keep."""
        self.responses = {**responses, **self.responses}

    @contextmanager
    def kept_on_failure(self) -> Iterator[None]:
        """Keep what was added, should the block raise: a server that is gone after hours must not be asked for them again."""
        try:
            yield
        except BaseException:
            if self._new:
                self.keep()
            raise

    def keep(self) -> None:
        """Write what was added since the last chunk, whole or not at all."""
        self._kept = time.monotonic()
        rows = zip(self._new, answer_rows(list(self._new.values())), strict=True)
        spent = self.earlier_seconds + self._kept - self._began
        said = {"after": self._last, "responses": list(rows), "state": self.state.hex(), "seconds": spent}
        body = canonical(said)
        checksum = _checksum(body)
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self._place(self._number + 1), f"{checksum}\n{body}")
        self._number, self._last, self._new = self._number + 1, checksum, {}

    def _place(self, number: int) -> Path:
        return self.folder / f"{CHUNK}-{number:08d}.json"


def _checksum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _read(path: Path, after: str) -> tuple[str, Mapping[str, Any]] | None:
    """Return a chunk's checksum and content, if it is whole and follows what it must."""
    try:
        with open_plain(path) as stream:
            checksum, _, body = stream.read().decode("utf-8").partition("\n")
        said: Mapping[str, Any] = json.loads(body)
        return (checksum, said) if checksum == _checksum(body) and said["after"] == after else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
