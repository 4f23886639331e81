"""The decision whether a transcript is of English, on segments made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from enrichers.english import Segment, decide, evidence, window_starts, windows
from enrichers.language import LanguageDetector

ENGLISH = "Nobody had closed the window, and the garden gate was open."
SPANISH = "Para escuchar el siguiente mensaje marque el numero seis."
DETECTOR = LanguageDetector()


def segment(
    text: str = ENGLISH,
    start_s: float = 0.0,
    end_s: float = 10.0,
    log_probability: float = -0.3,
    compression: float = 1.4,
    confidence: float = 0.9,
    tokens: int = 12,
) -> Segment:
    words = tuple((start_s, end_s, word, confidence) for word in text.split())
    return Segment(start_s, end_s, text, tokens, log_probability, compression, words)


@pytest.mark.parametrize(
    ("doubtful", "verdict"),
    [
        (segment(), "english"),
        (segment(log_probability=-0.9), "not_english"),
        (segment(compression=8.0), "not_english"),  # the model repeats itself
        (segment(confidence=0.4), "not_english"),
        (segment(SPANISH), "not_english"),  # sure of letters that are those of another language
        (segment("3, 4, 5."), "english"),  # too few letters to tell the language: the other signals decide
        (segment("3, 4, 5.", confidence=0.4), "not_english"),
    ],
)
def test_each_signal_can_refuse(doubtful: Segment, verdict: str) -> None:
    assert decide([[doubtful]], DETECTOR) == verdict
    assert decide([[doubtful], [doubtful]], DETECTOR) == verdict
    both = decide([[segment()], [doubtful]], DETECTOR)
    assert both == ("english" if verdict == "english" else "partly_not_english")
    assert decide([[doubtful], [segment()]], DETECTOR) == both


def test_a_window_without_words_has_no_say() -> None:
    silent = Segment(0.0, 5.0, "", 1, -3.0, 0.0, ())
    assert decide([[], [segment()]], DETECTOR) == "english"
    assert decide([[silent], [segment(confidence=0.2)]], DETECTOR) == "not_english"
    assert decide([[], [silent]], DETECTOR) == decide([], DETECTOR) == "no_words"


def test_a_word_counts_where_it_is_first_written() -> None:
    invented = [segment("The Conference is", confidence=0.2), segment("the conference is", confidence=0.9)]
    found = evidence(invented, DETECTOR)
    assert found is not None and found.word_confidence == pytest.approx(0.2)
    # Words that are truly said again and again are sure from the first.
    said = evidence([segment(confidence=0.8), segment(confidence=0.9)], DETECTOR)
    assert said is not None and said.word_confidence == pytest.approx(0.8)


def test_evidence_weighs_segments_by_their_tokens_and_different_words_alike() -> None:
    found = evidence(
        [segment(tokens=30, log_probability=-0.2, confidence=1.0), segment("Yes.", tokens=10, log_probability=-0.6)],
        DETECTOR,
    )
    assert found is not None
    assert found.avg_log_probability == pytest.approx((30 * -0.2 + 10 * -0.6) / 40)
    different = len(set(ENGLISH.lower().split()))
    assert found.word_confidence == pytest.approx((different * 1.0 + 0.9) / (different + 1))
    assert found.english_probability is not None and found.english_probability > 0.8


def test_a_minute_has_two_halves_and_more_has_two_windows() -> None:
    every = [segment(start_s=float(s), end_s=s + 10.0) for s in range(0, 60, 10)]
    first, second = windows(every, [(0.0, 60.0)], 60.0)
    assert [s.start_s for s in first] == [0.0, 10.0, 20.0] and [s.start_s for s in second] == [30.0, 40.0, 50.0]
    every = [segment(start_s=float(s), end_s=s + 10.0) for s in range(0, 400, 10)]
    first, second = windows(every, [(0.0, 400.0)], 400.0)
    # Around 100 s and 300 s, half a minute each.
    assert [s.start_s for s in first] == [80.0, 90.0, 100.0]
    assert [s.start_s for s in second] == [280.0, 290.0, 300.0]
    # Words elsewhere only: they are decided on all the same.
    some = [segment(start_s=0.0, end_s=10.0), segment(start_s=390.0, end_s=400.0)]
    assert [len(window) for window in windows(some, [(0.0, 400.0)], 400.0)] == [1, 1]


def test_windows_lie_where_somebody_speaks() -> None:
    assert window_starts([(0.0, 100.0)], 100.0) == (10.0, 60.0)
    # An hour of music between two minutes of speech: a quarter of the speech is at 30 s, three quarters at 3,690 s.
    assert window_starts([(0.0, 60.0), (3660.0, 3720.0)], 3720.0) == (15.0, 3675.0)
    # Never beyond the recording's ends.
    assert window_starts([(0.0, 4.0)], 61.0) == (0.0, 0.0)
    assert window_starts([(57.0, 61.0)], 61.0) == (31.0, 31.0)
    rng = np.random.default_rng(0)
    for _ in range(50):
        edges = np.sort(rng.uniform(0, 500, 12))
        first, second = window_starts(list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)), 500.0)
        assert 0 <= first <= second <= 470
