"""Which pictures count as unrelated."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.photographs import NEBULAE, Photograph, apart

STAMPS = "tuxpaint-stamps-default"


def named(name: str, package: str = STAMPS, folder: str = "/stamps", place: tuple[float, float, float] | None = None):  # type: ignore[no-untyped-def]
    return Photograph(Path(folder) / name, package, "photographs", place)


@pytest.mark.parametrize(
    ("one", "other", "unrelated"),
    [
        ("gnu-baby.png", "gnu-baby-stand.png", False),
        ("fireman200b.png", "fireman240a.png", False),
        ("gnu-baby.png", "goat.png", True),
        ("a1.png", "a2.png", True),  # letters are no subject
    ],
)
def test_pictures_of_one_series_are_related(one: str, other: str, unrelated: bool) -> None:
    assert apart(named(one), named(other)) is unrelated


def test_elsewhere_a_common_word_says_nothing() -> None:
    assert apart(named("hills-1.jpg", "lomiri-wallpapers-16.04"), named("hills-2.jpg", "lomiri-wallpapers-16.04"))
    assert apart(named("gnu.png"), named("gnu.jpg", "mate-backgrounds"))


def test_nebulae_are_apart_by_their_place() -> None:
    sky, at = str(NEBULAE), (10.0, 0.0, 1.0)
    assert not apart(named("n1.png", "s", sky, at), named("n2.png", "s", sky, (11.5, 0.0, 1.0)))
    assert apart(named("n1.png", "s", sky, at), named("n2.png", "s", sky, (15.0, 0.0, 1.0)))
    assert not apart(named("n1.png", "s", sky, at), named("n2.png", "s", sky))
