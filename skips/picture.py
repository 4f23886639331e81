"""An episode's picture: its timeline with markers, and under it how closely each moment is heard elsewhere."""

from __future__ import annotations

import html
import re
from collections.abc import Callable

import numpy as np

from skips.exports import TITLES
from skips.markers import MarkedEpisode, Marker

WIDTH, LEFT, RIGHT = 960, 12, 12
BAND_TOP, BAND_HEIGHT = 34, 34
CURVE_TOP, CURVE_HEIGHT = 74, 40
HEIGHT = 152
LEAST_PX = 2.0  # of a marker, so that a jingle in six hours can be seen
LABEL_PX = 7.0  # of a letter
# Okabe and Ito's colours, told apart by the colour-blind (https://jfly.uni-koeln.de/color/).
COLOURS = {
    "intro": "#0072b2",
    "outro": "#56b4e9",
    "ad": "#d55e00",
    "jingle": "#cc79a7",
    "recap": "#009e73",
    "silence": "#999999",
}
# What XML 1.0 has no way to write, not even as a reference (https://www.w3.org/TR/xml/#charsets).
NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
STYLE = (
    "text{font:11px system-ui,sans-serif;fill:#222}.t{font-size:13px;font-weight:600}.base{fill:#e6e6e6}"
    ".axis{stroke:#888;stroke-width:1}.curve{fill:#0072b2;fill-opacity:.35;stroke:#0072b2;stroke-width:1}"
    ".in{fill:#fff;font-weight:600}"
    "@media (prefers-color-scheme:dark){text{fill:#ddd}.base{fill:#333}.in{fill:#fff}}"
)


def escape(text: str) -> str:
    """Text for XML and HTML, in an element or in an attribute; what neither can hold is U+FFFD."""
    return html.escape(NO_XML.sub("\ufffd", text))


def timeline_svg(
    episode: MarkedEpisode, similarity: np.ndarray | None = None, hop_s: float = 0.5, pattern: str = "ask"
) -> str:
    """A standalone SVG. `similarity`, float32 (n,), is in [0, 1], one value every `hop_s` seconds. `pattern` is the id
    of the hatching, which must differ where a page holds many pictures."""
    span = max(episode.duration_s, 0.1)
    scale = (WIDTH - LEFT - RIGHT) / span

    def x(seconds: float) -> float:
        return round(LEFT + min(max(seconds, 0.0), span) * scale, 2)

    name = episode.title or episode.content_id
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="100%" role="img">',
        f"<title>{escape(name)}</title>",
        f"<desc>{escape(described(episode))}</desc>",
        f"<style>{STYLE}</style>",
        f'<defs><pattern id="{pattern}" width="6" height="6" patternTransform="rotate(45)" '
        'patternUnits="userSpaceOnUse"><rect width="3" height="6" fill="#fff" fill-opacity=".55"/></pattern></defs>',
        f'<text class="t" x="{LEFT}" y="16">{escape(_cut(name, 90))}</text>',
        *_legend(episode, pattern),
        f'<rect class="base" x="{LEFT}" y="{BAND_TOP}" width="{WIDTH - LEFT - RIGHT}" height="{BAND_HEIGHT}"/>',
    ]
    for marker in episode.markers:
        parts += _marker(marker, x(marker.start_s), max(x(marker.end_s) - x(marker.start_s), LEAST_PX), pattern)
    if similarity is not None and len(similarity):
        parts.append(_curve(similarity, hop_s, x))
    parts += _axis(span, x)
    parts.append("</svg>")
    return "\n".join(parts) + "\n"


def described(episode: MarkedEpisode) -> str:
    """The picture in words."""
    if not episode.markers:
        return "No markers."
    said = [f"{TITLES[m.kind]} {hms(m.start_s)} to {hms(m.end_s)}" for m in episode.markers]
    return "; ".join(said) + "."


