"""Sentences out of words: cut by hand where people would cut, and whole under any times."""

from __future__ import annotations

import math

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skips.sentences import LONGEST_S, LONGEST_WORDS, PAUSE_S, sentences
from skips.words import Sentence

SCHEMA = pa.schema([("start_s", pa.float64()), ("end_s", pa.float64()), ("word", pa.string())])
Row = tuple[float | None, float | None, str | None]


def table(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in rows], schema=SCHEMA)


def spoken(text: str, gap_s: float = 0.1) -> pa.Table:
    """Words of 0.4 s with a gap between, stripped of spaces; "|" is a second of silence."""
    rows: list[Row] = []
    at = 0.0
    for word in text.split():
        if word == "|":
            at += 1.0
            continue
        rows.append((at, at + 0.4, word))
        at += 0.4 + gap_s
    return table(rows)


def texts(words: pa.Table) -> list[str]:
    return [s.text for s in sentences(words)]


def test_a_sentence_lasts_from_its_first_word_to_its_last() -> None:
    assert sentences(spoken("Hello there. How are you?", gap_s=0.0)) == [
        Sentence(0.0, pytest.approx(0.8), "Hello there."),
        Sentence(pytest.approx(0.8), pytest.approx(2.0), "How are you?"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Dr. Smith met Mrs. Jones at St. Paul's.",
        "We spoke to J. K. Rowling, i.e. the author.",
        "It grew in the U.S. Senate and, e.g. in Texas.",
        "See No. 5 in vol. 3 for it.",
        "It opens at 9 a.m. tomorrow.",
        "Acme Inc. makes it.",
        "Well... maybe not.",
        "Nobody wrote punctuation here at all",
    ],
)
def test_a_full_stop_that_ends_no_sentence_ends_none(text: str) -> None:
    assert texts(spoken(text)) == [text]


@pytest.mark.parametrize(
    "text",
    [
        "It opens at 9 a.m. / Come early.",
        "They said no. / So we left.",
        "It was him and I. / We knew.",
        'She asked, "Why?" / He left.',
        "Really?! / Yes!",
        "本当です。 / はい。",
        "He sold Acme Inc. / The buyer was a bank.",
        "It cost 5. / Then it cost more.",
        "So it ends… / Another begins.",
    ],
)
def test_a_full_stop_that_ends_a_sentence_ends_it(text: str) -> None:
    assert texts(spoken(text.replace(" / ", " "))) == text.split(" / ")


def test_without_punctuation_a_pause_ends_a_sentence() -> None:
    assert texts(spoken("so we went there | and then we left")) == ["so we went there", "and then we left"]
    almost = table([(0.0, 1.0, "one"), (1.0 + PAUSE_S - 0.01, 3.0, "two"), (3.0 + PAUSE_S + 0.01, 5.0, "three")])
    assert texts(almost) == ["one two", "three"]


def test_a_pause_is_counted_from_all_that_was_said_so_far() -> None:
    # The second word ends before the first one does: there is no silence before the third.
    assert texts(table([(0.0, 5.0, "long"), (1.0, 2.0, "short"), (5.5, 6.0, "after")])) == ["long short after"]


def test_words_without_end_are_cut_by_number_and_by_time() -> None:
    assert [len(t.split()) for t in texts(spoken(" ".join(["word"] * 70), gap_s=0.0))] == [
        LONGEST_WORDS,
        LONGEST_WORDS,
        10,
    ]
    slow = table([(float(n), n + 0.9, f"w{n}") for n in range(50)])
    assert [s.end_s - s.start_s <= LONGEST_S for s in sentences(slow)] == [True] * len(sentences(slow))
    assert len(sentences(slow)) == 3  # twenty words of a second each fit into twenty seconds


