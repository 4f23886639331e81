"""Tags as programs write them, in real files of each kind."""

from __future__ import annotations

import io
import shutil
import subprocess
from pathlib import Path
from typing import Any

import mutagen
import pytest
from mutagen.apev2 import APEBinaryValue, APEv2
from mutagen.id3 import COMM, ID3, PCST, SYLT, TALB, TCON, TDES, TDRC, TDRL, TIT2, TLAN, TXXX, USLT, Encoding, Frame
from PIL import Image

from catalog.read import read_catalog
from catalog.tags import embedded_cover, read_tags

pytestmark = pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")


ENDINGS = (".mp3", ".m4a", ".ogg", ".opus", ".flac", ".wav", ".aiff", ".aac")


def ffmpeg(*outputs: object) -> None:
    """Writes a short sound to each output, with the options before it."""
    source = ["-f", "lavfi", "-i", "sine=frequency=440:duration=0.2:sample_rate=48000"]
    subprocess.run(["ffmpeg", "-v", "error", *source, *map(str, outputs)], check=True, stdin=subprocess.DEVNULL)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A short sound in each kind of file, without tags."""
    folder = tmp_path_factory.mktemp("sounds")
    outputs = [folder / f"x{ending}" for ending in ENDINGS]
    ffmpeg(*[argument for path in outputs for argument in ("-fflags", "+bitexact", path)])
    ID3(folder / "x.mp3").delete()
    return {path.suffix: path.read_bytes() for path in outputs}


@pytest.fixture
def tagged(tmp_path: Path, sounds: dict[str, bytes]) -> Any:
    def make(*frames: Frame, ending: str = ".mp3") -> Path:
        path = tmp_path / f"song{ending}"
        path.write_bytes(sounds[ending])
        tags = ID3()
        for frame in frames:
            tags.add(frame)
        tags.save(path)
        return path

    return make


def row(path: Path) -> dict[str, Any]:
    (found,) = read_catalog(path.parent).table.to_pylist()
    return dict(found)


NORM = " 00000A3C 00000B21 00003F5E 00004A1B 00024CA8 00024CA8 00007FFF 00007FFF 00000000 00000000"


def test_numbers_of_programs_are_no_description(tagged: Any) -> None:
    technical = [
        COMM(lang="eng", desc="iTunPGAP", text="0"),
        COMM(lang="eng", desc="iTunNORM", text=NORM),
        COMM(lang="eng", desc="iTunSMPB", text=" 00000000 00000210 000008A4"),
        COMM(lang="eng", desc="iTunes_CDDB_IDs", text="11+A0B1C2"),
        COMM(lang="eng", desc="Songs-DB_Custom1", text="much longer than any of the comments of this file"),
        COMM(lang="XXX", desc="", text=NORM),  # as it stands where a converter lost the name
    ]
    assert "description" not in read_tags(tagged(*technical))
    assert "description" not in read_tags(tagged(COMM(lang="eng", text="7D0A1B0C+187462+13")))
    short, long = COMM(lang="eng", desc="a", text="Words."), COMM(lang="eng", desc="b", text="Some more words.")
    assert read_tags(tagged(*technical, short, long))["description"] == "Some more words."


def test_comments_by_language_and_descriptions_before_them(tagged: Any) -> None:
    comments = (
        COMM(lang="deu", text="Worte"),
        COMM(lang="eng", text="many words"),
        COMM(lang="fra", text="des mots, oui"),
    )
    assert read_tags(tagged(*comments))["description"] == "des mots, oui"
    assert read_tags(tagged(*comments, TLAN(text="deu")))["description"] == "Worte"
    assert read_tags(tagged(*comments, TDES(text="what it is")))["description"] == "what it is"


def test_timed_lyrics_give_their_words(tagged: Any) -> None:
    lines = SYLT(encoding=3, lang="eng", format=2, type=1, text=[("First line", 0), ("Second line", 900)])
    assert read_tags(tagged(lines))["lyrics"] == "First line\nSecond line"
    syllables = SYLT(
        encoding=3, lang="eng", format=2, type=1, text=[("Stran", 0), ("gers", 9), ("\nIn", 20), (" the", 30)]
    )
    assert read_tags(tagged(syllables))["lyrics"] == "Strangers\nIn the"
    chords = SYLT(encoding=3, lang="eng", format=2, type=5, text=[("Am", 0), ("G", 9)])
    assert "lyrics" not in read_tags(tagged(chords))
    lrc = "[ti:Song]\n[00:01.00]First line\n[00:02.00]Second line"
    for frame in (USLT(lang="eng", text=lrc), TXXX(desc="LYRICS", text=lrc)):
        assert read_tags(tagged(frame))["lyrics"] == "First line\nSecond line"
    path = tagged(USLT(lang="eng", text="plain words"), lines)
    assert row(path)["text"] == "plain words"


def test_an_lrc_file_beside_gives_the_words(tagged: Any) -> None:
    path = tagged(TIT2(text="A song"))
    path.with_suffix(".lrc").write_bytes("[00:01.00]Erste Zeile\n[00:02.00]Zweite".encode("utf-16"))
    path.with_suffix(".TXT").write_bytes("Über das Lied".encode("utf-16-le"))
    found = row(path)
    assert (found["text"], found["description"]) == ("Erste Zeile\nZweite", "Über das Lied")


@pytest.mark.parametrize("frame", [TDRC(text="2021-05-04T10:30"), TDRL(text="2021-05-04T10:30")])
def test_a_date_to_the_minute(tagged: Any, frame: Frame) -> None:
    assert row(tagged(frame))["published_at"].isoformat() == "2021-05-04T10:30:00+00:00"


def test_tags_that_say_latin_1_and_are_another_code_page(tagged: Any) -> None:
    def cyrillic(kind: Any, text: str, **more: str) -> Frame:
        return kind(encoding=Encoding.LATIN1, text=text.encode("cp1251").decode("latin-1"), **more)

    path = tagged(
        cyrillic(TIT2, "Звезда по имени Солнце"),
        cyrillic(TALB, "Кино"),
        cyrillic(COMM, "Слова о песне", lang="rus"),
        cyrillic(TCON, "Рок"),
    )
    found = read_tags(path)
    assert (found["title"], found["album"]) == ("Звезда по имени Солнце", "Кино")
    assert (found["description"], found["genre"]) == ("Слова о песне", "Рок")
    german = tagged(TIT2(encoding=Encoding.LATIN1, text="Für Elise"), TALB(encoding=Encoding.UTF16, text="Кино"))
    assert (read_tags(german)["title"], read_tags(german)["album"]) == ("Für Elise", "Кино")


def test_id3v1_in_another_code_page(tmp_path: Path, sounds: dict[str, bytes]) -> None:
    title, album = (text.encode("cp1251").ljust(30, b"\0") for text in ("Группа крови", "Кино"))
    path = tmp_path / "x.mp3"
    path.write_bytes(sounds[".mp3"] + b"TAG" + title + bytes(30) + album + b"1988" + bytes(30) + b"\xff")
    found = read_tags(path)
    assert (found["title"], found["album"], found["date"]) == ("Группа крови", "Кино", "1988")


def picture() -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (4, 4), "red").save(out, "PNG")
    return out.getvalue()


def test_an_mp3_whose_only_tag_is_apev2(tmp_path: Path, sounds: dict[str, bytes]) -> None:
    path = tmp_path / "x.mp3"
    path.write_bytes(sounds[".mp3"])
    tags = APEv2()
    tags["Title"], tags["Album"], tags["Year"], tags["Genre"] = "A song", "An album", "2021-05-04", "Podcast"
    tags["Comment"], tags["Lyrics"], tags["Language"] = "about it", "[00:01.00]la la", "English"
    tags["Cover Art (Front)"] = APEBinaryValue(b"cover.png\0" + picture())
    tags.save(path)
    found = row(path)
    assert (found["title"], found["show_id"], found["kind"]) == ("A song", "An album", "episode")
    assert (found["description"], found["text"], found["language"]) == ("about it", "la la", "English")
    assert found["published_at"].isoformat() == "2021-05-04T00:00:00+00:00"
    assert embedded_cover(path) == picture()


@pytest.mark.parametrize("ending", [".mp3", ".wav", ".aiff", ".aac"])
def test_id3_in_every_kind_of_file(tmp_path: Path, sounds: dict[str, bytes], ending: str) -> None:
    path = tmp_path / f"x{ending}"
    path.write_bytes(sounds[ending])
    if ending == ".aac":
        tags = ID3()
        tags.add(TIT2(text="A song"))
        tags.save(path)
    else:
        file = mutagen.File(path)
        file.add_tags()
        file.tags.add(TIT2(text="A song"))
        file.save()
    assert row(path)["title"] == "A song"


@pytest.mark.parametrize(
    ("tags", "kind"),
    [
        ({"pcst": True, "\xa9gen": ["Comedy"]}, "episode"),
        ({"stik": [21]}, "episode"),
        ({"stik": [2], "\xa9gen": ["Fiction"]}, "chapter"),
        ({"stik": [1], "\xa9gen": ["Podcast"]}, "episode"),
        ({"pcst": False, "\xa9gen": ["Comedy"]}, "track"),
    ],
)
def test_kinds_in_mp4(tmp_path: Path, sounds: dict[str, bytes], tags: dict[str, Any], kind: str) -> None:
    path = tmp_path / "x.m4a"
    path.write_bytes(sounds[".m4a"])
    file = mutagen.File(path)
    for name, value in {**tags, "\xa9day": ["2021-05-04T07:00:00Z"], "desc": ["short"], "ldes": ["long words"]}.items():
        file.tags[name] = value
    file.save()
    found = row(path)
    assert found["kind"] == kind
    assert found["published_at"].isoformat() == "2021-05-04T07:00:00+00:00"
    assert found["description"] == "long words"


@pytest.mark.parametrize(("frame", "kind"), [(PCST(value=0), "episode"), (TCON(text="Comedy"), "track")])
def test_kinds_in_id3(tagged: Any, frame: Frame, kind: str) -> None:
    assert row(tagged(frame, TCON(text="Comedy")))["kind"] == kind


@pytest.mark.parametrize("ending", [".ogg", ".opus", ".flac"])
def test_vorbis_comments(tmp_path: Path, sounds: dict[str, bytes], ending: str) -> None:
    path = tmp_path / f"x{ending}"
    path.write_bytes(sounds[ending])
    file = mutagen.File(path)
    tags = {"title": "A song", "date": "2021-05-04T10:30:00+02:00", "lyrics": "[00:01.00]la", "podcast": "1"}
    file.update({**tags, "comment": "about it", "genre": ["Comedy", "Talk"]})
    file.save()
    found = row(path)
    assert (found["title"], found["text"], found["kind"], found["description"]) == (
        "A song",
        "la",
        "episode",
        "about it",
    )
    assert found["published_at"].isoformat() == "2021-05-04T08:30:00+00:00"


@pytest.mark.parametrize("ending", [".mka", ".webm", ".mkv", ".mp4", ".wav"])
def test_containers_that_hold_tags_of_their_own(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"x{ending}"
    codec = {".mp4": "aac", ".wav": "pcm_s16le"}.get(ending, "libopus")
    metadata = {"title": "A film", "comment": "about it", "date": "2021-05-04"}
    ffmpeg("-c:a", codec, *[part for name, text in metadata.items() for part in ("-metadata", f"{name}={text}")], path)
    found = row(path)
    assert (found["title"], found["description"]) == ("A film", "about it")
    assert found["published_at"].isoformat() == "2021-05-04T00:00:00+00:00"


def test_tags_of_an_earlier_version_are_read_again(tagged: Any) -> None:
    from catalog.cache import FileCache

    path = tagged(TIT2(text="A song"))
    status, cache = path.stat(), FileCache()
    cache.remember_tags(str(path), status.st_size, status.st_mtime_ns, {"title": "wrong", "has_cover": False})
    assert read_catalog(path.parent, file_cache=cache).table["title"].to_pylist() == ["A song"]
