from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FileSource

from core.errors import ConfigError, StorageError
from feature_repo.plugins.parquet import read_layout
from feature_repo.plugins.sources import append, locate, new_path, pattern, resolve

ROWS = pa.table({"k": ["a", "b"], "v": [1, 2]})


def source(path: Any, **options: Any) -> FileSource:
    return FileSource(path=str(path), timestamp_field="event", **options)


def put(path: Path, rows: pa.Table = ROWS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, path)
    return path


def read(found: FileSource, *columns: str, repo: Any = None) -> pa.Table:
    layout = read_layout(resolve(found, repo))
    types = layout.types(columns)
    batches = [b for g in layout.groups for _, b in layout.batches(g, types, 1000)]
    return pa.Table.from_batches(batches, pa.schema(list(types.items())))


@pytest.fixture
def view(tmp_path: Path) -> Path:
    """Two committed parts, and what killed writers and other tools leave beside them."""
    root = tmp_path / "offline" / "view"
    put(root / "date=2026-01-02" / "part-2.parquet")
    put(root / "date=2026-01-01" / "part-1.parquet")
    for name in (".tmp-abc", "_SUCCESS", ".part-9.parquet", "_part-9.parquet", "notes.txt"):
        (root / "date=2026-01-01" / name).write_bytes(b"no Parquet")
    put(root / "_temporary" / "part-0.parquet")
    put(root / ".hidden" / "part-0.parquet")
    return root


@pytest.mark.parametrize("shape", ["", "/*/part-*.parquet", "/**/*.parquet", "/date=2026-01-0[12]/part-?.parquet"])
def test_folders_and_globs(view: Path, shape: str) -> None:
    found = resolve(source(f"{view}{shape}"), None)
    assert [os.path.relpath(part.path, view) for part in found.files] == [
        "date=2026-01-01/part-1.parquet",
        "date=2026-01-02/part-2.parquet",
    ]
    assert all(part.size_bytes == os.stat(part.path).st_size for part in found.files)
    assert read(source(f"{view}{shape}"), "v")["v"].to_pylist() == [1, 2, 1, 2]


def test_ways_to_name_a_file(view: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = put(tmp_path / "one file [x].parquet")
    for name, repo in ((file, None), (f"file://{str(file).replace(' ', '%20')}", None), (file.name, tmp_path)):
        assert [part.path for part in resolve(source(name), repo).files] == [str(file)]
    assert len(resolve(source("offline/view"), tmp_path).files) == 2
    assert len(resolve(source("offline/*/*/part-*.parquet"), str(tmp_path)).files) == 2
    monkeypatch.chdir(tmp_path)
    assert len(resolve(source("offline/view"), None).files) == 2


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(StorageError, match="gone.parquet does not exist"):
        resolve(source(tmp_path / "gone.parquet"), None)
    with pytest.raises(StorageError, match="empty holds no Parquet file"):
        resolve(source(tmp_path / "empty"), None)
    with pytest.raises(StorageError, match=r"no file matches .*part-\*"):
        resolve(source(tmp_path / "empty" / "*" / "part-*.parquet"), None)
    with pytest.raises(StorageError, match="cannot open"):
        resolve(source("ftp://host/x.parquet"), None)


@pytest.mark.parametrize("cut", [0, 3, 100, -1])
def test_damaged_files_are_named(view: Path, cut: int) -> None:
    broken = view / "date=2026-01-02" / "part-2.parquet"
    broken.write_bytes(broken.read_bytes()[:cut])
    with pytest.raises(StorageError, match="part-2.parquet cannot be read as Parquet"):
        read(source(view), "v")


def test_damage_behind_a_whole_footer_is_named(tmp_path: Path) -> None:
    rows = pa.table({"k": [str(i) for i in range(5000)]})
    path = tmp_path / "a.parquet"
    pq.write_table(rows, path, compression="zstd")
    data = bytearray(path.read_bytes())
    data[4:2000] = bytes(1996)
    path.write_bytes(data)
    with pytest.raises(StorageError, match="a.parquet is damaged"):
        read(source(path), "k")


def test_schemas_that_differ(tmp_path: Path) -> None:
    def part(number: int, **columns: Any) -> None:
        put(tmp_path / "v" / f"part-{number}.parquet", pa.table(columns))

    time = pa.array([0], pa.timestamp("us", "UTC"))
    part(1, k=pa.array([1], pa.int32()), s=["a"], t=time, x=pa.array([1.5], pa.float32()))
    part(2, s=pa.array(["b"]).dictionary_encode(), k=pa.array([2], pa.int64()), t=time.cast(pa.timestamp("ns")))
    part(3, k=pa.array([3], pa.int64()), s=pa.array(["c"], pa.large_string()), t=time.cast(pa.timestamp("ms", "UTC")))
    part(4, k=pa.array([4], pa.int64()), s=pa.nulls(1), t=time, new=[True])
    found = read(source(tmp_path / "v"), "k", "s", "t", "x", "new")
    assert found.schema.types == [
        pa.int64(),
        pa.string(),
        pa.timestamp("ns", "UTC"),
        pa.float32(),
        pa.bool_(),
    ]
    assert found["k"].to_pylist() == [1, 2, 3, 4]
    assert found["s"].to_pylist() == ["a", "b", "c", None]
    assert found["x"].to_pylist() == [1.5, None, None, None]
    assert found["new"].to_pylist() == [None, None, None, True]
    part(5, k=["five"])
    with pytest.raises(StorageError, match="'k' has types that do not fit.*part-5"):
        read(source(tmp_path / "v"), "k")
    with pytest.raises(StorageError, match="no file of .* has a column 'other'"):
        read(source(tmp_path / "v"), "other")


@pytest.mark.parametrize("shape", ["", "/*/part-*.parquet", "/**/part-*.parquet"])
def test_an_append_is_one_new_file(view: Path, shape: str) -> None:
    before = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in view.rglob("*") if path.is_file()}
    added = append(source(f"{view}{shape}"), None, ROWS.slice(0, 1))
    after = {path: (path.stat().st_mtime_ns, path.stat().st_ino) for path in view.rglob("*") if path.is_file()}
    assert set(after) - set(before) == {Path(added)}
    assert all(after[path] == stamp for path, stamp in before.items())
    assert Path(added).parent.name == f"date={datetime.now(UTC):%Y-%m-%d}" or shape.startswith("/**")
    assert sorted(read(source(f"{view}{shape}"), "k")["k"].to_pylist()) == ["a", "a", "a", "b", "b"]


