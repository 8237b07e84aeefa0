"""The folder of artifacts: made once, verified when read, shared by methods, seeds, runs and machines.

An artifact is a folder under the hash of everything that decides it. It is written beside its place, every file's checksum
is noted, and the folder is renamed into place: a reader sees a whole artifact or none, wherever a writer was killed. Writers
of the same key queue (`claims`).

    <root>/artifacts/<2 digits>/<key>/   files and artifact.json
    <root>/index/<2 digits>/             one empty file per artifact, named by key, kind and size (`catalogue`)
    <root>/claims/<key>/                 who is making what (`claims`)
    <root>/roots/                        which run needs what (`roots`)
    <root>/parts/<machine>-<process>-…/  being written; swept when its process is gone (`parts`)
    <root>/partial/<key>/                how far the making of a long one has come, for whoever goes on with it
    <root>/damaged/                      what failed verification, kept for a look
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from harness.errors import StoreError, StoreWriteError
from harness.store import index as catalogue
from harness.store.artifact import MANIFEST, Artifact, ArtifactDraft, contents, file_hash, read_artifact
from harness.store.claims import Claims
from harness.store.failures import as_store_errors, telling_full_disk
from harness.store.index import IndexEntry, folder_size
from harness.store.mirror import Mirror
from harness.store.parts import SILENT_SECONDS, Parts, sweep_partial

FOLDERS = ("artifacts", "index", "claims", "parts", "roots")


class Store:
    """Artifacts under one folder.

    Args:
        root: created if absent.
        mirror: asked for what is not here, sent what is made.

    Raises:
        StoreWriteError: the folder cannot be written.
    """

    def __init__(self, root: Path, mirror: Mirror | None = None) -> None:
        self.root = root.absolute()
        self.mirror = mirror
        self.parts = Parts(self.root / "parts")
        self._claims = Claims(self.root)
        self._verified: set[str] = set()
        try:
            for name in FOLDERS:
                (self.root / name).mkdir(parents=True, exist_ok=True)
            probe = self.parts.new()
            probe.mkdir()
            probe.rmdir()
        except OSError as error:
            raise StoreWriteError(
                f"the store {self.root} cannot be written ({error.strerror}): choose another with --store"
            ) from error

    def place(self, key: str) -> Path:
        """Where the artifact is, or would be."""
        return self.root / "artifacts" / key[:2] / key

    def holds(self, key: str) -> bool:
        """Whether a whole, undamaged artifact is here, or in the mirror: then it is fetched. A damaged one is put aside, so
        that it is made again.

        Raises:
            StoreError: a damaged one cannot be put aside.
        """
        if not self.place(key).exists():
            return self._fetch(key)
        try:
            self.open(key)
        except StoreError:
            self._put_aside(key)
            return self._fetch(key)
        return True

    def _fetch(self, key: str) -> bool:
        """Bring an artifact from the mirror; whether it is here now."""
        if self.mirror is None:
            return False
        with self.writing(f"what the mirror holds of {key}"), self.part() as scratch:
            folder = self.mirror.fetch(key, scratch)
            if folder is None:
                return False
            self.put(folder, key, read_artifact(folder, key, verify=False).kind)
        return True

    def _put_aside(self, key: str) -> None:
        aside = self.root / "damaged" / f"{key}-{uuid.uuid4().hex[:8]}"
        try:
            aside.parent.mkdir(exist_ok=True)
            self.place(key).rename(aside)
        except FileNotFoundError:
            return  # another process was faster
        except OSError as error:
            raise StoreError(f"the damaged artifact {self.place(key)} cannot be put aside ({error}): delete it") from error
        with contextlib.suppress(StoreError, OSError):  # what another process had just made again goes back
            read_artifact(aside, key, verify=True)
            aside.rename(self.place(key))

    def open(self, key: str) -> Artifact:
        """The artifact, verified once per process.

        Raises:
            StoreError: it is absent or damaged.
        """
        new = key not in self._verified
        artifact = read_artifact(self.place(key), key, verify=new)
        if new:
            with contextlib.suppress(OSError):
                os.utime(artifact.folder)  # when it was last of use, for `collect`
        self._verified.add(key)
        return artifact

    def claim(self, key: str, before_waiting: Callable[[], None] | None = None) -> AbstractContextManager[None]:
        """Hold the right to make `key`; waits, after `before_waiting`, while another living process, on this machine or
        another, has it.

        Raises:
            StoreWriteError: the store cannot be written or locked.
        """
        return self._claims.hold(key, before_waiting)

    @contextmanager
    def part(self) -> Iterator[Path]:
        """A scratch folder in the store that goes when the block ends, or is swept once its process is gone."""
        with self.parts.scratch() as folder, telling_full_disk(folder):
            yield folder

    @contextmanager
    def draft(self, kind: str, key: str) -> Iterator[ArtifactDraft]:
        """Write an artifact; published whole when the block ends, dropped when it raises.

        What the block raises does not matter if another process has published the same meanwhile: its lease was lost.

        Raises:
            StoreError: it cannot be written; whatever else the block raises goes through.
        """
        started = time.monotonic()
        try:
            with self.writing(f"an artifact of kind {kind}"), self.part() as folder:
                draft = ArtifactDraft(folder)
                yield draft
                self._publish(kind, key, draft, draft.earlier_seconds + time.monotonic() - started)
        except Exception:
            if not self.place(key).exists() or not self.holds(key):
                raise
        if self.mirror is not None:
            with contextlib.suppress(OSError), self.part() as scratch:
                self.mirror.push(self.place(key), scratch)

    def writing(self, what: str) -> AbstractContextManager[None]:
        """A full disk anywhere, and failures on files here, as the store's own error; everything else goes through."""
        return as_store_errors(self.root, what)

    def _publish(self, kind: str, key: str, draft: ArtifactDraft, seconds: float) -> None:
        files = contents(draft.folder)
        manifest = {
            "kind": kind,
            "facts": draft.facts,
            "seconds": seconds,
            "files": {name: file_hash(path) for name, path in files.items()},
        }
        draft.write_json(MANIFEST, manifest)
        for path in (*files.values(), draft.folder / MANIFEST):
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
        self.put(draft.folder, key, kind)
        shutil.rmtree(self.partial(key), ignore_errors=True)

    def partial(self, key: str) -> Path:
        """Where whoever has claimed `key` may keep how far it has come, whole at every moment. It may be absent.

        It goes when the artifact is there, or when nothing was written to it for `parts.PARTIAL_DAYS`.
        """
        return self.root / "partial" / key

    def sweep(self, silent_seconds: float = SILENT_SECONDS) -> int:
        """Remove what dead processes left half-written, and partial work that is done or old; how many.

        Args:
            silent_seconds: for how long processes of other machines must have touched nothing to be taken for dead.
        """
        removed = sweep_partial(self.root / "partial", lambda key: (self.place(key) / MANIFEST).exists())
        return removed + self.parts.sweep(silent_seconds)

    @contextmanager
    def swept(self) -> Iterator[None]:
        """Sweep before the block and after it: of what workers were making when they were stopped nothing stays."""
        self.sweep()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # it is too late to complain
                self.sweep()

    def put(self, folder: Path, key: str, kind: str) -> bool:
        """Rename a whole, verified artifact into its place; False if one is there already.

        Raises:
            OSError: the store cannot be written.
        """
        place, entry = self.place(key), IndexEntry(key, kind, folder_size(folder))
        place.parent.mkdir(exist_ok=True)
        if (place / MANIFEST).exists():
            return False
        try:
            folder.rename(place)
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False  # another process was faster
            raise
        catalogue.note(self.root, entry)
        return True

    def entries(self) -> Iterator[IndexEntry]:
        """Every artifact, by key, without opening one."""
        return catalogue.entries(self.root)

    def remove(self, entry: IndexEntry) -> None:
        """Take an artifact out: at once for readers, its bytes after.

        Raises:
            StoreWriteError: it cannot be removed.
        """
        aside = self.parts.new()
        try:
            self.place(entry.key).rename(aside)
        except FileNotFoundError:
            pass  # another process was faster
        except OSError as error:
            raise StoreWriteError(f"the artifact {self.place(entry.key)} cannot be removed ({error.strerror})") from error
        catalogue.forget(self.root, entry)
        self._verified.discard(entry.key)
        shutil.rmtree(aside, ignore_errors=True)
