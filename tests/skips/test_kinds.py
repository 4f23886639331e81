"""Kinds by place, length, repetition and words."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from skips.kinds import Heard, kind_of, recapped

EPISODE_S = 1_800.0


def heard(
    starts: list[float | tuple[float, ...]],
    seconds: float,
    shows: str = "",
    cues: Mapping[str, float] | None = None,
    music: float | None = None,
) -> list[Heard]:
    """A motif of so many seconds in episode after episode, at these starts (several in one episode as a tuple)."""
    found = []
    for number, start in enumerate(starts):
        for at in start if isinstance(start, tuple) else (start,):
            show = shows[number] if shows else "a"
            found.append(Heard(number, show, number, at, at + seconds, EPISODE_S, cues or {}, music))
    return found


@pytest.mark.parametrize(
    ("expected", "motif"),
    [
        ("intro", heard([0, 12, 30, 8], 20)),
        ("intro", heard([60, 75, 90, 81], 12)),  # after a cold open
        ("outro", heard([1_770, 1_760, 1_775, 1_768], 22)),
        ("ad", heard([300, 900, 650], 30)),
        ("ad", heard([0, 5, 10], 30, shows="abc")),  # before the show, over shows
        ("ad", heard([1_760, 1_765, 1_768], 30, shows="abc")),
        ("jingle", heard([(200, 700), (300, 900), (250, 800)], 5)),
        ("jingle", heard([400, 800, 1_000, 600], 6, music=1.0)),
        ("ad", heard([500, 900], 20, cues={"ad": 0.9})),
        ("ad", heard([20, 900, 400, 1_300], 25)),
    ],
)
def test_kinds(expected: str, motif: list[Heard]) -> None:
    sizes = {"a": 4, "b": 4, "c": 4}
    kind, sure = kind_of(motif, sizes)
    assert kind == expected
    assert 0.25 < sure <= 1


def test_words_tip_the_balance() -> None:
    between = heard([90, 700], 11)
    assert kind_of(between, {"a": 8})[0] != "intro"
    assert kind_of(heard([90, 700], 11, cues={"intro": 1.0}), {"a": 8})[1] != kind_of(between, {"a": 8})[1]
    late = heard([1_670, 1_690, 900], 12)
    assert kind_of(late, {"a": 9})[0] == "ad"
    assert kind_of(heard([1_670, 1_690, 900], 12, cues={"outro": 1.0}), {"a": 9})[0] == "outro"


def test_a_recap_quotes_an_earlier_episode() -> None:
    quoted = heard([900, 40], 15)
    assert recapped(quoted, {}) == ["", "recap"]
    # In whatever order they were found.
    assert recapped(quoted[::-1], {}) == ["recap", ""]
    # Too short, too late, too often, in another show, twice in one episode: none.
    assert recapped(heard([900, 40], 4), {}) is None
    assert recapped(heard([900, 700], 15), {}) is None
    assert recapped(heard([900, 40, 45, 50], 15), {}) is None
    assert recapped(heard([900, 40], 15, shows="ab"), {}) is None
    assert recapped(heard([(900, 40)], 15), {}) is None
    # At the same place in both it is an intro, unless it stands behind one or says what it is.
    assert recapped(heard([42, 40], 15), {}) is None
    assert recapped(heard([42, 40], 15), {1: [(20.0, 39.0)]}) == ["", "recap"]
    assert recapped(heard([42, 40], 15, cues={"recap": 0.9}), {}) == ["", "recap"]
