"""What repeats in made-up catalogues, whose every frame is known."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from embedders.fingerprint import patches
from skips.detect import FANOUT, Detector, Known, Recording, batches
from skips.motifs import clipped_anew
from skips.settle import ENOUGH, due
from skips.tables import (
    motifs_from_tables,
    motifs_to_tables,
    part_from_bytes,
    part_to_bytes,
    recordings_from_table,
    recordings_to_table,
)
from tests.skips.catalogue import Catalogue, assert_covered, assert_found, faster, noisy, over, sound, spans

INTRO, AD, JINGLE = sound(20, 1), sound(15, 2), sound(6, 3)


def known_of(catalogue: Catalogue) -> Known:
    detector = catalogue.detector()
    detector.add(catalogue.recordings())
    return detector.known


def a_show(count: int = 4) -> Catalogue:
    catalogue = Catalogue()
    for n in range(count):
        catalogue.add(10 + n, ("intro", noisy(INTRO, n)), 50 + 3 * n, ("ad", noisy(AD, 10 + n)), 40)
    return catalogue


def test_what_repeats_is_found_to_a_few_frames() -> None:
    catalogue = a_show()
    known = known_of(catalogue)
    assert len(known.motifs) == 2
    for name in ("intro", "ad"):
        assert_found(catalogue, known, name, within=3)


def test_nothing_repeats() -> None:
    catalogue = Catalogue()
    for _ in range(6):
        catalogue.add(90)
    assert known_of(catalogue).motifs == []


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("change", ["gain", "slower", "faster", "spoken over"])
def test_copies_that_were_changed(count: int, change: str) -> None:
    catalogue = Catalogue()
    for n in range(count):
        spot = noisy(AD, n)
        if n == 1:
            spot = {
                "gain": lambda s: noisy(s, 50, gain=-24),  # 12 dB less
                "slower": lambda s: faster(s, -0.02),
                "faster": lambda s: faster(s, 0.02),
                "spoken over": lambda s: over(s, sound(5, 60), 160),
            }[change](spot)
        catalogue.add(30 + 5 * n, ("ad", spot), 60)
    assert_found(catalogue, known_of(catalogue), "ad", within=6)


def test_a_jingle_many_times_in_one_episode() -> None:
    catalogue = Catalogue()
    for n in range(3):
        played = [("jingle", noisy(JINGLE, 10 * n + k)) for k in range(3)]
        catalogue.add(20.0 + n, played[0], 30.0, played[1], 41.0, played[2], 20.0)
    assert_found(catalogue, known_of(catalogue), "jingle")


def test_two_spots_back_to_back_and_apart() -> None:
    other = sound(12, 4)
    catalogue = Catalogue()
    for n in range(3):
        catalogue.add(30 + n, ("ad", noisy(AD, n)), ("other", noisy(other, n)), 30)
    for n in range(3, 5):
        catalogue.add(25 + n, ("ad", noisy(AD, n)), 30, ("other", noisy(other, n)), 20)
    # Whether they are one spot or two, no more and no less of the episodes is it.
    assert_covered(catalogue, known_of(catalogue), ("ad", "other"))


def test_two_spots_that_begin_alike() -> None:
    bars = sound(5, 70)
    one, other = (np.concatenate([bars, sound(14, seed)]) for seed in (71, 72))
    catalogue = Catalogue()
    for n in range(4):
        catalogue.add(30 + n, ("one", noisy(one, n)), 40, ("other", noisy(other, n)), 30)
    known = known_of(catalogue)
    assert_covered(catalogue, known, ("one", "other"))
    # The bars are heard in all eight places, what follows them in four each.
    assert sorted(len(m.occurrences) for m in known.motifs) == [4, 4, 8]


def test_what_only_two_episodes_go_on_with_is_apart_from_the_intro() -> None:
    # The first episode says after its intro what the second one repeats there as a recap; the third has none.
    recap = sound(11, 80)
    catalogue = Catalogue()
    catalogue.add(10, ("intro", noisy(INTRO, 0)), ("recap", noisy(recap, 0)), 90)
    catalogue.add(16, ("intro", noisy(INTRO, 1)), ("recap", noisy(recap, 1)), 90)
    catalogue.add(20, ("intro", noisy(INTRO, 2)), 90)
    known = known_of(catalogue)
    intro = assert_found(catalogue, known, "intro", within=10)
    rest = next(m for m in known.motifs if m is not intro)
    assert [n for n, _, _ in spans(rest)] == [0, 1]
    for (_, start, end), (_, first, last) in zip(spans(rest), catalogue.spans["recap"], strict=True):
        assert (start, end) == (pytest.approx(first, abs=10), pytest.approx(last, abs=4))


def test_a_spot_split_over_two_breaks_counts_as_parts() -> None:
    catalogue = a_show(3)
    half = len(AD) // 2
    catalogue.add(30, ("first", noisy(AD, 90)[:half]), 40, ("second", noisy(AD, 91)[half:]), 30)
    known = known_of(catalogue)
    ad = next(m for m in known.motifs if any(o.recording == 3 for o in m.occurrences))
    heard = sorted((o for o in ad.occurrences if o.recording == 3), key=lambda o: o.start)
    for o, name, part in zip(heard, ("first", "second"), ((0.0, 0.5), (0.5, 1.0)), strict=True):
        (_, first, last) = catalogue.spans[name][0]
        assert (o.start, o.end) == (pytest.approx(first, abs=6), pytest.approx(last, abs=6))
        assert o.part == pytest.approx(part, abs=0.03)


def grouping(known: Known) -> list[list[tuple[int, float, float]]]:
    return sorted(spans(motif) for motif in known.motifs)


def test_one_by_one_is_as_all_at_once() -> None:
    catalogue = a_show(6)
    at_once = grouping(known_of(catalogue))
    detector = catalogue.detector()
    for recording in catalogue.recordings():
        detector.add([recording])
    one_by_one = grouping(detector.known)
    assert len(one_by_one) == len(at_once) == 2
    for these, those in zip(one_by_one, at_once, strict=True):
        for this, that in zip(these, those, strict=True):
            assert this == pytest.approx(that, abs=4)


def test_a_third_episode_tells_two_spots_apart_that_came_together_twice() -> None:
    other = sound(12, 4)
    catalogue = Catalogue()
    for n in range(2):
        catalogue.add(30 + n, ("ad", noisy(AD, n)), ("other", noisy(other, n)), 40 - n)
    catalogue.add(35, ("ad", noisy(AD, 5)), 60)
    catalogue.add(45, ("other", noisy(other, 6)), 50)
    detector = catalogue.detector()
    detector.add(catalogue.recordings([0]))
    detector.add(catalogue.recordings([1]))
    (both,) = detector.known.motifs
    assert detector.add(catalogue.recordings([2])) == {0, 1, 2}  # what was said of the first two is mended, too
    ad = assert_found(catalogue, detector.known, "ad", within=10)
    assert ad.motif_id == both.motif_id
    detector.add(catalogue.recordings([3]))
    assert_found(catalogue, detector.known, "ad", within=10)
    # One of two others goes on and one does not: such an edge is right to a second, and is mended by the next.
    assert_found(catalogue, detector.known, "other", within=30)
    # The patches that motifs are known by are those of the clips as they are now.
    stored, known = detector.known.bank, detector.known
    assert stored is not None
    for place, motif in enumerate(known.motifs[: known.banked]):
        frames = stored.frame[stored.recording == place]
        assert len(frames) and frames.min() >= motif.start and frames.max() <= motif.end


def test_a_motif_that_was_found_as_a_part_grows() -> None:
    catalogue = Catalogue()
    catalogue.add(30, ("begun", noisy(AD, 0)[: len(AD) // 2]), 40)
    for n in (1, 2, 3):
        catalogue.add(30 + n, ("ad", noisy(AD, n)), 40)
    detector = catalogue.detector()
    for recording in catalogue.recordings():
        detector.add([recording])
    # One spot or two, that of the first episode is part of it, and no more and no less of the others is heard.
    assert_covered(catalogue, detector.known, ("begun", "ad"), within=30)
    assert all(len(m.occurrences) >= 3 for m in detector.known.motifs)


def test_two_motifs_never_have_one_name() -> None:
    catalogue = a_show(3)
    detector = catalogue.detector()
    detector.add(catalogue.recordings())
    names = [m.motif_id for m in detector.known.motifs]
    again = detector._named([replace(m) for m in detector.known.motifs])
    assert len({*names, *(m.motif_id for m in again)}) == 4


def test_what_is_heard_often_is_settled() -> None:
    catalogue = a_show(4)
    detector = catalogue.detector()
    detector.add(catalogue.recordings())
    for motif in detector.known.motifs:
        assert motif.settled == 4 and not due(motif)
        motif.occurrences += motif.occurrences[:2]
        assert due(motif)
        motif.settled = ENOUGH
        assert not due(motif)


def test_motifs_keep_their_names_and_new_episodes_join() -> None:
    catalogue = a_show(5)
    detector = catalogue.detector()
    detector.add(catalogue.recordings(range(3)))
    names = {m.motif_id for m in detector.known.motifs}
    touched = detector.add(catalogue.recordings([3]))
    assert touched == {0, 1, 2, 3}  # its occurrences count for all of them
    detector.add(catalogue.recordings([4]))
    assert {m.motif_id for m in detector.known.motifs} == names
    assert [len(m.occurrences) for m in detector.known.motifs] == [5, 5]


def test_a_removed_episode_takes_its_support_along() -> None:
    catalogue = a_show(4)
    detector = catalogue.detector()
    detector.add(catalogue.recordings())
    assert detector.remove({1}) == {0, 2, 3}
    assert [sorted(o.recording for o in m.occurrences) for m in detector.known.motifs] == [[0, 2, 3]] * 2
    detector.rebuild()
    for part in detector.known.parts:
        assert 1 not in part.recording
    # What was only its neighbour in the index is still there: a spot of the removed one's talk is not found again.
    catalogue.episodes.append(catalogue.episodes[1])
    detector.add(catalogue.recordings([4]))
    assert [sorted(o.recording for o in m.occurrences) for m in detector.known.motifs] == [[0, 2, 3, 4]] * 2


def test_the_source_of_a_clip_can_go() -> None:
    catalogue = a_show(4)
    detector = catalogue.detector()
    detector.add(catalogue.recordings())
    for motif in detector.known.motifs:
        before, name, source = spans(motif), motif.motif_id, motif.source
        assert clipped_anew(motif, detector.sounds)
        assert (motif.motif_id, spans(motif)) == (name, before)
        assert motif.source != source
        # The lines lead from the new clip to every occurrence.
        for o in motif.occurrences:
            assert float(o.line(motif.start)) == pytest.approx(o.start, abs=2)
            assert float(o.line(motif.end)) == pytest.approx(o.end, abs=2)
        motif.occurrences = [o for o in motif.occurrences if o.recording == motif.source]
        assert not clipped_anew(motif, detector.sounds)


def test_what_is_known_survives_being_stored(tmp_path_factory: pytest.TempPathFactory) -> None:
    catalogue = a_show(5)
    detector = catalogue.detector()
    detector.add(catalogue.recordings(range(4)))
    known = detector.known
    again = Known(
        recordings_from_table(recordings_to_table(known.recordings)),
        motifs_from_tables(*motifs_to_tables(known.motifs)),
        [part_from_bytes(*part_to_bytes(part)) for part in known.parts],
        known.next_number,
        part_from_bytes(*part_to_bytes(known.bank)) if known.bank else None,
        known.banked,
    )
    kept = Detector(catalogue.load, patches, again)
    for side in (detector, kept):
        side.add(catalogue.recordings([4]))
    assert grouping(kept.known) == grouping(detector.known)
    assert again.recordings == known.recordings


def test_parts_stay_few_and_hold_every_patch_once() -> None:
    catalogue = Catalogue()
    for _ in range(40):
        catalogue.add(30)
    detector = catalogue.detector()
    for recording in catalogue.recordings():
        detector.add([recording])
    parts = detector.known.parts
    assert all(len(long) >= FANOUT * len(short) for long, short in itertools.pairwise(parts))
    rows = [(int(r), int(f)) for part in parts for r, f in zip(part.recording, part.frame, strict=True)]
    expected = [(n, int(f)) for n in range(40) for f in patches(catalogue.load(n), 6)[1]]
    assert sorted(rows) == sorted(expected)


def test_short_and_empty_recordings_do_no_harm() -> None:
    catalogue = a_show(3)
    catalogue.episodes += [sound(2, 99), sound(0.04, 98)[:1], np.zeros((3_000, 32), np.uint8)]
    known = known_of(catalogue)
    assert sorted(len(m.occurrences) for m in known.motifs) == [3, 3]
    assert not any(o.recording > 2 for m in known.motifs for o in m.occurrences)


def test_a_steady_tone_repeats_nothing() -> None:
    tone = np.full((4_000, 32), 20, np.uint8)
    tone[:, 12] = 180
    catalogue = Catalogue(episodes=[tone, tone.copy(), noisy(tone, 5, spread=1.0)])
    assert known_of(catalogue).motifs == []


def test_every_pair_of_orders_gives_the_same() -> None:
    catalogue = a_show(3)
    found = set()
    for order in itertools.permutations(range(3)):
        detector = catalogue.detector()
        for n in order:
            detector.add(catalogue.recordings([n]))
        found.add(tuple(tuple(n for n, _, _ in group) for group in grouping(detector.known)))
    assert found == {((0, 1, 2), (0, 1, 2))}


def test_recordings_come_in_batches_that_stay_in_memory() -> None:
    made = [Recording(n, str(n), "", hours * 3_600.0) for n, hours in enumerate((10, 10, 3, 30, 1, 21, 22))]
    assert [[r.number for r in batch] for batch in batches(made)] == [[0, 1], [2], [3], [4, 5], [6]]
    assert list(batches([])) == []


def test_progress_counts_each_recording_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skips.detect.BATCH_S", 300.0)
    catalogue = a_show(5)
    told: list[tuple[int, int]] = []
    catalogue.detector().add(catalogue.recordings(), lambda done, total: told.append((done, total)))
    assert len(told) > 1
    assert sum(done for done, _ in told) == 5
    assert {total for _, total in told} == {5}
