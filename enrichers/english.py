"""Whether a transcript by an English-only model is of English speech.

The model writes English words for speech in any language. Invented words are recognised by their low probabilities, by
repetition, and by the letters of another language. The model assigns a higher probability to a sentence each time it
repeats it, so only the first occurrence of a word counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from enrichers.language import LanguageDetector

WINDOW_S = 30.0  # what the model hears at once

# Set by `python -m bench.transcript_language_train`.
MIN_LOG_PROBABILITY = -0.65
MIN_WORD_CONFIDENCE = 0.63
MAX_COMPRESSION_RATIO = 6.3
MIN_ENGLISH_PROBABILITY = 0.35

PUNCTUATION = ".,;:!?-–—…\"'"

Verdict = Literal["english", "not_english", "partly_not_english", "no_words"]


@dataclass(frozen=True)
class Segment:
    """One segment of a transcript. `avg_log_probability` (of its tokens) and `compression_ratio` are those of the
    stretch of at most 30 s that the model decoded it in; `words` are (start_s, end_s, word, probability)."""

    start_s: float
    end_s: float
    text: str
    tokens: int
    avg_log_probability: float
    compression_ratio: float
    words: tuple[tuple[float, float, str, float], ...]


@dataclass(frozen=True)
class Evidence:
    """The inputs of the decision on one window. `word_confidence` is the mean probability of the distinct words, each
    at its first occurrence; `english_probability` is None for a text too short to decide on."""

    avg_log_probability: float
    compression_ratio: float
    word_confidence: float
    english_probability: float | None

    @property
    def passes(self) -> bool:
        return (
            self.avg_log_probability >= MIN_LOG_PROBABILITY
            and self.compression_ratio <= MAX_COMPRESSION_RATIO
            and self.word_confidence >= MIN_WORD_CONFIDENCE
            and (self.english_probability is None or self.english_probability >= MIN_ENGLISH_PROBABILITY)
        )


def evidence(window: Sequence[Segment], detector: LanguageDetector) -> Evidence | None:
    """The evidence of a window's segments; None without a word."""
    first: dict[str, float] = {}
    for segment in window:
        for _, _, word, probability in segment.words:
            first.setdefault(word.casefold().strip(PUNCTUATION), probability)
    if not first:
        return None
    ranked = dict(detector.ranked(" ".join(segment.text for segment in window), 3))
    return Evidence(
        float(np.average([s.avg_log_probability for s in window], weights=[max(s.tokens, 1) for s in window])),
        max(s.compression_ratio for s in window),
        float(np.mean(list(first.values()))),
        ranked.get("en", 0.0) if ranked else None,
    )


def decide(windows: Sequence[Sequence[Segment]], detector: LanguageDetector) -> Verdict:
    """The decision on a recording from its windows: every window with words in it must pass."""
    answers = [e.passes for window in windows if (e := evidence(window, detector)) is not None]
    if not answers:
        return "no_words"
    return "english" if all(answers) else "partly_not_english" if any(answers) else "not_english"


def windows(segments: Sequence[Segment], speech: Sequence[tuple[float, float]], length_s: float) -> list[list[Segment]]:
    """The segments of a transcript in its recording's two windows, by their middles: its halves where it is no longer
    than both, else 30 s each around the first and the last quarter of its speech."""
    middles = [(s.start_s + s.end_s) / 2 for s in segments]
    if length_s > 2 * WINDOW_S:
        starts = window_starts(speech, length_s)
        chosen = [[s for s, m in zip(segments, middles, strict=True) if a <= m < a + WINDOW_S] for a in starts]
        if any(chosen):
            return chosen
    half = length_s / 2
    chosen = [[], []]
    for segment, middle in zip(segments, middles, strict=True):
        chosen[middle >= half].append(segment)
    return chosen


def window_starts(speech: Sequence[tuple[float, float]], length_s: float) -> tuple[float, float]:
    """Where the two windows of a recording of more than a minute begin, in seconds: around the first and the last
    quarter of its speech. `speech` are (start, end) in order, without overlaps."""
    lengths = np.array([end - start for start, end in speech])
    ends = np.cumsum(lengths)
    starts = []
    for share in (0.25, 0.75):
        spoken = share * ends[-1]
        n = int(np.searchsorted(ends, spoken))
        middle = speech[n][1] - (ends[n] - spoken)
        starts.append(float(np.clip(middle - WINDOW_S / 2, 0.0, length_s - WINDOW_S)))
    return starts[0], starts[1]