def test_pieces_of_a_word_are_put_together_again() -> None:
    # As faster-whisper gives them, with leading spaces, and stripped.
    pieces = [" Go", " to", " acme", ".com", "/show", " for", " 15", "%", " off."]
    rows: list[Row] = [(n * 0.5, n * 0.5 + 0.5, piece) for n, piece in enumerate(pieces)]
    assert texts(table(rows)) == ["Go to acme.com/show for 15% off."]
    stripped: list[Row] = [(start, end, (word or "").strip()) for start, end, word in rows]
    assert texts(table(stripped)) == ["Go to acme.com/show for 15% off."]


def test_a_number_is_not_cut_at_its_point_when_it_is_said_in_one_breath() -> None:
    assert texts(table([(0, 1, "About"), (1, 1.5, "3."), (1.6, 2, "5"), (2, 3, "Percent")])) == ["About 3. 5 Percent"]
    assert texts(table([(0, 1, "About"), (1, 1.5, "3."), (2.0, 2.4, "5"), (2.4, 3, "More")])) == ["About 3.", "5 More"]


def test_a_table_without_words_or_without_times_has_no_sentences() -> None:
    assert sentences(table([])) == []
    assert sentences(table([(None, None, "lost"), (math.nan, math.inf, "too")])) == []
    assert sentences(table([(0.0, 1.0, ""), (1.0, 2.0, "  "), (2.0, 3.0, None)])) == []


def test_a_missing_time_is_that_of_the_words_around() -> None:
    rows: list[Row] = [(math.nan, None, "One"), (2.0, 3.0, "two"), (None, math.nan, "three"), (3.5, math.inf, "four.")]
    # "One" takes the first time there is, "three" the end of "two"; "four." has no end but its start.
    assert sentences(table(rows)) == [Sentence(2.0, 3.5, "One two three four.")]


def test_a_word_that_ends_before_it_starts_has_no_length() -> None:
    assert sentences(table([(5.0, 1.0, "Odd.")])) == [Sentence(5.0, 5.0, "Odd.")]


def test_words_are_put_in_order() -> None:
    assert texts(table([(2.0, 3.0, "Two."), (0.0, 1.0, "One.")])) == ["One.", "Two."]


TIME = st.one_of(st.none(), st.sampled_from([math.nan, math.inf, -math.inf]), st.floats(-10, 200))
TEXT = st.sampled_from(
    ["so", "Yes.", "Dr.", "No.", "5", "3.", "what?", "I.", "e.g.", " a", ".com", "%", "—", "…", "‘x’", "é"]
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.tuples(TIME, TIME, TEXT), max_size=90))
def test_every_word_is_in_exactly_one_sentence_and_sentences_follow_each_other(rows: list[Row]) -> None:
    # A number in each word tells it from the others.
    named = [(start, end, f"{word}{n:03}") for n, (start, end, word) in enumerate(rows)]
    found = sentences(table(named))
    said = "".join(s.text for s in found).replace(" ", "")
    timed = any(t is not None and math.isfinite(t) for start, end, _ in rows for t in (start, end))
    for _, _, word in named:
        assert said.count((word or "").strip()) >= int(timed)
    assert len(said) == timed * sum(len((word or "").strip()) for _, _, word in named)
    for sentence in found:
        assert math.isfinite(sentence.start_s) and sentence.start_s <= sentence.end_s < math.inf
    for one, other in zip(found, found[1:], strict=False):
        assert one.end_s <= other.start_s


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.tuples(st.floats(0, 1.5), st.floats(0.05, 1.0), TEXT), min_size=1, max_size=120))
def test_no_sentence_is_longer_than_its_bounds(drawn: list[tuple[float, float, str]]) -> None:
    rows: list[Row] = []
    at = 0.0
    for gap, length, word in drawn:
        at += gap
        rows.append((at, at + length, word.strip()))
        at += length
    found = sentences(table(rows))
    for sentence in found:
        inside = [r for r in rows if sentence.start_s <= (r[0] or 0.0) < sentence.end_s]
        assert 1 <= len(inside) <= LONGEST_WORDS
        assert sentence.end_s - sentence.start_s <= LONGEST_S
        for one, other in zip(inside, inside[1:], strict=False):
            assert (other[0] or 0.0) - (one[1] or 0.0) < PAUSE_S
