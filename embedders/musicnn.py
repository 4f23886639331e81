"""The MSD_musicnn network (Pons and Serra, "musicnn: Pre-trained convolutional neural networks for music audio
tagging", 2019) on torch, with the weights of the package `musicnn` read without TensorFlow."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from catalog.media import SAMPLE_RATE, Audio
from core.errors import BadItem
from core.weights import package_file
from embedders.device import resolve_device
from embedders.mel import mel_filters
from embedders.tf_bundle import read_bundle

INDEX_SHA256 = "87f3e0f3550c8d3bafc840374003e5c8af5eeb5ecf6add61af09a7822d3282c8"
DATA_SHA256 = "8579734ee6388f799ed0def4bbd0d1fdcbeaf213ef2a9dc860917bd76a303de6"

HOP = 256  # samples
N_FFT = 512
N_MELS = 96
WINDOW_FRAMES = 187  # 3 s at 16 kHz, what the network was trained on
MAX_WINDOWS = 32  # a content's windows: an hour costs what 96 s cost
BATCH_WINDOWS = 8  # fits the caches of a core; a GPU takes all windows at once
BN_EPSILON = 1e-3  # TensorFlow's default, which the network was trained with
DIM = 753


def window_starts(frames: int) -> np.ndarray:
    """First frames of the windows: one after another, or `MAX_WINDOWS` evenly spread where there would be more."""
    count = max(1, frames // WINDOW_FRAMES)
    if count <= MAX_WINDOWS:
        return np.arange(count) * WINDOW_FRAMES
    return np.linspace(0, frames - WINDOW_FRAMES, MAX_WINDOWS).astype(np.int64)


class MusicnnRaw:
    """Audio → the time-mean of every feature map under the pooling layer, averaged over windows of 3 s.

    float32, 753 dimensions, not normalised: `embedders.standardise` makes unit-norm embeddings of them.
    """

    modality = "audio"
    model_id = f"musicnn-msd-{DATA_SHA256[:8]}-mean{DIM}-w{WINDOW_FRAMES}-max{MAX_WINDOWS}-v1"
    dim = DIM

    def __init__(self, device: str = "cpu") -> None:
        self.device = device
        self._network: _Network | None = None
        self._lock = threading.Lock()

    def embed(self, batch: Sequence[Audio]) -> np.ndarray:
        """float32 (len(batch), 753). Raises `BadItem` for audio without samples."""
        with self._lock:
            if self._network is None:
                self._network = _Network(resolve_device(self.device))
        out = np.empty((len(batch), DIM), np.float32)
        for row, audio in enumerate(batch):
            if not len(audio.samples):
                raise BadItem("empty_audio", "there are no samples to embed")
            out[row] = self._network.pooled(audio.samples)
        return out


class _Network:
    """The weights, folded where that is exact, and the forward pass up to the pooling layer."""

    def __init__(self, device: str) -> None:
        import torch

        self.torch = torch
        self.device = device
        index = package_file("musicnn", "MSD_musicnn/.index", INDEX_SHA256)
        data = package_file("musicnn", "MSD_musicnn/.data-00000-of-00001", DATA_SHA256)
        self._weights = read_bundle(index.read_bytes(), data.read_bytes())
        self.filters = self._tensor(mel_filters(SAMPLE_RATE, N_FFT, N_MELS).T)
        self.hann = torch.hann_window(N_FFT, device=device)
        self.input_scale, self.input_shift = (v.item() for v in self._norm(0))
        self.timbre = [self._conv(n) for n in (0, 1)]
        self.tempo = [self._conv(n) for n in (2, 3, 4)]
        self.middle = [self._conv(n) for n in (5, 6, 7)]
        self.norms = [tuple(self._tensor(v) for v in self._norm(n)) for n in range(1, 9)]
        self._weights = {}

    def _tensor(self, array: np.ndarray) -> Any:
        return self.torch.tensor(np.ascontiguousarray(array, np.float32), device=self.device)

    def _norm(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """A batch normalisation as scale and shift."""
        name = f"batch_normalization_{number}" if number else "batch_normalization"
        gamma, beta, mean, variance = (
            self._weights[f"{name}/{part}"].astype(np.float64)
            for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        scale = gamma / np.sqrt(variance + BN_EPSILON)
        return scale, beta - mean * scale

    def _conv(self, number: int) -> tuple[Any, Any]:
        """Kernel as (out, in, time, frequency) and bias."""
        name = f"conv2d_{number}" if number else "conv2d"
        kernel = self._weights[f"{name}/kernel"].transpose(3, 2, 0, 1)
        return self._tensor(kernel), self._tensor(self._weights[f"{name}/bias"])

    def mel(self, samples: np.ndarray) -> Any:
        """log10(1 + 10000 · mel power) of the windows, (windows, WINDOW_FRAMES, N_MELS); only they are transformed."""
        torch = self.torch
        frames = 1 + len(samples) // HOP
        span = (WINDOW_FRAMES - 1) * HOP + N_FFT
        starts = window_starts(frames)
        # Frame f is centred on sample f · HOP, with silence beyond both ends.
        need = int(starts[-1]) * HOP + span
        padded = np.zeros(max(need, len(samples) + N_FFT), np.float32)
        padded[N_FFT // 2 : N_FFT // 2 + len(samples)] = samples
        windows = torch.from_numpy(np.stack([padded[s * HOP : s * HOP + span] for s in starts])).to(self.device)
        power = torch.stft(windows, N_FFT, HOP, window=self.hann, center=False, return_complex=True).abs().square()
        return torch.log10(10_000 * (power.transpose(1, 2) @ self.filters) + 1)

    def pooled(self, samples: np.ndarray) -> np.ndarray:
        torch = self.torch
        with torch.inference_mode():
            mel = self.mel(samples)
            step = len(mel) if self.device != "cpu" else BATCH_WINDOWS
            means = torch.cat([self._forward(mel[at : at + step]) for at in range(0, len(mel), step)])
            return means.mean(0).cpu().numpy()

    def _forward(self, mel: Any) -> Any:
        """(windows, time, mel) → (windows, 753): the mean over time of the maps that the network pools."""
        torch, functional = self.torch, self.torch.nn.functional
        x = (mel * self.input_scale + self.input_shift)[:, None]
        maps = []
        for (kernel, bias), norm in zip(self.timbre, self.norms[:2], strict=True):
            maps.append(self._peak(functional.conv2d(x, kernel, bias, padding=(3, 0)), norm))
        for (kernel, bias), norm in zip(self.tempo, self.norms[2:5], strict=True):
            taps = kernel.shape[2] - 1
            # These kernels see one mel band at a time: a batch of one-dimensional convolutions over time.
            bands = functional.pad(x[:, 0].transpose(1, 2).reshape(-1, 1, x.shape[2]), (taps // 2, taps - taps // 2))
            heard = functional.conv1d(bands, kernel[:, :, :, 0], bias)
            heard = heard.reshape(len(x), x.shape[3], heard.shape[1], heard.shape[2]).permute(0, 2, 3, 1)
            maps.append(self._peak(heard, norm))
        front = torch.cat(maps, 1)
        first = self._middle(front, 0)
        second = self._middle(first, 1) + first
        third = self._middle(second, 2) + second
        return torch.cat([front, first, second, third], 1).mean(2)

    def _peak(self, heard: Any, norm: Any) -> Any:
        """The maximum over frequency of the normalised rectified maps, normalised after instead of before: a falling
        normalisation takes its maximum from the minimum."""
        scale, shift = (part[None, :, None] for part in norm)
        relu = self.torch.relu
        high, low = relu(heard.amax(3)), relu(heard.amin(3))
        return self.torch.where(scale >= 0, high, low) * scale + shift

    def _middle(self, x: Any, number: int) -> Any:
        kernel, bias = self.middle[number]
        heard = self.torch.nn.functional.conv1d(x, kernel[:, 0].transpose(1, 2), bias, padding=3)
        scale, shift = (part[None, :, None] for part in self.norms[5 + number])
        return self.torch.relu(heard) * scale + shift
