"""A store in an S3 bucket: one PUT a commit, conditional PUTs for pointers."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

from core.errors import ConfigError, StorageError
from core.extras import require
from core.names import relative_path
from core.storage import Conflict, Entry

_LOST_RACE = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
_ABSENT = {"NoSuchKey", "404", "NotFound"}


class S3Storage:
    """Objects under `s3://bucket/prefix`. Credentials, region and endpoint come from boto3's usual places
    (`AWS_ENDPOINT_URL` names another endpoint than Amazon's)."""

    def __init__(self, bucket: str, prefix: str = "") -> None:
        if not bucket:
            raise ConfigError("an s3:// store needs a bucket: s3://bucket/prefix")
        self.bucket = bucket
        self.prefix = prefix
        self.uri = f"s3://{bucket}/{prefix}".rstrip("/")
        self._client: Any = None

    @property
    def client(self) -> Any:
        if self._client is None:
            require(["s3"], "an s3:// store")
            import boto3

            self._client = boto3.client("s3")
        return self._client

    def _key(self, path: str) -> str:
        relative_path(path.rstrip("/"))
        return f"{self.prefix}/{path}" if self.prefix else path

    def read(self, path: str) -> bytes:
        found = self.read_tagged(path)
        if found is None:
            raise FileNotFoundError(f"{self.uri}/{path}")
        return found[0]

    def read_tagged(self, path: str) -> tuple[bytes, str] | None:
        try:
            answer = self.client.get_object(Bucket=self.bucket, Key=self._key(path))
            return answer["Body"].read(), answer["ETag"]
        except Exception as error:
            if _code(error) in _ABSENT:
                return None
            raise StorageError(f"cannot read {self.uri}/{path}: {error}") from error

    def write(self, path: str, data: bytes) -> None:
        self._put(path, data)

    def replace_if(self, path: str, data: bytes, tag: str | None) -> str:
        return self._put(path, data, **({"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}))

    def _put(self, path: str, data: bytes, **condition: str) -> str:
        try:
            return self.client.put_object(Bucket=self.bucket, Key=self._key(path), Body=data, **condition)["ETag"]
        except Exception as error:
            if condition and _code(error) in _LOST_RACE | _ABSENT:
                raise Conflict(f"{self.uri}/{path} was changed by somebody else") from error
            raise StorageError(f"cannot commit {self.uri}/{path}: {error}") from error

    def entries(self, prefix: str) -> list[Entry]:
        folder = self._key(prefix.strip("/") + "/") if prefix else f"{self.prefix}/" if self.prefix else ""
        skip = len(self.prefix) + 1 if self.prefix else 0
        try:
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=folder)
            found = [Entry(item["Key"][skip:], item["Size"]) for page in pages for item in page.get("Contents", ())]
        except Exception as error:
            raise StorageError(f"cannot list {self.uri}/{prefix}: {error}") from error
        return sorted(found, key=lambda entry: entry.path)

    def delete(self, path: str) -> None:
        try:
            self.client.delete_object(Bucket=self.bucket, Key=self._key(path))
        except Exception as error:
            raise StorageError(f"cannot delete {self.uri}/{path}: {error}") from error

    def local_path(self, path: str) -> Path:
        handle, name = tempfile.mkstemp(suffix=Path(path).suffix)
        with os.fdopen(handle, "wb") as file:
            file.write(self.read(path))
        return Path(name)

    def arrow(self) -> tuple[Any, str]:
        from pyarrow import fs

        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        options = {"endpoint_override": endpoint} if endpoint else {}
        if region:
            options["region"] = region
        return fs.S3FileSystem(**options), f"{self.bucket}/{self.prefix}".rstrip("/")


def _code(error: Exception) -> str:
    response = getattr(error, "response", None) or {}
    return str(response.get("Error", {}).get("Code", ""))
