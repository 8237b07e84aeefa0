"""Export artifacts from a store and import them into another, as one archive."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from harness.errors import StoreWriteError
from harness.store.archive import COMPRESSIONS, pack, unpack
from harness.store.artifact import read_artifact
from harness.store.atomic import replacing
from harness.store.store import Store


def export_artifacts(store: Store, keys: Iterable[str], place: Path) -> int:
    """Write artifacts into one archive, whole or not at all; return how many.

    Raises:
        StoreError: one is damaged or absent, or the archive cannot be written.
    """
    folders = [store.open(key).folder for key in sorted(keys)]
    try:
        with replacing(place) as beside:
            pack(folders, beside, COMPRESSIONS.get(place.suffix, "w"))
    except OSError as error:
        raise StoreWriteError(f"{place} cannot be written ({error.strerror}): choose another place") from error
    return len(folders)


def import_artifacts(store: Store, archive: Path) -> tuple[int, int]:
    """Import an archive's artifacts; return how many were new and how many the store had.

    Raises:
        DataError: the archive is not one, or holds what does not belong there; nothing was taken.
        StoreWriteError: the store cannot be written.
    """
    with store.writing(f"what {archive} holds"), store.part() as scratch:
        keys = unpack(archive, scratch)
        new = 0
        for key in keys:
            if not store.holds(key):  # a damaged one is replaced
                new += store.put(scratch / key, key, read_artifact(scratch / key, key, verify=False).kind)
    return new, len(keys) - new
