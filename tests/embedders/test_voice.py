"""Vectors of voices: those of two sentences in one voice, in others, and what is no speech."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from catalog.audio import decode_audio
from embedders.voice import DIM, LEAST_S, VoiceEncoder, _cut, _mel
from pipelines.stages import VOICE_ID

TEXTS = (
    "The committee met on Tuesday and agreed that the old bridge has to be repaired before the winter comes.",
    "My grandmother kept bees behind the house, and in summer she gave honey to everybody in the street.",
)


@pytest.fixture(scope="module")
def encoder() -> VoiceEncoder:
    return VoiceEncoder("cpu")


def spoken(folder: Path, voice: str, text: str) -> np.ndarray:
    path = folder / f"{voice}.wav"
    subprocess.run(["flite", "-voice", voice, "-t", text, "-o", str(path)], check=True)
    return decode_audio(path).samples


def test_the_mel_spectrogram_is_that_of_the_learning() -> None:
    """Against librosa, which the encoder's own code uses."""
    librosa = pytest.importorskip("librosa")
    samples = np.random.default_rng(3).standard_normal(20_000).astype(np.float32) * 0.1
    theirs = librosa.feature.melspectrogram(y=samples, sr=16_000, n_fft=400, hop_length=160, n_mels=40).T
    assert np.allclose(_mel(samples), theirs, rtol=1e-3, atol=1e-6)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("flite") is None, reason="needs Debian's flite")
def test_a_voice_is_likest_to_itself_whatever_it_says(encoder: VoiceEncoder, tmp_path: Path) -> None:
    said = {(v, n): spoken(tmp_path, v, t) for v in ("kal", "slt", "awb", "rms") for n, t in enumerate(TEXTS)}
    vectors = {}
    for key, samples in said.items():
        found, spans = encoder.passages(samples, [(0.0, len(samples) / 16_000)])
        assert found.shape == (1, DIM) and spans.shape == (1, 2)
        assert np.linalg.norm(found[0]) == pytest.approx(1, abs=1e-5)
        vectors[key] = found[0]
    for (voice, number), vector in vectors.items():
        alike = {other: float(vector @ vectors[other, 1 - number]) for other in ("kal", "slt", "awb", "rms")}
        assert max(alike, key=lambda v: alike[v]) == voice and alike[voice] > 0.9
        assert sorted(alike.values())[-2] < 0.86
    # Quiet, it is the same voice.
    samples = said["slt", 0]
    quiet, _ = encoder.passages(samples * np.float32(0.02), [(0.0, len(samples) / 16_000)])
    assert float(quiet[0] @ vectors["slt", 0]) > 0.98


def test_what_is_too_short_or_silent_has_no_voice(encoder: VoiceEncoder) -> None:
    silence = np.zeros(16_000 * 20, np.float32)
    for spans in ([], [(0.0, LEAST_S - 0.1)], [(2.0, 12.0)], [(30.0, 40.0)]):
        vectors, found = encoder.passages(silence, spans)
        assert vectors.shape == (0, DIM) and found.shape == (0, 2)


def test_long_speech_is_cut_into_equal_passages() -> None:
    assert _cut(3.0, 4.0) == []
    assert _cut(3.0, 10.0) == [(3.0, 10.0)]
    assert np.allclose(_cut(0.0, 20.0), [(0.0, 20 / 3), (20 / 3, 40 / 3), (40 / 3, 20.0)])


def test_the_plan_knows_the_encoder() -> None:
    assert VoiceEncoder.model_id == VOICE_ID
