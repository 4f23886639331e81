"""What skip detection costs: per audio hour beside fpcalc, as a catalogue grows to a thousand hours, and for one more
episode then.

A thousand hours come from a few real ones (`bench.long_catalogue`): every second of an episode is a random second of a
real one, so that nothing repeats but what is meant to, which is played from a growing bank of spots.
"""

from __future__ import annotations

import math
import statistics
import sys
import tempfile
import time
from pathlib import Path

import faiss
import numpy as np

from bench.episodes import shows
from bench.frame import Benchmark, Row, cpu_seconds
from bench.long_catalogue import EPISODE_S, LongCatalogue
from bench.skip_peers import candidates, fingerprint, fpcalc_cpu_s
from core.threads import one_algebra_thread

HOURS, QUICK_HOURS = (10, 30, 100, 300, 1_000), (1, 2, 4)
EXTRACTED = 12  # episodes that are extracted beside fpcalc, of nine codings
NEW = 5  # episodes that come one by one in the end


def run(quick: bool) -> list[Row]:
    one_algebra_thread()
    faiss.omp_set_num_threads(1)  # threads that wait for each other spin, which is no work
    found = shows("tune", 0, quick=quick)
    paths = [e.path for show in found for e in show.episodes][: 3 if quick else EXTRACTED]
    hours = sum(e.duration_s for show in found for e in show.episodes if e.path in paths) / 3600
    framing, patching, decoded = _extract(paths)
    peer = sum(map(fpcalc_cpu_s, paths))
    with tempfile.TemporaryDirectory() as scratch:
        grown = _grow(decoded, QUICK_HOURS if quick else HOURS, Path(scratch))
    per_hour = framing / hours
    most = max(grown.cost)
    detect = grown.cost[most] / most
    prints = [fingerprint(e.path) for show in found for e in show.episodes]
    size = f"at {most} h"
    return [
        Row(
            "extract_cpu_s_per_hour",
            (framing + patching) / hours,
            None,
            None,
            "CPU s",
            note=f"frames ({per_hour:.2f}) and patches of {len(paths)} episodes, without the shared decode",
        ),
        Row(
            "all_cpu_s_per_hour",
            per_hour + detect,
            peer / hours,
            None,
            "CPU s",
            "fpcalc with its decode, which has found nothing yet",
            note=f"frames and detection, which makes patches, {size}: all that comes beyond the shared decode",
        ),
        Row(
            "growth_exponent",
            _slope(grown.cost),
            _slope(_pairs(prints)),
            1.0,
            "of hours",
            "all pairs of Chromaprints, candidates alone",
            "linear",
            note=", ".join(f"{h} h: {c / h:.2f} CPU s an hour" for h, c in grown.cost.items()),
        ),
        Row(
            "one_episode_s",
            statistics.median(grown.one_s),
            None,
            None,
            "s",
            note=f"{EPISODE_S / 60:.0f} minutes of audio {size}, after decode; "
            f"{min(grown.one_s):.2f} to {max(grown.one_s):.2f}; {grown.motifs} motifs known",
        ),
        Row("state_load_s", grown.load_s, None, None, "s", note=f"what is known {size}, from a folder"),
        Row("index_mb_per_hour", grown.index_bytes / most / 1e6, None, None, "MB", note=size),
    ]


def _extract(paths: list[Path]) -> tuple[float, float, list[np.ndarray]]:
    """CPU seconds of frames and of patches, without the decode, and the frames."""
    from catalog.audio import decode_audio
    from embedders.fingerprint import frames, patches

    patches(frames(np.zeros(100_000, np.float32)))  # compiled, and loaded from the disk, once a machine and a process
    framing, patching, made = 0.0, 0.0, []
    for path in paths:
        samples = decode_audio(path).samples
        started = cpu_seconds()
        made.append(frames(samples))
        framed = cpu_seconds()
        patches(made[-1])
        framing, patching = framing + framed - started, patching + cpu_seconds() - framed
    return framing, patching, made


class _Grown:
    """What a growing catalogue took."""

    def __init__(self) -> None:
        self.cost: dict[float, float] = {}  # hours → CPU seconds until then
        self.one_s: list[float] = []
        self.index_bytes = 0
        self.load_s = 0.0
        self.motifs = 0


def _grow(real: list[np.ndarray], hours: tuple[int, ...], scratch: Path) -> _Grown:
    """Adds episodes show by show, as a catalogue grows, and then one at a time."""
    from embedders.fingerprint import patches
    from skips.detect import BATCH_S, Detector

    grown, catalogue = _Grown(), LongCatalogue(real, scratch)
    detector = Detector(catalogue.load, patches)
    spent, number = 0.0, 0
    at_once = int(BATCH_S / EPISODE_S)
    for until in hours:
        last = math.ceil(until * 3600 / EPISODE_S)
        while number < last:
            batch = catalogue.make(range(number, min(number + at_once, last)))
            started = cpu_seconds()
            detector.add(batch)
            spent += cpu_seconds() - started
            number += len(batch)
            so_far = number * EPISODE_S / 3600
            print(f"{so_far:.0f} h: {spent / so_far:.2f} CPU s an hour", file=sys.stderr, flush=True)
        grown.cost[until] = spent
    known = detector.known
    grown.motifs = len(known.motifs)
    _stored(detector.known, scratch, grown)
    for _ in range(NEW):
        batch = catalogue.make(range(number, number + 1))
        started = time.perf_counter()
        detector.add(batch)
        # The synthetic episode has frames already; those of a real one of its length take as long.
        grown.one_s.append(time.perf_counter() - started + _frames_s())
        number += 1
    return grown


def _stored(known: object, scratch: Path, grown: _Grown) -> None:
    """Keeps what is known as a store does, and reads it."""
    from core.storage import open_storage
    from pipelines.skip_state import load, save

    storage = open_storage(scratch / "state")
    save(storage, known)  # type: ignore[arg-type]
    grown.index_bytes = sum(p.stat().st_size for p in (scratch / "state").rglob("*") if p.is_file())
    started = time.perf_counter()
    load(storage)
    grown.load_s = time.perf_counter() - started


def _frames_s() -> float:
    """Seconds to make the frames of noise as long as an episode."""
    from embedders.fingerprint import frames

    noise = np.random.default_rng(0).standard_normal(int(EPISODE_S * 16_000), np.float32) * np.float32(0.1)
    started = time.perf_counter()
    frames(noise)
    return time.perf_counter() - started


def _pairs(prints: list[np.ndarray]) -> dict[float, float]:
    """Hours → CPU seconds in which all pairs of Chromaprints find where to look."""
    spent = {}
    for share in (0.25, 0.5, 1.0):
        some = prints[: max(2, int(len(prints) * share))]
        started = cpu_seconds()
        candidates(some)
        spent[sum(map(len, some)) * 0.1238 / 3600] = cpu_seconds() - started
    return spent


def _slope(cost: dict[float, float]) -> float:
    """The exponent of a power law through costs (least squares of logarithms)."""
    return float(np.polyfit(np.log(list(cost)), np.log(list(cost.values())), 1)[0])


BENCHMARK = Benchmark("skips-cost", "what skip detection costs an audio hour, to a thousand hours", run)
