"""Synthetic podcast shows with known truth, for the benchmarks of skip detection.

`shows(split, seed)` plans every episode from the seed (`bench.schedule`), renders and encodes it (`bench.render`) and
keeps the result in a folder, so that the second call only reads it. Sources are split before anything is planned:
what tuning hears, the test never does (`bench.sources`).
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from bench.schedule import ShowPlan, schedule
from bench.sources import CACHE, Split, sources

VERSION = 1  # raised when the same seed makes other episodes than before
STAMP = "truth.json"


@dataclass(frozen=True)
class Segment:
    """Something in an episode. `motif` tells what recurs ("" for silence); `perturbations` what was done to this
    occurrence ("split" and "back-to-back" among them); `part` is the share of the spot that is heard."""

    kind: str
    start_s: float
    end_s: float
    motif: str = ""
    perturbations: tuple[str, ...] = ()
    part: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True)
class Sentence:
    """Words that a synthetic voice speaks in an episode; recorded prompts have none."""

    start_s: float
    end_s: float
    text: str


@dataclass(frozen=True)
class Episode:
    """An encoded episode and all that is known of it.

    `truth` is what a detector should mark. `negatives` is what recurs without being skippable: a bed that several
    episodes share under different speech (kind `bed`), and the speech that a later recap quotes (`recap-source`).
    `music` are the body's pieces of music, `motif` being the track.
    """

    path: Path
    show: str
    number: int
    duration_s: float
    coding: str
    truth: tuple[Segment, ...]
    negatives: tuple[Segment, ...]
    music: tuple[Segment, ...]
    transcript: tuple[Sentence, ...]
    voices: tuple[str, ...]
    prompts: tuple[str, ...]
    tracks: tuple[str, ...]


@dataclass(frozen=True)
class Show:
    """A show; a control has nothing that recurs, and no truth."""

    name: str
    control: bool
    episodes: tuple[Episode, ...]


def shows(
    split: Split,
    seed: int,
    quick: bool = False,
    folder: Path | None = None,
    workers: int = 2,
    only: Sequence[int] | None = None,
) -> list[Show]:
    """The shows of a split and seed, made in `folder` (or in the cache) unless they are there already.

    `only` renders the shows at these positions of the plan (an ad may then be heard only once). `workers` 0 renders in
    this process. The same call again goes on where a killed one ended, show by show. Raises `SystemExit` naming the
    Debian packages to install.
    """
    name = f"{split}-{seed}{'-quick' if quick else ''}{'' if only is None else '-' + '-'.join(map(str, only))}"
    folder = folder or CACHE / "episodes" / name
    key = [VERSION, split, seed, quick, None if only is None else list(only)]
    stamp, started = folder / STAMP, folder / "started.json"
    if stamp.is_file():
        known = json.loads(stamp.read_text())
        if known["key"] == key:
            return [_show(folder, row) for row in known["shows"]]
    from bench.render import render_spot

    if not (started.is_file() and json.loads(started.read_text()) == key):
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "spots").mkdir(parents=True)
        started.write_text(json.dumps(key))
    with in_processes(workers) as run:
        plan = schedule(sources(split, quick, run), seed, quick)
        chosen = plan.shows if only is None else [plan.shows[i] for i in only]
        # What a run that was killed has finished is kept.
        missing = [show for show in chosen if not (folder / show.name / STAMP).is_file()]
        wanted = {place.spot for show in missing for episode in show.episodes for place in episode.places}
        for _ in run(partial(render_spot, folder=folder / "spots"), [s for s in plan.spots if s.motif in wanted]):
            pass
        # The longest first, so that both processes end together.
        missing.sort(key=lambda show: -len(show.episodes))
        for _ in run(partial(_make, folder=folder), missing):
            pass
    rows = [json.loads((folder / show.name / STAMP).read_text()) for show in chosen]
    shutil.rmtree(folder / "spots", ignore_errors=True)
    started.unlink()
    stamp.write_text(json.dumps({"key": key, "shows": rows}))
    return [_show(folder, row) for row in rows]


@contextmanager
def in_processes(workers: int) -> Iterator[Any]:
    """A `map` over so many fresh processes (a forked one would inherit other libraries' threads), or over none."""
    if not workers:
        yield map
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        yield pool.map


def _make(plan: ShowPlan, folder: Path) -> None:
    """Renders a show and, when it is whole, writes its truth beside it."""
    from bench.render import render_show

    row = asdict(render_show(plan, folder))
    for episode in row["episodes"]:
        episode["path"] = str(episode["path"].relative_to(folder))
    (folder / plan.name / STAMP).write_text(json.dumps(row))


def _show(folder: Path, row: dict[str, Any]) -> Show:
    def segments(rows: list[dict[str, Any]]) -> tuple[Segment, ...]:
        return tuple(
            Segment(**{**r, "perturbations": tuple(r["perturbations"]), "part": tuple(r["part"])}) for r in rows
        )

    episodes = []
    for known in row["episodes"]:
        marked = {name: segments(known[name]) for name in ("truth", "negatives", "music")}
        lists = {name: tuple(known[name]) for name in ("voices", "prompts", "tracks")}
        said = tuple(Sentence(**r) for r in known["transcript"])
        whole = {**known, **marked, **lists, "transcript": said, "path": folder / known["path"]}
        episodes.append(Episode(**whole))
    return Show(row["name"], row["control"], tuple(episodes))


def occurrences(found: Sequence[Show]) -> Counter[str]:
    """How often each motif is heard over all shows; a part of a split spot counts once, what a recap quotes too."""
    heard = [s for show in found for e in show.episodes for s in (*e.truth, *e.negatives)]
    return Counter(s.motif for s in heard if s.motif and s.kind != "bed")


def summary(found: Sequence[Show]) -> dict[str, Any]:
    """Counts of everything distinct: shows, episodes, hours, sources, spots and occurrences by kind, how many spots
    occur twice, three times and more, and occurrences by perturbation and coding."""
    episodes = [e for show in found for e in show.episodes]
    counts = occurrences(found)
    kinds = {s.motif: s.kind for e in episodes for s in e.truth if s.motif}
    marks = [s for e in episodes for s in e.truth]
    return {
        "shows": len(found),
        "control_shows": sum(show.control for show in found),
        "episodes": len(episodes),
        "hours": sum(e.duration_s for e in episodes) / 3600,
        "tracks": len({t for e in episodes for t in e.tracks}),
        "prompts": len({p for e in episodes for p in e.prompts}),
        "voices": len({v for e in episodes for v in e.voices}),
        "sentences": len({s.text for e in episodes for s in e.transcript}),
        "spots": dict(Counter(kinds.values())),
        "occurrences": dict(Counter(s.kind for s in marks)),
        "spots_by_occurrences": dict(Counter(str(n) if n < 4 else "4+" for n in counts.values())),
        "perturbations": dict(Counter(p for s in marks if s.motif for p in s.perturbations or ("none",))),
        "codings": dict(Counter(e.coding for e in episodes)),
        "beds_shared": len({s.motif for e in episodes for s in e.negatives if s.kind == "bed"}),
    }
