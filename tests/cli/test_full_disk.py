"""A run on a disk that fills up, wherever that happens: plain words, and a rerun finishes when there is space."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli.main import main
from core import lease
from core.storage import open_storage
from tests.pipelines.conftest import make_shelf

Output = pytest.CaptureFixture[str]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Makes a disk of so many KiB; called again, it resizes the disk."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = False

    def sized(kib: int) -> Path:
        nonlocal mounted
        options = f"{'remount,' if mounted else ''}size={kib}k"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)
        if os.geteuid() != 0 or done.returncode:
            pytest.skip("needs root to mount a small disk")
        mounted = True
        return folder

    yield sized
    if mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill_and_finish(kib: int, small_disk: Callable[[int], Path], folder: Path, capsys: Output) -> str:
    """Runs a catalogue on a disk of so many KiB, then on a larger one; returns what the first run said."""
    catalog = make_shelf(folder / "catalog", sounds=0, texts=3).source
    store = small_disk(kib) / "store"
    command = ["run", catalog, "--store", str(store), "--device", "cpu", "--quiet"]
    assert main(command) == 5
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and said.startswith("earmark: "), said
    assert lease.current(open_storage(store)) is None, "a run that ended keeps no lease"
    small_disk(64 * 1024)
    assert main(command) == 0
    assert main(["consistency", "--store", str(store), "--min-share", "1", "--quiet"]) == 0
    assert main(["features", "text/1 😀", "--store", str(store), "--json"]) == 0
    return said


@pytest.mark.exhaustive
def test_the_registry_finds_no_space(small_disk: Callable[[int], Path], tmp_path: Path, capsys: Output) -> None:
    from core.config import Config
    from core.errors import StorageError
    from pipelines.inprocess import run_catalog

    catalog, disk = make_shelf(tmp_path / "catalog", sounds=0, texts=3).source, small_disk(64 * 1024)

    def shrink(title: str) -> None:
        if title.startswith("apply to Feast"):
            there = os.statvfs(disk)
            small_disk((there.f_blocks - there.f_bfree) * there.f_frsize // 1024 + 16)

    with pytest.raises(StorageError, match=r"Feast's registry .* free some space and run the same command again"):
        run_catalog(catalog, str(disk / "store"), Config(device="cpu"), on_step=shrink)
    small_disk(64 * 1024)
    assert main(["run", catalog, "--store", str(disk / "store"), "--device", "cpu", "--quiet"]) == 0
    assert main(["features", "text/1 😀", "--store", str(disk / "store"), "--json"]) == 0


@pytest.mark.exhaustive
@pytest.mark.parametrize("kib", [16, 48, 96, 128, 160, 192, 224, 256, 288, 320, 384, 448, 512, 576])
def test_no_space_anywhere_in_a_run(
    kib: int, small_disk: Callable[[int], Path], tmp_path: Path, capsys: Output
) -> None:
    said = fill_and_finish(kib, small_disk, tmp_path, capsys)
    assert any(word in said for word in ("No space left on device", "disk is full", "disk I/O error")), said


def test_a_full_disk_does_not_keep_the_lease(small_disk: Callable[[int], Path]) -> None:
    folder = small_disk(64)
    storage = open_storage(folder)
    with lease.hold(storage, "a run"):
        filler = os.open(folder / "filler", os.O_WRONLY | os.O_CREAT)
        with pytest.raises(OSError, match="No space left"):
            while True:
                os.write(filler, b"\0" * 4096)
        os.close(filler)
        assert lease.current(storage) is not None
    assert lease.current(storage) is None
