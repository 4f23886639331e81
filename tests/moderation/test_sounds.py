"""The sounds' bank: where real music is heard inside other sound, changed as people change it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from embedders.fingerprint import frames, patches
from moderation.sounds import SoundBank, _Row, _together
from skips.patch_index import Patches
from tests.skips.audio import RATE, laid_out, music, talk

SONG, OTHER = (3, 0.0, 28.0), (12, 0.0, 28.0)


@pytest.fixture(scope="module")
def bank() -> SoundBank:
    made = SoundBank(patches)
    made.add("song", frames(music(*SONG)))
    made.add("other", frames(music(*OTHER)))
    return made


def slower(samples: np.ndarray) -> np.ndarray:
    at = np.arange(0, len(samples) - 1, 0.98)
    return np.interp(at, np.arange(len(samples)), samples).astype(np.float32)


def talked_over(samples: np.ndarray) -> np.ndarray:
    """Speech 3 dB below over half of it."""
    voice = talk(len(samples) / RATE / 2, 2)
    changed = samples.copy()
    changed[: len(voice)] += np.float32(0.7 * np.std(samples) / np.std(voice)) * voice
    return changed


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "nothing": lambda s: s,
    "quieter": lambda s: 0.2 * s,
    "talked over": talked_over,
    "noise": lambda s: s + 0.1 * float(np.std(s)) * np.random.default_rng(1).standard_normal(len(s)).astype(np.float32),
    "two per cent slower": slower,
    "clipped": lambda s: np.clip(6 * s, -0.8, 0.8),
}


@pytest.mark.parametrize("change", CHANGES)
def test_ten_seconds_of_a_song_inside_something_longer(bank: SoundBank, change: str) -> None:
    excerpt = CHANGES[change](music(3, 9.0, 10.0))
    samples, ((start, end),) = laid_out(11, 14.0, excerpt, 12.0)
    (found,) = bank.match(frames(samples))
    assert (found.exemplar, found.modality, found.tier) == ("song", "audio", "fingerprint")
    assert found.start_s is not None and found.exemplar_start_s is not None
    assert found.start_s - found.exemplar_start_s == pytest.approx(start - 9.0, abs=0.2)
    assert found.end_s == pytest.approx(end, abs=0.2)
    if change != "talked over":  # there, what speech covers at the beginning may be left out
        assert found.start_s == pytest.approx(start, abs=0.2)


def test_two_exemplars_and_one_heard_twice_are_three_matches(bank: SoundBank) -> None:
    one, two = music(3, 2.0, 8.0), music(12, 12.0, 9.0)
    samples, spans = laid_out(12, 6.0, one, 7.0, two, 5.0, one, 6.0)
    found = bank.match(frames(samples))
    assert [m.exemplar for m in found] == ["song", "other", "song"]
    assert np.array([m.start_s for m in found]) == pytest.approx(np.array([s for s, _ in spans]), abs=0.2)
    assert [m.exemplar_start_s for m in found] == pytest.approx([2.0, 12.0, 2.0], abs=0.2)


def test_the_whole_recording_matches_itself(bank: SoundBank) -> None:
    (found,) = bank.match(frames(music(*SONG)))
    assert found.exemplar == "song" and found.score > 0.98
    assert (found.start_s, found.exemplar_start_s) == pytest.approx((0.0, 0.0), abs=0.1)
    assert found.end_s == pytest.approx(28.0, abs=0.2)


@pytest.mark.parametrize("number", [0, 5, 9, 20, 27])
def test_other_music_and_talk_match_nothing(bank: SoundBank, number: int) -> None:
    assert bank.match(frames(music(number, 0.0, 25.0))) == []
    assert bank.match(frames(talk(40, 900 + number))) == []


@pytest.mark.parametrize(
    "samples",
    [np.zeros(30 * RATE, np.float32), np.zeros(0, np.float32), np.zeros(100, np.float32)],
    ids=["silence", "nothing", "an instant"],
)
def test_what_is_no_sound_matches_nothing_and_can_be_an_exemplar(bank: SoundBank, samples: np.ndarray) -> None:
    assert bank.match(frames(samples)) == []
    odd = SoundBank(patches)
    odd.add("odd", frames(samples))
    assert odd.match(frames(samples)) == []
    assert odd.match(frames(music(*SONG))) == []


def test_a_steady_tone_is_nobodys_recording(tone: Callable[..., np.ndarray]) -> None:
    beating = tone(30, hz=440) + tone(30, hz=442)
    odd = SoundBank(patches)
    odd.add("tone", frames(0.4 * beating))
    assert odd.match(frames(0.4 * beating)) == []


def test_what_is_added_is_found_by_the_next_match() -> None:
    growing = SoundBank(patches)
    asked = frames(music(3, 5.0, 12.0))
    assert growing.match(asked) == []
    growing.add("other", frames(music(*OTHER)))
    assert growing.match(asked) == []
    growing.add("song", frames(music(*SONG)))
    assert [m.exemplar for m in growing.match(asked)] == ["song"]


def unit(rng: np.random.Generator, count: int) -> np.ndarray:
    found = rng.standard_normal((count, 64)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def alike(vectors: np.ndarray, cosine: float, rng: np.random.Generator) -> np.ndarray:
    """Unit vectors with the same cosine to each."""
    aside = unit(rng, len(vectors))
    aside -= np.einsum("nd,nd->n", aside, vectors)[:, None] * vectors
    aside /= np.linalg.norm(aside, axis=1, keepdims=True)
    return np.asarray(cosine * vectors + np.sqrt(1 - cosine**2) * aside, np.float32)


@pytest.mark.parametrize(("cosine", "found"), [(0.55, True), (0.42, True), (0.25, False)])
def test_what_no_frame_is_sure_of_counts_where_all_of_a_row_is_alike(cosine: float, found: bool) -> None:
    """Forty patches of a content, every second one of the exemplar's, from its frame 150 on."""
    rng = np.random.default_rng(4)
    exemplar, content = unit(rng, 200), unit(rng, 120)
    content[30:70] = alike(exemplar[50:130:2], cosine, rng)
    theirs, own = _Row(exemplar, 0, 3), _Row(content, 0, 6)
    heard = _together(theirs, own, 6 * 30 - 3 * 50)
    assert (heard is not None) == found
    if heard is not None:  # a row is 36 of the forty
        assert 150 <= heard.start <= 150 + 6 * 6 and 150 + 6 * 33 <= heard.end <= 150 + 6 * 39
        assert heard.score == pytest.approx(cosine, abs=0.02)
    assert _together(theirs, own, 6 * 30 - 3 * 50 + 48) is None


