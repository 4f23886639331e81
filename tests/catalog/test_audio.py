from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from catalog.audio import decode_audio
from catalog.limits import Limits
from catalog.media import SAMPLE_RATE
from cli.demo.sound import RATE, encode
from core.errors import BadItem

FORMATS = (".mp3", ".m4a", ".ogg", ".opus", ".flac", ".wav")


def chirp(seconds: float) -> np.ndarray:
    t = np.arange(int(seconds * RATE)) / RATE
    return (0.4 * np.sin(2 * np.pi * (200 + 300 * t) * t)).astype(np.float32)


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format_sounds_as_it_was(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    encode(chirp(3.0), path)
    audio = decode_audio(path)
    assert audio.duration_s == pytest.approx(3.0, abs=0.15)
    assert audio.samples.dtype == np.float32 and audio.samples.ndim == 1
    import soxr

    wanted = soxr.resample(chirp(3.0), RATE, SAMPLE_RATE)
    # Codecs delay by some milliseconds: the best alignment must be nearly the same signal.
    n = min(len(wanted), len(audio.samples)) - 4000
    spectrum = np.fft.rfft(audio.samples[: n + 4000], 2 * n + 8000) * np.conj(np.fft.rfft(wanted[:n], 2 * n + 8000))
    lag = int(np.argmax(np.fft.irfft(spectrum)[:4000]))
    assert np.corrcoef(audio.samples[lag : lag + n], wanted[:n])[0, 1] > 0.98


@pytest.mark.parametrize("suffix", [".mp3", ".m4a", ".flac", ".wav"])
def test_a_file_cut_at_sixty_percent_is_truncated(tmp_path: Path, suffix: str) -> None:
    whole, cut = tmp_path / f"whole{suffix}", tmp_path / f"cut{suffix}"
    encode(chirp(6.0), whole)
    data = whole.read_bytes()
    cut.write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(BadItem) as caught:
        decode_audio(cut)
    assert caught.value.reason in ("truncated", "not_audio")  # an MP4 without its index at the end is no longer one


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "empty_file"), (b"just words, no sound\n" * 50, "not_audio"), (b"\x00" * 5000, "not_audio")],
)
def test_what_is_no_audio(tmp_path: Path, data: bytes, reason: str) -> None:
    path = tmp_path / "x.wav"
    path.write_bytes(data)
    with pytest.raises(BadItem) as caught:
        decode_audio(path)
    assert caught.value.reason == reason


def test_nan_and_infinity(tmp_path: Path) -> None:
    samples = chirp(1.0)
    for value in (np.nan, np.inf):
        samples[1234] = value
        soundfile.write(tmp_path / "x.wav", samples, RATE, subtype="FLOAT")
        with pytest.raises(BadItem, match="0.051 s") as caught:
            decode_audio(tmp_path / "x.wav")
        assert caught.value.reason == "non_finite_samples"


def test_limits(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "long.flac", np.zeros(11 * 8000, np.float32), 8000)
    with pytest.raises(BadItem) as caught:
        decode_audio(tmp_path / "long.flac", Limits(max_audio_s=10))
    assert caught.value.reason == "too_long"
    soundfile.write(tmp_path / "wide.wav", np.zeros((800, 4), np.float32), 8000)
    with pytest.raises(BadItem) as caught:
        decode_audio(tmp_path / "wide.wav", Limits(max_channels=2))
    assert caught.value.reason == "too_many_channels"


def test_ten_hours_of_silence_are_refused_unheard(tmp_path: Path) -> None:
    path = tmp_path / "silence.flac"
    with soundfile.SoundFile(path, "w", 8000, 1) as file:
        for _ in range(10):
            file.write(np.zeros(3600 * 8000, np.int16))

    class Ear:
        name = "ear"
        heard = 0

        def start(self, sample_rate: int, channels: int) -> None: ...

        def hear(self, block: np.ndarray) -> None:
            self.heard += len(block)

    ear = Ear()
    with pytest.raises(BadItem) as caught:
        decode_audio(path, listeners=[ear])
    assert caught.value.reason == "too_long"
    assert ear.heard == 0


def test_listeners_hear_every_frame_at_its_rate(tmp_path: Path) -> None:
    stereo = np.stack([chirp(2.0), -chirp(2.0)], axis=1)
    soundfile.write(tmp_path / "x.wav", stereo, RATE, subtype="FLOAT")
    blocks = []

    class Ear:
        name = "ear"

        def start(self, sample_rate: int, channels: int) -> None:
            assert (sample_rate, channels) == (RATE, 2)

        def hear(self, block: np.ndarray) -> None:
            blocks.append(block)

    decode_audio(tmp_path / "x.wav", listeners=[Ear()])
    np.testing.assert_array_equal(np.concatenate(blocks), stereo)


@pytest.mark.parametrize("level", [1.0, 0.99])
def test_channels_that_cancel_are_not_mixed(tmp_path: Path, level: float) -> None:
    # One channel is the other turned over, as a wrongly wired cable has it: their mean would be next to silence.
    sound = chirp(2.0)
    soundfile.write(tmp_path / "x.wav", np.stack([sound, -level * sound], axis=1), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "mono.wav", sound, RATE, subtype="FLOAT")
    found, mono = (decode_audio(tmp_path / name) for name in ("x.wav", "mono.wav"))
    np.testing.assert_allclose(found.samples, mono.samples, atol=1e-6)
    assert (found.source_channels, found.duration_s) == (2, mono.duration_s)


def test_channels_that_only_differ_are_mixed(tmp_path: Path) -> None:
    left, right = chirp(2.0), np.random.default_rng(0).uniform(-0.3, 0.3, 2 * RATE)
    soundfile.write(tmp_path / "x.wav", np.stack([left, right], axis=1), RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "mono.wav", (left + right) / 2, RATE, subtype="FLOAT")
    found, mono = (decode_audio(tmp_path / name) for name in ("x.wav", "mono.wav"))
    np.testing.assert_allclose(found.samples, mono.samples, atol=1e-6)


def test_truth_of_the_fixture(wav: Callable[..., Path]) -> None:
    audio = decode_audio(wav(seconds=1.0))
    assert (audio.duration_s, audio.source_sample_rate, audio.source_channels) == (1.0, 16_000, 1)
    assert len(audio.samples) == 16_000
