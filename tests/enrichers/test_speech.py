"""Speech on real and synthetic voices, music on a real track."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog.audio import decode_audio
from catalog.media import SAMPLE_RATE, Audio
from enrichers.speech import SpeechEnricher, _union, _without

MEDIA = Path(__file__).parent.parent / "media"
# What Allison Smith says in the recording (its beginning).
SAID = (
    "congratulations you have successfully installed and executed the asterisk open source pbx you have also "
    "installed a set of sample sounds and configuration files that should help you to get started"
)


@pytest.fixture(scope="module")
def enricher() -> SpeechEnricher:
    return SpeechEnricher()


def word_errors(said: list[str], heard: list[str]) -> int:
    """Levenshtein distance in words."""
    row = list(range(len(heard) + 1))
    for number, word in enumerate(said, 1):
        before, row[0] = row[0], number
        for at, other in enumerate(heard, 1):
            before, row[at] = row[at], min(row[at] + 1, row[at - 1] + 1, before + (word != other))
    return row[-1]


def check_words(row: dict[str, Any], duration_s: float) -> None:
    words = row["_side"]["words"]
    assert row["transcript_word_count"] == len(words) > 0
    starts = [w["start_s"] for w in words]
    assert starts == sorted(starts)
    assert all(0 <= w["start_s"] <= w["end_s"] <= duration_s + 0.5 and 0 <= w["probability"] <= 1 for w in words)


@pytest.mark.slow
def test_a_real_voice(enricher: SpeechEnricher) -> None:
    audio = decode_audio(MEDIA / "voice.opus")
    row = enricher.enrich([audio])[0]
    heard = re.sub(r"[^a-z ]", "", row["transcript"].lower()).split()
    said = SAID.split()
    assert word_errors(said, heard[: len(said)]) / len(said) < 0.2
    assert row["speech_ratio"] > 0.7 and row["transcript_language"] == "en"
    assert 90 < row["speaking_rate_wpm"] < 260
    check_words(row, audio.duration_s)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("flite") is None, reason="needs Debian's flite")
def test_word_times_follow_a_pause(enricher: SpeechEnricher, tmp_path: Path) -> None:
    parts = []
    for number, text in enumerate(("The garden gate was open in the morning.", "Nobody had closed the window.")):
        path = tmp_path / f"{number}.wav"
        subprocess.run(["flite", "-voice", "slt", "-t", text, "-o", str(path)], check=True)
        parts.append(decode_audio(path).samples)
    pause = np.zeros(3 * SAMPLE_RATE, np.float32)
    second_at = (len(parts[0]) + len(pause)) / SAMPLE_RATE
    samples = np.concatenate([parts[0], pause, parts[1]])
    row = enricher.enrich([Audio(samples, len(samples) / SAMPLE_RATE)])[0]
    words = {w["word"].strip(".,").lower(): w for w in row["_side"]["words"]}
    assert words["garden"]["start_s"] < 1.5
    assert abs(words["nobody"]["start_s"] - second_at) < 1.0
    check_words(row, len(samples) / SAMPLE_RATE)


@pytest.mark.slow
def test_music_is_not_transcribed(enricher: SpeechEnricher) -> None:
    row = enricher.enrich([decode_audio(MEDIA / "music.mp3")])[0]
    assert row["music_ratio"] > 0.7 > row["speech_ratio"] and row.get("transcript") is None
    assert row["_side"]["words"] == []


def test_too_short_for_anything(enricher: SpeechEnricher) -> None:
    row = enricher.enrich([Audio(np.zeros(100, np.float32), 0.01)])[0]
    assert (row["speech_ratio"], row["music_ratio"], row["_side"]["segments"]) == (0.0, 0.0, [])


def test_overlapping_segments_count_once() -> None:
    segments = [(0.0, 4.0, "speech"), (2.0, 5.0, "speech"), (1.0, 9.0, "music"), (7.0, 8.0, "speech")]
    assert _union(segments, "speech") == 6.0 and _union(segments, "music") == 8.0


def test_what_is_left_of_speech_without_the_music() -> None:
    assert _without((2.0, 9.0), []) == [(2.0, 9.0)]
    assert _without((2.0, 9.0), [(0.0, 1.0), (3.0, 4.0), (8.0, 12.0)]) == [(2.0, 3.0), (4.0, 8.0)]
    assert _without((2.0, 9.0), [(1.0, 3.0), (2.5, 10.0)]) == []