def hms(seconds: float, tenths: bool = False) -> str:
    """`m:ss` or `h:mm:ss`, with tenths if asked."""
    ticks = round(seconds * 10) if tenths else round(seconds) * 10
    whole, tenth = divmod(ticks, 10)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    text = f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
    return f"{text}.{tenth}" if tenths else text


def told(marker: Marker) -> str:
    """A marker in one line."""
    heard = f", heard {marker.occurrences} times" if marker.occurrences > 1 else ""
    times = f"{hms(marker.start_s, True)} to {hms(marker.end_s, True)}"
    return f"{TITLES[marker.kind]}, {times}, confidence {marker.confidence:.2f}{heard}, {marker.action}"


def _marker(marker: Marker, left: float, width: float, pattern: str) -> list[str]:
    box = f'x="{left}" y="{BAND_TOP}" width="{round(width, 2)}" height="{BAND_HEIGHT}"'
    colour = COLOURS[marker.kind]
    label = TITLES[marker.kind]
    parts = [f'<g><title>{escape(told(marker))}</title><rect {box} fill="{colour}"/>']
    if marker.action == "ask":
        parts.append(f'<rect {box} fill="url(#{pattern})" stroke="{colour}"/>')
    if width > LABEL_PX * len(label) + 6 and marker.action == "auto":
        middle = round(left + width / 2, 2)
        parts.append(f'<text class="in" x="{middle}" y="{BAND_TOP + 21}" text-anchor="middle">{label}</text>')
    parts.append("</g>")
    return parts


def _legend(episode: MarkedEpisode, pattern: str) -> list[str]:
    kinds = [kind for kind in COLOURS if any(m.kind == kind for m in episode.markers)]
    parts, right = [], WIDTH - RIGHT
    if any(m.action == "ask" for m in episode.markers):
        kinds.append("ask")
    for kind in reversed(kinds):
        label = "ask first" if kind == "ask" else TITLES[kind]
        right -= len(label) * 6 + 22
        fill = "#bbb" if kind == "ask" else COLOURS[kind]
        parts.append(f'<rect x="{right}" y="20" width="10" height="10" fill="{fill}"/>')
        if kind == "ask":
            parts.append(f'<rect x="{right}" y="20" width="10" height="10" fill="url(#{pattern})" stroke="#888"/>')
        parts.append(f'<text x="{right + 14}" y="29">{label}</text>')
    return parts


def _curve(similarity: np.ndarray, hop_s: float, x: Callable[[float], float]) -> str:
    """The curve's highest value in every pixel."""
    pixels = WIDTH - LEFT - RIGHT
    step = max(1, -(-len(similarity) // pixels))
    padded = np.pad(similarity.astype(np.float64), (0, -len(similarity) % step))
    high = np.clip(padded.reshape(-1, step).max(axis=1), 0, 1)
    base = CURVE_TOP + CURVE_HEIGHT
    points = [f"{x(k * step * hop_s)},{round(base - CURVE_HEIGHT * v, 2)}" for k, v in enumerate(high)]
    end = x(len(similarity) * hop_s)
    path = f"M{LEFT},{base} L{' L'.join(points)} L{end},{base} Z"
    return f'<path class="curve" d="{path}"><title>how closely each moment is heard elsewhere</title></path>'


def _axis(span: float, x: Callable[[float], float]) -> list[str]:
    line = CURVE_TOP + CURVE_HEIGHT
    steps = (0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
    step = next((s for s in steps if span / s <= 12), 7200)
    parts = [f'<line class="axis" x1="{LEFT}" y1="{line}" x2="{WIDTH - RIGHT}" y2="{line}"/>']
    at = 0.0
    while at <= span:
        left = x(at)
        anchor = "start" if at == 0 else "end" if left > WIDTH - 40 else "middle"
        parts.append(f'<line class="axis" x1="{left}" y1="{line}" x2="{left}" y2="{line + 5}"/>')
        text = hms(at, step < 1)
        parts.append(f'<text x="{left}" y="{line + 18}" text-anchor="{anchor}">{text}</text>')
        at += step
    return parts


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 1] + "…"