def test_a_beat_that_is_like_every_beat_is_not_heard() -> None:
    """As much alike as the fainter one above, but wherever it is laid."""
    rng = np.random.default_rng(5)
    beat = np.repeat(unit(rng, 1), 200, axis=0)
    content = np.repeat(beat[:1], 120, axis=0)
    assert _together(_Row(beat, 0, 3), _Row(alike(content, 0.42, rng), 0, 6), 30.0) is None
    assert _together(_Row(beat, 0, 3), _Row(alike(content, 0.6, rng), 0, 6), 30.0) is not None


@pytest.mark.parametrize("at", [0, 20, 80])
def test_a_short_exemplar_is_told_from_elsewhere_wherever_it_lies(at: int) -> None:
    """Twenty-two patches, fewer than a row, so that rows reach over its ends; and a second in which nothing moves."""
    rng = np.random.default_rng(6)
    exemplar, content = unit(rng, 44), unit(rng, 102)
    content[at : at + 22] = alike(exemplar[::2], 0.6, rng)
    frame = np.delete(np.arange(44), [20, 21, 22]).astype(np.int32)
    theirs = _Row.of(Patches(exemplar[frame], np.zeros(41, np.int32), 3 * frame + 9), 3)
    heard = _together(theirs, _Row(content, 15, 6), 15 + 6 * at - 9.0)
    assert (
        heard is not None and heard.start == pytest.approx(9, abs=12) and heard.end == pytest.approx(9 + 6 * 21, abs=12)
    )


def test_few_patches_are_compared_as_well() -> None:
    one = unit(np.random.default_rng(6), 1)
    assert _together(_Row(one, 0, 3), _Row(one, 0, 6), 0.0) is None
