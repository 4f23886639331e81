"""Channels, changes on the way and joined files, compared with what ffmpeg itself decodes."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile

from catalog import isolated
from catalog.audio import decode_audio
from catalog.limits import Limits
from catalog.links import links
from catalog.media import SAMPLE_RATE
from core.errors import BadItem
from enrichers.loudness import LoudnessMeter


def ffmpeg(*arguments: str | Path) -> None:
    subprocess.run(["ffmpeg", "-v", "error", "-y", *map(str, arguments)], check=True, capture_output=True)


def tone(path: Path, seconds: float, rate: int, channels: int, *codec: str, hz: int = 300) -> Path:
    ffmpeg("-f", "lavfi", "-i", f"sine=f={hz}:d={seconds}:r={rate}", "-ac", str(channels), *codec, path)
    return path


def ffmpeg_seconds(path: Path) -> float:
    command = ["ffmpeg", "-v", "error", "-i", str(path), "-ac", "1", "-ar", "16000", "-f", "f32le", "-"]
    return len(subprocess.run(command, capture_output=True, check=False).stdout) / 4 / 16_000


def joined(path: Path, *parts: Path) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


class Ear:
    """Keeps what a listener receives."""

    name = "ear"

    def __init__(self) -> None:
        self.starts: list[tuple[int, int]] = []
        self.blocks: list[np.ndarray] = []

    def start(self, sample_rate: int, channels: int) -> None:
        self.starts.append((sample_rate, channels))

    def hear(self, block: np.ndarray) -> None:
        self.blocks.append(block)

    @property
    def samples(self) -> np.ndarray:
        return np.concatenate(self.blocks)


# AAC, Opus, Vorbis, ALAC and WavPack decode to a plane per channel; eight of them fill FFmpeg's own array of planes.
@pytest.mark.parametrize(
    ("codec", "suffix"),
    [
        (["-c:a", "aac"], ".m4a"),
        (["-c:a", "aac"], ".aac"),
        (["-c:a", "libopus"], ".opus"),
        (["-c:a", "libopus", "-mapping_family", "255"], ".opus"),
        (["-c:a", "libvorbis"], ".ogg"),
        (["-c:a", "flac"], ".flac"),
        (["-c:a", "alac"], ".m4a"),
        (["-c:a", "wavpack"], ".mka"),
        (["-c:a", "pcm_s16le"], ".wav"),
        (["-c:a", "pcm_s64le"], ".mka"),
        (["-c:a", "pcm_f64le"], ".wav"),
    ],
)
def test_eight_channels_of_every_codec(tmp_path: Path, codec: Sequence[str], suffix: str) -> None:
    path = tone(tmp_path / f"x{suffix}", 0.3, 48_000, 8, *codec)
    ear = Ear()
    audio = decode_audio(path, listeners=[ear])
    assert audio.duration_s == pytest.approx(ffmpeg_seconds(path), abs=0.03)
    assert (audio.source_channels, ear.starts) == (8, [(48_000, 8)])
    assert ear.samples.shape == (round(audio.duration_s * 48_000), 8)
    assert 0.001 < np.abs(audio.samples).max() < 1


@pytest.mark.parametrize(("codec", "suffix", "channels"), [("pcm_s16be", ".aiff", 8), ("pcm_s24le", ".mov", 7)])
def test_channels_in_an_order_of_the_containers_own(tmp_path: Path, codec: str, suffix: str, channels: int) -> None:
    path = tone(tmp_path / f"x{suffix}", 0.3, 48_000, channels, "-c:a", codec)
    audio = isolated.decode_audio(path)  # PyAV frees such a list of channels twice, which would end this process
    assert (audio.source_channels, audio.duration_s) == (channels, pytest.approx(0.3, abs=0.001))
    assert 0.001 < np.abs(audio.samples).max() < 1


@pytest.mark.parametrize("channels", [3, 5, 6, 7, 8])
def test_channels_keep_their_samples(tmp_path: Path, channels: int) -> None:
    rng = np.random.default_rng(3)
    wanted = rng.integers(-(2**15), 2**15, (5000, channels)).astype(np.int16)
    soundfile.write(tmp_path / "x.flac", wanted, 48_000)
    ear = Ear()
    decode_audio(tmp_path / "x.flac", listeners=[ear])
    np.testing.assert_array_equal(ear.samples, wanted.astype(np.float32) / 2**15)


@pytest.mark.parametrize(
    ("codec", "suffix"), [(["-c:a", "pcm_s16le"], ".wav"), (["-c:a", "libopus", "-mapping_family", "255"], ".opus")]
)
def test_sixteen_channels(tmp_path: Path, codec: Sequence[str], suffix: str) -> None:
    path, layout = tmp_path / f"x{suffix}", "hexadecagonal"
    ffmpeg("-f", "lavfi", "-i", f"aevalsrc={'|'.join(['sin(900*t)/3'] * 16)}:c={layout}:d=0.2:s=48000", *codec, path)
    with pytest.raises(BadItem) as caught:
        decode_audio(path)
    assert caught.value.reason == "too_many_channels"
    audio = decode_audio(path, Limits(max_channels=16))
    assert (audio.source_channels, audio.duration_s) == (16, pytest.approx(0.2, abs=0.01))


@pytest.mark.parametrize("order", [(0, 1), (1, 0), pytest.param((0, 1, 0, 1), marks=pytest.mark.exhaustive)])
@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        (".mp3", ["-c:a", "libmp3lame"]),
        (".aac", ["-c:a", "aac"]),
        (".ogg", ["-c:a", "libvorbis"]),
        (".oga", ["-c:a", "flac", "-f", "ogg"]),
        (".flac", ["-c:a", "flac"]),
        (".opus", ["-c:a", "libopus"]),
    ],
)
def test_joined_files_are_decoded_whole(
    tmp_path: Path, suffix: str, codec: Sequence[str], order: Sequence[int]
) -> None:
    rates = (48_000, 48_000) if suffix == ".opus" else (44_100, 48_000)
    stereo = tone(tmp_path / f"a{suffix}", 1.2, rates[0], 2, *codec)
    mono = tone(tmp_path / f"b{suffix}", 0.8, rates[1], 1, *codec)
    path = joined(tmp_path / f"both{suffix}", *((stereo, mono)[n] for n in order))
    alone = sum(ffmpeg_seconds((stereo, mono)[n]) for n in order)
    ear = Ear()
    audio = decode_audio(path, listeners=[ear])
    assert audio.duration_s == pytest.approx(alone, abs=0.08 * len(order))
    assert len(audio.samples) == pytest.approx(audio.duration_s * SAMPLE_RATE, abs=4)
    # Listeners receive one stream, at the rate and channels of the beginning, that lasts as long.
    ((rate, channels),) = ear.starts
    assert (rate, channels) == [(rates[0], 2), (rates[1], 1)][order[0]]
    assert len(ear.samples) / rate == pytest.approx(audio.duration_s, abs=0.05)
    # The tone goes on through every part: silence or noise would have another frequency.
    for part in np.array_split(audio.samples, 8)[1:-1]:
        middle = part[len(part) // 4 : -len(part) // 4]
        spectrum = np.abs(np.fft.rfft(middle * np.hanning(len(middle)), 16_000))
        assert 290 < int(np.argmax(spectrum)) < 310


def test_ffmpeg_decodes_as_many_seconds_of_joined_mp3s_and_aac(tmp_path: Path) -> None:
    for suffix, codec in ((".mp3", "libmp3lame"), (".aac", "aac")):
        parts = [
            tone(tmp_path / f"{n}{suffix}", 1.0, r, c, "-c:a", codec) for n, r, c in ((1, 44_100, 2), (2, 22_050, 1))
        ]
        path = joined(tmp_path / f"x{suffix}", *parts)
        assert decode_audio(path).duration_s == pytest.approx(ffmpeg_seconds(path), abs=0.06)


def test_links_of_other_codecs(tmp_path: Path) -> None:
    parts = [
        tone(tmp_path / "a.ogg", 0.5, 44_100, 2, "-c:a", "libvorbis"),
        tone(tmp_path / "b.opus", 0.5, 48_000, 1, "-c:a", "libopus"),
        tone(tmp_path / "c.oga", 0.5, 22_050, 1, "-c:a", "flac", "-f", "ogg"),
    ]
    path = joined(tmp_path / "x.ogg", *parts)
    sizes = np.cumsum([0, *(part.stat().st_size for part in parts)]).tolist()
    assert links(path) == list(zip(sizes[:-1], sizes[1:], strict=True))
    assert decode_audio(path).duration_s == pytest.approx(1.5, abs=0.02)


def test_a_link_that_is_cut_is_truncated(tmp_path: Path) -> None:
    whole = tone(tmp_path / "a.ogg", 1.0, 44_100, 2, "-c:a", "libvorbis")
    other = tone(tmp_path / "b.ogg", 3.0, 44_100, 1, "-c:a", "libvorbis")
    path = joined(tmp_path / "x.ogg", whole, other)
    path.write_bytes(path.read_bytes()[: whole.stat().st_size + other.stat().st_size * 2 // 3])
    with pytest.raises(BadItem) as caught:
        decode_audio(path)
    assert caught.value.reason == "truncated"
    audio = decode_audio(path, accept_truncated=True)
    assert audio.truncated and 1.5 < audio.duration_s < 3.5


def test_a_link_whose_first_page_is_damaged_is_no_shorter_file(tmp_path: Path) -> None:
    parts = [tone(tmp_path / f"{n}.ogg", 1.0, 44_100, 1, "-c:a", "libvorbis", hz=200 + n) for n in range(3)]
    path = joined(tmp_path / "x.ogg", *parts)
    data = bytearray(path.read_bytes())
    at = parts[0].stat().st_size
    data[at : at + 4] = b"XXXX"
    path.write_bytes(data)
    with pytest.raises(BadItem, match="a stream whose beginning is damaged") as caught:
        decode_audio(path)
    assert caught.value.reason == "decode_failed"


def test_loudness_of_a_stream_that_changes(tmp_path: Path) -> None:
    """A mono part between stereo parts is as loud as FFmpeg's own conversion of it to stereo."""
    parts = [tone(tmp_path / f"{c}.flac", 4.0, rate, c) for c, rate in ((2, 44_100), (1, 48_000))]
    path = joined(tmp_path / "x.flac", *parts)
    tone(tmp_path / "plain.wav", 8.0, 44_100, 1, "-ac", "2")
    meters = [LoudnessMeter(), LoudnessMeter()]
    decode_audio(path, listeners=[meters[0]])
    decode_audio(tmp_path / "plain.wav", listeners=[meters[1]])
    found, wanted = (meter.figures()["loudness_lufs"] for meter in meters)
    assert found == pytest.approx(wanted, abs=0.05)


def test_channels_that_cancel_in_one_part(tmp_path: Path) -> None:
    sound = (0.4 * np.sin(np.arange(48_000) * 0.05)).astype(np.float32)
    soundfile.write(tmp_path / "a.flac", np.stack([sound, -sound], axis=1), 48_000)
    soundfile.write(tmp_path / "b.flac", sound, 48_000)
    path = joined(tmp_path / "x.flac", tmp_path / "a.flac", tmp_path / "b.flac")
    audio = decode_audio(path)
    halves = np.array_split(audio.samples, 2)
    assert [float(np.sqrt(np.mean(half**2))) for half in halves] == [pytest.approx(0.283, abs=0.01)] * 2


def test_looking_for_links_is_progress(tmp_path: Path) -> None:
    """A large file on a slow disk is no decoder that hangs."""
    path, calls = tmp_path / "x.ogg", list[int]()
    path.write_bytes(b"OggS" + bytes(13 << 20))
    assert links(path, lambda: calls.append(1)) == [(0, path.stat().st_size)]
    assert len(calls) == 4
