from __future__ import annotations

import numpy as np
import pytest

from bench.plain_musicnn import plain_forward, weights
from catalog.media import SAMPLE_RATE, Audio
from core.errors import BadItem, ModelError
from core.weights import package_file
from embedders import musicnn
from embedders.mel import hz_to_mel, mel_filters, mel_to_hz
from embedders.musicnn import MAX_WINDOWS, WINDOW_FRAMES, MusicnnRaw, window_starts
from embedders.tf_bundle import read_bundle


def sound(seconds: float, seed: int = 3) -> np.ndarray:
    rng = np.random.default_rng(seed)
    t = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    chord = sum(np.sin(2 * np.pi * hz * t) for hz in (220, 277.2, 329.6, 1760))
    return (0.1 * chord * (1 + np.sin(2 * np.pi * 2 * t)) + 0.02 * rng.standard_normal(len(t))).astype(np.float32)


def test_the_folded_network_equals_the_plain_one() -> None:
    samples = sound(7.0)
    found = MusicnnRaw().embed([Audio(samples, 7.0)])[0]
    expected = plain_forward(samples)
    assert found.shape == expected.shape == (753,)
    assert np.abs(found - expected).max() < 2e-3 * np.abs(expected).max()
    assert float(found @ expected) / float(np.linalg.norm(found) * np.linalg.norm(expected)) > 0.999999


def test_mel_filters_are_librosa_s() -> None:
    import librosa

    for rate, n_fft, n_mels in ((16_000, 512, 96), (48_000, 1024, 64)):
        expected = librosa.filters.mel(sr=rate, n_fft=n_fft, n_mels=n_mels)
        assert np.abs(mel_filters(rate, n_fft, n_mels) - expected).max() < 1e-7
    hz = np.array([0.0, 440.0, 1000.0, 8000.0])
    assert hz_to_mel(np.array(1000.0)) == pytest.approx(15.0)  # Slaney's scale by definition
    assert mel_to_hz(hz_to_mel(hz)) == pytest.approx(hz)


def test_windows() -> None:
    assert window_starts(10).tolist() == [0]  # a short sound is padded with silence
    assert window_starts(3 * WINDOW_FRAMES + 5).tolist() == [0, WINDOW_FRAMES, 2 * WINDOW_FRAMES]
    many = window_starts(1000 * WINDOW_FRAMES)
    assert len(many) == MAX_WINDOWS and many[0] == 0 and many[-1] == 999 * WINDOW_FRAMES


def test_short_and_empty_audio() -> None:
    assert np.isfinite(MusicnnRaw().embed([Audio(sound(0.01), 0.01)])).all()
    with pytest.raises(BadItem, match="no samples"):
        MusicnnRaw().embed([Audio(np.zeros(0, np.float32), 0.0)])


def test_the_checkpoint_holds_what_the_paper_counts() -> None:
    found = weights()
    # 204 timbral filters of 7 × 38 mel bands (0.4 of 96), 204 of 7 × 67 (0.7 of 96): section 2 of the paper.
    assert found["conv2d/kernel"].shape == (7, 38, 1, 204)
    assert found["conv2d_1/kernel"].shape == (7, 67, 1, 204)
    assert found["batch_normalization/gamma"].dtype == np.float32
    assert all(np.isfinite(value).all() for value in found.values())


def test_damaged_checkpoints_are_refused() -> None:
    index = package_file("musicnn", "MSD_musicnn/.index", musicnn.INDEX_SHA256).read_bytes()
    with pytest.raises(ModelError, match="not a TensorFlow checkpoint"):
        read_bundle(b"no", b"")
    with pytest.raises(ModelError, match="not a TensorFlow checkpoint"):
        read_bundle(index[:-1], b"")
    with pytest.raises(ModelError, match="damaged"):
        read_bundle(index, b"too few bytes")


def test_files_that_are_not_the_measured_ones_are_refused() -> None:
    with pytest.raises(ModelError, match="expected 0000"):
        package_file("musicnn", "MSD_musicnn/.index", "0000")
    with pytest.raises(ModelError, match="missing from the package"):
        package_file("musicnn", "MSD_musicnn/nothing", "0000")
    with pytest.raises(ModelError, match="not installed"):
        package_file("no_such_package", "x", "0000")
