"""What happens to a spot between two of its occurrences, and how an episode becomes a file. Pure functions of mono
float32 at `RATE`; an effect that changes the length says so by what it returns."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.signal

from bench.sources import RATE

PERTURBATIONS = ("gain", "fade", "voiceover", "speed", "tempo", "eq", "noise10", "noise20")


@dataclass(frozen=True)
class Coding:
    """How an episode is encoded; `name` tells it in results."""

    name: str
    suffix: str
    codec: str
    rate: int
    stereo: bool
    bit_rate: int = 0


CODINGS = (
    Coding("mp3-128k", ".mp3", "libmp3lame", 44_100, True, 128_000),
    Coding("opus-32k", ".opus", "libopus", 48_000, False, 32_000),
    Coding("mp3-32k", ".mp3", "libmp3lame", 24_000, False, 32_000),
    Coding("flac", ".flac", "flac", 44_100, False),
    Coding("opus-16k", ".opus", "libopus", 48_000, False, 16_000),
    Coding("mp3-64k", ".mp3", "libmp3lame", 22_050, True, 64_000),
    Coding("wav", ".wav", "pcm_s16le", 16_000, False),
    Coding("opus-64k", ".opus", "libopus", 48_000, True, 64_000),
    Coding("mp3-96k", ".mp3", "libmp3lame", 48_000, True, 96_000),
)


def gain(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """±2 to ±6 dB."""
    return (samples * 10 ** (rng.choice([-1, 1]) * rng.uniform(2, 6) / 20)).astype(np.float32)


def fade(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A linear fade in, out or both, of 0.5–2 s and at most a quarter of the spot."""
    faded = samples.copy()
    which = int(rng.integers(1, 4))
    for side, piece in ((1, faded), (2, faded[::-1])):
        count = min(int(rng.uniform(0.5, 2.0) * RATE), len(samples) // 4)
        if which & side:
            piece[:count] *= np.linspace(0, 1, count, dtype=np.float32)
    return faded


def voiceover(samples: np.ndarray, voice: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Speech over 25–60 % of the spot, within ±3 dB of what it covers."""
    count = min(len(voice), int(rng.uniform(0.25, 0.6) * len(samples)))
    start = int(rng.integers(len(samples) - count + 1))
    part = samples[start : start + count]
    over = voice[:count].copy()
    ramp = min(RATE // 20, count // 2)
    over[-ramp:] *= np.linspace(1, 0, ramp, dtype=np.float32)
    factor = 10 ** (rng.uniform(-3, 3) / 20) * _rms(part) / (_rms(over) or 1.0)
    mixed = samples.copy()
    mixed[start : start + count] += over * np.float32(factor)
    return mixed


def speed(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Played up to 2 % faster or slower, pitch and all."""
    import soxr

    return np.asarray(soxr.resample(samples, RATE * _rate(rng), RATE, quality="HQ"), np.float32)


def tempo(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Up to 2 % faster or slower at the same pitch (FFmpeg's atempo)."""
    import av

    graph = av.filter.Graph()
    source = graph.add_abuffer(sample_rate=RATE, format="flt", layout="mono")
    stretch, sink = graph.add("atempo", f"{_rate(rng):.5f}"), graph.add("abuffersink")
    source.link_to(stretch)
    stretch.link_to(sink)
    graph.configure()
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="flt", layout="mono")
    frame.sample_rate, frame.pts = RATE, 0
    graph.push(frame)
    graph.push(None)
    out = []
    while True:
        try:
            out.append(graph.pull().to_ndarray().reshape(-1))  # type: ignore[union-attr]
        except (av.error.EOFError, av.error.BlockingIOError):
            return np.concatenate(out)


def _rate(rng: np.random.Generator) -> float:
    return float(1 + rng.choice([-1, 1]) * rng.uniform(0.005, 0.02))


def eq(samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A low and a high shelf of ±3 to ±8 dB (the Audio EQ Cookbook's, slope 1)."""
    for pole, centre in (("low", rng.uniform(150, 400)), ("high", rng.uniform(1_500, 4_000))):
        b, a = _shelf(pole, float(centre), float(rng.choice([-1, 1]) * rng.uniform(3, 8)))
        samples = scipy.signal.lfilter(b, a, samples).astype(np.float32)
    return samples


def _shelf(kind: str, centre: float, gain_db: float) -> tuple[np.ndarray, np.ndarray]:
    amp, w = 10 ** (gain_db / 40), 2 * np.pi * centre / RATE
    cos, alpha = np.cos(w), np.sin(w) / np.sqrt(2)
    sign = 1.0 if kind == "low" else -1.0
    root = 2 * np.sqrt(amp) * alpha
    b = [
        amp * (amp + 1 - sign * (amp - 1) * cos + root),
        sign * 2 * amp * (amp - 1 - sign * (amp + 1) * cos),
        amp * (amp + 1 - sign * (amp - 1) * cos - root),
    ]
    a = [
        amp + 1 + sign * (amp - 1) * cos + root,
        -sign * 2 * (amp - 1 + sign * (amp + 1) * cos),
        amp + 1 + sign * (amp - 1) * cos - root,
    ]
    return np.array(b) / a[0], np.array(a) / a[0]


def noise(length: int, rng: np.random.Generator) -> np.ndarray:
    """Pink-like noise (3 dB an octave, Kellet's three poles) at an RMS of 1."""
    white = rng.standard_normal(length).astype(np.float32)
    b, a = [0.049922035, -0.095993537, 0.050612699, -0.004408786], [1, -2.494956002, 2.017265875, -0.522189400]
    pink = scipy.signal.lfilter(b, a, white).astype(np.float32)
    return pink / np.float32(_rms(pink) or 1.0)


def add_noise(
    episode: np.ndarray, start: int, end: int, snr_db: float, limits: tuple[int, int], rng: np.random.Generator
) -> None:
    """Noise at `snr_db` under samples [start, end) of `episode`, in place, reaching 2–6 s beyond on either side (but
    not beyond `limits`) and rising over half a second, so that it does not tell where the spot begins."""
    first = max(limits[0], start - int(rng.uniform(2, 6) * RATE))
    last = min(limits[1], end + int(rng.uniform(2, 6) * RATE))
    sound = noise(last - first, rng) * np.float32(_rms(episode[start:end]) * 10 ** (-snr_db / 20))
    ramp = min(RATE // 2, len(sound) // 4)
    sound[:ramp] *= np.linspace(0, 1, ramp, dtype=np.float32)
    sound[-ramp:] *= np.linspace(1, 0, ramp, dtype=np.float32)
    episode[first:last] += sound


def _rms(samples: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) if len(samples) else 0.0


def encode(samples: np.ndarray, path: Path, coding: Coding) -> None:
    """Writes mono float32 at `RATE` through FFmpeg's encoders, whose files state their delay, so that a decoder gives
    back the same instants. Stereo has a side signal that cancels in the mix to mono."""
    import av
    import soxr

    at_rate = np.asarray(soxr.resample(samples, RATE, coding.rate), np.float32)
    layout = "stereo" if coding.stereo else "mono"
    if coding.stereo:
        late = coding.rate // 90
        side = np.concatenate([np.zeros(late, np.float32), at_rate[:-late]]) * np.float32(0.2)
        channels = np.stack([at_rate + side, at_rate - side])
    else:
        channels = at_rate[None]
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        stream: Any = container.add_stream(coding.codec, rate=coding.rate, layout=layout)
        if coding.bit_rate:
            stream.bit_rate = coding.bit_rate
        wanted = {"libmp3lame": "fltp", "libopus": "flt", "flac": "s16", "pcm_s16le": "s16"}[coding.codec]
        if coding.codec in ("libmp3lame", "libopus"):  # less of the encoder's effort, half of its time
            stream.codec_context.options = {"compression_level": "7" if coding.codec == "libmp3lame" else "3"}
        stream.codec_context.format = wanted
        resampler = av.AudioResampler(format=wanted, layout=layout, rate=coding.rate)
        for start in range(0, channels.shape[1], 1 << 20):
            block = np.ascontiguousarray(np.clip(channels[:, start : start + (1 << 20)], -1, 1))
            frame = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
            frame.sample_rate, frame.pts = coding.rate, start
            for chunk in resampler.resample(frame):
                container.mux(stream.encode(chunk))
        for chunk in resampler.resample(None):
            container.mux(stream.encode(chunk))
        container.mux(stream.encode(None))
