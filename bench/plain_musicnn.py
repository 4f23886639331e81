"""musicnn layer by layer on librosa's spectrogram, as its own package computes it, without TensorFlow: the peer of
`embedders.musicnn`, and the second implementation that its test compares with."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from core.weights import package_file
from embedders import musicnn
from embedders.musicnn import WINDOW_FRAMES
from embedders.tf_bundle import read_bundle


@cache
def weights() -> dict[str, np.ndarray]:
    index = package_file("musicnn", "MSD_musicnn/.index", musicnn.INDEX_SHA256)
    data = package_file("musicnn", "MSD_musicnn/.data-00000-of-00001", musicnn.DATA_SHA256)
    return read_bundle(index.read_bytes(), data.read_bytes())


def plain_forward(samples: np.ndarray) -> np.ndarray:
    """The network as its paper draws it: every layer by itself, nothing folded. float32 (753,) of whole windows."""
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
