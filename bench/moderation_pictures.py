"""Edited pictures found among exemplars, beside PDQ alone, and how often an unrelated picture is taken for one."""

from __future__ import annotations

import hashlib
import os
import statistics
import time
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from bench.frame import Benchmark, Row
from bench.photographs import EDITS, Photograph, apart, edited, photographs, pixels
from evaluation.intervals import clopper_pearson
from moderation.matches import Match
from moderation.pictures import PictureBank, PictureHashes

TUNE_SHARE = 0.25  # of the pictures, by their name
SEED, TUNE_SEED = 7, 1
UNRELATED_EDITS = ("screenshot", "caption bar", "mirror with text")  # that give unrelated pictures something in common
QUICK_PICTURES = 40
DRAWS = 2_000  # of the bootstrap


def run(quick: bool, split: str = "test") -> list[Row]:
    chosen = [p for p in photographs() if _side(p) == split]
    if quick:
        chosen = chosen[:: max(1, len(chosen) // QUICK_PICTURES)]
    seed = SEED if split == "test" else TUNE_SEED
    jobs = [(number, picture, seed) for number, picture in enumerate(chosen)]
    with ProcessPoolExecutor(os.cpu_count(), initializer=_alone) as pool:
        shown = [made for made in pool.map(_prepared, jobs, chunksize=4) if made is not None]
    bank, exemplars = PictureBank(), {}
    for one in shown:
        if len(one.edits) < len(EDITS):
            continue
        bank.add(str(one.picture.path), one.original)
        exemplars[str(one.picture.path)] = one.picture
    found = _matched(shown, bank, exemplars)
    return _rows(found, shown, quick)


def _side(picture: Photograph) -> str:
    share = int(hashlib.sha256(picture.path.name.encode()).hexdigest()[:8], 16) / 2**32
    return "tune" if share < TUNE_SHARE else "test"


def _alone() -> None:
    import cv2

    cv2.setNumThreads(1)


@dataclass
class _Shown:
    """A picture, what it and its edits are found by, and the seconds that took."""

    picture: Photograph
    original: PictureHashes
    edits: dict[str, PictureHashes]
    seconds: list[float]


def _prepared(job: tuple[int, Photograph, int]) -> _Shown | None:
    from pipelines.match import picture_hashes

    number, picture, seed = job
    original = pixels(picture)
    if original is None:
        return None
    names = EDITS if number % 2 == 0 else UNRELATED_EDITS
    made, seconds = {}, []
    for name, changed in edited(original, (seed, number)):
        if name in names:
            started = time.perf_counter()
            made[name] = picture_hashes(changed)
            seconds.append(time.perf_counter() - started)
    return _Shown(picture, picture_hashes(original), made, seconds)


@dataclass
class _Found:
    """By kind of picture and edit: whether each exemplar was found, by both means; pairs that are unrelated and those
    of them that were taken for copies."""

    ours: dict[str, dict[str, list[bool]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    pdq: dict[str, dict[str, list[bool]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    unrelated: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    wrong: dict[str, list[tuple[str, str, str, str]]] = field(default_factory=lambda: defaultdict(list))
    seconds: list[float] = field(default_factory=list)


def _matched(shown: Sequence[_Shown], bank: PictureBank, exemplars: dict[str, Photograph]) -> _Found:
    found = _Found()
    for one in shown:
        own, kind = str(one.picture.path), one.picture.kind
        asked = {**one.edits, **({} if own in exemplars else {"unchanged": one.original})}
        strangers = {e for e, p in exemplars.items() if e != own and apart(p, one.picture)}
        for name, hashes in asked.items():
            started = time.perf_counter()
            matches = bank.match(hashes)
            found.seconds.append(time.perf_counter() - started)
            if own in exemplars:
                found.ours[kind][name].append(any(m.exemplar == own for m in matches))
                found.pdq[kind][name].append(_by_pdq_alone(matches, own, bank, hashes))
            found.unrelated[kind] += len(strangers)
            found.wrong[kind] += [
                (one.picture.path.name, name, m.exemplar, m.tier) for m in matches if m.exemplar in strangers
            ]
    return found


def _by_pdq_alone(matches: Sequence[Match], own: str, bank: PictureBank, hashes: PictureHashes) -> bool:
    """As HMA matches: one hash a picture, 31 bits, quality of 50."""
    hits = bank._hashes.search(hashes.pdq[:1]).of(0) if hashes.quality >= 50 else []
    return any(bank.ids[number] == own for number, _ in hits)


def _rows(found: _Found, shown: Sequence[_Shown], quick: bool) -> list[Row]:
    rows = []
    for kind in ("photographs", "designs"):
        ours, pdq = found.ours[kind], found.pdq[kind]
        if not ours:
            continue
        counts = len([s for s in shown if s.picture.kind == kind])
        low, high = _interval(ours)
        note = (
            f"{counts} {kind}, {len(next(iter(ours.values())))} of them exemplars; [{low:.4f}, {high:.4f}] over these"
        )
        rows.append(_row(f"recall_{kind}", _mean(ours), _mean(pdq), note))
        wrong, pairs = len(found.wrong[kind]), found.unrelated[kind]
        _, bound = clopper_pearson(wrong, pairs)
        named = sorted({(own, Path(exemplar).name) for own, _, exemplar, _ in found.wrong[kind]})
        example = f"; {', '.join(' for '.join(pair) for pair in named)}" if wrong else ""
        rows.append(
            Row(
                f"false_matches_{kind}",
                wrong,
                None,
                None,
                "",
                note=f"of {pairs:,} unrelated pairs: {bound:.1e} of them at most (95 %){example}",
            )
        )
    for name in EDITS:
        own = found.ours["photographs"].get(name, [])
        if own:
            rows.append(_row(f"recall: {name}", float(np.mean(own)), float(np.mean(found.pdq["photographs"][name]))))
    rows.append(
        Row(
            "hashes_s", statistics.median(s for one in shown for s in one.seconds), None, None, "s",
            note="PDQ and keypoints of a decoded picture, one core",
        )
    )  # fmt: skip
    rows.append(Row("match_s", statistics.median(found.seconds), None, None, "s", note="against all exemplars"))
    return rows


def _row(name: str, ours: float, peer: float, note: str = "") -> Row:
    return Row(name, ours, peer, 1.0, "", "PDQ alone", "all", higher_is_better=True, note=note)


def _mean(by_edit: dict[str, list[bool]]) -> float:
    return float(np.mean([hit for hits in by_edit.values() for hit in hits]))


def _interval(by_edit: dict[str, list[bool]]) -> tuple[float, float]:
    """95 % by bootstrap over pictures, whose edits stay together."""
    table = np.array(list(by_edit.values()), float).mean(axis=0)
    rng = np.random.default_rng(0)
    means = table[rng.integers(0, len(table), (DRAWS, len(table)))].mean(axis=1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


BENCHMARK = Benchmark("moderation-pictures", "twelve edits of photographs found among exemplars", run)
