"""Texts: the same words in other clothes, and the same meaning by vectors made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from moderation.texts import TextBank, folded, text_hash


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("You are SCUM!", "you  are scum"),
        ("Ça va très bien", "ca va tres bien"),
        ("ＦＵＬＬ ｗｉｄｔｈ", "full width"),
        ("straße", "STRASSE"),
        ("ﬁne", "fine"),
        ("y-o-u", "you"),
    ],
)
def test_the_same_words(one: str, other: str) -> None:
    assert folded(one) == folded(other)
    assert text_hash(one) == text_hash(other) != ""


def test_other_words_are_others_and_none_are_none() -> None:
    assert text_hash("you are scum") != text_hash("you are a scum")
    assert text_hash("?! …") == text_hash("") == ""


def test_the_same_words_come_before_the_same_meaning() -> None:
    east, north = np.array([1.0, 0.0], np.float32), np.array([0.0, 1.0], np.float32)
    near = np.array([0.8, 0.6], np.float32)
    bank = TextBank(least=0.7)
    assert bank.match("hello", east) == []
    bank.add("north", "Hello!", north)
    bank.add("near", "good day", near)
    bank.add("far", "goodbye", north)
    found = bank.match("hello", east)
    assert [(m.exemplar, m.tier) for m in found] == [("north", "hash"), ("near", "embedding")]
    assert found[1].score == pytest.approx(0.8)


def test_two_texts_without_a_letter_are_not_the_same() -> None:
    bank = TextBank()
    bank.add("dots", "…", np.array([1.0, 0.0], np.float32))
    assert bank.match("!!", np.array([0.0, 1.0], np.float32)) == []


def test_one_passage_that_means_the_same_is_enough() -> None:
    east, north = np.array([1.0, 0.0], np.float32), np.array([0.0, 1.0], np.float32)
    bank = TextBank()
    bank.add("north", "up", north)
    assert bank.match("a long text", east) == bank.match("a long text", np.stack([east, east])) == []
    assert [m.score for m in bank.match("a long text", np.stack([east, east, north]))] == [1.0]
