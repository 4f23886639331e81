"""Sentences out of a transcript's words: by punctuation where the transcriber wrote some, by pauses and length where
it did not."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from skips.words import Sentence

PAUSE_S = 0.8  # a silence that ends a sentence where nobody wrote punctuation
LONGEST_WORDS, LONGEST_S = 30, 20.0  # of a sentence
NUMBER_GAP_S = 0.3  # "3." and "5" that are this close are one number
END = re.compile(r"[.!?…。！？]['\"’”)\]]*$")
INITIALS = re.compile(r"(?:[^\W\d_]\.){2,}|[A-HJ-Z]\.")  # "e.g.", "U.S.", "J."; "I." ends a sentence
# What comes before a name or a number, so that a capital behind it says nothing.
TITLES = re.compile(r"(?:mr|mrs|ms|dr|prof|st|mt|gen|sen|rep|gov|sgt|capt|lt|col|vs|fig|approx|bzw)\.")
# What may well end a sentence: it does if the next word has a capital.
TAILS = re.compile(r"(?:inc|ltd|co|corp|jr|sr|etc|a\.m|p\.m|usw)\.")
NUMBERED = re.compile(r"(?:no|nr|vol|p|pp|ch)\.")  # abbreviations before a number, words elsewhere
# faster-whisper cuts words at punctuation: "acme", ".com", "/show"; "15", "%".
FRAGMENT = re.compile(r"[.,:/@%\-–][\w$]|[^\w\s$€£]+$")


@dataclass(frozen=True)
class _Word:
    start_s: float
    end_s: float
    text: str
    joined: bool  # it continues the word before, without a space


def sentences(words: pa.Table) -> list[Sentence]:
    """The sentences of a table of words (`start_s`, `end_s`, `word`; seconds), in the order of time. Every word is in
    one of them, and none begins before the one before it ends.

    Words are as faster-whisper gives them, with leading spaces, or stripped: of stripped ones, those that begin with
    punctuation continue the word before. Where a time is missing or not finite, that of the words around it stands in;
    a table without a single time has no sentences. A word that is said to end before it starts has no length.
    """
    said = _timed(words)
    cased = any(w.text[:1].isupper() and w.text.rstrip(".,!?") != "I" for w in said)
    found: list[list[_Word]] = []
    open_: list[_Word] = []
    reached = -math.inf  # end of what was said so far
    for position, word in enumerate(said):
        open_.append(word)
        reached = max(reached, word.end_s)
        after = said[position + 1] if position + 1 < len(said) else None
        if after is None or _ends(open_, after, reached, cased):
            found.append(open_)
            open_ = []
    starts = [*(own[0].start_s for own in found), math.inf]
    return [
        Sentence(own[0].start_s, max(own[0].start_s, min(max(w.end_s for w in own), start)), _text(own))
        for own, start in zip(found, starts[1:], strict=True)
    ]


def _timed(words: pa.Table) -> list[_Word]:
    """The words by start, those without letters or signs left out; each has finite times."""
    raw = [str(word or "") for word in words["word"].to_pylist()]
    starts, ends = (_finite(words[name].to_pylist()) for name in ("start_s", "end_s"))
    first = next((s if s is not None else e for s, e in zip(starts, ends, strict=True) if (s, e) != (None, None)), None)
    if first is None:
        return []
    spaced = any(word[:1].isspace() for word in raw)
    found: list[_Word] = []
    before = first
    for word, start, end in zip(raw, starts, ends, strict=True):
        if start is None:
            start = before if end is None else min(before, end)
        before = max(start, start if end is None else end)
        text = word.strip()
        if text:
            joined = not word[0].isspace() if spaced else bool(FRAGMENT.match(text))
            found.append(_Word(start, before, text, joined))
    # Stable: words that start at the same instant stay in the table's order.
    return sorted(found, key=lambda w: w.start_s)


def _finite(values: Sequence[float | None]) -> list[float | None]:
    return [float(v) if v is not None and math.isfinite(v) else None for v in values]


def _ends(open_: Sequence[_Word], after: _Word, reached: float, cased: bool) -> bool:
    if after.start_s - reached >= PAUSE_S:
        return True
    if len(open_) >= LONGEST_WORDS or after.end_s - open_[0].start_s > LONGEST_S:
        return True
    if after.joined:
        return False
    last = open_[-1].text
    return bool(END.search(last)) and not _goes_on(last, after, after.start_s - reached, cased)


def _goes_on(last: str, after: _Word, gap_s: float, cased: bool) -> bool:
    """Whether the full stop of `last` is that of an abbreviation or a number."""
    low = last.casefold().lstrip("(\"'“‘[")
    if low.endswith((".", "…")) and cased and after.text[:1].islower():
        return True
    if NUMBERED.fullmatch(low):
        return after.text[:1].isdigit()
    if re.fullmatch(r"\d+\.", low):
        return after.text[:1].isdigit() and gap_s < NUMBER_GAP_S
    return bool(TITLES.fullmatch(low) or (INITIALS.fullmatch(last) and not TAILS.fullmatch(low)))


def _text(own: Sequence[_Word]) -> str:
    return "".join(w.text if w.joined or not n else f" {w.text}" for n, w in enumerate(own))
