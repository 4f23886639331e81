"""Bare folders of audio: what is found, and what odd sound and broken files do not spoil."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipelines.skip_folder as skip_folder_module
from core.errors import CatalogError
from pipelines.skip_folder import FolderSkips, audio_files, skip_folder
from skips.markers import Marker
from tests.skips.audio import RATE, assert_marked, laid_out, music, spots, talk, write


def marks(found: FolderSkips) -> dict[str, tuple[Marker, ...]]:
    return {Path(e.path).name: e.markers for e in found.episodes}


def a_show(folder: Path, count: int = 3, first: int = 0) -> dict[str, list[tuple[float, float]]]:
    """`count` episodes with an intro and an ad; where they are, by file."""
    spot = spots()
    truth = {}
    for n in range(first, first + count):
        samples, truth[f"{n}.wav"] = laid_out(n, 6.0 + n, spot.intro, 20.0 + 2 * n, spot.ad, 15.0)
        write(folder / f"{n}.wav", samples)
    return truth


def test_a_show_of_three_may_be_skipped_unasked(tmp_path: Path) -> None:
    truth = a_show(tmp_path)
    found = skip_folder(tmp_path)
    assert not found.failures
    for name, markers in marks(found).items():
        assert_marked(markers, truth[name])
        assert [m.action for m in markers] == ["auto", "auto"]
        assert [m.occurrences for m in markers] == [3, 3]
    ids = [[m.motif_id for m in markers] for markers in marks(found).values()]
    assert ids[0] == ids[1] == ids[2] and len(set(ids[0])) == 2


def test_what_is_heard_twice_is_asked_about(tmp_path: Path) -> None:
    truth = a_show(tmp_path, 2)
    for name, markers in marks(skip_folder(tmp_path)).items():
        assert_marked(markers, truth[name])
        assert [m.action for m in markers] == ["ask", "ask"]


def test_a_subfolder_is_a_show_and_an_ad_over_shows_is_an_ad(tmp_path: Path) -> None:
    spot, tunes = spots(), {"a": music(3, 5, 10), "b": music(14, 5, 10)}
    truth = {}
    for n in range(3):
        for show, tune in tunes.items():
            number = 10 * ord(show) + n
            pieces = (30.0 + 3 * n, spot.ad, 25.0) if n != 2 else (28.0, spot.ad, 31.0)
            samples, truth[f"{show}{n}.wav"] = laid_out(number, tune, *pieces)
            write(tmp_path / show / f"{show}{n}.wav", samples)
    found = skip_folder(tmp_path)
    assert {e.show for e in found.episodes} == {"a", "b"}
    for name, markers in marks(found).items():
        assert_marked(markers, truth[name])
        assert [m.kind for m in markers] == ["intro", "ad"]
        assert [m.occurrences for m in markers] == [3, 6]


def no_change(samples: np.ndarray) -> np.ndarray:
    return samples


ODD: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "DC offset": lambda s: 0.6 * s + 0.3,
    "clipping": lambda s: np.clip(8 * s, -0.9, 0.9),
    "phase inversion": lambda s: np.stack([s, -s], axis=1),
    "stereo with one side silent": lambda s: np.stack([s, np.zeros_like(s)], axis=1),
    "quiet": lambda s: 0.02 * s,
}


@pytest.mark.parametrize("change", ODD.values(), ids=list(ODD))
def test_odd_sound_is_heard_like_the_rest(tmp_path: Path, change: Callable[[np.ndarray], np.ndarray]) -> None:
    spot = spots()
    truth = {}
    for n in range(3):
        samples, truth[f"{n}.wav"] = laid_out(40 + n, 8.0 + n, spot.intro, 20.0, spot.ad, 10.0 + n)
        write(tmp_path / f"{n}.wav", change(samples) if n == 1 else samples)
    for name, markers in marks(skip_folder(tmp_path)).items():
        assert_marked(markers, truth[name])


def test_sample_rates_may_differ(tmp_path: Path) -> None:
    from soxr import resample

    spot = spots()
    truth = {}
    for n, rate in enumerate((8_000, 22_050, 44_100, 48_000)):
        samples, truth[f"{n}.wav"] = laid_out(60 + n, 8.0 + n, spot.intro, 20.0, spot.ad, 10.0)
        write(tmp_path / f"{n}.wav", resample(samples, RATE, rate), rate)
    for name, markers in marks(skip_folder(tmp_path)).items():
        assert_marked(markers, truth[name])


def test_a_corrupt_file_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    truth = a_show(tmp_path)
    whole = (tmp_path / "0.wav").read_bytes()
    (tmp_path / "cut.wav").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.mp3").write_bytes(b"")
    (tmp_path / "letter.ogg").write_text("Dear listener")
    (tmp_path / "noise.mp3").write_bytes(np.random.default_rng(5).bytes(50_000))
    found = skip_folder(tmp_path)
    assert sorted(path for path, _ in found.failures) == ["cut.wav", "empty.mp3", "letter.ogg", "noise.mp3"]
    assert all(reason for _, reason in found.failures)
    for name, markers in marks(found).items():
        assert_marked(markers, truth[name])


def test_no_repeats_give_no_markers(tmp_path: Path) -> None:
    for n in range(5):
        write(tmp_path / f"talk {n}.wav", talk(60, 500 + n))
        write(tmp_path / f"music {n}.wav", music(2 + n, 1, 25))
    assert not any(marks(skip_folder(tmp_path)).values())


def test_identical_episodes_are_not_skipped_whole(tmp_path: Path) -> None:
    samples, _ = laid_out(7, 10.0, spots().intro, 40.0)
    for n in range(4):
        write(tmp_path / f"{n}.wav", samples)
    assert not any(marks(skip_folder(tmp_path)).values())


def test_silence_repeats_nothing(tmp_path: Path) -> None:
    for n in range(3):
        write(tmp_path / f"{n}.wav", np.zeros((60 + n) * RATE))
    for markers in marks(skip_folder(tmp_path)).values():
        assert [(m.kind, m.source) for m in markers] == [("silence", "silence")]


@pytest.mark.parametrize("hz", [(440,), (440, 554, 659), (440, 442), (50, 1_000), (60, 440), (1_000, 1_003.5)])
def test_steady_and_beating_tones_repeat_nothing(
    tmp_path: Path, tone: Callable[..., np.ndarray], hz: tuple[float, ...]
) -> None:
    for n in range(3):
        write(tmp_path / f"{n}.wav", sum(tone(60, hz=h, level=0.3 / (k + 1)) for k, h in enumerate(hz)))
    assert not any(marks(skip_folder(tmp_path)).values())


def test_silence_between_is_marked(tmp_path: Path) -> None:
    pause = np.zeros(6 * RATE, np.float32)
    samples, spans = laid_out(80, 20.0, pause, 20.0)
    write(tmp_path / "one.wav", samples)
    (markers,) = marks(skip_folder(tmp_path)).values()
    assert_marked(markers, spans)
    assert (markers[0].kind, markers[0].action, markers[0].source) == ("silence", "auto", "silence")


def test_two_seconds_are_short_but_no_error(tmp_path: Path) -> None:
    truth = a_show(tmp_path)
    for n in range(3):
        write(tmp_path / f"short {n}.wav", spots().ad[: 2 * RATE])
    write(tmp_path / "shortest.wav", talk(0.05, 1))
    found = skip_folder(tmp_path)
    assert not found.failures
    for name, markers in marks(found).items():
        if name in truth:
            assert_marked(markers, truth[name])
    assert marks(found)["shortest.wav"] == ()


@pytest.mark.slow
def test_six_hours(tmp_path: Path) -> None:
    """A spot every hour in a file of six, and once in another."""
    spot = spots()
    pieces: list[float | np.ndarray] = []
    for _ in range(6):
        pieces += [3_500.0, spot.ad]
    samples, spans = laid_out(90, *pieces, 20.0)
    write(tmp_path / "long.wav", samples[: 6 * 3600 * RATE])
    other, other_spans = laid_out(91, 20.0, spot.ad, 20.0)
    write(tmp_path / "short.wav", other)
    found = marks(skip_folder(tmp_path))
    assert_marked(found["long.wav"], spans)
    assert_marked(found["short.wav"], other_spans)
    assert {m.occurrences for m in found["long.wav"]} == {7}


def test_captions_beside_a_file_tell_what_is_said(tmp_path: Path) -> None:
    write(tmp_path / "1.wav", talk(60, 700))
    said = [
        "In those days the river was the only road into the valley.",
        "This episode is brought to you by Acme Mattresses.",
        "Go to acme.com slash river and use promo code RIVER for twenty percent off your first order.",
        "That's acme.com slash river, promo code RIVER.",
        "The first mill was built where the bridge stands now.",
        "Nobody remembers who built it.",
    ]
    lines = ["WEBVTT", ""]
    for n, text in enumerate(said):
        lines += [f"00:00:{n * 10:02d}.000 --> 00:00:{n * 10 + 9:02d}.500", text, ""]
    (tmp_path / "1.vtt").write_text("\n".join(lines))
    shutil.copy(tmp_path / "1.wav", tmp_path / "0 copy.wav")  # whose captions lie beside the other
    for markers in marks(skip_folder(tmp_path)).values():
        assert_marked(markers, [(10, 39.5)], within_s=0.5)
        assert (markers[0].kind, markers[0].action, markers[0].source) == ("ad", "ask", "transcript")


@pytest.mark.parametrize("captions", [b"", b"\xff\xfe\x00rubbish", b"WEBVTT\n\n00:00 --> nowhere\nhello\n"])
def test_captions_that_cannot_be_read_say_nothing(tmp_path: Path, captions: bytes) -> None:
    truth = a_show(tmp_path)
    (tmp_path / "1.srt").write_bytes(captions)
    for name, markers in marks(skip_folder(tmp_path)).items():
        assert_marked(markers, truth[name])


def test_music_is_told_and_not_marked(tmp_path: Path) -> None:
    chorus = music(5, 3, 10)
    samples, spans = laid_out(95, 10.0, chorus, 14.0, chorus, 9.0)
    write(tmp_path / "song.wav", samples)
    write(tmp_path / "other.wav", music(6, 1, 25))
    found = skip_folder(tmp_path, music=True)
    assert not any(marks(found).values())
    (repeat,) = found.repeats
    places = [(p["start_s"], p["end_s"]) for p in repeat["places"]]  # type: ignore[attr-defined]
    assert np.abs(np.array(places) - np.array(spans)).max() < 0.15
    assert repeat["tracks"] == 1


def test_curves_are_alike_where_something_repeats(tmp_path: Path) -> None:
    truth = a_show(tmp_path)
    found = skip_folder(tmp_path, curves=True)
    for episode in found.episodes:
        curve = found.similarities[episode.content_id]
        step = episode.duration_s / len(curve)
        inside = np.zeros(len(curve), bool)
        for start, end in truth[Path(episode.path).name]:
            inside[round((start + 1) / step) : round((end - 1) / step)] = True
        assert np.median(curve[inside]) > 0.8 > 0.5 > np.median(curve[~inside])


def test_folders_without_audio_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="holds no audio files"):
        skip_folder(tmp_path)
    with pytest.raises(CatalogError, match="is not a folder"):
        skip_folder(tmp_path / "nowhere")


def test_files_come_as_people_count_and_hidden_ones_do_not(tmp_path: Path) -> None:
    for name in ("ep 10.mp3", "ep 9.MP3", ".hidden.mp3", ".git/x.mp3", "b/1.ogg", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    names = [path.relative_to(tmp_path).as_posix() for path in audio_files(tmp_path)]
    assert names == ["b/1.ogg", "ep 9.MP3", "ep 10.mp3"]


def test_copies_of_a_file_are_marked_alike_and_bear_no_witness(tmp_path: Path) -> None:
    truth = a_show(tmp_path / "show", 2)
    for name in ("copy.wav", "other/copy.wav"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(tmp_path / "show/1.wav", tmp_path / name)
    found = skip_folder(tmp_path, curves=True)
    assert [e.content_id for e in found.episodes] == ["copy.wav", "other/copy.wav", "show/0.wav", "show/1.wav"]
    for episode in found.episodes:
        assert_marked(episode.markers, truth["0.wav" if episode.content_id == "show/0.wav" else "1.wav"])
        assert {(m.action, m.occurrences) for m in episode.markers} == {("ask", 2)}
        assert found.similarities[episode.content_id].max() > 0.8


def test_a_file_or_folder_that_may_not_be_read_is_told_and_the_rest_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    truth = a_show(tmp_path)
    (tmp_path / "closed").mkdir()
    write(tmp_path / "locked.wav", talk(5, 1))
    real, scan = skip_folder_module._hear, os.scandir

    def denied(path: Path, *rest: Any) -> Any:
        if path.name == "locked.wav":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *rest)

    def closed(path: Any) -> Any:
        if str(path).endswith("closed"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(skip_folder_module, "_hear", denied)
    monkeypatch.setattr(os, "scandir", closed)
    found = skip_folder(tmp_path)
    assert found.failures == [(n, "unreadable: Permission denied") for n in ("closed", "locked.wav")]
    for name, markers in marks(found).items():
        assert_marked(markers, truth[name])


def test_a_full_disk_is_no_matter_of_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_show(tmp_path)

    def full(*arguments: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(skip_folder_module, "_hear", full)
    with pytest.raises(OSError, match="No space left"):
        skip_folder(tmp_path)
