"""Fetching media from S3 and from allow-listed web hosts."""

from __future__ import annotations

import http.client
import os
import threading
import urllib.error
import urllib.request
from email.utils import parsedate_to_datetime
from typing import Any, BinaryIO, Protocol
from urllib.parse import SplitResult, urlsplit

from core.errors import BadItem, ConfigError
from core.extras import require

CHUNK_BYTES = 1 << 20
TIMEOUT_S = 30.0  # of each socket operation


class Source(Protocol):
    """Where URIs of one scheme come from."""

    def fetch(self, uri: str, out: BinaryIO, max_bytes: int) -> None:
        """Write the bytes of `uri` to `out`. Raises `BadItem`: `missing_file`, `too_large`, `fetch_failed`."""
        ...

    def stat(self, uri: str) -> tuple[int, int] | None:
        """(size in bytes, modification time in ns), or None where the server does not tell."""
        ...


class S3Source:
    """`s3://bucket/key` through boto3 (credentials, region and `AWS_ENDPOINT_URL` from its usual configuration)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._client: Any = None

    def fetch(self, uri: str, out: BinaryIO, max_bytes: int) -> None:
        bucket, key = self._name(uri)
        try:
            answer = self._s3().get_object(Bucket=bucket, Key=key)
            if answer["ContentLength"] > max_bytes:
                raise BadItem("too_large", f"{answer['ContentLength']:,} bytes; {max_bytes:,} are allowed")
            with answer["Body"] as body:
                _copy(body, out, max_bytes, answer["ContentLength"])
        except BadItem:
            raise
        except Exception as error:  # boto3 raises errors of its own, of botocore and of urllib3
            raise self._bad(uri, error) from error

    def stat(self, uri: str) -> tuple[int, int] | None:
        bucket, key = self._name(uri)
        try:
            head = self._s3().head_object(Bucket=bucket, Key=key)
        except Exception as error:
            raise self._bad(uri, error) from error
        return head["ContentLength"], int(head["LastModified"].timestamp()) * 10**9

    def _s3(self) -> Any:
        with self._lock:  # a client may be shared between threads, making one may not
            if self._client is None:
                require(["s3"], "a catalogue with s3:// URIs")
                import boto3

                self._client = boto3.client("s3", endpoint_url=os.environ.get("AWS_ENDPOINT_URL") or None)
            return self._client

    @staticmethod
    def _name(uri: str) -> tuple[str, str]:
        bucket, _, key = uri[len("s3://") :].partition("/")  # a key may hold ? and #, so it is not parsed as a URL
        if not bucket or not key:
            raise BadItem("bad_uri", "s3:// wants a bucket and a key")
        return bucket, key

    @staticmethod
    def _bad(uri: str, error: Exception) -> BadItem:
        if isinstance(error, ConfigError):
            raise error
        response = getattr(error, "response", None)
        code = str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""
        if code in ("404", "NoSuchKey", "NoSuchBucket", "NotFound"):
            return BadItem("missing_file", f"{uri} does not exist")
        return BadItem("fetch_failed", f"{uri}: {code or error.__class__.__name__}: {error}")


class HttpSource:
    """`http(s)://` from the hosts named in `allow_hosts`; redirects only within one host, never from https to http."""

    def __init__(self, allow_hosts: tuple[str, ...]) -> None:
        self._hosts = frozenset(host.lower() for host in allow_hosts)
        self._opener = urllib.request.build_opener(_SameHost())

    def fetch(self, uri: str, out: BinaryIO, max_bytes: int) -> None:
        with self._open(uri, "GET") as answer:
            stated = _length(answer.headers.get("Content-Length"))
            if stated is not None and stated > max_bytes:
                raise BadItem("too_large", f"{stated:,} bytes; {max_bytes:,} are allowed")
            try:
                _copy(answer, out, max_bytes, stated)
            except (OSError, http.client.HTTPException) as error:
                raise BadItem("fetch_failed", f"{uri}: the transfer broke off ({error})") from error

    def stat(self, uri: str) -> tuple[int, int] | None:
        try:
            with self._open(uri, "HEAD") as answer:
                size, changed = _length(answer.headers.get("Content-Length")), answer.headers.get("Last-Modified")
        except BadItem as error:
            if error.reason == "fetch_failed":
                return None  # many servers refuse HEAD; GET has the last word
            raise
        if size is None or not changed:
            return None
        try:
            return size, int(parsedate_to_datetime(changed).timestamp()) * 10**9
        except ValueError:
            return None

    def _open(self, uri: str, method: str) -> Any:
        parts = urlsplit(uri)
        if parts.username or not parts.hostname:
            raise BadItem("bad_uri", "a web address wants a host and carries no credentials")
        if parts.hostname not in self._hosts and parts.netloc.lower() not in self._hosts:
            raise BadItem("host_not_allowed", f"{parts.netloc} is not on the list of allowed hosts")
        try:
            return self._opener.open(urllib.request.Request(uri, method=method), timeout=TIMEOUT_S)
        except urllib.error.HTTPError as error:
            with error:
                reason = "missing_file" if error.code in (404, 410) else "fetch_failed"
                raise BadItem(reason, f"{uri}: HTTP {error.code}") from error
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise BadItem("fetch_failed", f"{uri}: {error}") from error


class _SameHost(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        old, new = urlsplit(req.full_url), urlsplit(newurl)
        if _origin(new) != _origin(old) and not (
            new.hostname == old.hostname
            and (old.scheme, old.port, new.scheme, new.port) == ("http", None, "https", None)
        ):
            fp.close()
            raise BadItem("host_not_allowed", f"{old.netloc} redirects to {new.scheme}://{new.netloc}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port


def _length(header: str | None) -> int | None:
    return int(header) if header and header.isascii() and header.isdigit() else None


def _copy(body: Any, out: BinaryIO, max_bytes: int, stated: int | None) -> None:
    done = 0
    while chunk := body.read(CHUNK_BYTES):
        done += len(chunk)
        if done > max_bytes:
            raise BadItem("too_large", f"more than {max_bytes:,} bytes, which is the limit")
        out.write(chunk)
    if stated is not None and done < stated:
        raise BadItem("fetch_failed", f"the transfer ended after {done:,} of {stated:,} bytes")
