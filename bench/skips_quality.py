"""How good skip markers are against known truth, beside Intro Skipper's algorithm and all pairs of Chromaprints."""

from __future__ import annotations

import math
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.episodes import Episode, Show, occurrences, shows, summary
from bench.frame import Benchmark, Row
from bench.scoring import Judged, Marker, Score, score
from bench.skip_peers import chromaprint_pairs, fingerprint, intro_skipper
from core.threads import one_algebra_thread

SEEDS = (1, 5)  # of the test split, a catalogue each: nothing was tuned on them
Side = Callable[[list[Show]], Mapping[Path, list[Marker]]]


def run(quick: bool) -> list[Row]:
    one_algebra_thread()
    catalogues = [shows("tune", 0, quick=True)] if quick else [shows("test", seed) for seed in SEEDS]
    episodes = [e for catalogue in catalogues for show in catalogue for e in show.episodes]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(fingerprint, [e.path for e in episodes]))
    sides: dict[str, Side] = {
        "ours": ours,
        "one by one": lambda catalogue: ours(catalogue, at_once=False),
        "intro": lambda catalogue: {path: m for show in catalogue for path, m in intro_skipper(show).items()},
        "pairs": lambda catalogue: chromaprint_pairs([e for show in catalogue for e in show.episodes]),
    }
    judged: dict[str, list[Judged]] = {name: [] for name in sides}
    counts: Counter[str] = Counter()
    for number, catalogue in enumerate(catalogues):
        _tell(summary(catalogue))
        counts.update({_named(number, motif): n for motif, n in occurrences(catalogue).items()})
        for name, side in sides.items():
            markers = side(catalogue)
            judged[name] += [_judged(number, show, e, markers[e.path]) for show in catalogue for e in show.episodes]
    scores = {name: score(found, counts) for name, found in judged.items()}
    for name, found in scores.items():
        _tell_score(name, found)
    return [
        *_rows("", scores["ours"], scores["pairs"], "all pairs of Chromaprints"),
        *_rows("intro_skipper ", scores["ours"], scores["intro"], "Intro Skipper's algorithm"),
        *_rows("one_by_one ", scores["one by one"], scores["ours"], "ours, all episodes at once"),
    ]


def ours(found: list[Show], at_once: bool = True) -> dict[Path, list[Marker]]:
    """Our markers: all shows as one catalogue, with the transcripts' words, as a run over a store has them; not
    `at_once`, as many runs have them that each see one episode more."""
    from catalog.audio import decode_audio
    from embedders.fingerprint import frames, patches
    from skips.cues import kind_cues
    from skips.decide import decide
    from skips.detect import Detector, Recording
    from skips.silence import silences
    from skips.words import Sentence

    episodes = [(show, e) for show in found for e in show.episodes]
    said = {n: [Sentence(s.start_s, s.end_s, s.text) for s in e.transcript] for n, (_, e) in enumerate(episodes)}
    with tempfile.TemporaryDirectory() as scratch:

        def hear(number: int) -> list[tuple[float, float, bool]]:
            samples = decode_audio(episodes[number][1].path).samples
            made = frames(samples)
            np.save(f"{scratch}/{number}.npy", made)
            return silences(made, samples)

        with ThreadPoolExecutor(2) as pool:
            silent = dict(enumerate(pool.map(hear, range(len(episodes)))))
        detector = Detector(lambda number: np.load(f"{scratch}/{number}.npy", mmap_mode="r"), patches)
        every = [
            Recording(n, str(e.path), "", e.duration_s, show.name, e.number) for n, (show, e) in enumerate(episodes)
        ]
        for together in [every] if at_once else [[recording] for recording in every]:
            detector.add(together)
        markers = decide(detector.known, silent, lambda recording, *span: kind_cues(said[recording.number], *span))
    return {
        e.path: [Marker(m.kind, m.start_s, m.end_s, m.action) for m in markers[n]] for n, (_, e) in enumerate(episodes)
    }


def _judged(catalogue: int, show: Show, episode: Episode, markers: list[Marker]) -> Judged:
    truth = [replace(s, motif=_named(catalogue, s.motif)) for s in episode.truth]
    return Judged(_named(catalogue, show.name), episode.duration_s, truth, markers, episode.coding)


def _named(catalogue: int, name: str) -> str:
    """The name apart from other catalogues' same; silence has none."""
    return f"{catalogue} {name}" if name else ""


def _rows(prefix: str, our: Score, peer: Score, name: str) -> list[Row]:
    def share(found: Score, key: str) -> float:
        return found.recall_by_occurrences.get(key, (math.nan, 0))[0]

    low, high = our.f1_interval[0.5]
    values: list[tuple[str, float, float, str, bool, str]] = [
        ("f1", our.f1[0.5], peer.f1[0.5], "at IoU .5", True, f"95 % interval {low:.3f} to {high:.3f}, shows resampled"),
        ("f1_iou75", our.f1[0.75], peer.f1[0.75], "at IoU .75", True, ""),
        ("recall_3", share(our, "3+"), share(peer, "3+"), "heard 3 times or more", True, ""),
        ("recall_2", share(our, "2"), share(peer, "2"), "heard twice", True, ""),
        ("boundary_median_s", our.boundary_median_s, peer.boundary_median_s, "s", False, ""),
        ("boundary_p90_s", our.boundary_p90_s, peer.boundary_p90_s, "s", False, ""),
        ("wrong_s_per_hour", our.wrong_s_per_hour, peer.wrong_s_per_hour, "s", False, ""),
        ("kind_accuracy", our.kind_accuracy, peer.kind_accuracy, "of matches", True, ""),
        ("control_autos", our.control_autos, peer.control_autos, "markers", False, ""),
    ]
    return [
        Row(prefix + what, float(a), float(b), None, unit, name, higher_is_better=up, note=note)
        for what, a, b, unit, up, note in values
    ]


def _tell(told: Mapping[str, Any]) -> None:
    """What a catalogue holds."""
    print(
        f"  {told['shows']} shows ({told['control_shows']} controls), {told['episodes']} episodes, "
        f"{told['hours']:.1f} h, {told['tracks']} tracks, {told['prompts']} recorded prompts, {told['voices']} voices; "
        "spots "
        + ", ".join(f"{count} {kind}" for kind, count in sorted(told["spots"].items()))
        + "; heard "
        + ", ".join(f"{n} times: {count}" for n, count in sorted(told["spots_by_occurrences"].items())),
        file=sys.stderr,
    )


def _tell_score(name: str, found: Score) -> None:
    """What the table has no room for."""
    print(
        f"  {name}: precision {found.precision[0.5]:.3f}, recall {found.recall[0.5]:.3f}, "
        f"wrong {found.wrong_s_per_hour:.2f} s/h {_span(found.wrong_interval)}, kind {_span(found.kind_interval)}",
        file=sys.stderr,
    )
    for what in ("recall_by_kind", "recall_by_perturbation", "recall_by_coding", "recall_by_occurrences"):
        shares = getattr(found, what)
        print(
            f"    {what}: " + ", ".join(f"{key} {value:.3f} of {n}" for key, (value, n) in shares.items()),
            file=sys.stderr,
        )


def _span(interval: tuple[float, float]) -> str:
    return f"[{interval[0]:.3f}, {interval[1]:.3f}]"


BENCHMARK = Benchmark("skips-quality", "skip markers against known truth, beside Chromaprint's two ways", run)
