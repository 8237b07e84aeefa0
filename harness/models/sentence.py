"""Sentence embedders: any sentence-transformers model, or any encoder with a pooling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from harness.models.batched import computed
from harness.models.fetched import SENTENCE_EMBEDDER
from harness.models.weights import Weights

if TYPE_CHECKING:
    import numpy as np

TEXTS_PER_BATCH = 32


class SentenceEmbedder(Weights):
    """A sentence-transformers model, or any encoder with a pooling. Self-Contrast's paper: WhereIsAI/UAE-Large-V1, `cls`.

    `model: minilm` is the one that `harness fetch minilm` gets.
    """

    fetched_kind: ClassVar[str] = SENTENCE_EMBEDDER

    name: Literal["sentence_transformers"] = Field("sentence_transformers", description="the only one that takes fields")
    pooling: Literal["cls", "mean", "max", "lasttoken"] | None = Field(
        None, description="how token states become one vector; as the model's own files say if absent"
    )
    max_tokens: int = Field(512, ge=8, le=131_072, description="longest text; the rest of a longer one is not read")

    def key(self) -> dict[str, object]:
        """Return all that decides its numbers, for keys of artifacts: not a folder's path, but the library's version."""
        from importlib import metadata

        fields = self.model_dump(mode="json", exclude={"model", "revision"})
        return {**fields, "weights": self.weights, "sentence-transformers": metadata.version("sentence-transformers")}

    def parameters(self) -> int | None:
        """Count its parameters by the size of its files, as float32; None of a hub model."""
        folder = self.local
        return sum(file.stat().st_size for file in folder.rglob("*.safetensors")) // 4 if folder else None

    def problems(self, field: str) -> Sequence[tuple[str, str]]:
        """As `Weights.problems`, and whether the library is there."""
        from importlib.util import find_spec

        if find_spec("sentence_transformers") is None:
            return [(field, "sentence-transformers is not installed: pip install 'alignment-harness[embed]'")]
        return super().problems(field)


class EmbeddedTexts:
    """Sentence embeddings of length 1, batch by batch (a `Batched`): [n, width]. On a GPU products are in bfloat16.

    Args:
        texts: different ones.
    """

    def __init__(self, embedder: SentenceEmbedder, texts: Sequence[str]) -> None:
        import torch
        from sentence_transformers import SentenceTransformer
        from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

        self.texts, folder = texts, str(embedder.folder())
        safe = {"use_safetensors": True}
        self.device = device = "cuda" if torch.cuda.is_available() else "cpu"
        if embedder.pooling is None:
            self.model = SentenceTransformer(folder, device=device, trust_remote_code=False, model_kwargs=safe)
        else:
            words = Transformer(folder, config_kwargs={"trust_remote_code": False}, model_kwargs=safe)
            pooling = Pooling(words.get_embedding_dimension(), pooling_mode=embedder.pooling)
            self.model = SentenceTransformer(modules=[words, pooling], device=device)
        self.model.max_seq_length = min(embedder.max_tokens, self.model.max_seq_length or embedder.max_tokens)

    def batches(self) -> list[list[int]]:
        """Longest first, as the library orders them, so that texts of a batch are about equally long."""
        order = sorted(range(len(self.texts)), key=lambda place: (-len(self.texts[place]), place))
        return [order[start : start + TEXTS_PER_BATCH] for start in range(0, len(order), TEXTS_PER_BATCH)]

    def compute(self, batch: Sequence[int]) -> np.ndarray:
        import torch

        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=self.device == "cuda"):
            vectors: np.ndarray = self.model.encode(
                [self.texts[place] for place in batch],
                batch_size=TEXTS_PER_BATCH,
                normalize_embeddings=True,
                show_progress_bar=False,
                convert_to_numpy=True,
            )
        return vectors


def different_texts(targets: Sequence[str], responses: Sequence[Sequence[str]]) -> list[str]:
    """Return the texts that are embedded, equal ones once."""
    return list(dict.fromkeys([*targets, *(text for row in responses for text in row)]))


def text_cosines(
    vectors: np.ndarray, texts: Sequence[str], targets: Sequence[str], responses: Sequence[Sequence[str]]
) -> list[np.ndarray]:
    """Return the cosines of responses to their target, one array per target.

    Args:
        vectors: of `texts`.
    """
    place = {text: index for index, text in enumerate(texts)}
    return [
        vectors[[place[text] for text in row]] @ vectors[place[target]] for target, row in zip(targets, responses, strict=True)
    ]


def sentence_similarity(
    embedder: SentenceEmbedder, targets: Sequence[str], responses: Sequence[Sequence[str]]
) -> list[np.ndarray]:
    """Cosine of sentence embeddings, one array per target. Equal texts are embedded once."""
    texts = different_texts(targets, responses)
    return text_cosines(computed(EmbeddedTexts(embedder, texts), len(texts)), texts, targets, responses)
