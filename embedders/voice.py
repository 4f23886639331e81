"""Whose voice it is: vectors of what is spoken, by Resemblyzer's encoder (Wan et al., Generalized End-to-End Loss for
Speaker Verification, ICASSP 2018). Its weights come from the package `resemblyzer`, whose code is not used."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from core.weights import package_file
from embedders.device import resolve_device
from embedders.mel import mel_filters

WEIGHTS_SHA256 = "39373b86598fa3da9fcddee6142382efe09777e8d37dc9c0561f41f0070f134e"
VOICE_ID = f"resemblyzer-{WEIGHTS_SHA256[:8]}-1"
DIM = 256
SAMPLE_RATE = 16_000
WINDOW, HOP, BANDS = 400, 160, 40  # samples of a frame and between two, mel bands
FRAMES = 160  # of a partial, 1.6 s: what the encoder learnt from
STEP = 80  # frames between two partials
PASSAGE_S = 8.0  # speech that one vector is of, at most
LEAST_S = FRAMES * HOP / SAMPLE_RATE
LEVEL_DB = -30.0  # full scale, to which speech is brought: the encoder is not blind to loudness
BATCH = 64


class VoiceEncoder:
    """Vectors of 16 kHz speech. Loads its weights when first used."""

    model_id = VOICE_ID
    dim = DIM

    def __init__(self, device: str = "cpu") -> None:
        self._device, self._lock = device, threading.Lock()
        self._net: Any = None

    def passages(self, samples: np.ndarray, spoken: Sequence[tuple[float, float]]) -> tuple[np.ndarray, np.ndarray]:
        """Unit vectors, float32 (n, 256), of passages of up to `PASSAGE_S` within the stretches where somebody speaks,
        and their (start, end) in seconds, float64 (n, 2). `samples` is mono float32 at 16 kHz. Stretches under 1.6 s
        tell nothing and are left out."""
        spans = [span for start, end in spoken for span in _cut(start, min(end, len(samples) / SAMPLE_RATE))]
        made = [self._vector(samples[int(a * SAMPLE_RATE) : int(b * SAMPLE_RATE)]) for a, b in spans]
        held = [(vector, span) for vector, span in zip(made, spans, strict=True) if vector is not None]
        if not held:
            return np.empty((0, DIM), np.float32), np.empty((0, 2))
        return np.stack([vector for vector, _ in held]), np.array([span for _, span in held])

    def _vector(self, samples: np.ndarray) -> np.ndarray | None:
        """The normed mean of the partials' vectors; None of silence."""
        import torch

        level = float(np.sqrt(np.mean(np.square(samples, dtype=np.float64))))
        if level < 1e-6:
            return None
        mel = _mel(samples * (10 ** (LEVEL_DB / 20) / level))
        starts = range(0, max(len(mel) - FRAMES, 0) + 1, STEP)
        partials = np.stack([mel[at : at + FRAMES] for at in starts])
        net = self._loaded()
        with torch.inference_mode():
            found = [net(torch.from_numpy(partials[at : at + BATCH])) for at in range(0, len(partials), BATCH)]
        mean = torch.cat(found).mean(dim=0).cpu().numpy()
        return np.asarray(mean / np.linalg.norm(mean), np.float32)

    def _loaded(self) -> Any:
        with self._lock:
            if self._net is None:
                self._net = _net(resolve_device(self._device))
            return self._net


def _cut(start: float, end: float) -> list[tuple[float, float]]:
    """A stretch in passages of equal length."""
    if end - start < LEAST_S:
        return []
    edges = np.linspace(start, end, int(np.ceil((end - start) / PASSAGE_S)) + 1)
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))


def _mel(samples: np.ndarray) -> np.ndarray:
    """Power in mel bands, float32 (frames, 40); frames are centred on multiples of the hop, as the encoder learnt."""
    import torch

    spectrum = torch.stft(
        torch.from_numpy(np.ascontiguousarray(samples, np.float32)),
        WINDOW,
        HOP,
        window=torch.hann_window(WINDOW),
        center=True,
        pad_mode="constant",
        return_complex=True,
    )
    power = spectrum.abs().square().numpy()
    return np.ascontiguousarray((mel_filters(SAMPLE_RATE, WINDOW, BANDS) @ power).T)


def _net(device: str) -> Any:
    import torch

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(BANDS, DIM, 3, batch_first=True)
            self.linear = torch.nn.Linear(DIM, DIM)

        def forward(self, mels: Any) -> Any:
            _, (hidden, _) = self.lstm(mels.to(device))
            raw = torch.relu(self.linear(hidden[-1]))
            return raw / raw.norm(dim=1, keepdim=True)

    path = package_file("resemblyzer", "pretrained.pt", WEIGHTS_SHA256, "voices")
    held = torch.load(path, map_location="cpu", weights_only=True)["model_state"]
    net = Encoder()
    net.load_state_dict({name: held[name] for name in net.state_dict()})
    return net.to(device).eval()
