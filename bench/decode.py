"""Decoding a file to 16 kHz mono: ours (PyAV under limits) against the libraries that could have done it; and decoding
in a worker process, as every command does, against the same decoder in this process.

Also in CPU seconds: decoders that spread over cores gain nothing where items already run side by side.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from bench.frame import Benchmark, Row, alternate

RATE = 44_100
TARGET = 16_000
SECONDS, QUICK_SECONDS = 180, 20
CODECS = {"mp3": "libmp3lame", "m4a": "aac", "opus": "libopus"}
FORMATS = ("mp3", "m4a", "ogg", "opus", "flac", "wav")


def write(path: Path, seconds: int) -> Path:
    """Stereo at 44.1 kHz (Opus: 48 kHz) of seeded noise and tones."""
    import av
    import soundfile

    ending = path.suffix[1:]
    rate = 48_000 if ending == "opus" else RATE
    rng = np.random.default_rng(5)
    t = np.arange(seconds * rate) / rate
    left = 0.2 * np.sin(2 * np.pi * 330 * t) + 0.05 * rng.standard_normal(len(t))
    samples = np.stack([left, 0.7 * left + 0.02 * rng.standard_normal(len(t))], 1).astype(np.float32)
    if ending not in CODECS:
        with soundfile.SoundFile(path, "w", rate, 2) as file:
            for at in range(0, len(samples), 4096):  # libsndfile's Vorbis writer overflows its stack on long writes
                file.write(samples[at : at + 4096])
        return path
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(CODECS[ending], rate=rate, layout="stereo")
        for at in range(0, len(samples), 4096):
            planes = np.ascontiguousarray(samples[at : at + 4096].T)
            frame = av.AudioFrame.from_ndarray(planes, "fltp", "stereo")
            frame.sample_rate, frame.pts, frame.time_base = rate, at, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def ours(path: Path) -> np.ndarray:
    from catalog.audio import decode_audio

    return decode_audio(path).samples


def with_soundfile(path: Path) -> np.ndarray:
    import soundfile
    import soxr

    samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return np.asarray(soxr.resample(samples.mean(axis=1), rate, TARGET))


def with_torchcodec(path: Path) -> np.ndarray:
    from torchcodec.decoders import AudioDecoder

    decoder = AudioDecoder(str(path), sample_rate=TARGET, num_channels=1)
    return np.asarray(decoder.get_all_samples().data[0].numpy())


def usable(decode: Callable[[Path], np.ndarray], path: Path) -> bool:
    """Whether a library reads the file at all (soundfile has no AAC, torchcodec wants the system's FFmpeg)."""
    try:
        return len(decode(path)) > 0
    except Exception:
        return False


def isolation(folder: Path, rounds: int) -> list[Row]:
    """CPU seconds with every living process: of the decoded samples' way to this process, and of a worker's start."""
    from catalog import audio, isolated
    from enrichers.loudness import LoudnessMeter

    paths = [folder / f"sound.{ending}" for ending in FORMATS]

    def decode_all(decode: Callable[..., Any]) -> None:
        for path in paths:
            # Every sample is read, as the models do: shared memory is mapped when it is touched.
            decode(path, listeners=[LoudnessMeter()]).samples.sum()

    def restart() -> None:
        isolated.close()
        isolated.media_hash(paths[-1])

    found = alternate(
        {"ours": lambda: decode_all(isolated.decode_audio), "limit": lambda: decode_all(audio.decode_audio)}, rounds
    )
    started = alternate({"ours": restart, "warm": lambda: isolated.media_hash(paths[-1])}, rounds)
    limit = "the same in this process"
    note = f"{len(paths)} files with the loudness meter"
    return [
        Row("isolation", found["ours"], None, found["limit"], "CPU s", "", limit, note=note),
        Row("isolation start", max(0.0, started["ours"] - started["warm"]), None, None, "CPU s", note="one worker"),
    ]


def run(quick: bool) -> list[Row]:
    seconds = QUICK_SECONDS if quick else SECONDS
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for ending in FORMATS:
            path = write(Path(folder) / f"sound.{ending}", seconds)
            sides: dict[str, Callable[[], Any]] = {"ours": lambda path=path: ours(path)}  # type: ignore[misc]
            for name, decode in (("soundfile", with_soundfile), ("torchcodec", with_torchcodec)):
                if usable(decode, path):
                    sides[name] = lambda path=path, decode=decode: decode(path)  # type: ignore[misc]
            spent = alternate(sides, 3 if quick else 7)
            speed = {name: seconds / 3600 / cpu for name, cpu in spent.items()}
            rows.append(
                Row(
                    f"decode {ending}",
                    speed["ours"],
                    speed.get("soundfile"),
                    speed.get("torchcodec"),
                    "hours of audio a CPU s",
                    "soundfile + soxr" if "soundfile" in speed else "",
                    "torchcodec" if "torchcodec" in speed else "",
                    higher_is_better=True,
                )
            )
        rows += isolation(Path(folder), 3 if quick else 7)
    return rows


BENCHMARK = Benchmark("decode", "audio files to 16 kHz mono, by format and library, and what isolation costs", run)
