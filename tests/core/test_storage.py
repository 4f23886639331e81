from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from core import lease
from core.errors import ConfigError, StorageError, StoreBusy
from core.storage import TEMPORARY, Conflict, LocalStorage, Storage, open_storage


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["local", "s3"])
def storage(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    """Both kinds pass the same tests."""
    if request.param == "local":
        return open_storage(tmp_path / "store")
    import boto3

    endpoint = request.getfixturevalue("s3_server")
    for name, value in (
        ("AWS_ENDPOINT_URL", endpoint),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    bucket = f"bucket-{abs(hash(request.node.name)) % 10**8}"
    boto3.client("s3").create_bucket(Bucket=bucket)
    return open_storage(f"s3://{bucket}/some/prefix")


def test_reads_what_was_written(storage: Storage) -> None:
    storage.write("a/b.bin", b"one")
    storage.write("a/b.bin", b"two")
    storage.write("a/c.bin", b"")
    assert storage.read("a/b.bin") == b"two"
    assert [(e.path, e.size_bytes) for e in storage.entries("a")] == [("a/b.bin", 3), ("a/c.bin", 0)]
    storage.delete("a/b.bin")
    storage.delete("a/b.bin")
    assert [e.path for e in storage.entries("a")] == ["a/c.bin"]
    with pytest.raises(FileNotFoundError):
        storage.read("a/b.bin")


def test_entries_of_a_folder_leave_out_its_namesakes(storage: Storage) -> None:
    storage.write("view/x", b"1")
    storage.write("view2/x", b"2")
    assert [e.path for e in storage.entries("view")] == ["view/x"]


def test_replace_if_is_compare_and_swap(storage: Storage) -> None:
    tag = storage.replace_if("pointer", b"1", None)
    with pytest.raises(Conflict):
        storage.replace_if("pointer", b"other", None)
    assert storage.read_tagged("pointer") == (b"1", tag)
    newer = storage.replace_if("pointer", b"2", tag)
    with pytest.raises(Conflict):
        storage.replace_if("pointer", b"3", tag)
    assert storage.read_tagged("pointer") == (b"2", newer)


def test_arrow_sees_the_same_bytes(storage: Storage) -> None:
    storage.write("t/x.bin", b"abc")
    filesystem, root = storage.arrow()
    with filesystem.open_input_file(f"{root}/t/x.bin") as file:
        assert file.read() == b"abc"


def test_one_writer_and_the_other_is_named(storage: Storage) -> None:
    with (
        lease.hold(storage, "first"),
        pytest.raises(StoreBusy, match="run first"),
        lease.hold(storage, "second"),
    ):
        pass
    with lease.hold(storage, "second"):
        assert str(lease.current(storage)).startswith("run second")
    assert lease.current(storage) is None


def _hold_and_hang(root: str) -> None:
    with lease.hold(LocalStorage(Path(root)), "killed"):
        time.sleep(60)


def test_the_lease_of_a_killed_process_is_free_at_once(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    process = multiprocessing.get_context("spawn").Process(target=_hold_and_hang, args=(str(tmp_path),))
    process.start()
    while lease.current(storage) is None:
        time.sleep(0.02)
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    with lease.hold(storage, "next"):
        assert "run next" in str(lease.current(storage))


def test_an_expired_lease_of_another_host_is_taken(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    lease.acquire(storage, "old", ttl_s=0.05, bound_to_process=False)
    time.sleep(0.1)
    assert lease.acquire(storage, "new") is False


def test_uncommitted_files_are_invisible_and_swept(tmp_path: Path) -> None:
    storage = LocalStorage(tmp_path)
    storage.write("view/part.parquet", b"x")
    (tmp_path / "view" / f"{TEMPORARY}dead").write_bytes(b"half")
    assert [e.path for e in storage.entries("view")] == ["view/part.parquet"]
    assert storage.sweep() == 1
    assert storage.read("view/part.parquet") == b"x"


def test_a_failed_commit_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = LocalStorage(tmp_path)
    storage.write("x", b"old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        storage.write("x", b"new")
    assert storage.read("x") == b"old"
    assert not list(tmp_path.glob(f"{TEMPORARY}*"))


def test_other_schemes_are_refused() -> None:
    with pytest.raises(ConfigError, match="must be a folder"):
        open_storage("gopher://x/y")
