"""What counts as truncated: bytes that end early, whatever a header says of the duration."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile

from catalog.audio import decode_audio
from catalog.lengths import declared
from core.errors import BadItem

SECONDS = 3.0


def made(path: Path, *codec: str) -> Path:
    source = ["-f", "lavfi", "-i", f"sine=f=300:d={SECONDS}:r=44100"]
    subprocess.run(["ffmpeg", "-v", "error", "-y", *source, *codec, str(path)], check=True, capture_output=True)
    return path


def patched(path: Path, at: int, value: bytes) -> Path:
    data = bytearray(path.read_bytes())
    data[at : at + len(value)] = value
    path.write_bytes(data)
    return path


def reason(path: Path) -> str:
    with pytest.raises(BadItem) as caught:
        decode_audio(path)
    return caught.value.reason


def cut(path: Path, share: float) -> Path:
    target = path.with_name(f"cut{path.suffix}")
    target.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    return target


@pytest.fixture(scope="module")
def mp3(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("mp3") / "x.mp3", "-c:a", "libmp3lame", "-q:a", "5")


def test_a_frame_count_that_is_wrong_is_no_cut(mp3: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.mp3"
    path.write_bytes(mp3.read_bytes())
    at = path.read_bytes().index(b"Xing")
    frames = struct.unpack(">I", path.read_bytes()[at + 8 : at + 12])[0]
    patched(path, at + 8, struct.pack(">I", 3 * frames))
    audio = decode_audio(path)
    assert (audio.duration_s, audio.truncated) == (pytest.approx(SECONDS, abs=0.1), "")
    assert reason(cut(path, 0.6)) == "truncated"


def test_a_byte_count_that_is_wrong_is_no_cut(mp3: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.mp3"
    path.write_bytes(mp3.read_bytes())
    at = path.read_bytes().index(b"Xing")
    size = struct.unpack(">I", path.read_bytes()[at + 12 : at + 16])[0]
    patched(path, at + 12, struct.pack(">I", 2 * size))
    assert decode_audio(path).duration_s == pytest.approx(SECONDS, abs=0.1)
    assert reason(cut(path, 0.6)) == "truncated"


def test_an_mp3_with_a_hole_is_damaged_not_truncated(mp3: Path, tmp_path: Path) -> None:
    data = bytearray(mp3.read_bytes())
    data[len(data) // 3 : 2 * len(data) // 3] = bytes(2 * len(data) // 3 - len(data) // 3)
    path = tmp_path / "x.mp3"
    path.write_bytes(data)
    assert reason(path) == "decode_failed"


@pytest.mark.parametrize(("suffix", "codec"), [(".ogg", "libvorbis"), (".flac", "flac"), (".opus", "libopus")])
def test_a_hole_is_damage_and_no_cut(tmp_path: Path, suffix: str, codec: str) -> None:
    path = tmp_path / f"x{suffix}"
    source = ["-f", "lavfi", "-i", "anoisesrc=d=12:a=0.2:seed=1"]
    subprocess.run(["ffmpeg", "-v", "error", *source, "-c:a", codec, str(path)], check=True, capture_output=True)
    data = bytearray(path.read_bytes())
    data[len(data) // 3 : len(data) * 2 // 3] = bytes(len(data) * 2 // 3 - len(data) // 3)
    path.write_bytes(data)
    assert reason(path) == "decode_failed"


@pytest.mark.parametrize("codec", ["adpcm_ms", "adpcm_ima_wav", "pcm_mulaw", "pcm_s24le", "libmp3lame", "gsm_ms"])
def test_wav_of_every_codec_is_whole(tmp_path: Path, codec: str) -> None:
    path = tmp_path / "x.wav"
    try:
        made(path, "-c:a", codec, *(["-ar", "8000"] if codec == "gsm_ms" else []))
    except subprocess.CalledProcessError:
        pytest.skip(f"this ffmpeg has no encoder {codec}")
    assert decode_audio(path).duration_s == pytest.approx(SECONDS, abs=0.1)
    patched(path, 28, struct.pack("<I", 1000))  # bytes a second, which only PCM states exactly
    assert decode_audio(path).duration_s == pytest.approx(SECONDS, abs=0.1)
    assert reason(cut(path, 0.7)) == "truncated"


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        (".mka", ["-c:a", "libvorbis"]),
        (".webm", ["-c:a", "libopus"]),
        (".aiff", ["-c:a", "pcm_s16be"]),
        (".ogg", ["-c:a", "libvorbis"]),
        (".m4a", ["-c:a", "aac", "-movflags", "faststart"]),
        (".flac", ["-c:a", "flac"]),
        (".w64", ["-c:a", "pcm_s16le"]),
    ],
)
def test_a_cut_is_refused_or_kept_with_a_note(tmp_path: Path, suffix: str, codec: list[str]) -> None:
    whole = made(tmp_path / f"x{suffix}", *codec)
    audio = decode_audio(whole)
    assert (audio.duration_s, audio.truncated) == (pytest.approx(SECONDS, abs=0.1), "")
    assert decode_audio(whole, accept_truncated=True).truncated == ""
    short = cut(whole, 0.6)
    assert reason(short) == "truncated"
    kept = decode_audio(short, accept_truncated=True)
    assert kept.truncated and 0.3 * SECONDS < kept.duration_s < 0.8 * SECONDS
    np.testing.assert_allclose(kept.samples[:16_000], audio.samples[:16_000], atol=1e-6)


def test_durations_that_mp4_and_matroska_only_state(tmp_path: Path) -> None:
    """Their boxes and segments are whole: a duration that is twice as long is a wrong number."""
    path = made(tmp_path / "x.m4a", "-c:a", "aac")
    data = path.read_bytes()
    for name in (b"mvhd", b"mdhd", b"tkhd"):
        at = data.index(name) + (24 if name == b"tkhd" else 20)
        length = struct.unpack(">I", data[at : at + 4])[0]
        data = data[:at] + struct.pack(">I", 2 * length) + data[at + 4 :]
    path.write_bytes(data)
    assert decode_audio(path).duration_s == pytest.approx(SECONDS, abs=0.1)
    path = made(tmp_path / "x.mka", "-c:a", "libvorbis")
    at = path.read_bytes().index(b"\x44\x89\x88") + 3
    patched(path, at, struct.pack(">d", 2000 * SECONDS))
    assert decode_audio(path).duration_s == pytest.approx(SECONDS, abs=0.1)


def test_flac_states_its_samples_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "x.flac"
    soundfile.write(path, np.zeros((8000, 1), np.float32), 8000)
    assert declared(path).duration_s == 1.0 and declared(path).counted


TAG = b"TAG" + b"x" * 125  # ID3v1
BEHIND = {"tag": TAG, "line": b"\n", "zeros": b"\0" * 20_000, "page": b"<html>404</html>" * 50, "ones": b"\xff" * 3000}


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [
        (".m4a", ["-c:a", "aac"]),
        (".aac", ["-c:a", "aac"]),
        (".mp2", ["-c:a", "mp2"]),
        (".mp3", ["-c:a", "libmp3lame", "-write_xing", "0"]),
        (".ogg", ["-c:a", "libvorbis"]),
        (".opus", ["-c:a", "libopus"]),
        (".mka", ["-c:a", "libvorbis"]),
    ],
)
def test_what_follows_the_sound_is_no_cut(tmp_path: Path, suffix: str, codec: list[str]) -> None:
    whole = made(tmp_path / f"x{suffix}", *codec)
    seconds, path = decode_audio(whole).duration_s, tmp_path / f"more{suffix}"
    for name, data in BEHIND.items():
        path.write_bytes(whole.read_bytes() + data)
        assert decode_audio(path).duration_s == pytest.approx(seconds, abs=0.06), name


def test_zeros_far_behind_the_last_ogg_page(tmp_path: Path) -> None:
    path = made(tmp_path / "x.opus", "-c:a", "libopus")
    path.write_bytes(path.read_bytes() + bytes(5 << 20))
    assert decode_audio(path).duration_s == pytest.approx(SECONDS, abs=0.02)


@pytest.mark.parametrize(
    ("suffix", "codec"),
    [(".ogg", "libvorbis"), (".mka", "libopus"), (".webm", "libopus"), (".mp3", "libmp3lame"), (".flac", "flac")],
)
def test_zeros_in_place_of_the_second_half_are_a_loss(tmp_path: Path, suffix: str, codec: str) -> None:
    path = made(tmp_path / f"x{suffix}", "-c:a", codec)
    data, half = path.read_bytes(), path.stat().st_size // 2
    path.write_bytes(data[:half] + bytes(len(data) - half))
    assert reason(path) in ("truncated", "decode_failed")


def test_many_zeros_where_nothing_states_a_length(tmp_path: Path) -> None:
    path = made(tmp_path / "x.mp2", "-c:a", "mp2")
    path.write_bytes(path.read_bytes() + bytes(100_000))
    assert reason(path) == "truncated"
    assert decode_audio(path, accept_truncated=True).duration_s == pytest.approx(SECONDS, abs=0.1)
