"""The pictures' bank: copies of a few real photographs, whatever was done to them, and nothing else."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from bench.photographs import EDITS
from moderation.pictures import PictureBank
from pipelines.match import picture_hashes
from tests.conftest import PHOTOGRAPHS


@pytest.fixture(scope="module")
def bank(photographs: dict[str, np.ndarray]) -> PictureBank:
    made = PictureBank()
    for name in PHOTOGRAPHS[:-2]:
        made.add(name, picture_hashes(photographs[name]))
    return made


@pytest.mark.parametrize("edit", EDITS)
def test_every_edit_is_found_and_nothing_else(bank: PictureBank, photographs: dict[str, np.ndarray], edit: str) -> None:
    for number, name in enumerate(PHOTOGRAPHS[:-2]):
        rng = np.random.default_rng((41, number))
        changed = EDITS[edit](Image.fromarray(photographs[name]), rng).convert("RGB")
        assert [m.exemplar for m in bank.match(picture_hashes(np.asarray(changed)))] == [name]


def test_others_match_nothing(bank: PictureBank, photographs: dict[str, np.ndarray]) -> None:
    for name in PHOTOGRAPHS[-2:]:
        assert bank.match(picture_hashes(photographs[name])) == []


def test_the_picture_itself_is_at_no_distance(bank: PictureBank, photographs: dict[str, np.ndarray]) -> None:
    (found,) = bank.match(picture_hashes(photographs[PHOTOGRAPHS[0]]))
    assert (found.tier, found.score, found.distance) == ("hash", 1.0, 0)


def test_a_bank_of_one_matches(photographs: dict[str, np.ndarray]) -> None:
    one = PictureBank()
    assert one.match(picture_hashes(photographs[PHOTOGRAPHS[0]])) == []
    one.add("only", picture_hashes(photographs[PHOTOGRAPHS[0]]))
    assert [m.exemplar for m in one.match(picture_hashes(photographs[PHOTOGRAPHS[0]][40:, 30:]))] == ["only"]


def test_what_is_added_is_found_by_the_next_match(photographs: dict[str, np.ndarray]) -> None:
    growing = PictureBank()
    for name in PHOTOGRAPHS:
        cropped = picture_hashes(np.ascontiguousarray(photographs[name][30:, 30:]))
        assert name not in {m.exemplar for m in growing.match(cropped)}
        growing.add(name, picture_hashes(photographs[name]))
        assert name in {m.exemplar for m in growing.match(cropped)}


def test_a_flat_picture_matches_nothing_not_even_itself(bank: PictureBank) -> None:
    flat = PictureBank()
    grey = picture_hashes(np.full((200, 200, 3), 90, np.uint8))
    flat.add("grey", grey)
    assert flat.match(grey) == []
    assert bank.match(grey) == []
