"""Repositories of the Hugging Face hub, pinned to a commit. What the local cache holds needs no network.

Imports huggingface_hub where it is used. It reads its own environment (`HF_HOME`, `HF_HUB_OFFLINE`, `HF_TOKEN`); nothing
here does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from harness.errors import DataError, UnreachableError

RepositoryKind = Literal["model", "dataset"]
NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_COMMIT = re.compile(r"[0-9a-f]{40}")
TIMEOUT_SECONDS = 15.0


def is_commit(revision: str) -> bool:
    """Whether a revision is a whole commit hash, which always means the same files."""
    return _COMMIT.fullmatch(revision) is not None


def hub_commit(name: str, revision: str | None = None, kind: RepositoryKind = "model") -> str:
    """The commit that a branch or tag stands for now: asked of the hub, else of the local cache.

    Args:
        name: `owner/name`.
        revision: a branch, a tag or a commit; the main branch if None.

    Raises:
        DataError: the hub knows no such repository or revision, or refuses access.
        UnreachableError: it cannot be reached, and the cache does not hold the revision.
    """
    revision = revision or "main"
    if is_commit(revision):
        return revision
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        info = HfApi().repo_info(name, revision=revision, repo_type=kind, timeout=TIMEOUT_SECONDS)
    except GatedRepoError as error:
        raise DataError(f"{name}: the hub gives it only to who has accepted its terms: accept them, then log in") from error
    except RevisionNotFoundError as error:
        raise DataError(f"{name}: the hub has no revision {revision!r} of it") from error
    except RepositoryNotFoundError as error:
        raise DataError(f"{name}: the hub has no {kind} of this name, or it is private: check the name, or log in") from error
    except _unreachable() as error:
        cached = _cache(name, kind) / "refs" / revision
        if cached.is_file():
            return cached.read_text().strip()
        raise UnreachableError(_needs_network(name, revision)) from error
    return str(info.sha)


def hub_snapshot(name: str, commit: str, patterns: Sequence[str], kind: RepositoryKind = "model") -> Path:
    """The folder of a repository's files at a commit, those that match any of `patterns`; downloaded unless they are cached.

    Raises:
        UnreachableError: the hub cannot be reached or refuses, and the cache lacks the commit.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=commit, repo_type=kind, allow_patterns=list(patterns)))
    except _unreachable() as error:
        raise UnreachableError(_needs_network(name, commit)) from error


def hub_files(name: str, commit: str, kind: RepositoryKind = "model") -> list[str]:
    """The names of a repository's files at a commit; where the hub cannot be reached, of those in the local cache."""
    from huggingface_hub import HfApi

    try:
        return sorted(HfApi().list_repo_files(name, revision=commit, repo_type=kind))
    except _unreachable():
        folder = _cache(name, kind) / "snapshots" / commit
        return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def hub_upload(folder: Path, name: str, kind: Literal["space", "dataset"], message: str) -> str:
    """Put a folder's files into a repository in one commit, which is there whole or not at all; returns its address.

    The repository is made if there is none. What else it holds stays. The token is the one of `hf auth login` or `HF_TOKEN`.

    Raises:
        DataError: the hub cannot be reached, or refuses.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        api.create_repo(name, repo_type=kind, space_sdk="static" if kind == "space" else None, exist_ok=True)
        commit = api.upload_folder(repo_id=name, repo_type=kind, folder_path=folder, commit_message=message)
    except _unreachable() as error:
        raise DataError(_not_uploaded(name, error)) from error
    return str(commit.commit_url)


def hub_model_metadata(name: str, metadata: Mapping[str, Any], message: str) -> str:
    """Add to a model card's metadata; results of the same task, data and metric are replaced. Returns the commit's address.

    Raises:
        DataError: the hub cannot be reached, or refuses.
    """
    from huggingface_hub import metadata_update

    refusals: tuple[type[Exception], ...] = (ValueError, *_unreachable())
    try:
        return str(metadata_update(name, dict(metadata), overwrite=True, commit_message=message))
    except refusals as error:
        raise DataError(_not_uploaded(name, error)) from error


def _not_uploaded(name: str, error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return (
        f"{name} was not written to: {lines[0] if lines else type(error).__name__}; log in with `hf auth login`, check the name"
    )


def _cache(name: str, kind: RepositoryKind) -> Path:
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder: str = repo_folder_name(repo_id=name, repo_type=kind)
    return Path(constants.HF_HUB_CACHE, folder)


def _needs_network(name: str, revision: str) -> str:
    return (
        f"{name} at {revision!r} needs network: the hub cannot be reached, and the local hub cache does not hold it; "
        "run once where the hub is reachable, or give a local folder"
    )


def _unreachable() -> tuple[type[Exception], ...]:
    """Return the errors that huggingface_hub raises where the hub cannot be reached, refuses, or must not be asked."""
    from huggingface_hub.errors import HfHubHTTPError

    return (OSError, *HfHubHTTPError.__bases__)  # the client library's own base is among them: httpx's, by whichever name
