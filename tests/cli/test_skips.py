"""`earmark skips` on a folder and on a store: what it prints, writes and refuses."""

from __future__ import annotations

import csv
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.main import main
from core import lease
from core.errors import StoreBusy
from core.storage import open_storage
from pipelines import skip_events
from skips.markers import ACTIONS, KINDS
from tests.pipelines.conftest import Shelf
from tests.skips.audio import laid_out, music, spots, talk, write
from tests.skips.browser import parsed


@pytest.fixture(scope="module")
def podcasts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A show with an intro and an ad, another without anything, and a file that is none."""
    folder = tmp_path_factory.mktemp("podcasts")
    for n in range(3):
        samples, _ = laid_out(800 + n, 6.0 + n, spots().intro, 14.0 + 2 * n, spots().ad, 12.0)
        write(folder / "tea" / f"{n}.wav", samples)
        write(folder / "talk" / f"{n}.wav", talk(20, 850 + n))
    (folder / "talk" / "broken.mp3").write_text("no sound")
    return folder


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = main(["skips", *map(str, arguments), "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_the_json_has_the_agreed_shape(podcasts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = told(capsys, podcasts)
    assert code == 0
    assert [failure["path"] for failure in found["failures"]] == ["talk/broken.mp3"]
    assert len(found["episodes"]) == 6
    for episode in found["episodes"]:
        assert list(episode)[:4] == ["path", "audio_sha256", "duration_s", "markers"]
        path = Path(episode["path"])
        assert hashlib.sha256(path.read_bytes()).hexdigest() == episode["audio_sha256"]
        assert len(episode["markers"]) == (2 if path.parent.name == "tea" else 0)
        for marker in episode["markers"]:
            fields = ["kind", "start_s", "end_s", "confidence", "occurrences", "motif_id", "action"]
            assert list(marker)[:7] == fields
            assert marker["kind"] in KINDS and marker["action"] in ACTIONS
            assert 0 <= marker["start_s"] < marker["end_s"] <= episode["duration_s"]
            assert 0 <= marker["confidence"] <= 1 and marker["occurrences"] == 3


def test_the_table_says_how_much_there_is_to_skip(podcasts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["skips", str(podcasts), "--show", "tea"]) == 0
    out = capsys.readouterr().out
    # Three times 12 s and 9 s.
    assert "6 markers in 3 episodes" in out and "1.0 minutes to skip, 0.0 to ask about" in out
    assert "talk/broken.mp3" in out


def test_exports_and_pages_are_written(podcasts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--out", tmp_path / "exports", "--report", tmp_path / "pages"]
    code, found = told(capsys, podcasts, "--export", "chapters", "webvtt", "edl", *where)
    assert code == 0
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file())
    assert len([name for name in names if name.startswith("exports/")]) == 3 * 6
    assert len([name for name in names if name.startswith("pages/pictures/")]) == 6
    pages = [name for name in names if name.endswith(".html")]
    assert len(pages) == 2
    marked = [m for e in found["episodes"] for m in e["markers"]]
    buttons = sum(len(parsed((tmp_path / page).read_text()).of("button")) for page in pages)
    assert buttons == len(marked) == 6


def test_a_markers_edl_says_what_the_json_says(
    podcasts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, found = told(capsys, podcasts, "--show", "tea", "--export", "edl", "--out", tmp_path)
    files = sorted(tmp_path.rglob("*.edl"))
    assert len(files) == 3
    for file, episode in zip(files, found["episodes"], strict=True):
        spans = [tuple(map(float, line.split()[:2])) for line in file.read_text().splitlines() if line[:1].isdigit()]
        assert spans == [(pytest.approx(m["start_s"]), pytest.approx(m["end_s"])) for m in episode["markers"]]


def test_events_change_confidence(podcasts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, before = told(capsys, podcasts, "--show", "tea")
    intro = before["episodes"][0]["markers"][0]
    path = tmp_path / "events.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["content_id", "event", "from_s", "to_s"])
        writer.writerows([["tea/0.wav", "play", 0, intro["end_s"] + 1]] * 40)
    code, after = told(capsys, podcasts, "--show", "tea", "--events", path)
    assert code == 0
    assert after["episodes"][0]["markers"][0]["confidence"] < 0.5 < intro["confidence"]
    assert after["episodes"][0]["markers"][0]["action"] == "ask"
    assert after["episodes"][1] == before["episodes"][1]


def test_a_folders_exports_lie_and_are_named_as_its_files(
    podcasts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "podcasts"
    shutil.copytree(podcasts, folder)
    shutil.copy(folder / "tea/0.wav", folder / "tea/0.mp3")  # an edit list of either would be 0.edl
    _, found = told(capsys, folder, "--export", "edl", "--out", tmp_path / "out")
    names = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert names == [
        *(f"talk/{n}.edl" for n in range(3)),
        *("tea/0.mp3.edl", "tea/0.wav.edl", "tea/1.edl", "tea/2.edl"),
    ]
    assert sorted(found["written"]) == sorted(str(tmp_path / "out" / name) for name in names)


@pytest.mark.parametrize("arguments", [[], ["--json"], ["--export", "chapters", "--report", "{out}"]])
def test_names_of_any_bytes_and_brackets_are_told(tmp_path: Path, arguments: list[str]) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    write(folder / "good.wav", talk(5, 1))
    (folder / "good.wav").rename(os.fsdecode(os.fsencode(folder) + b"/caf\xe9 [red].wav"))
    (folder / "broken [bold].mp3").write_text("no sound")
    command = [sys.executable, "-m", "cli.main", "skips", str(folder), "--out", str(tmp_path / "out"), *arguments]
    command = [part.format(out=tmp_path / "report") for part in command]
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    done = subprocess.run(command, env=strict, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    text = done.stdout.decode("utf-8")
    if "--json" in arguments:
        document = json.loads(text)
        assert os.fsencode(document["episodes"][0]["path"]).endswith(b"caf\xe9 [red].wav")
        assert [f["path"] for f in document["failures"]] == ["broken [bold].mp3"]
    else:
        assert "could not read broken [bold].mp3" in text and "1 episode," in text


def test_events_about_nothing_are_still_json(
    podcasts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "events.csv").write_text("content_id,event,from_s,to_s\nnobody,skip,0,1\n")
    _, found = told(capsys, podcasts, "--show", "talk", "--events", tmp_path / "events.csv")
    assert found["evidence"] == {"events": 0, "before": None, "after": None, "interval": [0.0, 1.0]}


def test_events_wait_for_nobody_who_writes_to_the_store(
    enriched: tuple[Shelf, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "events.csv").write_text("content_id,event,from_s,to_s\nnobody,skip,0,1\n")
    with lease.hold(open_storage(enriched[1]), "another run"):
        code = main(["skips", "--store", str(enriched[1]), "--events", str(tmp_path / "events.csv")])
    assert code == StoreBusy.exit_code and "another run" in capsys.readouterr().err
    assert skip_events.stored_events(open_storage(enriched[1])) is None


def test_music_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chorus = music(5, 3, 10)
    write(tmp_path / "song.wav", laid_out(95, 10.0, chorus, 14.0, chorus, 9.0)[0])
    code, found = told(capsys, tmp_path, "--music")
    assert code == 0
    assert [(len(r["places"]), round(r["duration_s"])) for r in found["repeats"]] == [(2, 10)]
    assert not found["episodes"][0]["markers"]
    assert main(["skips", str(tmp_path), "--music"]) == 0
    assert "song.wav 0:10" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{empty}"], "holds no audio files"),
        (["{empty}/nowhere"], "is not a folder"),
        (["{podcasts}", "--show", "coffee"], "there is no show 'coffee'; there is talk, tea"),
        (["{podcasts}", "--music", "--report", "{empty}"], "with --music nothing is marked"),
        (["{podcasts}", "--workers", "0"], "--workers must be 1 or more"),
        (["{podcasts}", "--events", "{empty}/no.csv"], "cannot be read"),
        (["{podcasts}", "--events", "{empty}"], "is none of .csv, .jsonl, .parquet"),
        (["--store", "{empty}/none"], "none"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_line(
    podcasts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    places = {"empty": tmp_path, "podcasts": podcasts}
    assert main(["skips", *(a.format(**places) for a in arguments)]) != 0
    captured = capsys.readouterr()
    assert said in " ".join((captured.out + captured.err).split())
    assert "Traceback" not in captured.out + captured.err


def test_a_folder_where_nothing_can_be_read_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.mp3").write_text("no sound")
    code, found = told(capsys, tmp_path)
    assert code == 1
    assert found["episodes"] == [] and len(found["failures"]) == 1


def test_a_store_without_episodes_has_no_markers(
    enriched: tuple[Shelf, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = told(capsys, "--store", enriched[1])
    assert code == 0
    assert found["episodes"] == []
    assert main(["skips", "--store", str(enriched[1])]) == 0
    told_ = capsys.readouterr()
    assert told_.out == "", "no empty table"
    again = f"earmark skips --music --store {enriched[1]}"
    assert "3 tracks are not marked" in told_.err and again in told_.err and "kind: episode" in told_.err
    assert main(again.split()[1:]) == 0, "what it names is a command that works"
