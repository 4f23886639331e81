"""Opening what a catalogue names: only inside its folder, its buckets and its allowed hosts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from catalog.limits import Limits
from catalog.sources import Resolver
from core.errors import BadItem

BODY = b"RIFF and some more bytes"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        where = self.path
        if where == "/gone":
            self.send_error(404)
        elif where == "/away":
            self.send_response(302)
            self.send_header("Location", "http://localhost:1/elsewhere")
            self.end_headers()
        else:
            self.send_response(200)
            length = {"/lies": 10_000, "/huge": 10**12}.get(where, len(BODY))
            if where != "/endless":
                self.send_header("Content-Length", str(length))
            self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(BODY * (100 if where == "/endless" else 1))

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def host() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()


def reason(act: Callable[[], object]) -> str:
    with pytest.raises(BadItem) as caught:
        act()
    return caught.value.reason


def read(resolver: Resolver, uri: str) -> bytes:
    with resolver.open(uri) as path:
        return path.read_bytes()


def test_local_files_stay_inside_the_root(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (root / "a b: c.wav").write_bytes(BODY)
    (tmp_path / "secret").write_bytes(b"secret")
    (root / "link").symlink_to(tmp_path / "secret")
    resolver = Resolver(root)
    assert read(resolver, "a b: c.wav") == BODY
    assert read(resolver, (root / "a b: c.wav").as_uri()) == BODY
    assert read(resolver, str(root / "a b: c.wav")) == BODY
    for uri in ("../secret", "link", str(tmp_path / "secret"), (tmp_path / "secret").as_uri()):
        assert reason(lambda uri=uri: read(resolver, uri)) == "outside_root"  # type: ignore[misc]
    assert reason(lambda: read(resolver, "nowhere.wav")) == "missing_file"
    assert reason(lambda: read(resolver, "ftp://host/a")) == "bad_uri"
    assert reason(lambda: read(resolver, "file://host/a")) == "bad_uri"
    assert reason(lambda: read(resolver, "a\0b")) == "bad_uri"
    assert reason(lambda: read(Resolver(None), "a")) == "outside_root"


def test_the_web_by_allow_list(host: str) -> None:
    resolver = Resolver(None, (host,), Limits(max_file_bytes=1000))
    assert read(resolver, f"http://{host}/a.wav") == BODY
    assert resolver.stat(f"http://{host}/a.wav") == (len(BODY), 1767225600 * 10**9)  # 2026-01-01
    cases = {
        "/gone": "missing_file",
        "/away": "host_not_allowed",
        "/lies": "too_large",
        "/huge": "too_large",
        "/endless": "too_large",
    }
    for path, expected in cases.items():
        assert reason(lambda path=path: read(resolver, f"http://{host}{path}")) == expected, path  # type: ignore[misc]
    generous = Resolver(None, (host,))
    assert reason(lambda: read(generous, f"http://{host}/lies")) == "fetch_failed"
    assert reason(lambda: read(Resolver(None), f"http://{host}/a.wav")) == "host_not_allowed"
    assert reason(lambda: read(resolver, f"http://user:pass@{host}/a.wav")) == "bad_uri"
    assert reason(lambda: read(resolver, "https://[bad/x.mp3")) == "bad_uri"
    assert reason(lambda: resolver.stat("https://[bad/x.mp3")) == "bad_uri"
    closed = Resolver(None, ("127.0.0.1:9",))
    assert reason(lambda: read(closed, "http://127.0.0.1:9/a.wav")) == "fetch_failed"


def test_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    address, port = server.get_host_and_port()
    for name, value in (
        ("AWS_ENDPOINT_URL", f"http://{address}:{port}"),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="media")
    client.put_object(Bucket="media", Key="odd key?#.wav", Body=BODY)
    client.put_object(Bucket="media", Key="large", Body=b"x" * 2000)
    resolver = Resolver(None, limits=Limits(max_file_bytes=1000))
    assert read(resolver, "s3://media/odd key?#.wav") == BODY
    found = resolver.stat("s3://media/odd key?#.wav")
    assert found is not None and found[0] == len(BODY)
    assert reason(lambda: read(resolver, "s3://media/nothing")) == "missing_file"
    assert reason(lambda: read(resolver, "s3://nobody/nothing")) == "missing_file"
    assert reason(lambda: read(resolver, "s3://media/large")) == "too_large"
    assert reason(lambda: read(resolver, "s3://media")) == "bad_uri"
    server.stop()


def test_what_was_downloaded_is_deleted(host: str) -> None:
    resolver = Resolver(None, (host,))
    with resolver.open(f"http://{host}/a.wav") as path:
        assert path.suffix == ".wav"
    assert not path.exists()
