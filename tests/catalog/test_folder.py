from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import soundfile
from PIL import Image

from catalog.cache import FileCache
from catalog.identity import identify
from catalog.read import read_catalog
from catalog.sources import Resolver
from core.errors import BadItem


@pytest.fixture
def mp3(tmp_path: Path, tone: Callable[..., object]) -> Path:
    """An MP3 with tags and an embedded cover."""
    from mutagen.id3 import APIC, COMM, ID3, TALB, TCON, TDRC, TIT2, USLT

    path = tmp_path / "media" / "song.mp3"
    path.parent.mkdir()
    soundfile.write(path, tone(1.0), 16_000)
    picture = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(picture, "PNG")
    tags = ID3()
    for frame in (
        TIT2(text="A song"),
        TALB(text="An album"),
        TCON(text="Podcast"),
        TDRC(text="2021-05"),
        COMM(lang="eng", text="what it is about"),
        USLT(lang="eng", text="la la"),
        APIC(mime="image/png", type=3, data=picture.getvalue()),
    ):
        tags.add(frame)
    tags.save(path)
    return path


def test_tags_sidecars_and_covers(mp3: Path, wav: Callable[..., Path]) -> None:
    folder = mp3.parent
    wav("plain.wav", folder=folder)
    (folder / "plain.txt").write_text("beside it")
    Image.new("RGB", (4, 4)).save(folder / "plain.jpg")
    wav("sub/other.wav", folder=folder)
    Image.new("RGB", (4, 4)).save(folder / "sub" / "Cover.png")
    wav(".hidden/secret.wav", folder=folder)
    rows = {row["content_id"]: row for row in read_catalog(folder).table.to_pylist()}
    assert list(rows) == ["plain.wav", "song.mp3", "sub/other.wav"]
    song = rows["song.mp3"]
    assert (song["title"], song["show_id"], song["kind"]) == ("A song", "An album", "episode")
    assert (song["description"], song["text"]) == ("what it is about", "la la")
    assert song["published_at"].isoformat() == "2021-05-01T00:00:00+00:00"
    assert song["image_uri"] == "song.mp3#cover"
    assert (rows["plain.wav"]["title"], rows["plain.wav"]["description"]) == ("plain", "beside it")
    assert rows["plain.wav"]["image_uri"] == "plain.jpg"
    assert rows["sub/other.wav"]["image_uri"] == "sub/Cover.png"


def test_new_tags_are_not_new_audio(mp3: Path) -> None:
    from mutagen.id3 import ID3, TIT2

    resolver = Resolver(mp3.parent)
    before = identify(["song.mp3"], resolver)["song.mp3"]
    tags = ID3(mp3)
    tags.add(TIT2(text="Another title"))
    tags.save()
    after = identify(["song.mp3"], resolver)["song.mp3"]
    assert not isinstance(before, BadItem) and not isinstance(after, BadItem)
    assert before.sha256 != after.sha256
    assert before.media_hash == after.media_hash


def test_size_and_time_are_trusted_until_verified(wav: Callable[..., Path]) -> None:
    path = wav("x.wav", hz=440)
    resolver, cache = Resolver(path.parent), FileCache()
    status = path.stat()
    first = identify(["x.wav"], resolver, cache)["x.wav"]
    wav("x.wav", hz=550)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    again = FileCache.from_table(cache.to_table())
    assert identify(["x.wav"], resolver, again)["x.wav"] == first
    assert identify(["x.wav"], resolver, again, verify=True)["x.wav"] != first


def test_links_and_paths_that_lead_outside(tmp_path: Path, wav: Callable[..., Path]) -> None:
    outside = wav("outside.wav")
    root = tmp_path / "root"
    root.mkdir()
    (root / "link.wav").symlink_to(outside)
    (root / "real.wav").write_bytes(outside.read_bytes())
    assert read_catalog(root).table["content_id"].to_pylist() == ["real.wav"]
    resolver = Resolver(root)
    for uri in ("../outside.wav", str(outside), "link.wav"):
        with pytest.raises(BadItem) as caught, resolver.open(uri):
            pass
        assert caught.value.reason == "outside_root", uri
    with pytest.raises(BadItem) as caught, resolver.open("http://example.invalid/x.mp3"):
        pass
    assert caught.value.reason == "host_not_allowed"


def test_undecodable_file_name(tmp_path: Path, wav: Callable[..., Path]) -> None:
    source = wav("good.wav")
    try:
        os.rename(source, os.fsencode(tmp_path) + b"/bad\xff.wav")
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    wav("good.wav")
    catalog = read_catalog(tmp_path)
    assert catalog.table["content_id"].to_pylist() == ["good.wav"]
    assert [r.reason for r in catalog.rejected] == ["invalid_utf8"]
