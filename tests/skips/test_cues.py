"""Which words lie in a span: by hand, and by exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skips.cues import kind_cues
from skips.lexicon import cues
from skips.words import Sentence

# "sponsored" has nine letters, "by" two, "Acme" four: of fifteen seconds they take 9, 2 and 4.
SENTENCE = Sentence(100.0, 115.0, "sponsored by Acme")


@pytest.mark.parametrize(
    ("start", "end", "found"),
    [
        (100.0, 115.0, True),
        (0.0, 1000.0, True),
        (100.0, 110.1, True),  # more than half of "by", 109 to 111
        (100.0, 109.9, False),  # less
        (104.4, 200.0, True),  # more than half of "sponsored"
        (104.6, 200.0, False),
        (0.0, 100.0, False),
        (115.0, 200.0, False),
        (110.0, 105.0, False),  # a span that ends before it starts
        (math.nan, 115.0, False),
        (100.0, math.nan, False),
    ],
)
def test_a_word_is_in_a_span_when_more_than_half_of_it_is(start: float, end: float, found: bool) -> None:
    assert bool(kind_cues([SENTENCE], start, end)) == found


def test_sentences_in_a_span_are_read_as_one_text() -> None:
    # A phrase may begin in one sentence and end in the next, as captions are cut.
    said = [
        Sentence(0, 2, "this hour is sponsored"),
        Sentence(2, 4, "by Acme"),
        Sentence(9, 10, "thanks for listening"),
    ]
    assert kind_cues(said, 0, 5) == cues("sponsored by") != {}
    assert set(kind_cues(said, 0, 10)) == {"ad", "outro"}
    assert kind_cues(iter(said), 0, 5) == kind_cues(said, 0, 5)


def test_nothing_said_is_no_evidence() -> None:
    assert kind_cues([], 0, 10) == {}
    assert kind_cues([Sentence(0, 5, ""), Sentence(4, 20, "  ")], 0, 10) == {}


def test_a_sentence_at_no_known_time_is_in_no_span() -> None:
    assert kind_cues([Sentence(math.nan, math.nan, "sponsored by Acme")], 0, 1000) == {}


def test_a_sentence_without_length_is_in_the_spans_around_it() -> None:
    still = [Sentence(5.0, 5.0, "sponsored by Acme")]
    assert kind_cues(still, 0, 10) and not kind_cues(still, 5, 10) and not kind_cues(still, 0, 5)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from(["a", "the", "river", "lighthouse"]), max_size=6),
    st.lists(st.sampled_from(["a", "the", "river", "lighthouse"]), max_size=6),
    st.integers(0, 1000),
    st.integers(1, 1000),
    st.integers(-200, 2200),
    st.integers(1, 2400),
)
def test_the_share_of_a_word_agrees_with_exact_fractions(
    before: list[str], after: list[str], at: int, length: int, start: int, span: int
) -> None:
    words = [*before, "werbung", *after]  # a cue of one word
    end = start + span
    # Tenths of a second; the word's place is its share of the letters.
    letters = sum(map(len, words))
    left = at + Fraction(length * sum(map(len, before)), letters)
    share = Fraction(length * len("werbung"), letters)
    inside = min(left + share, Fraction(end)) - max(left, Fraction(start))
    if abs(inside - share / 2) < Fraction(1, 10**6):
        return  # half of it, to a float's precision
    sentence = Sentence(at / 10, (at + length) / 10, " ".join(words))
    assert bool(kind_cues([sentence], start / 10, end / 10)) == (inside > share / 2)
