"""The synthetic podcasts: their truth is true, their sources never meet, and the seed decides everything."""

from __future__ import annotations

import json
import shutil
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest
import soxr

from bench import effects
from bench.effects import CODINGS, Coding
from bench.episodes import VERSION, Show, occurrences, shows, summary
from bench.render import render_spot
from bench.schedule import Excerpt, Music, Place, Plan, Silence, Talk, schedule
from bench.sources import MUSIC, PROMPTS, RATE, WINDOW_S, Sources, _side, fresh, missing, sources, trimmed
from catalog.audio import decode_audio
from catalog.media import SAMPLE_RATE

LACKING = missing(quick=True)
needs_media = pytest.mark.skipif(bool(LACKING), reason=f"needs apt-get install {' '.join(LACKING)}")
SEED = 5
SHOW = 2  # two episodes


def bursts(seconds: float, seed: int = 0) -> np.ndarray:
    """Noise below 3 kHz that comes and goes: it has one place where it fits."""
    rng = np.random.default_rng(seed)
    low = soxr.resample(rng.standard_normal(int(seconds * 6_000)), 6_000, RATE)
    loud = np.repeat(rng.uniform(0.02, 0.2, int(seconds * 10) + 1), RATE // 10)[: len(low)]
    return np.asarray(low * loud, np.float32)


def lag_s(heard: np.ndarray, wanted: np.ndarray) -> float:
    """Where in `heard` `wanted` begins, in seconds (both at `SAMPLE_RATE`), by normalised cross-correlation."""
    size = 1 << int(np.ceil(np.log2(len(heard) + len(wanted))))
    product = np.fft.irfft(np.fft.rfft(heard, size) * np.conj(np.fft.rfft(wanted, size)))
    product = product[: len(heard) - len(wanted) + 1]
    energy = np.concatenate([[0.0], np.cumsum(np.square(heard, dtype=np.float64))])
    energy = energy[len(wanted) :] - energy[: -len(wanted)]
    return float(np.argmax(product / np.sqrt(energy + 1e-3))) / SAMPLE_RATE


@pytest.mark.parametrize("coding", CODINGS, ids=lambda c: c.name)
def test_no_encoder_moves_what_it_encodes(coding: Coding, tmp_path: Path) -> None:
    samples = np.concatenate([np.zeros(RATE, np.float32), bursts(4), np.zeros(RATE, np.float32)])
    path = tmp_path / f"x{coding.suffix}"
    effects.encode(samples, path, coding)
    heard = decode_audio(path)
    assert heard.duration_s == pytest.approx(6.0, abs=0.005)
    assert heard.source_channels == 1 + coding.stereo
    assert lag_s(heard.samples, np.asarray(soxr.resample(bursts(4), RATE, SAMPLE_RATE))) == pytest.approx(1, abs=0.002)


def test_effects_do_what_they_say() -> None:
    sound, voice = bursts(12), bursts(6, seed=1)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        loudness = 20 * np.log10(np.std(effects.gain(sound, rng)) / np.std(sound))
        assert 2 <= abs(loudness) <= 6
        for bent in (effects.speed(sound, rng), effects.tempo(sound, rng)):
            assert 0.002 < abs(len(bent) / len(sound) - 1) < 0.0215
        faded = effects.fade(sound, rng)
        assert faded[0] == 0 or faded[-1] == 0
        assert np.array_equal(faded[3 * RATE : -3 * RATE], sound[3 * RATE : -3 * RATE])
        over = effects.voiceover(sound, voice, rng) - sound
        where = np.flatnonzero(over)
        covered = slice(where[0], where[-1] + 1)
        assert 0.25 <= len(over[covered]) / len(sound) <= 0.6
        assert abs(20 * np.log10(np.std(over[covered]) / np.std(sound[covered]))) < 3.1
        white = rng.standard_normal(4 * RATE).astype(np.float32)
        power = np.abs(np.fft.rfft(np.stack([effects.eq(white, rng), white]))) ** 2
        for low, high in ((20, 60), (9_000, 11_000)):  # Hz, well below and above the shelves' middles
            changed = 10 * np.log10(np.divide(*power[:, 4 * low : 4 * high].sum(axis=1)))
            assert 2.5 < abs(changed) < 8.5
        noisy = np.concatenate([sound, sound])
        effects.add_noise(noisy, 10 * RATE, 14 * RATE, 10, (9 * RATE, 24 * RATE), rng)
        added = noisy - np.concatenate([sound, sound])
        ratio = np.std(np.concatenate([sound, sound])[10 * RATE : 14 * RATE]) / np.std(added[11 * RATE : 13 * RATE])
        assert 20 * np.log10(ratio) == pytest.approx(10, abs=1)
        assert not added[: 9 * RATE].any() and not added[20 * RATE :].any()


def test_a_loop_is_fresh_once() -> None:
    start, more = bursts(12, seed=2), bursts(8, seed=3)
    assert fresh(np.concatenate([start, more])) == [(0, 20)]
    assert fresh(np.concatenate([start, more, 0.5 * start[RATE : 9 * RATE]])) == [(0, 20)]
    assert fresh(np.concatenate([start, start])) == [(0, 12)]
    assert fresh(np.concatenate([start, np.zeros(8 * RATE, np.float32)])) == [(0, 12)]
    assert fresh(bursts(2 * WINDOW_S - 1)) == []


def test_pauses_are_cut() -> None:
    tone = np.full(RATE, 0.1, np.float32)
    nothing = np.zeros(3 * RATE, np.float32)
    assert len(trimmed(np.concatenate([nothing, tone, nothing, tone, nothing]))) == 2.8 * RATE


@needs_media
def test_no_source_is_on_both_sides() -> None:
    for collection in (*MUSIC, *PROMPTS):
        tune, test = set(_side(collection, "tune")), set(_side(collection, "test"))
        assert not tune & test
        if collection.quick:
            assert len(tune) == pytest.approx(len(tune | test) / 4, abs=1)


@pytest.fixture(scope="module")
def found() -> Sources:
    return sources("tune", quick=True)


@pytest.fixture(scope="module")
def plan(found: Sources) -> Plan:
    return schedule(found, SEED, quick=True)


@needs_media
@pytest.mark.parametrize("seed", range(4))
def test_nothing_recurs_but_what_the_plan_knows(found: Sources, seed: int) -> None:
    plan = schedule(found, seed, quick=True)
    assert plan == schedule(found, seed, quick=True) != schedule(found, seed + 1, quick=True)
    excerpts: list[Excerpt] = [spot.music for spot in plan.spots if spot.music]
    prompts = [p for spot in plan.spots for p in spot.prompts]
    owners: dict[str, set[object]] = defaultdict(set)
    for excerpt in excerpts:
        owners[excerpt.track.name].add("spots")
    beds = set()
    counts: Counter[str] = Counter()
    pairs: Counter[tuple[str, str]] = Counter()
    for show in plan.shows:
        for episode in show.episodes:
            counts.update(place.spot for place in episode.places)
            assert not (show.control and (episode.places or any(isinstance(i, Silence) for i in episode.items)))
            for before, item in zip((None, *episode.items), episode.items, strict=False):
                if isinstance(item, Talk):
                    prompts += item.prompts
                if isinstance(before, Place) and isinstance(item, Place) and {before.kind, item.kind} == {"ad"}:
                    pairs[before.spot, item.spot] += before.part == item.part
                if isinstance(item, Talk) and item.shared and item.bed:
                    beds.add(item.bed)
                    owners[item.bed.track.name].add(show.name)
                elif isinstance(item, Music) or (isinstance(item, Talk) and item.bed):
                    excerpt = item.excerpt if isinstance(item, Music) else item.bed
                    assert excerpt is not None
                    excerpts.append(excerpt)
                    owners[excerpt.track.name].add((show.name, episode.number))
    assert {spot.motif for spot in plan.spots} == set(counts) and min(counts.values()) >= 2
    assert max(pairs.values()) == 1
    assert len(prompts) == len(set(prompts))
    assert max(map(len, owners.values())) == 1  # a track is heard in spots, or in one episode, or as one show's bed
    spans = sorted((e.track.name, e.start_s, e.end_s) for e in [*excerpts, *beds])
    for (name, _, end), (other, start, _) in zip(spans[:-1], spans[1:], strict=True):
        assert name != other or end <= start


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Show], Path]:
    folder = tmp_path_factory.mktemp("shows") / "made"
    return shows("tune", SEED, quick=True, folder=folder, workers=0, only=(SHOW,)), folder


