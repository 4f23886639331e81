"""Speech on real and synthetic voices, music on a real track."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog.audio import decode_audio
from catalog.media import SAMPLE_RATE, Audio
from enrichers.english import Segment
from enrichers.speech import SpeechEnricher, _merged, _union, _without

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


def check_no_transcript(row: dict[str, Any]) -> None:
    assert not [name for name in row if name.startswith("transcript") and name != "transcript_reason"]
    assert "speaking_rate_wpm" not in row and row["_side"]["words"] == []


@pytest.mark.slow
def test_a_real_voice(enricher: SpeechEnricher) -> None:
    audio = decode_audio(MEDIA / "voice.opus")
    row = enricher.enrich([audio])[0]
    heard = re.sub(r"[^a-z ]", "", row["transcript"].lower()).split()
    said = SAID.split()
    assert word_errors(said, heard[: len(said)]) / len(said) < 0.2
    assert row["speech_ratio"] > 0.7 and row["transcript_language"] == "en" and "transcript_reason" not in row
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
    assert row["transcript_reason"] == "little_speech"
    check_no_transcript(row)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["spanish.opus", "russian.opus"])
def test_other_languages_get_no_invented_words(enricher: SpeechEnricher, name: str) -> None:
    row = enricher.enrich([decode_audio(MEDIA / name)])[0]
    assert row["speech_ratio"] > 0.7 and row["transcript_reason"] == "not_english"
    check_no_transcript(row)


@pytest.mark.slow
@pytest.mark.parametrize(("language", "reason"), [("es", "declared_language"), ("Deutsch", "declared_language")])
def test_what_is_declared_in_another_language_is_not_transcribed(language: str, reason: str) -> None:
    fresh = SpeechEnricher()
    row = fresh.enrich([replace(decode_audio(MEDIA / "voice.opus"), language=language)])[0]
    assert row["transcript_reason"] == reason and row["speech_ratio"] > 0.7
    check_no_transcript(row)
    assert fresh._whisper is None, "the transcriber is not even loaded"


@pytest.mark.slow
def test_what_is_declared_english_is_transcribed(enricher: SpeechEnricher) -> None:
    row = enricher.enrich([replace(decode_audio(MEDIA / "spanish.opus"), language="en-GB")])[0]
    assert row["transcript"] and row["transcript_language"] == "en" and "transcript_reason" not in row


@pytest.mark.slow
def test_a_recording_in_two_languages_gets_no_transcript(enricher: SpeechEnricher) -> None:
    english, russian = (decode_audio(MEDIA / name).samples for name in ("voice.opus", "russian.opus"))
    samples = np.concatenate([english, russian])
    row = enricher.enrich([Audio(samples, len(samples) / SAMPLE_RATE)])[0]
    assert row["transcript_reason"] == "partly_not_english"
    check_no_transcript(row)


@pytest.mark.slow
def test_two_windows_decide_on_a_long_recording(enricher: SpeechEnricher, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eleven minutes: another language costs two windows, English two windows and the whole."""
    lengths: list[float] = []
    transcribe = enricher._transcribe

    def counted(samples: np.ndarray) -> list[Segment]:
        lengths.append(len(samples) / SAMPLE_RATE)
        return transcribe(samples[: 31 * SAMPLE_RATE])  # of the whole, its beginning will do

    monkeypatch.setattr(enricher, "_transcribe", counted)
    for name, reason, expected in (
        ("russian.opus", "not_english", [30.0, 30.0]),
        ("voice.opus", None, [30.0, 30.0, 660.0]),
    ):
        lengths.clear()
        part = decode_audio(MEDIA / name).samples
        samples = np.resize(part, 660 * SAMPLE_RATE)
        speech = [(0.0, 660.0, "speech")]
        monkeypatch.setattr(enricher, "_segments", lambda samples, speech=speech: speech)
        row = enricher.enrich([Audio(samples, 660.0)])[0]
        assert (row.get("transcript_reason"), lengths) == (reason, expected)


def test_too_short_for_anything(enricher: SpeechEnricher) -> None:
    row = enricher.enrich([Audio(np.zeros(100, np.float32), 0.01)])[0]
    assert (row["speech_ratio"], row["music_ratio"], row["_side"]["segments"]) == (0.0, 0.0, [])


def test_overlapping_segments_count_once() -> None:
    segments = [(0.0, 4.0, "speech"), (2.0, 5.0, "speech"), (1.0, 9.0, "music"), (7.0, 8.0, "speech")]
    assert _union(segments, "speech") == 6.0 and _union(segments, "music") == 8.0


def test_overlapping_segments_become_one() -> None:
    segments = [(0.0, 4.0, "speech"), (1.0, 2.0, "speech"), (1.0, 9.0, "music"), (3.0, 5.0, "speech")]
    assert _merged([*segments, (7.0, 8.0, "speech")], "speech") == [(0.0, 5.0), (7.0, 8.0)]
    assert _merged([], "speech") == []


def test_what_is_left_of_speech_without_the_music() -> None:
    assert _without((2.0, 9.0), []) == [(2.0, 9.0)]
    assert _without((2.0, 9.0), [(0.0, 1.0), (3.0, 4.0), (8.0, 12.0)]) == [(2.0, 3.0), (4.0, 8.0)]
    assert _without((2.0, 9.0), [(1.0, 3.0), (2.5, 10.0)]) == []
