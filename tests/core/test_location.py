"""Where a store may lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from core.config import store_uri
from core.errors import ConfigError
from core.location import check_new_store, is_released, is_store, store_folder


def test_paths_and_file_uris(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ada")
    assert store_folder("a/b") == tmp_path / "a" / "b"
    assert store_folder("~/s") == Path("/home/ada/s")
    assert store_folder("file:///data/a%20b") == Path("/data/a b")
    assert store_folder("s3:x") == tmp_path / "s3:x", "a colon alone makes no URI"


@pytest.mark.parametrize("uri", ["s3://b/p", "gs://b/p", "http://h/p", "file://host/p", "file://p", "~nobody-here/s"])
def test_what_cannot_hold_a_store(uri: str) -> None:
    with pytest.raises(ConfigError, match="the store '"):
        store_folder(uri)


def test_an_unset_variable_is_not_the_default() -> None:
    with pytest.raises(ConfigError, match="--store is empty"):
        store_uri(" ")


def test_a_run_begins_no_store_among_other_files(tmp_path: Path) -> None:
    check_new_store(tmp_path / "new")
    (tmp_path / ".hidden").write_text("")
    (tmp_path / "lease.json").write_text("{}")
    (tmp_path / "lost+found").mkdir()
    check_new_store(tmp_path)
    for name in "dcba":
        (tmp_path / f"{name}.mp3").write_text("")
    with pytest.raises(ConfigError, match=r"it holds a\.mp3, b\.mp3, c\.mp3 and 1 more"):
        check_new_store(tmp_path)
    (tmp_path / "runs" / "1").mkdir(parents=True)
    (tmp_path / "runs" / "1" / "run.json").write_text("{}")
    check_new_store(tmp_path)  # whoever made a store there may go on with it
    assert is_store(tmp_path) and not is_released(tmp_path)


def test_a_place_that_cannot_be_looked_at(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be opened"):
        is_store(tmp_path / ("a" * 300))
