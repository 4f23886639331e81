"""Standardising raw vectors on a catalogue's statistics, which are fitted once and frozen.

Raw musicnn vectors of any two tracks have a cosine near 1; what tells them apart is how they differ from the
catalogue's mean, in units of its spread. The statistics are part of the model's name: fitted again, they make a new
model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from catalog.media import Audio
from core.errors import ModelError

DEFAULT = Path(__file__).parent / "data" / "musicnn_statistics.json"
SMALLEST_SHARE = 1e-3  # of the median spread: below it a dimension says nothing and is not amplified


@dataclass(frozen=True, eq=False)
class Statistics:
    """Mean and spread of `count` raw vectors of `raw_model_id`; float32 (dim,)."""

    mean: np.ndarray
    std: np.ndarray
    count: int
    raw_model_id: str

    @property
    def hash(self) -> str:
        """Eight hexadecimal digits that name these statistics."""
        return hashlib.sha256(self.mean.tobytes() + self.std.tobytes()).hexdigest()[:8]

    def to_bytes(self) -> bytes:
        record = {
            "raw_model_id": self.raw_model_id,
            "count": self.count,
            "mean": [float(v) for v in self.mean],
            "std": [float(v) for v in self.std],
        }
        return json.dumps(record).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Statistics:
        """Raises `ModelError` for bytes that are not statistics."""
        try:
            record = json.loads(data)
            mean, std = (np.asarray(record[name], np.float32) for name in ("mean", "std"))
            if mean.shape != std.shape or mean.ndim != 1 or not (std > 0).all() or not np.isfinite(mean).all():
                raise ValueError("mean and std do not fit")
            return cls(mean, std, int(record["count"]), str(record["raw_model_id"]))
        except (ValueError, KeyError, TypeError) as error:
            raise ModelError(f"damaged statistics of an audio model: {error}") from error


def fit(matrix: np.ndarray, raw_model_id: str) -> Statistics:
    """Statistics of raw vectors (n, dim), the same bits whatever the order of the rows."""
    ordered = np.asarray(matrix, np.float64)
    ordered = ordered[np.lexsort(ordered.T[::-1])]
    std = ordered.std(axis=0)
    floor = max(float(np.median(std)) * SMALLEST_SHARE, 1e-6)
    return Statistics(
        ordered.mean(axis=0).astype(np.float32),
        np.where(std > floor, std, 1e6).astype(np.float32),  # a constant dimension contributes nothing
        len(ordered),
        raw_model_id,
    )


def default_statistics() -> Statistics:
    """Those shipped for catalogues too small to have their own (see `fit_default`)."""
    try:
        return Statistics.from_bytes(DEFAULT.read_bytes())
    except OSError as error:
        raise ModelError(f"the shipped statistics are missing: {error}") from error


class Standardised:
    """An embedder of unit-norm vectors: a raw embedder and frozen statistics."""

    modality = "audio"

    def __init__(self, raw: Any, statistics: Statistics) -> None:
        if statistics.raw_model_id != raw.model_id:
            raise ModelError(f"the statistics belong to {statistics.raw_model_id}, the vectors to {raw.model_id}")
        self.raw = raw
        self.statistics = statistics
        self.model_id = f"{raw.model_id}-{statistics.hash}"
        self.dim: int = raw.dim

    def apply(self, matrix: np.ndarray) -> np.ndarray:
        """Raw vectors (n, dim) → float32 unit-norm (n, dim)."""
        centred = (np.asarray(matrix, np.float32) - self.statistics.mean) / self.statistics.std
        norms = np.linalg.norm(centred, axis=1, keepdims=True)
        # A vector equal to the mean has no direction; the first axis stands in for it.
        flat = norms[:, 0] < 1e-12
        centred[flat, 0], norms[flat] = 1.0, 1.0
        return np.ascontiguousarray(centred / norms, np.float32)

    def embed(self, batch: Sequence[Audio]) -> np.ndarray:
        return self.apply(self.raw.embed(batch))


class Final:
    """The same face for a model whose vectors are final as they come."""

    modality = "audio"

    def __init__(self, raw: Any) -> None:
        self.raw = raw
        self.model_id: str = raw.model_id
        self.dim: int = raw.dim

    def apply(self, matrix: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(matrix, np.float32)

    def embed(self, batch: Sequence[Audio]) -> np.ndarray:
        return self.apply(self.raw.embed(batch))


def fit_default() -> Statistics:
    """Fits the shipped statistics on the tracks of the package `immich-memories-music` (MIT) and writes them.

    Run it as `python -m embedders.standardise` after raising the raw model's version.
    """
    from immich_memories_music import tracks_dir

    from catalog.audio import decode_audio
    from embedders.musicnn import MusicnnRaw

    raw = MusicnnRaw()
    matrix = np.concatenate([raw.embed([decode_audio(path)]) for path in sorted(tracks_dir().rglob("*.opus"))])
    statistics = fit(matrix, raw.model_id)
    DEFAULT.write_bytes(statistics.to_bytes())
    return statistics


if __name__ == "__main__":
    fit_default()
