"""Leases: one of several machines makes an artifact, and what a dead machine held is taken over."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from harness.errors import StoreWriteError
from harness.store import claims
from harness.store.claims import LEASE_SECONDS, Claims, Owner

KEY = "0123456789abcdef0123456789abcdef"
ELSEWHERE = Owner("another-machine", 1, 0.0, "theirs")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in ("locks", "leases"):
        (tmp_path / name).mkdir()
    return tmp_path


def lease(root: Path, owner: Owner = ELSEWHERE, age: float = 0.0) -> Path:
    """A lease of another process, touched `age` seconds ago."""
    place = root / "leases" / KEY
    place.write_text(json.dumps(asdict(owner)))
    os.utime(place, (time.time() - age,) * 2)
    return place


def never(_: float) -> None:
    pytest.fail("waited for a lease that is free")


def test_a_claim_names_its_owner_and_leaves_nothing(root: Path) -> None:
    with Claims(root, never).hold(KEY):
        said = json.loads((root / "leases" / KEY).read_text())
        assert (said["machine"], said["process"]) == (Owner.this().machine, os.getpid())
        assert (root / "locks" / KEY).exists()
    assert list((root / "leases").iterdir()) == list((root / "locks").iterdir()) == []


def test_a_claim_is_given_back_when_its_work_fails(root: Path) -> None:
    with pytest.raises(RuntimeError), Claims(root).hold(KEY):
        raise RuntimeError
    assert list((root / "leases").iterdir()) == []


def test_a_living_machine_is_waited_for(root: Path) -> None:
    place, looks = lease(root, age=LEASE_SECONDS - 20), []

    def pause(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 8:
            place.unlink()

    with Claims(root, pause).hold(KEY):
        assert json.loads(place.read_text())["process"] == os.getpid()
    assert looks == [0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]


def test_what_a_silent_machine_held_is_taken_over(root: Path) -> None:
    lease(root, age=LEASE_SECONDS + 20)
    with Claims(root, never).hold(KEY):
        assert json.loads((root / "leases" / KEY).read_text())["process"] == os.getpid()
    assert list((root / "leases").iterdir()) == []


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
    place = lease(root, age=LEASE_SECONDS + 20)
    place.write_text("")
    os.utime(place, (0, 0))
    with Claims(root, never).hold(KEY):
        pass


def test_of_two_who_find_a_lease_stale_one_gets_it(root: Path) -> None:
    """The second comes to put the stale lease away when the first has put its own in its place: it puts that back."""
    place = lease(root, age=LEASE_SECONDS + 20)
    stale = place.read_bytes()
    lease(root, replace(ELSEWHERE, nonce="faster"))
    claims._put_away(place, stale)
    assert json.loads(place.read_text())["nonce"] == "faster"
    claims._put_away(place, place.read_bytes())
    assert list((root / "leases").iterdir()) == []


def test_a_lease_that_was_taken_from_us_is_left_to_its_new_owner(root: Path) -> None:
    with Claims(root).hold(KEY):
        place = lease(root)
    assert json.loads(place.read_text())["nonce"] == "theirs"


def test_the_heart_beats_until_the_lease_is_lost(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims, "LEASE_SECONDS", 0.06)
    owner, done = Owner.this(), claims.threading.Event()
    place = lease(root, owner)
    os.utime(place, (0, 0))
    beating = claims.threading.Thread(target=claims._beat, args=(place, owner, done))
    beating.start()
    end = time.monotonic() + 30
    while place.stat().st_mtime == 0 and time.monotonic() < end:
        pass
    assert place.stat().st_mtime > 0
    place.unlink()
    beating.join(30)  # it stops by itself
    assert not beating.is_alive()


def test_a_file_system_without_hard_links(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    with Claims(root, never).hold(KEY):
        assert json.loads((root / "leases" / KEY).read_text())["process"] == os.getpid()
        assert not claims._placed(root / "leases" / KEY, root / "leases" / KEY)
    assert list((root / "leases").iterdir()) == []


def test_a_store_without_a_place_for_leases(root: Path) -> None:
    (root / "leases").rmdir()
    with pytest.raises(StoreWriteError, match="choose another with --store"), Claims(root).hold(KEY):
        pytest.fail("the claim was given")
