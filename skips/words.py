"""A transcript's words as sentences with their times."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

PAUSE_S = 0.8  # a silence that ends a sentence where nobody wrote punctuation
LONGEST_S, LONGEST_WORDS = 20.0, 40  # of a sentence
ABBREVIATIONS = frozenset(
    ["mr.", "mrs.", "ms.", "dr.", "prof.", "st.", "vs.", "etc.", "inc.", "ltd.", "co.", "jr.", "sr.", "no.", "bzw."]
)


@dataclass(frozen=True)
class Sentence:
    """Words from `start_s` to `end_s`."""

    start_s: float
    end_s: float
    text: str


def sentences(words: pa.Table) -> list[Sentence]:
    """The sentences of a table of words (`start_s`, `end_s`, `word`), in the order of time. Every word is in one.

    A sentence ends with its punctuation, at a pause, or when it grows too long. Words without a finite time are left
    out; a word that is said to end before it starts has no length.
    """
    columns = (words[name].to_pylist() for name in ("start_s", "end_s", "word"))
    rows = [
        (float(start), max(float(start), float(end)), str(word).strip())
        for start, end, word in zip(*columns, strict=True)
        if start is not None and end is not None and word and math.isfinite(start) and math.isfinite(end)
    ]
    rows = sorted((row for row in rows if row[2]), key=lambda row: (row[0], row[1]))
    found: list[Sentence] = []
    open_: list[tuple[float, float, str]] = []
    for position, row in enumerate(rows):
        open_.append(row)
        after = rows[position + 1] if position + 1 < len(rows) else None
        if after is None or _ends(open_, after):
            found.append(Sentence(open_[0][0], max(r[1] for r in open_), " ".join(r[2] for r in open_)))
            open_ = []
    return found


def _ends(open_: list[tuple[float, float, str]], after: tuple[float, float, str]) -> bool:
    start, end, word = open_[0][0], open_[-1][1], open_[-1][2]
    if re.search(r"[.!?…。]['\")\]]*$", word):
        # "Dr. Who" and "e.g. that" go on.
        abbreviation = word.casefold() in ABBREVIATIONS or re.fullmatch(r"(?:[A-Za-z]\.)+", word)
        if not abbreviation and not after[2][:1].islower():
            return True
    return after[0] - end >= PAUSE_S or len(open_) >= LONGEST_WORDS or after[1] - start > LONGEST_S


TIMING = re.compile(r"(?:(\d+):)?(\d{1,2}):(\d{2})[.,](\d{3})\s+-->\s+(?:(\d+):)?(\d{1,2}):(\d{2})[.,](\d{3})")


def captions(text: str) -> list[Sentence]:
    """The cues of a WebVTT or SubRip file, which podcasts publish as their transcripts; [] where it holds none."""
    found: list[Sentence] = []
    for block in re.split(r"\n\s*\n", text.replace("\r\n", "\n")):
        lines = block.strip().split("\n")
        at = next((n for n, line in enumerate(lines) if TIMING.search(line)), None)
        if at is None:
            continue
        match = TIMING.search(lines[at])
        assert match is not None
        start, end = (_seconds(match.groups()[k : k + 4]) for k in (0, 4))
        said = re.sub(r"<[^>]*>", "", " ".join(lines[at + 1 :])).strip()
        if said and end >= start:
            found.append(Sentence(start, end, said))
    return sorted(found, key=lambda s: s.start_s)


def _seconds(parts: tuple[str | None, ...]) -> float:
    hours, minutes, seconds, ms = (int(part or 0) for part in parts)
    return hours * 3600 + minutes * 60 + seconds + ms / 1000


def within(said: Iterable[Sentence], start_s: float, end_s: float) -> str:
    """What is said in a span: the sentences that lie in it for the most part."""
    kept = [
        s.text for s in said if min(s.end_s, end_s) - max(s.start_s, start_s) > 0.5 * max(s.end_s - s.start_s, 1e-3)
    ]
    return " ".join(kept)
