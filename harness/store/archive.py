"""Artifacts as a tar file: to carry them to another machine, and as the objects of a mirror.

What is unpacked was written elsewhere. Every member must be a plain file under `<key>/`; links, devices, absolute paths and
`..` are refused before anything is written, so are sparse files, and an artifact is taken only if its files are exactly those
of its manifest, with their checksums. That shows that it arrived as it was sent, and not that the sender computed it honestly.
"""

from __future__ import annotations

import errno
import os
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from harness.errors import DataError, StoreError
from harness.store.artifact import KEY, OWN_FILES, contents, listed_files, read_artifact
from harness.store.failures import FULL

COMPRESSIONS = {".gz": "w:gz", ".tgz": "w:gz", ".xz": "w:xz", ".bz2": "w:bz2"}  # ending of the file -> mode of `tarfile`
LONGEST_NAME = 1024
LARGEST_HEADER = 1 << 16  # bytes of a member's extended header, which is read at once
# An archive that unpacks to more than this many bytes and more than this many times its size is taken for a bomb.
UNPACKED_BYTES, UNPACKED_TIMES = 1 << 30, 100
FILE_BYTES = 4096  # the least that a file takes on a disk
BOMB = "an archive of artifacts does not, so nothing of it was taken"
SPARSE = "holds a sparse file, which `harness cache export` does not write; nothing of it was taken"
NO_NAMES = (errno.ENOTDIR, errno.ENAMETOOLONG, errno.EILSEQ)  # what the system says of names that no file here can have


class _Member(tarfile.TarInfo):
    """A member whose extended header, or map of a sparse file, does not fill the memory."""

    def _proc_member(self, archive: tarfile.TarFile) -> Any:
        extended = not self.isreg() and not self.isdir()
        if self.size < 0 or (self.size > LARGEST_HEADER and extended):
            raise DataError(f"{archive.name!s}: a member's header has {self.size:,} bytes; nothing of it was taken")
        if self.type == tarfile.GNUTYPE_SPARSE:
            raise DataError(f"{archive.name!s}: {SPARSE}")
        return super()._proc_member(archive)  # type: ignore[misc]

    def _proc_gnusparse_10(self, following: tarfile.TarInfo, headers: object, archive: tarfile.TarFile) -> None:
        raise DataError(f"{archive.name!s}: {SPARSE}")


def pack(folders: Iterable[Path], place: Path, mode: str = "w") -> None:
    """Write artifact folders, each named by its key, into one archive; equal artifacts give equal bytes if not compressed.

    Raises:
        OSError: something cannot be read, or `place` written.
    """
    with tarfile.open(place, mode, format=tarfile.PAX_FORMAT) as archive:  # type: ignore[call-overload]
        for folder in folders:
            own = {name: folder / name for name in OWN_FILES if (folder / name).exists()}
            for name, path in sorted({**contents(folder), **own}.items()):
                info = tarfile.TarInfo(f"{folder.name}/{name}")
                info.size, info.mode = path.stat().st_size, 0o644
                with path.open("rb") as stream:
                    archive.addfile(info, stream)


def unpack(place: Path, folder: Path) -> list[str]:
    """Unpack an archive into `folder`, one folder per artifact, each verified. Returns their keys.

    Raises:
        DataError: it is no archive, is cut off, or holds what does not belong there.
        OSError: `folder` cannot be written.
    """
    keys: dict[str, None] = {}
    with _as_data_errors(place, folder), tarfile.open(place, tarinfo=_Member) as archive:
        for member in _members(place, archive, folder):
            keys[_key(place, member)] = None
            if os.path.lexists(folder / member.name):  # tarfile would replace the first by the second
                raise DataError(f"{place}: holds {Path(member.name).name} twice: export it again")
            archive.extract(member, folder, set_attrs=False, filter="data")
    for key in keys:
        _check(place, folder / key)
    return list(keys)


def _members(place: Path, archive: tarfile.TarFile, folder: Path) -> Iterator[tarfile.TarInfo]:
    """Yield the files of an archive; stop before they fill the disk or unpack to far more than the archive's size."""
    room, most = shutil.disk_usage(folder).free, max(UNPACKED_BYTES, UNPACKED_TIMES * place.stat().st_size)
    taken = 0
    for member in archive:
        archive.members = []  # type: ignore[attr-defined]  # tarfile keeps every header: a million would fill the memory
        if member.size < 0:
            raise DataError(f"{place}: the member {member.name!r} has {member.size:,} bytes; nothing of it was taken")
        if member.issparse():
            raise DataError(f"{place}: {SPARSE}")
        taken += member.size + FILE_BYTES
        if taken > most:
            raise DataError(f"{place}: it unpacks to more than {most:,} bytes, {UNPACKED_TIMES} times its size: {BOMB}")
        if taken > room:
            raise DataError(f"{place}: what it holds does not fit on the disk of {folder}: free space and try again")
        if not member.isdir():
            yield member


@contextmanager
def _as_data_errors(place: Path, folder: Path) -> Iterator[None]:
    """Raise whatever reading an archive raises as a DataError that names it; an error of writing `folder` goes through."""
    damaged = f"{place} is no archive of artifacts, or is cut off"
    try:
        yield
    except DataError:
        raise
    except OSError as error:
        inside = str(error.filename).startswith(str(folder))
        if inside and error.errno in NO_NAMES:
            raise DataError(f"{place}: no file can have the name of a member ({error.strerror}): export it again") from error
        if inside or error.errno in FULL:
            raise
        if error.errno is None:  # what gzip and bzip2 say of damage
            raise DataError(f"{damaged} ({error}): export it again") from error
        missing = isinstance(error, FileNotFoundError)
        what = f"no archive at {place}" if missing else f"{place} cannot be read ({error.strerror})"
        raise DataError(f"{what}: give the path of a file that `harness cache export` wrote") from error
    except Exception as error:  # tarfile lets through what a header's numbers and texts raise
        raise DataError(f"{damaged} ({error}): export it again") from error


def _key(place: Path, member: tarfile.TarInfo) -> str:
    """Return the key of the artifact that a member is a file of.

    tarfile's filter keeps members inside the folder that is unpacked into; each must also stay inside its artifact's folder,
    and be a file: the filter lets links through that stay inside.
    """
    first, *rest = PurePosixPath(member.name).parts or ("",)
    plain = KEY.fullmatch(first) and rest and not {"..", "\0"} & set(rest)
    if not member.isreg() or not plain or len(member.name) > LONGEST_NAME:
        raise DataError(f"{place}: the member {member.name!r} is no file of an artifact; nothing of it was taken")
    return first


def _check(place: Path, folder: Path) -> None:
    """Raise DataError unless a folder holds exactly the files of its manifest, with their checksums."""
    try:
        read_artifact(folder, folder.name, verify=True)
        listed = listed_files(folder)
    except StoreError as error:
        raise DataError(f"{place}: the artifact {folder.name} is damaged; nothing of it was taken ({error})") from error
    if extra := sorted(set(contents(folder)) - listed):
        raise DataError(f"{place}: the artifact {folder.name} holds {extra[0]!r}, which its manifest does not name")
