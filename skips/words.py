"""What was said and when: the sentence, and the caption files that podcasts publish as their transcripts."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Sentence:
    """Words from `start_s` to `end_s`."""

    start_s: float
    end_s: float
    text: str


TIMING = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{2})[.,](\d{3})\s+-->\s+(?:(\d+):)?(\d{1,2}):(\d{2})[.,](\d{3})")


def captions(text: str) -> list[Sentence]:
    """The cues of a WebVTT or SubRip file, which podcasts publish; [] where it holds none."""
    found: list[Sentence] = []
    for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n").replace("\r", "\n")):
        lines = block.strip().split("\n")
        at = next((n for n, line in enumerate(lines) if TIMING.search(line)), None)
        if at is None:
            continue
        match = TIMING.search(lines[at])
        assert match is not None
        start, end = (_seconds(match.groups()[k : k + 4]) for k in (0, 4))
        # Tags go first: what is escaped is said, not markup.
        said = html.unescape(re.sub(r"<[^>]*>", "", " ".join(lines[at + 1 :]))).strip()
        if said and end >= start:
            found.append(Sentence(start, end, said))
    return sorted(found, key=lambda s: s.start_s)


def _seconds(parts: tuple[str | None, ...]) -> float:
    hours, minutes, seconds, ms = (int(part or 0) for part in parts)
    return hours * 3600 + minutes * 60 + seconds + ms / 1000
