"""The language that a catalogue or a file's tags declare for a content."""

from __future__ import annotations

import re

# ISO 639-1, 639-2 and 639-3, and what English is called in tags written by hand.
_ENGLISH = {
    "en",
    "eng",
    "english",
    "englisch",
    "anglais",
    "inglés",
    "ingles",
    "inglese",
    "inglês",
    "engels",
    "engelska",
}
_ENGLISH |= {"angielski", "английский", "英語", "英语"}
# Undetermined, several, uncoded, none, ID3's unknown; "mul" leaves open whether English is among them.
_UNKNOWN = {"und", "mul", "mis", "zxx", "xxx", "unknown", "undefined", "undetermined", "none", "null", "nan", "other"}
_SEPARATORS = re.compile(r"[;,/|&+\0]+|\s+(?:and|und|et|y)\s+")
_PRIVATE = re.compile(r"x|q[a-t][a-z]")  # private use in BCP 47 and in ISO 639-2


def declared_english(language: str | None) -> bool | None:
    """Whether a declared language is English: None where nothing usable is declared, or English among others.

    Accepts BCP 47 (`en-GB`), ISO 639 codes of two or three letters (`eng`), underscores (`en_US`), names (`English
    (United States)`) and several of them (`eng/spa`).
    """
    answers = {_one(part) for part in _SEPARATORS.split((language or "").casefold())} - {None}
    return answers.pop() if len(answers) == 1 else None


def _one(language: str) -> bool | None:
    match = re.match(r"[^\W\d_]+", language.strip(" \t\r\n\"'([{"))
    primary = match.group() if match else ""
    if len(primary) < 2 or primary in _UNKNOWN or _PRIVATE.fullmatch(primary):
        return None
    return primary in _ENGLISH