@needs_media
def test_spots_lie_where_the_truth_says(made: tuple[list[Show], Path], plan: Plan, tmp_path: Path) -> None:
    [show], _ = made
    spots = {spot.motif: spot for spot in plan.spots}
    checked = 0
    for episode in show.episodes:
        heard = decode_audio(episode.path)
        assert heard.duration_s == pytest.approx(episode.duration_s, abs=0.01)
        for segment in episode.truth:
            assert 0 <= segment.start_s < segment.end_s <= episode.duration_s + 1e-6
            at = slice(round(segment.start_s * SAMPLE_RATE), round(segment.end_s * SAMPLE_RATE))
            if segment.kind == "silence":
                assert segment.end_s - segment.start_s >= 2 and np.std(heard.samples[at]) < 1e-3
                continue
            path = tmp_path / f"{segment.motif}.npy"
            if not path.is_file():
                render_spot(spots[segment.motif], tmp_path)
            spot = np.asarray(soxr.resample(np.load(path), RATE, SAMPLE_RATE), np.float32)
            spot = spot[round(segment.part[0] * len(spot)) : round(segment.part[1] * len(spot))]
            rate = (segment.end_s - segment.start_s) * SAMPLE_RATE / len(spot)
            assert 0.979 < rate < 1.021
            # Both ends, a second of each, so that a change of speed moves their middles by 10 ms at most.
            for probe, start_s in (
                (spot[: 2 * SAMPLE_RATE], segment.start_s),
                (spot[-2 * SAMPLE_RATE :], segment.end_s - 2 * rate),
            ):
                low = max(0, round((start_s - 1) * SAMPLE_RATE))
                near = heard.samples[low : low + 4 * SAMPLE_RATE]
                where = low / SAMPLE_RATE + lag_s(near, soxr.resample(probe, SAMPLE_RATE, SAMPLE_RATE * rate))
                checked += abs(where - start_s) < 0.02
                assert abs(where - start_s) < 0.02 or {"voiceover", "fade", "tempo"} & set(segment.perturbations)
    assert checked >= 0.9 * 2 * sum(1 for e in show.episodes for s in e.truth if s.motif)


