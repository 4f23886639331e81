from __future__ import annotations

from typing import Any

import numpy as np
import pytest

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


def weights() -> dict[str, np.ndarray]:
    index = package_file("musicnn", "MSD_musicnn/.index", musicnn.INDEX_SHA256)
    data = package_file("musicnn", "MSD_musicnn/.data-00000-of-00001", musicnn.DATA_SHA256)
    return read_bundle(index.read_bytes(), data.read_bytes())


def plain_forward(samples: np.ndarray) -> np.ndarray:
    """The network as its paper draws it, on librosa's spectrogram: every layer by itself, nothing folded."""
    import librosa
    import torch
    from torch.nn import functional

    w = {name: torch.tensor(value) for name, value in weights().items()}

    def norm(x: Any, number: int, axis: int) -> Any:
        name = f"batch_normalization_{number}" if number else "batch_normalization"
        shape = [1] * x.ndim
        shape[axis] = -1
        gamma, beta, mean, variance = (
            w[f"{name}/{p}"].reshape(shape) for p in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return (x - mean) / torch.sqrt(variance + 1e-3) * gamma + beta

    def kernel(number: int) -> tuple[Any, Any]:
        name = f"conv2d_{number}" if number else "conv2d"
        return w[f"{name}/kernel"].permute(3, 2, 0, 1), w[f"{name}/bias"]

    mel = librosa.feature.melspectrogram(
        y=samples, sr=16_000, hop_length=256, n_fft=512, n_mels=96, pad_mode="constant"
    ).T
    mel = np.log10(10_000 * mel + 1)
    out = []
    for at in range(0, len(mel) // WINDOW_FRAMES * WINDOW_FRAMES, WINDOW_FRAMES):
        x = norm(torch.tensor(mel[at : at + WINDOW_FRAMES], dtype=torch.float32)[None, None], 0, 1)
        maps = []
        for number in range(5):
            weight, bias = kernel(number)
            rows = weight.shape[2] - 1
            heard = torch.relu(functional.conv2d(functional.pad(x, (0, 0, rows // 2, rows - rows // 2)), weight, bias))
            maps.append(norm(heard, number + 1, 1).amax(3))
        layers = [torch.cat(maps, 1)]
        for number in range(3):
            weight, bias = kernel(5 + number)
            padded = functional.pad(layers[-1].transpose(1, 2)[:, None], (0, 0, 3, 3))
            heard = norm(torch.relu(functional.conv2d(padded, weight, bias)), 6 + number, 1)[..., 0]
            layers.append(heard if number == 0 else heard + layers[-1])
        out.append(torch.cat(layers, 1).mean(2))
    return torch.cat(out).mean(0).numpy()


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
