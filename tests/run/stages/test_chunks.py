"""A generation that was interrupted goes on to the same responses as one that was not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import answers_run
import pytest
from answers_run import PROMPTS, SAMPLING
from test_services import context

from harness.api.interfaces import Backend, Policy
from harness.api.types import Prompt, Response, Sampling
from harness.errors import StageError, TimeOverError
from harness.run.stages import chunks as module
from harness.run.stages.chunks import KeptChunks
from harness.run.stages.context import Context
from harness.run.stages.services import Ledger, PolicyServices, Services
from harness.store import MANIFEST, Artifact
from harness_plugins.backends import TransformersBackend

__all__ = ["context"]  # the fixture
ROWS = {place: [Response(f"{place} ß 🙂", place % 2 == 0, 3), Response("", True, None)] for place in range(len(PROMPTS))}
TINY = "checkpoint:0123456789abcdef0123"


class KilledError(Exception):
    """What stands for the end of a process."""


def kill_at(step: int | None) -> Callable[[int, int, str], None]:
    def report(done: int, total: int, note: str) -> None:
        if done == step:
            raise KilledError

    return report


def kept(folder: Path, seconds: float = 0, sampling: Sampling = SAMPLING, prompts: Sequence[Prompt] = PROMPTS) -> KeptChunks:
    return KeptChunks.of(folder / "partial", prompts, sampling, seconds)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "partial").iterdir())


def three(folder: Path) -> None:
    """Three chunks of one process."""
    chunks = kept(folder)
    chunks.add({2: ROWS[2], 0: ROWS[0]}, b"\x00one")
    chunks.add({5: ROWS[5]}, b"two\xff")
    chunks.add({1: ROWS[1]})


# What lies in the folder


def test_what_was_kept_is_there_with_the_state_after_it(tmp_path: Path) -> None:
    three(tmp_path)
    chunks = kept(tmp_path)
    assert chunks.responses == {place: ROWS[place] for place in (2, 0, 5, 1)}
    assert chunks.state == b"" and chunks.earlier_seconds > 0
    assert files(tmp_path) == [f"chunk-0000000{number}.json" for number in (1, 2, 3)]
    chunks.add({7: ROWS[7]}, b"four")
    again = kept(tmp_path)
    assert (again.responses[7], again.state) == (ROWS[7], b"four")
    assert again.earlier_seconds > chunks.earlier_seconds


def test_ids_are_kept_with_the_responses_that_have_them(tmp_path: Path) -> None:
    chunks = kept(tmp_path)
    chunks.add({0: [Response("pear", True, 2, (7, 3)), Response("fig", False, 1)], 1: [Response("", True, 1, (3,))]})
    again = kept(tmp_path)
    assert [[response.ids for response in again.responses[place]] for place in (0, 1)] == [[(7, 3), None], [(3,)]]


def test_nothing_is_made_where_nothing_is_kept(tmp_path: Path) -> None:
    assert kept(tmp_path).responses == {}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-20]),
        lambda path: path.write_text(path.read_text().replace("5 ß", "6 ß")),
        lambda path: path.write_bytes(b"\xff\n{}"),
        lambda path: path.write_text(""),
        lambda path: path.unlink(),
    ],
    ids=["cut off", "changed", "no text", "empty", "gone"],
)
def test_a_damaged_chunk_and_what_follows_it_are_not_used(tmp_path: Path, damage: Callable[[Path], object]) -> None:
    three(tmp_path)
    damage(tmp_path / "partial" / "chunk-00000002.json")
    chunks = kept(tmp_path)
    assert (sorted(chunks.responses), chunks.state) == ([0, 2], b"\x00one")
    assert files(tmp_path) == ["chunk-00000001.json"]
    chunks.add({3: ROWS[3]})
    assert sorted(kept(tmp_path).responses) == [0, 2, 3]


def test_chunks_of_another_request_are_not_used(tmp_path: Path) -> None:
    three(tmp_path)
    other = Sampling(n=2, max_tokens=6, seed=4)
    for asked in ({"sampling": other}, {"prompts": PROMPTS[:-1]}, {"prompts": PROMPTS[::-1]}):
        shutil.copytree(tmp_path / "partial", tmp_path / "copy" / "partial", dirs_exist_ok=True)
        assert kept(tmp_path / "copy", **asked).responses == {}
        assert files(tmp_path / "copy") == []
    assert len(kept(tmp_path).responses) == 4


def test_a_chunk_of_another_process_is_not_gone_on_from(tmp_path: Path) -> None:
    """Two machines that both believed to hold the key: their chunks have the same numbers and different borders."""
    three(tmp_path)
    other = kept(tmp_path / "other")
    other.add({2: ROWS[2]}, b"early")
    other.add({0: ROWS[0]}, b"late")
    shutil.copy(tmp_path / "other" / "partial" / "chunk-00000002.json", tmp_path / "partial")
    assert sorted(kept(tmp_path).responses) == [0, 2]
    assert files(tmp_path) == ["chunk-00000001.json"]


def test_a_generation_whose_time_is_over_keeps_what_came(tmp_path: Path) -> None:
    chunks = KeptChunks.of(tmp_path / "partial", PROMPTS, SAMPLING, 3600, ends_at=0.0)
    with pytest.raises(TimeOverError):
        chunks.add({2: ROWS[2]}, b"after")
    again = KeptChunks.of(tmp_path / "partial", PROMPTS, SAMPLING, 3600, ends_at=0.0)
    assert (again.responses, again.state) == ({2: ROWS[2]}, b"after")
    again.add(ROWS)  # nothing is missing any more: the stage ends as ever


def test_chunks_come_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    chunks = kept(tmp_path, seconds=60)
    for place, at in enumerate((1030, 1059, 1060, 1100, 1121)):
        now[0] = at
        chunks.add({place: ROWS[place]}, bytes([place]))
    again = kept(tmp_path, seconds=60)
    assert [again.state, len(again.responses), again.earlier_seconds] == [b"\x04", 5, 121.0]
    assert len(files(tmp_path)) == 2


def test_the_last_responses_are_published_and_not_kept(tmp_path: Path) -> None:
    chunks = kept(tmp_path)
    chunks.add(ROWS)
    assert list(tmp_path.iterdir()) == []


def test_what_was_added_is_kept_when_the_backend_fails(tmp_path: Path) -> None:
    chunks = kept(tmp_path, seconds=3600)
    with pytest.raises(StageError, match="the server is gone"), chunks.kept_on_failure():
        chunks.add({0: ROWS[0], 1: ROWS[1]}, b"so far")
        raise StageError("the server is gone")
    again = kept(tmp_path)
    assert (sorted(again.responses), again.state) == ([0, 1], b"so far")
    with pytest.raises(StageError), again.kept_on_failure():
        raise StageError("and nothing was added since")
    assert len(files(tmp_path)) == 1


def test_a_full_disk_leaves_the_chunks_that_were_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    three(tmp_path)
    before, chunks = files(tmp_path), kept(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space left"):
        patched.setattr(os, "fsync", full)
        chunks.add({7: ROWS[7]})
    assert files(tmp_path) == before
    assert sorted(kept(tmp_path).responses) == [0, 1, 2, 5]


def test_two_may_write_one_chunk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that stood still comes back, and writes what another that took over is writing."""
    first, second, fsync = kept(tmp_path), kept(tmp_path), os.fsync

    def meanwhile(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", fsync)
        second.add({5: ROWS[5]})
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", meanwhile)
    first.add({2: ROWS[2], 0: ROWS[0]})
    assert second.responses == {5: ROWS[5]}
    assert sorted(kept(tmp_path).responses) == [0, 2]
    assert files(tmp_path) == ["chunk-00000001.json"]


# Whole stages


def same(first: Artifact, second: Artifact) -> bool:
    manifests = [artifact.read_json(MANIFEST) for artifact in (first, second)]
    return manifests[0]["files"] == manifests[1]["files"] and manifests[0]["facts"] == manifests[1]["facts"]


@pytest.mark.parametrize("changed", [{}, {"top_p": 0.8, "n": 3}, {"temperature": 0.0, "n": 1}], ids=str)
def test_an_interrupted_stage_ends_as_one_that_was_not(tiny_checkpoint: Path, tmp_path: Path, changed: dict) -> None:
    """Interrupted after every batch."""
    whole = answers_run.run(tmp_path / "whole", tiny_checkpoint, kill_at(None), minutes=60, **changed)
    n = changed.get("n", SAMPLING.n)
    batch = max(1, 4 // n) * n
    for done in range(batch, 10 * n, batch):
        with pytest.raises(KilledError):
            answers_run.run(tmp_path / "killed", tiny_checkpoint, kill_at(done), **changed)
    killed = answers_run.run(tmp_path / "killed", tiny_checkpoint, kill_at(None), **changed)
    assert same(whole, killed)
    assert list((tmp_path / "killed" / "partial").iterdir()) == []


def test_a_killed_process_leaves_what_the_next_one_needs(tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Killed with SIGKILL after the third of five batches: the next process draws the rest, and cleans up."""
    folder = tmp_path / "killed"
    command = [sys.executable, str(Path(answers_run.__file__)), str(folder), str(tiny_checkpoint), "12"]
    assert subprocess.run(command, env={**os.environ, "OMP_NUM_THREADS": "1"}).returncode == -9
    (partial,) = (folder / "partial").iterdir()
    assert sorted(path.name for path in partial.iterdir()) == [f"chunk-0000000{number}.json" for number in (1, 2, 3)]
    seen: list[tuple[int, int, str]] = []
    killed = answers_run.run(folder, tiny_checkpoint, lambda *progress: seen.append(progress))
    assert seen == [(done, 20, f"answer {done} of 20") for done in (12, 16, 20)]
    assert not partial.exists() and list((folder / "parts").iterdir()) == []
    assert killed.seconds > 0
    assert same(answers_run.run(tmp_path / "whole", tiny_checkpoint, kill_at(None)), killed)


def test_a_stage_goes_on_before_a_damaged_chunk(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        answers_run.run(tmp_path / "killed", tiny_checkpoint, kill_at(12))
    (damaged,) = (tmp_path / "killed").glob("partial/*/chunk-00000003.json")
    damaged.write_bytes(damaged.read_bytes()[:-1])
    seen: list[int] = []
    killed = answers_run.run(tmp_path / "killed", tiny_checkpoint, lambda done, total, note: seen.append(done))
    assert seen == [8, 12, 16, 20]
    assert same(answers_run.run(tmp_path / "whole", tiny_checkpoint, kill_at(None)), killed)


def test_the_seconds_of_a_killed_process_are_counted(tiny_checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(KilledError):
        answers_run.run(tmp_path / "killed", tiny_checkpoint, kill_at(4))
    (chunk,) = (tmp_path / "killed").glob("partial/*/chunk-*")
    said = json.loads(chunk.read_text().partition("\n")[2]) | {"seconds": 1000.0}
    body = module.canonical(said)
    chunk.write_text(f"{module._checksum(body)}\n{body}")
    killed = answers_run.run(tmp_path / "killed", tiny_checkpoint, kill_at(None))
    assert 1000 < killed.seconds < 1600


# Samples


def sampled(context: Context, backend: Backend, report: Callable[[int, int, str], None]) -> tuple[list, Ledger]:
    """What a builder is given, and the ledger of its stage."""
    services = Services(replace(context, report=report, checkpoint_minutes=0))
    return PolicyServices(services, TINY, backend).respond(PROMPTS, Sampling(n=4, max_tokens=5, seed=1)), services.ledger


def test_samples_go_on_inside_a_block(context: Context) -> None:
    """Interrupted in the third block, of two samples: the first two are there, and half of this one."""
    backend = TransformersBackend(rows_per_batch=4)
    notes: list[str] = []

    def killing(done: int, total: int, note: str) -> None:
        notes.append(note)
        if (done, total) == (32, 40):
            raise KilledError

    with pytest.raises(KilledError):
        sampled(context, backend, killing)
    assert notes[-1] == "sample 32 of 40"
    (partial,) = (context.store.root / "partial").iterdir()
    chunk = max(partial.iterdir())
    said = json.loads(chunk.read_text().partition("\n")[2]) | {"seconds": 1000.0}
    chunk.write_text(f"{module._checksum(module.canonical(said))}\n{module.canonical(said)}")
    seen: list[tuple[int, int]] = []
    answers, ledger = sampled(context, backend, lambda done, total, note: seen.append((done, total)))
    assert seen == [(0, 40), (10, 40), (20, 40), (32, 40), (36, 40), (40, 40), (40, 40)]
    assert ledger.charged_seconds > 1000 > ledger.made_seconds, "this stage did not spend what the killed one did"
    assert list((context.store.root / "partial").iterdir()) == []
    shutil.rmtree(context.store.root / "artifacts")
    (context.store.root / "artifacts").mkdir()
    assert sampled(context, backend, kill_at(None))[0] == answers


class Plain(Backend):
    """Knows nothing of chunks."""

    name: ClassVar[str] = "plain"
    asked: ClassVar[list[int]] = []

    def generate(
        self,
        policy: Policy,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        report: Callable[[int, int], None] | None = None,
    ) -> list[list[Response]]:
        assert report is not None
        self.asked.append(len(prompts))
        report(len(prompts), len(prompts) * sampling.n)
        return [[Response("pear")] * sampling.n for _ in prompts]


def test_a_backend_that_does_not_resume_begins_again(context: Context) -> None:
    with pytest.raises(KilledError):
        sampled(context, Plain(), kill_at(10))
    assert not (context.store.root / "partial").exists()
    answers, _ = sampled(context, Plain(), kill_at(None))
    assert [len(row) for row in answers] == [4] * 10
    assert Plain.asked == [10, 10, 10, 10]
