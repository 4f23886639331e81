"""What is said in a span of an episode, as evidence for its kind."""

from __future__ import annotations

from collections.abc import Iterable

from skips.lexicon import cues
from skips.words import Sentence


def kind_cues(sentences: Iterable[Sentence], start_s: float, end_s: float) -> dict[str, float]:
    """Evidence by kind in [0, 1] of the words between two times in seconds; kinds without any are left out.

    A sentence at the span's edge gives the words that lie in it by more than half. Sentences know no times of words:
    a word's share of a sentence's time is taken to be its share of the letters.
    """
    return cues(" ".join(part for s in sentences if (part := _inside(s, start_s, end_s))))


def _inside(sentence: Sentence, start_s: float, end_s: float) -> str:
    if not (sentence.end_s > start_s and sentence.start_s < end_s):  # so that NaN is outside
        return ""
    if start_s <= sentence.start_s and sentence.end_s <= end_s:
        return sentence.text
    words = sentence.text.split()
    letters = sum(len(word) for word in words)
    kept, at = [], sentence.start_s
    for word in words:
        length = (sentence.end_s - sentence.start_s) * len(word) / letters
        if min(at + length, end_s) - max(at, start_s) > length / 2:
            kept.append(word)
        at += length
    return " ".join(kept)
