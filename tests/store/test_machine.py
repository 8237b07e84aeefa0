"""Who shares a host name and not its processes is another machine."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.store import Store
from harness.store import owner as machine
from harness.store.claims import Owner


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another container with this one's host name."""
    machine.machine.cache_clear()
    monkeypatch.setattr(machine, "BOOT", tmp_path / "boot_id")
    (tmp_path / "boot_id").write_text("another\n")


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    yield
    machine.machine.cache_clear()


def test_a_machine_is_told_by_its_boot_and_its_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = []
    for boot, processes in (("one", "a"), ("two", "a"), ("one", "b"), ("one", "a")):
        monkeypatch.setattr(machine, "BOOT", tmp_path / boot)
        monkeypatch.setattr(machine, "PROCESSES", tmp_path / processes)
        for name in (boot, processes):
            (tmp_path / name).write_text(name)
        machine.machine.cache_clear()
        names.append(machine.machine())
    assert names[0] == names[3] and len(set(names)) == 3
    assert all(name.startswith(f"{platform.node()}-") for name in names)


def test_where_the_system_tells_nothing_the_host_name_must_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "BOOT", tmp_path / "absent")
    machine.machine.cache_clear()
    assert machine.machine() == platform.node()


def test_what_another_container_writes_is_not_swept(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Its process numbers mean nothing here, where no process has them."""
    store = Store(tmp_path / "store")
    theirs = store.parts.new().name.replace(f"-{os.getpid()}-", "-999999999-")
    request.getfixturevalue("elsewhere")
    (store.parts.folder / theirs).mkdir()
    assert store.sweep() == 0
    os.utime(store.parts.folder / theirs, (time.time() - 2 * 86400,) * 2)
    assert store.sweep() == 1


def test_a_process_of_another_container_is_not_taken_for_dead(request: pytest.FixtureRequest) -> None:
    owner = Owner(machine.machine(), 999999999, 0.0, "theirs")
    assert owner.gone
    request.getfixturevalue("elsewhere")
    assert not owner.gone