def test_a_killed_append_is_not_read(view: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def dies(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        append(source(view), None, ROWS)
    monkeypatch.undo()
    assert list(view.rglob(".tmp-*")), "it was killed halfway"
    assert read(source(view), "v").num_rows == 4


def test_a_disk_that_fails_is_told(view: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left"):
        append(source(view), None, ROWS)
    monkeypatch.undo()
    assert read(source(view), "v").num_rows == 4


def test_a_single_file_grows_in_place(tmp_path: Path) -> None:
    path = put(tmp_path / "x.parquet")
    assert append(source(path), None, ROWS.select(["v", "k"])) == str(path)
    assert pq.read_table(path).to_pydict() == {"k": ["a", "b"] * 2, "v": [1, 2] * 2}
    append(source("fresh.parquet"), tmp_path, ROWS)
    assert pq.read_table(tmp_path / "fresh.parquet").num_rows == 2


def test_names_of_new_parts_fit_the_glob() -> None:
    when = datetime(2026, 3, 4, 5, 6, 7, 8, tzinfo=UTC)
    stamp = "20260304T050607000008-r"
    assert new_path("/s/view/*/part-*.parquet", when, "r") == f"/s/view/date=2026-03-04/part-{stamp}.parquet"
    assert new_path("/s/view/date=*/part-*.parquet", when, "r") == f"/s/view/date=2026-03-04/part-{stamp}.parquet"
    assert new_path("/s/view/*.parquet", when, "r") == f"/s/view/part-{stamp}.parquet"
    assert new_path("/s/view/rows_*.parquet", when, "r") == f"/s/view/rows_{stamp}.parquet"
    with pytest.raises(ConfigError, match="no new file name fits"):
        new_path("/s/view/*/fixed-[ab].parquet", when, "r")


def test_globs_as_patterns() -> None:
    assert pattern("b/*/x?.parquet").fullmatch("b/any/x1.parquet")
    assert not pattern("b/*/x?.parquet").fullmatch("b/any/more/x1.parquet")
    assert pattern("b/**/x.parquet").fullmatch("b/x.parquet")
    assert pattern("b/**/x.parquet").fullmatch("b/c/d/x.parquet")
    assert pattern("b/[!a]+(1).parquet").fullmatch("b/c+(1).parquet")


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.mark.slow
@pytest.mark.parametrize("way", ["environment", "override"])
def test_a_bucket(s3_server: str, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    import boto3

    for name, value in (
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    boto3.client("s3", endpoint_url=s3_server).create_bucket(Bucket=f"view-{way}")
    options: dict[str, Any] = {}
    if way == "environment":
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    else:
        monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")  # the source's own endpoint wins
        options = {"s3_endpoint_override": s3_server}
    root = f"s3://view-{way}/some/view"
    glob = source(f"{root}/*/part-*.parquet", **options)
    with pytest.raises(StorageError, match="no file matches"):
        resolve(glob, None)
    first = append(glob, None, ROWS)
    second = append(source(root, **options), None, ROWS)
    assert [part.path for part in resolve(glob, None).files] == sorted([first, second])
    assert read(glob, "k")["k"].to_pylist() == ["a", "b"] * 2
    with pytest.raises(StorageError, match="does not exist"):
        resolve(source(f"{root}2", **options), None)
    single = source(f"{root}/single.parquet", **options)
    append(single, None, ROWS)
    append(single, None, ROWS)
    assert read(single, "k").num_rows == 4


def test_credentials_of_a_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """A source's `ConnectionRef` is asked before the environment."""
    from feast.credentials import ConnectionRef

    for name, value in (("ACCESS_KEY_ID", "own"), ("SECRET_ACCESS_KEY", "secret"), ("DEFAULT_REGION", "eu-west-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setattr("feature_repo.plugins.sources.fs.S3FileSystem", lambda **options: options)
    found = locate(source("s3://b/x.parquet", connection_ref=ConnectionRef(provider="env", name="AWS")), None)
    assert found.filesystem == {"access_key": "own", "secret_key": "secret", "region": "eu-west-1"}
    plain = locate(source("s3://b/x.parquet", s3_endpoint_override="http://e"), None)
    assert plain.filesystem == {"region": "eu-west-1", "endpoint_override": "http://e"}
