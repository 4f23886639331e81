from __future__ import annotations

import pytest

from catalog.lyrics import plain_lyrics


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("[ar:Someone]\n[offset:+500]\n[00:01.00]First line\n[00:02.5]Second\n", "First line\nSecond"),
        ("[00:01.00][01:20.00]Chorus\n[1:02:03]Verse\n[00:05]", "Chorus\nVerse"),
        ("[00:01.00]<00:01.00>One <00:01.50>two", "One two"),
        ("\ufeff[00:01.00] One\r\n\r\n[00:02.00] Two", "One\n\nTwo"),
        ("1\n00:00:01,000 --> 00:00:02,000\nHello\n\n2\n00:00:03,000 --> 00:00:04,000\nagain", "Hello\n\nagain"),
        ("WEBVTT\n\n00:01.000 --> 00:02.000 align:start\nHello", "Hello"),
        # Not times: headings, chords, a clock time within a line.
        ("[Chorus]\nAt 10:30 we [sing]\n[Am]La", "[Chorus]\nAt 10:30 we [sing]\n[Am]La"),
        ("  words  ", "words"),
        ("[00:01.00]", None),
        (None, None),
    ],
)
def test_times_are_not_text(text: str | None, found: str | None) -> None:
    assert plain_lyrics(text) == found
