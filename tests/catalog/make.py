"""Media made on the spot: every format that a catalogue may hold, from one seeded signal."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import soundfile

RATE = 44_100
CODECS = {".mp3": "libmp3lame", ".m4a": "aac", ".aac": "aac", ".opus": "libopus"}


def signal(seconds: float, rate: int = RATE) -> np.ndarray:
    """Stereo float32, shape (n, 2): a rising chirp on the left, a tone in noise on the right."""
    t = np.arange(int(seconds * rate)) / rate
    noise = np.random.default_rng(7).standard_normal(len(t))
    left = 0.3 * np.sin(2 * np.pi * (200 * t + 1500 / seconds * t * t))
    return np.stack([left, 0.2 * np.sin(2 * np.pi * 440 * t) + 0.02 * noise], 1).astype(np.float32)


def write(path: Path, samples: np.ndarray, rate: int = RATE, **options: str) -> Path:
    """Encode float32 samples of shape (n, channels) in the format of the file's ending."""
    codec = CODECS.get(path.suffix)
    if codec is None:
        with soundfile.SoundFile(path, "w", rate, samples.shape[1], **options) as file:
            for at in range(0, len(samples), 4096):  # libsndfile's Vorbis writer overflows its stack on long writes
                file.write(samples[at : at + 4096])
        return path
    layout = "mono" if samples.shape[1] == 1 else "stereo"
    with av.open(str(path), "w", options=dict(options)) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        for at in range(0, len(samples), 4096):
            frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[at : at + 4096].T), "fltp", layout)
            frame.sample_rate, frame.pts, frame.time_base = rate, at, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def cut(path: Path, share: float) -> Path:
    """A copy that ends after `share` of the bytes."""
    target = path.with_name(f"cut-{path.name}")
    data = path.read_bytes()
    target.write_bytes(data[: int(len(data) * share)])
    return target
