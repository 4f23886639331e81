"""What a content, or an exemplar, is recognised by: the hash of its bytes and the arrays of its modality. A decision
pins it, so that it can be made again."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from core.errors import StorageError
from core.storage import Storage

PAYLOADS = "moderation/payloads"


@dataclass(frozen=True)
class Evidence:
    """Of one medium. `sha256` is of the file; of a text in a store, of its title, description and words. `arrays` by
    modality: audio `frames`, uint8 (n, bands); image `pdq`, uint8 (8, 32), `quality`, `points`, `descriptors` and
    `size` (width, height). Of text, and of the voices in audio, `vector`, unit float32 (dim,), is that of the whole,
    and `parts`, unit float16 (n, dim), those of its passages: in characters or seconds from `spans`, (n, 2); `times`,
    (n, 2), are the seconds of a text's that was heard. `text_hash` is that of the text's letters; `scores` are those of
    classifiers, by feature; `model_id` made the vectors."""

    modality: str
    sha256: str = ""
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    text_hash: str = ""
    scores: Mapping[str, float] = field(default_factory=dict)
    model_id: str = ""

    def described(self) -> dict[str, Any]:
        """Everything but the arrays, as JSON."""
        return {
            "modality": self.modality,
            "sha256": self.sha256,
            "text_hash": self.text_hash,
            "scores": dict(self.scores),
            "model_id": self.model_id,
        }

    @classmethod
    def from_described(cls, values: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Evidence:
        return cls(arrays=arrays, **values)


def part_arrays(
    vectors: np.ndarray, spans: np.ndarray, whole: np.ndarray | None = None, times: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """The arrays of passages' unit vectors, (n, dim): `whole` is their normed mean unless it is given. None of none."""
    if not len(vectors):
        return {} if whole is None else {"vector": np.asarray(whole, np.float32)}
    if whole is None:
        mean = np.asarray(vectors, np.float32).mean(axis=0)
        whole = mean / np.linalg.norm(mean)
    found: dict[str, np.ndarray] = {
        "vector": np.asarray(whole, np.float32),
        "parts": vectors.astype(np.float16),
        "spans": np.asarray(spans),
    }
    if times is not None:
        found["times"] = np.asarray(times, np.float32)
    return found


def store_arrays(storage: Storage, arrays: Mapping[str, np.ndarray] | None) -> str:
    """Keeps arrays under the hash of their bytes, which is returned; "" for none. The same arrays have one hash."""
    if not arrays:
        return ""
    held = io.BytesIO()
    named: dict[str, Any] = {name: np.asarray(value) for name, value in sorted(arrays.items())}
    np.savez_compressed(held, **named)
    data = held.getvalue()
    payload = hashlib.sha256(data).hexdigest()
    storage.write(f"{PAYLOADS}/{payload}.npz", data)
    return payload


def load_arrays(storage: Storage, payload: str, whose: str) -> dict[str, np.ndarray]:
    """What `store_arrays` kept. Raises `StorageError` where it is gone or not what it was; `whose` is named then."""
    if not payload:
        return {}
    try:
        data = storage.read(f"{PAYLOADS}/{payload}.npz")
    except FileNotFoundError as error:
        raise StorageError(f"the arrays of {whose} are gone") from error
    if hashlib.sha256(data).hexdigest() != payload:
        raise StorageError(f"the arrays of {whose} were changed")
    with np.load(io.BytesIO(data), allow_pickle=False) as held:
        return {name: held[name] for name in held.files}
