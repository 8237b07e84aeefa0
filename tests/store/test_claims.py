"""Leases: one of several machines makes an artifact, and what a dead machine held is taken over."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from harness.errors import StoreWriteError
from harness.store import owner as heart
from harness.store.claims import LEASE_SECONDS, Claims, Owner

KEY = "0123456789abcdef0123456789abcdef"
ELSEWHERE = Owner("another-machine", 1, 0.0, "theirs")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("claims", "parts"):
        (tmp_path / name).mkdir()
    return tmp_path


def lease(root: Path, owner: Owner = ELSEWHERE, age: float = 0.0) -> Path:
    """The file of another process's lease, touched `age` seconds ago."""
    place = root / "claims" / KEY / owner.nonce
    place.parent.mkdir(exist_ok=True)
    place.write_text(json.dumps(asdict(owner)))
    os.utime(place, (time.time() - age,) * 2)
    return place


def holder(root: Path) -> Owner:
    (place,) = (root / "claims" / KEY).iterdir()
    return Owner(**json.loads(place.read_text()))


def nothing_left(root: Path) -> bool:
    return list((root / "claims").iterdir()) == list((root / "parts").iterdir()) == []


def never(_: float) -> None:
    pytest.fail("waited for a lease that is free")


def test_a_claim_names_its_owner_and_leaves_nothing(root: Path) -> None:
    with Claims(root, never).hold(KEY):
        assert (holder(root).machine, holder(root).process) == (Owner.this().machine, os.getpid())
    assert nothing_left(root)


def test_a_claim_is_given_back_when_its_work_fails(root: Path) -> None:
    with pytest.raises(RuntimeError), Claims(root).hold(KEY):
        raise RuntimeError
    assert nothing_left(root)


def test_a_living_machine_is_waited_for(root: Path) -> None:
    place, looks = lease(root, age=LEASE_SECONDS - 20), []

    def pause(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 8:
            place.unlink()

    with Claims(root, pause).hold(KEY):
        assert holder(root).process == os.getpid()
    assert looks == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


def test_what_a_silent_machine_held_is_taken_over(root: Path) -> None:
    lease(root, age=LEASE_SECONDS + 20)
    with Claims(root, never).hold(KEY):
        assert holder(root).process == os.getpid()
    assert nothing_left(root)


def test_the_dead_of_this_machine_are_not_waited_for(root: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    lease(root, replace(Owner.this(), process=dead.pid))
    with Claims(root, never).hold(KEY):
        pass
    lease(root, replace(Owner.this(), born=0.0))  # its number belongs to another process now
    with Claims(root, never).hold(KEY):
        pass


def test_a_lease_that_says_nothing_is_taken_over_when_it_is_old(root: Path) -> None:
    place = lease(root)
    place.write_text("")
    os.utime(place, (0, 0))
    with Claims(root, never).hold(KEY):
        pass


def test_of_two_who_find_a_lease_stale_one_gets_it(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second comes to remove the stale lease when the first has put its own in its place: that stays, all the time."""
    stale = lease(root, age=LEASE_SECONDS + 20)
    faster, unlink, looks = replace(ELSEWHERE, nonce="faster"), Path.unlink, []

    def second(path: Path, missing_ok: bool = False) -> None:
        if path == stale and not looks:
            unlink(stale)
            lease(root, faster)
        unlink(path, missing_ok)

    def pause(seconds: float) -> None:
        looks.append(holder(root))
        if len(looks) == 3:
            lease(root, faster).unlink()

    monkeypatch.setattr(Path, "unlink", second)
    with Claims(root, pause).hold(KEY):
        assert holder(root).process == os.getpid()
    assert looks == [faster] * 3


def test_a_folder_without_a_lease_is_free(root: Path) -> None:
    (root / "claims" / KEY).mkdir()  # of a process that was killed between removing the one and the other
    with Claims(root, never).hold(KEY):
        pass
    assert nothing_left(root)


def test_a_lease_that_was_taken_from_us_is_left_to_its_new_owner(root: Path) -> None:
    with Claims(root).hold(KEY):
        (root / "claims" / KEY / holder(root).nonce).unlink()
        lease(root)
    assert holder(root) == ELSEWHERE


def test_the_heart_beats_through_failures_and_until_another_has_the_lease(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, claimed = Owner.this(), Claims(root)
    place = lease(root, owner)
    os.utime(place, (0, 0))
    assert claimed._beat(place.parent, owner)
    assert place.stat().st_mtime > 0
    with monkeypatch.context() as failing:
        failing.setattr(os, "utime", lambda *_: (_ for _ in ()).throw(OSError(errno.ESTALE, "Stale file handle")))
        assert claimed._beat(place.parent, owner)
    place.unlink()
    place.parent.rmdir()
    with monkeypatch.context() as failing:
        failing.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
        assert claimed._beat(place.parent, owner)
        assert not place.exists()
    assert claimed._beat(place.parent, owner)  # nobody had taken it: it is there again
    assert holder(root) == owner
    place.unlink()
    lease(root)
    assert not claimed._beat(place.parent, owner)
    assert holder(root) == ELSEWHERE
    assert list((root / "parts").iterdir()) == []


def test_a_lease_is_touched_while_it_is_held(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heart, "LEASE_SECONDS", 0.06)
    with Claims(root).hold(KEY):
        place = root / "claims" / KEY / holder(root).nonce
        os.utime(place, (0, 0))
        end = time.monotonic() + 30
        while place.stat().st_mtime == 0 and time.monotonic() < end:
            pass
        assert place.stat().st_mtime > 0


def test_a_server_that_renames_and_says_that_it_could_not_is_believed_by_what_is_there(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = Path.rename

    def twice(path: Path, target: Path) -> None:
        rename(path, target)
        rename(path, target)

    monkeypatch.setattr(Path, "rename", twice)
    with Claims(root, never).hold(KEY):
        assert holder(root).process == os.getpid()
    assert nothing_left(root)


def test_a_store_without_a_place_for_leases(root: Path) -> None:
    (root / "claims").rmdir()
    with pytest.raises(StoreWriteError, match="choose another with --store"), Claims(root).hold(KEY):
        pytest.fail("the claim was given")
