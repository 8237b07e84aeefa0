"""The store: artifacts made once, verified when read, shared by methods, seeds, runs and machines.

An artifact is a folder under the hash of everything that decides it. It is written elsewhere, with every file's checksum, and
renamed into place: a reader sees a whole artifact or none, wherever a writer was killed. Writers of one key queue (`claims`).

    <root>/artifacts/<2 digits>/<key>/   files, artifact.json with their checksums, artifact.sha256 with that file's own
    <root>/index/<2 digits>/             one empty file per artifact, named by key, kind and size (`catalogue`)
    <root>/claims/<key>/                 who is making what (`claims`)
    <root>/roots/                        which run needs what (`roots`)
    <root>/parts/<machine>-<process>-…/  being written; swept when its process is gone (`parts`)
    <root>/partial/<key>/                unfinished work on a long one, for the next run to resume
    <root>/damaged/                      artifacts that failed verification, kept for inspection
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from harness.errors import StoreError, StoreWriteError
from harness.store import index as catalogue
from harness.store.artifact import FORMAT, MANIFEST, SEAL, Artifact, ArtifactDraft, contents, file_hash, read_artifact, seal
from harness.store.atomic import sweep_unfinished
from harness.store.claims import Claims
from harness.store.failures import as_store_errors, telling_full_disk
from harness.store.index import IndexEntry, folder_size
from harness.store.locks import sweep_locks
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
        """Return the artifact's folder, which may not exist."""
        return self.root / "artifacts" / key[:2] / key

    def holds(self, key: str) -> bool:
        """Return whether the store has a whole, undamaged artifact, or the mirror has: then it is fetched. A damaged one is put
        aside, so that it is made again.

        Raises:
            StoreError: a damaged one cannot be put aside.
        """
        if not self.place(key).exists():
            return self._fetch(key)
        try:
            self.open(key)
        except StoreError:
            self.put_aside(key)
            return self._fetch(key)
        return True

    def _fetch(self, key: str) -> bool:
        """Fetch an artifact from the mirror; return whether it is here now."""
        if self.mirror is None:
            return False
        with self.writing(f"what the mirror holds of {key}"), self.part() as scratch:
            folder = self.mirror.fetch(key, scratch)
            if folder is None:
                return False
            self.put(folder, key, read_artifact(folder, key, verify=False).kind)
        return True

    def put_aside(self, key: str) -> None:
        """Move a damaged artifact to `damaged`.

        Raises:
            StoreError: it cannot be moved.
        """
        aside = self.root / "damaged" / f"{key}-{uuid.uuid4().hex[:8]}"
        try:
            aside.parent.mkdir(exist_ok=True)
            self.place(key).rename(aside)
            self._verified.discard(key)
        except FileNotFoundError:
            return  # another process was faster
        except OSError as error:
            raise StoreError(f"the damaged artifact {self.place(key)} cannot be put aside ({error}): delete it") from error
        with contextlib.suppress(StoreError, OSError):  # what another process had just made again goes back
            read_artifact(aside, key, verify=True)
            aside.rename(self.place(key))

    def open(self, key: str) -> Artifact:
        """Return the artifact, verified once per process.

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
        """Hold the right to make `key`; while another living process, on this machine or another, has it, call
        `before_waiting` and wait.

        Raises:
            StoreWriteError: the store cannot be written or locked.
        """
        return self._claims.hold(key, before_waiting)

    @contextmanager
    def part(self) -> Iterator[Path]:
        """Yield a scratch folder in the store, removed when the block ends; a dead process's is swept."""
        with self.parts.scratch() as folder, telling_full_disk(folder):
            yield folder

    @contextmanager
    def draft(self, kind: str, key: str) -> Iterator[ArtifactDraft]:
        """Write an artifact; published whole when the block ends, dropped when it raises.

        If another process has published the artifact meanwhile (this one lost its lease), what the block raises is dropped.

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
            if not self.place(key).exists() or not self.holds(key) or self.open(key).dropped:
                raise
        if self.mirror is not None:
            with contextlib.suppress(OSError), self.part() as scratch:
                self.mirror.push(self.place(key), scratch)

    def writing(self, what: str) -> AbstractContextManager[None]:
        """Raise a full disk anywhere, and failures on files here, as the store's own error; everything else goes through."""
        return as_store_errors(self.root, what)

    def _publish(self, kind: str, key: str, draft: ArtifactDraft, seconds: float) -> None:
        files = contents(draft.folder)
        checksums = {name: file_hash(path) for name, path in files.items()}
        before = self.dropped(key)
        changed = any({**draft.stands_for, **checksums}.get(name) != checksum for name, checksum in before.items())
        manifest = {
            "format": FORMAT,
            "kind": kind,
            "facts": draft.facts,
            "seconds": seconds,
            "files": checksums,
            **({"changed": True} if changed else {}),
        }
        draft.write_json(MANIFEST, manifest)
        seal(draft.folder)
        # Flush before the rename: after a crash, the name must not be there without the bytes.
        for path in (*files.values(), draft.folder / MANIFEST, draft.folder / SEAL):
            with path.open("rb") as stream:
                os.fsync(stream.fileno())
        self.put(draft.folder, key, kind)
        shutil.rmtree(self.partial(key), ignore_errors=True)

    def dropped(self, key: str) -> Mapping[str, str]:
        """Return the files that were removed from an artifact on purpose, with their checksums; none of an absent one."""
        try:
            return read_artifact(self.place(key), key, verify=False).dropped
        except StoreError:
            return {}

    def drop(self, key: str, folder: str, stands_for: Mapping[str, str] | None = None) -> int:
        """Remove a folder from an artifact, whose other files and facts stay; return the bytes that this frees.

        Args:
            stands_for: the files that those of the folder give, with their checksums, which are noted as the dropped ones; the
                folder's own if None.

        Raises:
            StoreError: the artifact is absent or damaged, or the store cannot be written.
        """
        place = self.place(key)
        with self.writing(f"the artifact {key}"), self.part() as scratch:
            artifact = read_artifact(place, key, verify=False)
            before, manifest = folder_size(place), json.loads((place / MANIFEST).read_text(encoding="utf-8"))
            going = {name: checksum for name, checksum in manifest["files"].items() if name.startswith(f"{folder}/")}
            manifest["files"] = {name: checksum for name, checksum in manifest["files"].items() if name not in going}
            # Beside it, and then in its place: a manifest and its seal cannot be replaced at once.
            lean = ArtifactDraft(scratch / key)
            for name in manifest["files"]:
                (lean.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(place / name, lean.folder / name)
            lean.folder.mkdir(exist_ok=True)
            dropped = {**artifact.dropped, **(going if stands_for is None else stands_for)}
            lean.write_json(MANIFEST, {**manifest, "format": FORMAT, "dropped": dropped})
            seal(lean.folder)
            self.remove(IndexEntry(key, artifact.kind, before))
            self.put(lean.folder, key, artifact.kind)
            return before - folder_size(place)

    def partial(self, key: str) -> Path:
        """Return the folder for the unfinished work of the process that has claimed `key`, written atomically; may be absent.

        It is removed when the artifact is published, or when nothing was written to it for `parts.PARTIAL_DAYS`.
        """
        return self.root / "partial" / key

    def sweep(self, silent_seconds: float = SILENT_SECONDS) -> int:
        """Remove what killed processes left (half-written files and folders, claims, locks), and unfinished work that is done
        or old; return how many.

        Args:
            silent_seconds: for how long processes of other machines must have touched nothing to be taken for dead.
        """
        # A key that is claimed although its artifact is there: its training is gone through again for a state in between.
        removed = sweep_partial(
            self.root / "partial",
            lambda key: (
                (self.place(key) / MANIFEST).exists() and not (self.root / "claims" / key).exists() and not self.dropped(key)
            ),
        )
        for folder in ("roots", "partial"):
            removed += sweep_unfinished(self.root / folder, deep=True)
        sweep_locks(self.root)
        return removed + self._claims.sweep() + self.parts.sweep(silent_seconds)

    @contextmanager
    def swept(self) -> Iterator[None]:
        """Sweep before the block and after it: nothing stays of the work of workers that were stopped."""
        self.sweep()
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # it is too late to complain
                self.sweep()

    def put(self, folder: Path, key: str, kind: str) -> bool:
        """Rename a whole, verified artifact into its place; return False if one is there.

        Raises:
            OSError: the store cannot be written.
        """
        place, entry = self.place(key), IndexEntry(key, kind, folder_size(folder))
        place.parent.mkdir(exist_ok=True)
        if (place / MANIFEST).exists():
            if not self.dropped(key):
                return False
            self.remove(IndexEntry(key, kind, folder_size(place)))
        try:
            folder.rename(place)  # fails if another process has put the same there: the first one stays
        except OSError as error:
            if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
                return False  # another process was faster
            raise
        catalogue.note(self.root, entry)
        return True

    def entries(self) -> Iterator[IndexEntry]:
        """Yield every artifact, by key, without opening one."""
        return catalogue.entries(self.root)

    def remove(self, entry: IndexEntry) -> None:
        """Remove an artifact: rename it away, so that readers see all of it or none, then delete its files.

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
