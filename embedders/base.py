"""What every embedder is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Protocol, TypeVar

import numpy as np

from catalog.media import Media

Modality = Literal["text", "audio", "image"]
M = TypeVar("M", bound=Media, contravariant=True)


class Embedder(Protocol[M]):
    """A batch of media of one modality → unit-norm vectors.

    `model_id` names everything that shapes a vector: weights (by hash), windowing, pooling and, where there are any,
    the hash of frozen standardisation statistics. Vectors of two model ids never meet.
    """

    modality: Modality
    model_id: str
    dim: int

    def embed(self, batch: Sequence[M]) -> np.ndarray:
        """float32, C-contiguous, shape (len(batch), dim), every row of norm 1. Raises `BadItem` for what has no vector
        (the caller then tries the items one by one to find which)."""
        ...