@needs_media
def test_what_is_made_once_is_read_again(made: tuple[list[Show], Path]) -> None:
    first, folder = made
    times = {p: p.stat().st_mtime_ns for p in folder.rglob("*.*")}
    assert shows("tune", SEED, quick=True, folder=folder, workers=0, only=(SHOW,)) == first
    assert times == {p: p.stat().st_mtime_ns for p in folder.rglob("*.*")}


@needs_media
def test_a_killed_run_goes_on(made: tuple[list[Show], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, folder = made
    # As a kill leaves it: a show is finished, the whole is not.
    shutil.copytree(folder, tmp_path / "cut")
    (tmp_path / "cut" / "truth.json").unlink()
    (tmp_path / "cut" / "spots").mkdir()
    (tmp_path / "cut" / "started.json").write_text(json.dumps([VERSION, "tune", SEED, True, [SHOW]]))
    monkeypatch.setattr("bench.effects.encode", lambda *_: pytest.fail("encoded again"))
    again = shows("tune", SEED, quick=True, folder=tmp_path / "cut", workers=0, only=(SHOW,))
    assert [e.truth for s in again for e in s.episodes] == [e.truth for s in first for e in s.episodes]
    assert not (tmp_path / "cut" / "spots").exists()


@needs_media
def test_the_summary_counts(made: tuple[list[Show], Path]) -> None:
    found, _ = made
    told = summary(found)
    assert (told["shows"], told["control_shows"], told["episodes"]) == (1, 0, 2)
    counts = occurrences(found)
    assert counts[f"show-0{SHOW + 1}-intro"] == 2
    assert told["occurrences"]["intro"] == told["occurrences"]["outro"] == 2
    sentences = [s.text for e in found[0].episodes for s in e.transcript]
    assert told["sentences"] == len(set(sentences)) > 10


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(SystemExit, match="apt-get install -y .*flite espeak-ng"):
        sources("tune", quick=True)
