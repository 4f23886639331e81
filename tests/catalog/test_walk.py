"""Folders as people have them: links in circles, links to nowhere, folders and files that may not be read."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from catalog.read import Catalog, read_catalog
from catalog.walk import shown_endings, walk
from core.errors import CatalogError

ROOT = Path(__file__).parent.parent.parent


def ids(catalog: Catalog) -> list[str]:
    return catalog.table["content_id"].to_pylist()


def reasons(catalog: Catalog) -> dict[str, str]:
    return {r.content_id: r.reason for r in catalog.rejected}


def test_links_to_nowhere_and_in_circles_are_quarantined_and_the_rest_is_read(
    tmp_path: Path, wav: Callable[..., Path]
) -> None:
    wav("ok.wav")
    (tmp_path / "gone.mp3").symlink_to("nowhere.mp3")
    (tmp_path / "self.mp3").symlink_to("self.mp3")
    (tmp_path / "there.ogg").symlink_to("back.ogg")
    (tmp_path / "back.ogg").symlink_to("there.ogg")
    (tmp_path / "Show").symlink_to("/nowhere/Show")
    os.mkfifo(tmp_path / "pipe.wav")
    os.mkfifo(tmp_path / "ok.txt")  # reading it would wait for ever
    (tmp_path / "ok.jpg").symlink_to("nowhere.jpg")
    catalog = read_catalog(tmp_path)
    assert ids(catalog) == ["ok.wav"]
    names = ["gone.mp3", "self.mp3", "there.ogg", "back.ogg", "Show", "pipe.wav", "ok.txt", "ok.jpg"]
    assert reasons(catalog) == dict.fromkeys(names, "missing_file")
    details = {r.content_id: r.detail for r in catalog.rejected}
    assert details["gone.mp3"] == "gone.mp3: a link to nowhere.mp3, which does not exist"
    assert details["self.mp3"] == "self.mp3: a link that leads back to itself"
    # A show whose disk is not mounted may hold any content; a file is itself.
    assert "Show" in {r.content_id for r in catalog.unidentified}
    assert {"gone.mp3", "self.mp3", "pipe.wav"} <= catalog.listed


def test_links_to_folders_are_read_once(tmp_path: Path, wav: Callable[..., Path]) -> None:
    root = tmp_path / "root"
    wav("Show/1.wav", folder=root)
    wav(".kept/Hidden/2.wav", folder=root)
    wav("elsewhere/3.wav", folder=tmp_path)
    (root / "Show" / "up").symlink_to("..")
    (root / "Again").symlink_to("Show")
    (root / "Seen").symlink_to(".kept/Hidden")
    (root / ".kept" / "Hidden" / "circle").symlink_to("../../Seen")
    (root / "Outside").symlink_to(tmp_path / "elsewhere")
    catalog = read_catalog(root)
    assert ids(catalog) == ["Seen/2.wav", "Show/1.wav"]
    assert reasons(catalog) == {"Outside": "outside_root"}
    assert shown_endings(catalog.left_out) == "3 links to folders that are read"
    tree = walk(root, outside=True)
    found = {str((folder / name).relative_to(root)) for folder, names in tree.folders for name in names}
    assert found == {"Seen/2.wav", "Show/1.wav", "Outside/3.wav"} and not tree.problems


def test_a_catalogue_that_is_a_link(tmp_path: Path, wav: Callable[..., Path]) -> None:
    wav("real/1.wav")
    (tmp_path / "link").symlink_to("real")
    assert ids(read_catalog(tmp_path / "link")) == ["1.wav"]


def test_what_is_not_read_is_counted(tmp_path: Path, wav: Callable[..., Path]) -> None:
    wav("a.wav")
    for name in ("a.txt", "a.JPG", "cover.png", "a.xyz", "b.XYZ", "notes.txt", "back.jpg", "README", "a.pdf"):
        (tmp_path / name).write_bytes(b"x")
    catalog = read_catalog(tmp_path)
    assert catalog.left_out == {"": 1, ".jpg": 1, ".pdf": 1, ".txt": 1, ".xyz": 2}
    assert shown_endings(catalog.left_out) == "6 files (1 .jpg, 1 .pdf, 1 .txt, 2 .xyz, 1 without an ending)"
    assert shown_endings({".xyz": 4}) == "4 files (.xyz)" and shown_endings({"": 1}) == "1 file (without an ending)"


UNPRIVILEGED = """
import os, sys
sys.path.insert(0, {code!r})
from catalog.read import read_catalog
from catalog.tags import read_tags
read_tags(os.path.join({root!r}, "ok.wav"))  # imports what this user may read and that one may not
os.setgroups([]); os.setgid(65534); os.setuid(65534)
catalog = read_catalog({root!r})
print(catalog.table["content_id"].to_pylist())
print(sorted((r.content_id, r.reason, r.has_id) for r in catalog.rejected))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user who may not read")
def test_files_and_folders_without_permission(wav: Callable[..., Path]) -> None:
    # pytest's own folders are closed to other users.
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        root.chmod(0o755)
        for path in ("ok.wav", "locked.wav", "beside.wav", "closed/in.wav", "listed/in.wav"):
            wav(path, folder=root)
        (root / "beside.txt").write_text("words")
        for path, mode in (("locked.wav", 0), ("beside.txt", 0), ("closed", 0), ("listed", 0o444)):
            (root / path).chmod(mode)
        code = UNPRIVILEGED.format(code=str(ROOT), root=str(root))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.stdout.splitlines() == [
            "['ok.wav']",
            str(
                [
                    ("beside.wav", "unreadable", True),
                    ("closed", "unreadable", False),
                    ("listed/in.wav", "unreadable", True),
                    ("locked.wav", "unreadable", True),
                ]
            ),
        ], done.stderr


