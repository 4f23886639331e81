"""Words without their times: lyrics as LRC, and as subtitles, which taggers put where plain text belongs."""

from __future__ import annotations

import re

# [01:02], [01:02.34] or [1:02:03.4] starts a line, several in a row where it repeats; <01:02.34> stands before a word.
_TIME = r"\d{1,3}:\d{1,2}(?:[:.]\d{1,3}){0,2}"
_LINE_TIMES = re.compile(rf"^\ufeff?[ \t]*(?:\[{_TIME}\][ \t]*)+", re.MULTILINE)
_WORD_TIMES = re.compile(rf"<{_TIME}>")
_ID_TAG = re.compile(
    r"^[ \t]*\[(?:ar|ti|al|au|by|la|lr|re|ve|tool|offset|length|id|#)\s*:[^\]]*\][ \t]*$", re.IGNORECASE | re.M
)
# A cue of SubRip or WebVTT: its number or name, its times, and settings.
_CUE = re.compile(r"(?:^[ \t]*\d+[ \t]*\r?\n)?^[ \t]*(?:\d+:)?\d{1,2}:\d{2}[.,]\d{1,3}[ \t]*-->.*$", re.MULTILINE)
_VTT_HEADER = re.compile(r"\A\ufeff?WEBVTT[^\n]*\n?")


def plain_lyrics(text: str | None) -> str | None:
    """`text` without the times and headers of LRC, SubRip or WebVTT; other text is returned as it is."""
    if text is None:
        return None
    if _CUE.search(text):
        text = _CUE.sub("", _VTT_HEADER.sub("", text))
    elif _LINE_TIMES.search(text):
        text = _WORD_TIMES.sub("", _LINE_TIMES.sub("", _ID_TAG.sub("", text)))
    else:
        return text.strip() or None
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip() or None
