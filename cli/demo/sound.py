"""Making the demo's sound: speech, music beds, episodes with spots at known places, and their encodings."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

RATE = 24_000  # Hz of everything synthesised
GAP_S = 0.4


def synthesiser() -> Callable[[str, str], np.ndarray] | None:
    """A function (text, voice) → mono float32 at `RATE` by flite or espeak-ng; None where neither is installed."""
    if shutil.which("flite"):
        return lambda text, voice: _spoken(["flite", "-voice", voice, "-t", text, "-o"])
    if shutil.which("espeak-ng"):
        variants = {"slt": "en+f3", "rms": "en+m3", "kal16": "en+m7", "awb": "en-gb"}
        return lambda text, voice: _spoken(["espeak-ng", "-v", variants.get(voice, "en"), text, "-w"])
    return None


def _spoken(command: list[str]) -> np.ndarray:
    import soundfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        subprocess.run([*command, str(path)], check=True, capture_output=True, timeout=120)
        samples, rate = soundfile.read(path, dtype="float32")
    return level(resample(samples, rate), -20.0)


def resample(samples: np.ndarray, rate: int) -> np.ndarray:
    import soxr

    mono = samples.mean(axis=1) if samples.ndim == 2 else samples
    return np.asarray(soxr.resample(mono, rate, RATE), np.float32)


def level(samples: np.ndarray, dbfs: float) -> np.ndarray:
    """Scaled to an RMS of so many dBFS, and kept from clipping."""
    rms = float(np.sqrt(np.mean(np.square(samples)))) or 1.0
    scaled = samples * (10 ** (dbfs / 20) / rms)
    return (scaled / max(1.0, float(np.abs(scaled).max()) / 0.95)).astype(np.float32)


def music(path: Path, seconds: float, dbfs: float = -22.0) -> np.ndarray:
    """The beginning of a track, faded in and out."""
    import soundfile

    samples, rate = soundfile.read(path, frames=int(48_000 * (seconds + 1)), dtype="float32")
    cut = level(resample(samples, rate)[: int(seconds * RATE)], dbfs)
    fade = min(len(cut) // 4, RATE)
    ramp = np.linspace(0, 1, fade, dtype=np.float32)
    cut[:fade] *= ramp
    cut[-fade:] *= ramp[::-1]
    return cut


def over(bed: np.ndarray, voice: np.ndarray, start_s: float) -> np.ndarray:
    """A voice over a music bed, which sinks by 12 dB beneath it."""
    start = int(start_s * RATE)
    mixed = np.zeros(max(len(bed), start + len(voice)), np.float32)
    mixed[: len(bed)] = bed
    mixed[start : start + len(voice)] *= 0.25
    mixed[start : start + len(voice)] += voice
    return mixed


@dataclass(frozen=True)
class Segment:
    """Where something that recurs lies in an episode."""

    start_s: float
    end_s: float
    kind: str
    motif: str


def join(pieces: list[tuple[np.ndarray, str | None, str | None]]) -> tuple[np.ndarray, list[Segment]]:
    """Pieces (samples, kind, motif) one after another with short gaps, and where the named ones came to lie."""
    gap = np.zeros(int(GAP_S * RATE), np.float32)
    out: list[np.ndarray] = []
    segments = []
    at = 0
    for samples, kind, motif in pieces:
        if kind and motif:
            segments.append(Segment(at / RATE, (at + len(samples)) / RATE, kind, motif))
        out += [samples, gap]
        at += len(samples) + len(gap)
    return np.concatenate(out), segments


def encode(samples: np.ndarray, path: Path) -> None:
    """Writes mono float32 at `RATE` in the format of the file name's ending."""
    if path.suffix in (".wav", ".flac", ".ogg", ".mp3"):
        import soundfile

        soundfile.write(
            path, samples, RATE, **({"format": "OGG", "subtype": "VORBIS"} if path.suffix == ".ogg" else {})
        )
        return
    import av

    codec, rate = ("libopus", 48_000) if path.suffix == ".opus" else ("aac", RATE)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=rate, layout="mono", bit_rate=64_000)
        resampler = av.AudioResampler(
            format=stream.format, layout="mono", rate=rate, frame_size=stream.frame_size or 960
        )
        frame = av.AudioFrame.from_ndarray(samples[None], format="flt", layout="mono")
        frame.sample_rate = RATE
        for chunk in [*resampler.resample(frame), *resampler.resample(None)]:
            for packet in stream.encode(chunk):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