def test_the_root_itself(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="does not exist"):
        read_catalog(tmp_path / "nowhere")


SHARED_MEMORY = Path("/dev/shm")  # a file system with times of 64 bits, which a disk's rarely has


@pytest.mark.skipif(not os.access(SHARED_MEMORY, os.W_OK), reason="Linux's file system in memory")
def test_a_modification_time_that_no_date_can_be(wav: Callable[..., Path]) -> None:
    with tempfile.TemporaryDirectory(dir=SHARED_MEMORY) as name:
        root = Path(name)
        wav("ok.wav", folder=root)
        os.utime(wav("far.wav", folder=root), (10**12, 10**12))  # the year 33658
        catalog = read_catalog(root)
        assert (ids(catalog), reasons(catalog)) == (["ok.wav"], {"far.wav": "bad_timestamp"})


UNPRIVILEGED_IDENTIFY = """
import json, os, sys
sys.path.insert(0, {code!r})
from pathlib import Path
import catalog.identity, catalog.sources
catalog.identity.media_hash(Path({root!r}) / "ok.wav")  # imports what this user may not read
os.setgroups([]); os.setgid(65534); os.setuid(65534)
found = catalog.identity.identify(["ok.wav", "locked.wav", "closed/in.wav"], catalog.sources.Resolver(Path({root!r})))
print(json.dumps({{uri: getattr(identity, "reason", "read") for uri, identity in found.items()}}))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user who may not read")
def test_a_file_of_a_catalogue_that_may_not_be_read_is_quarantined_alone(wav: Callable[..., Path]) -> None:
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to other users
        root = Path(name)
        root.chmod(0o755)
        for path in ("ok.wav", "locked.wav", "closed/in.wav"):
            wav(path, folder=root)
        (root / "locked.wav").chmod(0)
        (root / "closed").chmod(0)
        code = UNPRIVILEGED_IDENTIFY.format(code=str(ROOT), root=str(root))
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
    assert found == {"ok.wav": "read", "locked.wav": "unreadable", "closed/in.wav": "unreadable"}
