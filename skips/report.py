"""A show's report: one HTML page that needs nothing else, to look through and listen to what was marked."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import median
from urllib.parse import quote

import numpy as np

from skips.exports import TITLES, total_s
from skips.markers import MarkedEpisode, Marker
from skips.picture import COLOURS, escape, hms, timeline_svg

BEFORE_S = 3  # seconds before a marker at which listening begins
STYLE = """
:root{color-scheme:light dark;--line:#8884}
body{font:15px/1.5 system-ui,sans-serif;max-width:1040px;margin:2rem auto;padding:0 1rem}
h1{margin-bottom:.2rem}h2{margin-top:2.5rem;font-size:1.1rem}table{border-collapse:collapse;width:100%;margin:.5rem 0}
th,td{text-align:left;padding:.25rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}.dim{opacity:.7}code{font-size:.85em}
.key{display:inline-block;width:.8em;height:.8em;margin-right:.4em;border-radius:2px}
button{font:inherit;font-size:.85em;cursor:pointer}audio{width:100%}
@media print{audio,button{display:none}section{break-inside:avoid}}
"""
SCRIPT = """
document.addEventListener('click', event => {
  const at = event.target.dataset && event.target.dataset.at;
  if (at === undefined) return;
  const audio = event.target.closest('section').querySelector('audio');
  if (audio) { audio.currentTime = Math.max(0, at); audio.play(); }
});
"""


def show_report(
    show: str, episodes: Sequence[MarkedEpisode], similarities: Mapping[str, np.ndarray], hop_s: float
) -> str:
    """The page of a show. `similarities` are curves by content id, as `timeline_svg` takes them."""
    hours = sum(e.duration_s for e in episodes) / 3600
    every = [m for e in episodes for m in e.markers]
    auto = total_s(every, ("auto",)) / 60
    ask = total_s(every, ("ask",)) / 60
    name = show or "episodes without a show"
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>Skips: {escape(name)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{escape(name)}</h1>",
        f"<p>{len(episodes)} episodes, {hours:.1f} hours. {auto:.1f} minutes may be skipped unasked, "
        f"{ask:.1f} more on request.</p>",
        _kinds(every),
        _motifs(episodes),
    ]
    parts += [_episode(n, e, similarities.get(e.content_id), hop_s) for n, e in enumerate(episodes)]
    parts.append(f"<script>{SCRIPT}</script></body></html>\n")
    return "\n".join(parts)


def _kinds(markers: Sequence[Marker]) -> str:
    rows = []
    for kind in COLOURS:
        found = [m for m in markers if m.kind == kind]
        if found:
            auto = sum(m.action == "auto" for m in found)
            rows.append(
                f'<tr><td>{_key(kind)}{TITLES[kind]}</td><td class="n">{len(found)}</td><td class="n">{auto}</td>'
                f'<td class="n">{total_s(found) / 60:.1f}</td></tr>'
            )
    if not rows:
        return "<p>Nothing was found that a listener could skip.</p>"
    head = '<tr><th>Kind</th><th class="n">Markers</th><th class="n">Unasked</th><th class="n">Minutes</th></tr>'
    return f"<table>{head}{''.join(rows)}</table>"


def _motifs(episodes: Sequence[MarkedEpisode]) -> str:
    """What recurs, with links to where."""
    places: dict[str, list[tuple[int, Marker]]] = defaultdict(list)
    for number, episode in enumerate(episodes):
        for marker in episode.markers:
            if marker.motif_id:
                places[marker.motif_id].append((number, marker))
    if not places:
        return ""
    rows = []
    for motif, found in sorted(places.items(), key=lambda item: -len(item[1])):
        first = found[0][1]
        links = " ".join(f'<a href="#e{n}" title="{hms(m.start_s)}">{n + 1}</a>' for n, m in found)
        rows.append(
            f"<tr><td>{_key(first.kind)}{TITLES[first.kind]}</td><td><code>{escape(motif[:8])}</code></td>"
            f'<td class="n">{median(m.duration_s for _, m in found):.1f} s</td>'
            f'<td class="n">{first.occurrences}</td><td>{links}</td></tr>'
        )
    head = (
        '<tr><th>What recurs</th><th>Motif</th><th class="n">Length</th><th class="n">Heard</th>'
        "<th>In this show's episodes</th></tr>"
    )
    return f"<h2>What recurs</h2><table>{head}{''.join(rows)}</table>"


def _episode(number: int, episode: MarkedEpisode, similarity: np.ndarray | None, hop_s: float) -> str:
    name = episode.title or episode.content_id
    rows = []
    for m in episode.markers:
        heard = str(m.occurrences) if m.motif_id else ""
        listen = f'<button data-at="{m.start_s - BEFORE_S:.2f}">listen</button>' if _local(episode) else ""
        rows.append(
            f'<tr><td>{_key(m.kind)}{TITLES[m.kind]}</td><td class="n">{hms(m.start_s, True)}</td>'
            f'<td class="n">{hms(m.end_s, True)}</td><td class="n">{m.confidence:.2f}</td><td class="n">{heard}</td>'
            f"<td>{escape(m.action)}</td><td>{escape(m.source)}</td><td>{listen}</td></tr>"
        )
    head = (
        '<tr><th>Kind</th><th class="n">From</th><th class="n">To</th><th class="n">Confidence</th>'
        '<th class="n">Heard</th><th>Action</th><th>Found by</th><th></th></tr>'
    )
    table = f"<table>{head}{''.join(rows)}</table>" if rows else "<p class=dim>No markers.</p>"
    player = f'<audio controls preload="none" src="{_url(episode.path)}"></audio>' if _local(episode) else ""
    picture = timeline_svg(episode, similarity, hop_s, pattern=f"ask{number}")
    return (
        f'<section id="e{number}"><h2>{number + 1}. {escape(name)}</h2>'
        f'<p class="dim">{hms(episode.duration_s)}, audio <code>{escape(episode.audio_sha256[:12])}</code></p>'
        f"{picture}{player}{table}</section>"
    )


def _key(kind: str) -> str:
    return f'<span class="key" style="background:{COLOURS[kind]}"></span>'


def _local(episode: MarkedEpisode) -> bool:
    return episode.path.startswith("/")


def _url(path: str) -> str:
    # The name's own bytes: it need not be UTF-8.
    return "file://" + quote(os.fsencode(path))
