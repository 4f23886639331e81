"""Texts like exemplars: the same words whatever their case, spacing and punctuation, and the same meaning."""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass, field

import numpy as np

from moderation.matches import Match

LEAST_LIKENESS = 0.7  # cosine from which a text is told to be like an exemplar: nothing is decided by that alone


def folded(text: str) -> str:
    """Letters and digits alone, without case, accents or compatibility forms."""
    plain = unicodedata.normalize("NFKD", text).casefold()
    return "".join(c for c in unicodedata.normalize("NFKD", plain) if c.isalnum())


def text_hash(text: str) -> str:
    """Of what is left when a text is `folded`; "" of a text without a letter."""
    plain = folded(text)
    return hashlib.sha256(plain.encode()).hexdigest() if plain else ""


def words_sha256(text: str) -> str:
    """Of a text as it is, to the last comma."""
    return hashlib.sha256(text.encode()).hexdigest()


@dataclass
class TextBank:
    """Exemplars' texts, under ids of the caller's. Vectors are unit, float32 (dim,), of one model."""

    least: float = LEAST_LIKENESS
    ids: list[str] = field(default_factory=list)
    vectors: list[np.ndarray] = field(default_factory=list)
    hashes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, exemplar_id: str, text: str, vector: np.ndarray) -> None:
        self.ids.append(exemplar_id)
        self.hashes.append(text_hash(text))
        self.vectors.append(np.asarray(vector, np.float32))

    def match(self, text: str, vectors: np.ndarray) -> list[Match]:
        """The exemplars that say the same, then those that mean nearly what the text or one of its passages means, the
        likest first. `vectors` are of the whole and of its passages, unit float32 (n, dim)."""
        if not self.ids:
            return []
        own = text_hash(text)
        alike = (np.stack(self.vectors) @ np.atleast_2d(np.asarray(vectors, np.float32)).T).max(axis=1)
        found = []
        for number in np.argsort(-alike, kind="stable"):
            if own and self.hashes[number] == own:
                found.append(Match(self.ids[number], "text", "hash", 1.0))
            elif alike[number] >= self.least:
                found.append(Match(self.ids[number], "text", "embedding", float(min(alike[number], 1.0))))
        return sorted(found, key=lambda m: m.tier != "hash")
