"""A remote mirror behind the store on disk: fetch what is missing here, push what is made here.

    <url>/<2 digits>/<key>.tar    one object for each artifact, through fsspec: s3://, gs://, memory://, a folder

It saves time and decides nothing: an artifact that cannot be fetched is computed, and a mirror that fails once is not asked
again by this process. Credentials are those of the file system's own library.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from harness.errors import HarnessError
from harness.store.archive import pack, unpack


class Mirror:
    """Artifacts at a URL.

    Args:
        url: as fsspec takes it, e.g. `s3://bucket/harness`.

    Raises:
        HarnessError: no such file system is installed.
    """

    def __init__(self, url: str) -> None:
        from fsspec.core import url_to_fs

        self.url = url
        self.failed: str | None = None
        try:
            fs, base = url_to_fs(url)
        except (ImportError, ValueError) as error:
            raise HarnessError(f"--mirror {url!r}: {error}; for s3:// install alignment-harness[remote]") from error
        self.fs: Any = fs
        self.base: str = base.rstrip("/")

    def place(self, key: str) -> str:
        """Return the object of an artifact."""
        return f"{self.base}/{key[:2]}/{key}.tar"

    def fetch(self, key: str, folder: Path) -> Path | None:
        """Fetch and verify an artifact into `folder`/<key>; None if the mirror does not have it or it is damaged.

        Raises:
            OSError: `folder` cannot be written.
        """
        archive = folder / f"{key}.tar"
        if self.failed:
            return None
        try:
            self.fs.get_file(self.place(key), str(archive))
        except FileNotFoundError:
            return None
        except Exception as error:  # whatever the network and foreign code raise
            self._leave_out(error)
            return None
        try:
            unpack(archive, folder)
        except OSError:
            raise
        except Exception:  # whatever is in somebody's object
            return None  # it will be computed, and pushed over the damaged object
        return folder / key if (folder / key).is_dir() else None

    def push(self, folder: Path, scratch: Path) -> None:
        """Push an artifact's folder, replacing the object that is there."""
        if self.failed:
            return
        archive, place = scratch / f"{folder.name}.tar", self.place(folder.name)
        try:
            pack([folder], archive)
            try:
                self.fs.put_file(str(archive), place)
            except FileNotFoundError:  # file systems with folders
                self.fs.makedirs(place.rpartition("/")[0], exist_ok=True)
                self.fs.put_file(str(archive), place)
        except Exception as error:  # whatever the network and foreign code raise
            self._leave_out(error)

    def _leave_out(self, error: Exception) -> None:
        # Once is enough: each of a run's thousand artifacts would wait for the same timeout.
        self.failed = f"the mirror {self.url} failed and was left out: {type(error).__name__}: {error}"
