"""Content-addressed artifacts: made once, verified when read, shared by methods, seeds, runs and machines."""

from harness.store.artifact import MANIFEST, Artifact, ArtifactDraft, canonical, file_hash, key_of
from harness.store.store import Store

__all__ = ["MANIFEST", "Artifact", "ArtifactDraft", "Store", "canonical", "file_hash", "key_of"]
