"""Measurements of the sound: duration, loudness, tempo, silence."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from catalog.media import SAMPLE_RATE, Audio, Listener
from core.features import ACOUSTIC
from enrichers.loudness import LoudnessMeter

TEMPO_EXCERPT_S = 60  # from the middle: the tempo of more says no more
TEMPO_HOP = 256  # samples
MIN_PULSE = 0.15  # autocorrelation of the onsets at the beat's lag below which there is no beat to speak of


class AcousticEnricher:
    """Fills the view `acoustic`. Tempo is librosa's estimate, which may lie an octave off."""

    modality = "audio"
    view = ACOUSTIC
    model_id = "librosa-tempo-60s"
    version = 1

    def listeners(self) -> list[Listener]:
        return [LoudnessMeter()]

    def enrich(self, batch: Sequence[Audio]) -> list[dict[str, Any]]:
        return [self._one(audio) for audio in batch]

    def _one(self, audio: Audio) -> dict[str, Any]:
        meter = audio.heard.get("loudness")
        if not isinstance(meter, LoudnessMeter):  # decoded without us: what the models hear has to do
            meter = LoudnessMeter()
            meter.start(SAMPLE_RATE, 1)
            if len(audio.samples):
                meter.hear(audio.samples[:, None])
        return {
            "duration_s": audio.duration_s,
            "source_sample_rate_hz": audio.source_sample_rate,
            "source_channels": audio.source_channels,
            "tempo_bpm": tempo(audio.samples),
            "truncated": bool(audio.truncated),
            **meter.figures(),
        }


def tempo(samples: np.ndarray) -> float | None:
    """Beats a minute of mono samples at `SAMPLE_RATE`; None for less than 4 s or without a pulse."""
    spare = len(samples) - TEMPO_EXCERPT_S * SAMPLE_RATE
    if spare > 0:
        samples = samples[spare // 2 : spare // 2 + TEMPO_EXCERPT_S * SAMPLE_RATE]
    if len(samples) < 4 * SAMPLE_RATE or float(np.abs(samples).max()) < 1e-4:
        return None
    import librosa

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        strength: Any = librosa.onset.onset_strength  # type: ignore[attr-defined]
        onsets = strength(y=samples, sr=SAMPLE_RATE, hop_length=TEMPO_HOP, n_fft=1024, n_mels=64)
        if float(onsets.std()) < 0.1:
            return None
        bpm = float(librosa.feature.tempo(onset_envelope=onsets, sr=SAMPLE_RATE, hop_length=TEMPO_HOP)[0])
    lag = round(60 / bpm * SAMPLE_RATE / TEMPO_HOP)
    centred = onsets - onsets.mean()
    # The true lag lies between frames: its neighbours count as well.
    pulse = max(float((centred[at:] * centred[:-at]).sum()) for at in (lag - 1, lag, lag + 1) if at > 0)
    return bpm if pulse / float((centred**2).sum()) >= MIN_PULSE else None
