"""The needs of runs: each run registers in the store where its board lies and which artifacts it is made of.

    <root>/roots/<hash of machine and folder>.json    one for each run folder

Deleting a run's folder ends its needs.
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Iterator, Set
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.errors import StoreWriteError
from harness.store.atomic import write_atomically
from harness.store.reading import read_plain


@dataclass(frozen=True)
class Root:
    """A run folder's needs.

    Attributes:
        machine: where `folder` is a path.
        keys: of all artifacts that the board, or the run that will make it, needs.
    """

    name: str
    machine: str
    folder: str
    keys: tuple[str, ...]

    @classmethod
    def of(cls, name: str, folder: Path, keys: Set[str]) -> Root:
        return cls(name, platform.node(), str(folder.absolute()), tuple(sorted(keys)))

    @property
    def gone(self) -> bool:
        """Whether its folder was on this machine and has been deleted."""
        return self.machine == platform.node() and not Path(self.folder).is_dir()


def register(store: Path, root: Root) -> None:
    """Register a run's needs, replacing what it registered before.

    Raises:
        StoreWriteError: the store cannot be written.
    """
    digest = hashlib.sha256(f"{root.machine}\0{root.folder}".encode()).hexdigest()[:32]
    place = store / "roots" / f"{digest}.json"
    try:
        place.parent.mkdir(exist_ok=True)
        write_atomically(place, json.dumps({"version": 1, **asdict(root)}))
    except OSError as error:
        raise StoreWriteError(f"{place} cannot be written ({error.strerror}): choose another store with --store") from error


def roots(store: Path) -> Iterator[tuple[Path, Root | None]]:
    """Yield each registered root with its file; None for one that cannot be read."""
    for place in sorted((store / "roots").glob("*.json")):
        try:
            fields = json.loads(read_plain(place))
            yield place, Root(fields["name"], fields["machine"], fields["folder"], tuple(fields["keys"]))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            yield place, None
