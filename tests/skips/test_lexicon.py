"""The lexicon: evidence worked out from the weights by hand, and the sentences that once fooled it."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skips.lexicon import BIAS, CUES, cues, normal


def logistic(weight: float) -> float:
    return 1 / (1 + math.exp(BIAS - weight))


def test_evidence_is_the_logistic_of_the_phrases_weights() -> None:
    # "sponsored by" weighs 3 against 1.5: 1 / (1 + e^-1.5).
    assert cues("This hour is sponsored by Acme.") == {"ad": pytest.approx(0.8175744761936437)}
    # With "free trial" (2) and "discount code" (3), 8 against 1.5: 1 / (1 + e^-6.5).
    assert cues("Sponsored by Acme. A free trial, with a discount code.") == {"ad": pytest.approx(0.9984988177)}
    assert cues("That was a long night.") == {"outro": pytest.approx(logistic(0.8))}
    assert logistic(0.8) < 0.5  # weak phrases alone are no evidence


def test_a_phrase_counts_once_however_often_it_is_said() -> None:
    assert cues("Sponsored by Acme, sponsored by Bolt, sponsored by Cog.") == cues("Sponsored by Acme.")


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("Go to acme.com/show for your first box.", "ad"),
        ("Twenty-five percent off with no strings.", "ad"),
        ("25% off!", "ad"),
        ("Get $5 off today.", "ad"),
        ("Use code SAVE10 at checkout.", "ad"),
        ("Diese Folge wird präsentiert von Acme.", "ad"),
        ("Este episodio está patrocinado por Acme.", "ad"),
        ("Cet épisode est sponsorisé par Acme.", "ad"),
        ("Hello and welcome back to the show.", "intro"),
        ("Herzlich willkommen zu einer neuen Folge.", "intro"),
        ("Thanks for listening.", "outro"),
        ("Thank you so much for tuning in", "outro"),
        ("Gracias por escuchar.", "outro"),
        ("Previously on The Lighthouse:", "recap"),
        ("Was bisher geschah:", "recap"),
    ],
)
def test_a_phrase_speaks_for_its_kind(text: str, kind: str) -> None:
    found = cues(text)
    assert max(found, key=lambda name: found[name]) == kind
    assert found[kind] > 0.5


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   \n\t ",
        "?!… — \x00\x07",
        "We walked along the river until it got dark.",
        "The senator sponsored the bill with two others.",
        "He read the source code, then the penal code.",
        "Our code of conduct is short.",
        "She was promised a fair and free trial by jury.",
        "The judge said the free trial could not go on.",
        "You are welcome to leave whenever you want.",
    ],
)
def test_what_only_sounds_like_a_phrase_is_no_evidence_for_it(text: str) -> None:
    assert all(value < 0.5 for value in cues(text).values())


def test_phrases_end_at_words_edges() -> None:
    assert cues("unsponsored bystanders") == {}
    assert cues("The dotcommunity") == {}


def test_text_is_brought_into_one_spelling() -> None:
    assert normal("It’s $1,250.50 at ACME.com/Show!") == "it s n dollars at acme dot com slash show"
    assert normal("Twenty-five percent; 25 %; 25%") == "n percent n percent n percent"
    assert normal("one hundred fifty and 3.5") == "n and n"
    assert normal("read_me\u00a0\u2003now") == "read me now"
    assert normal("STRASSE Straße") == "strasse strasse"


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.text(st.characters(), max_size=200))
def test_any_text_is_read_and_evidence_lies_between_nothing_and_certainty(text: str) -> None:
    assert set(cues(text)) <= set(CUES)
    assert all(0 < value < 1 for value in cues(text).values())


SAID = st.lists(
    st.sampled_from(
        ["sponsored by", "acme.com/show", "twenty percent off", "the river", "welcome to", "thanks for listening", "5"]
    ),
    max_size=8,
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(SAID, st.sampled_from([" ", ", ", "... ", " — ", "!\n", "  "]))
def test_case_and_punctuation_do_not_matter(said: list[str], between: str) -> None:
    plain = cues(" ".join(said))
    assert cues(between.join(said)) == plain
    assert cues(between.join(said).upper()) == plain


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.text("abcn N.,/$%0123456789-'_ \n", max_size=60))
def test_the_one_spelling_of_the_one_spelling_is_itself(text: str) -> None:
    once = normal(text)
    assert normal(once) == once
    assert once == " ".join(once.split()) and not any(c.isdigit() for c in once.split())


@settings(max_examples=100, deadline=None, derandomize=True)
@given(SAID, SAID)
def test_more_words_never_take_evidence_away(said: list[str], more: list[str]) -> None:
    # None of these words is a false friend.
    before, after = cues(" ".join(said)), cues(" ".join(said + more))
    assert all(after[kind] >= value for kind, value in before.items())
