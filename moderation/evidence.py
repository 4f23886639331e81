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
    """Of one medium. `arrays` by modality: audio `frames`, uint8 (n, bands); image `pdq`, uint8 (8, 32), `quality`,
    `points`, `descriptors` and `size` (width, height); text `vector`, unit float32 (dim,). `text_hash` is that of its
    letters; `scores` are those of classifiers, by feature; `model_id` made the vector."""

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
