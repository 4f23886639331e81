"""From a URI in the catalogue to a file that can be opened, without leaving what the catalogue may reach."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from catalog.container import check_file
from catalog.limits import Limits
from catalog.remote import HttpSource, S3Source, Source
from core.errors import BadItem
from core.items import scratch_folder

COVER = "#cover"  # suffix of a URI that names the picture embedded in an audio file


class Resolver:
    """Opens the URIs of one catalogue. Safe to use from several threads.

    - a relative or absolute path, or `file://`: only inside `root` once links are followed (`outside_root`);
    - `s3://bucket/key`: through boto3 with its usual configuration and `AWS_ENDPOINT_URL`;
    - `http://`, `https://`: only hosts named in `allow_hosts` (`host` or `host:port`; `host_not_allowed`);
    - any of them followed by `#cover`: the picture embedded in that audio file (`no_cover`).
    """

    def __init__(
        self,
        root: Path | None,
        allow_hosts: tuple[str, ...] = (),
        limits: Limits = Limits(),  # noqa: B008
    ) -> None:
        self.root = root.resolve() if root is not None else None
        self.limits = limits
        self._sources: dict[str, Source] = {"s3": S3Source(), "http": HttpSource(allow_hosts)}
        self._sources["https"] = self._sources["http"]

    @contextmanager
    def open(self, uri: str) -> Iterator[Path]:
        """A local path with the bytes of `uri`, valid inside the `with`; what was downloaded is then deleted.

        Raises `BadItem`: `missing_file`, `empty_file`, `too_large`, `outside_root`, `host_not_allowed`, `no_cover`,
        `bad_uri`, or `fetch_failed` when a server does not answer as it should.
        """
        base, cover = split_cover(uri)
        source = self._remote(base)
        if source is None:
            path = self.local_path(base)
            check_file(path, self.limits)
            if not cover:
                yield path
                return
        with scratch_folder("earmark-") as folder:
            if source is not None:
                path = folder / f"media{_suffix(base)}"
                with path.open("wb") as out:
                    source.fetch(base, out, self.limits.max_file_bytes)
                check_file(path, self.limits)
            if cover:
                path = _extract_cover(path, folder / "cover")
                check_file(path, self.limits)
            yield path

    def stat(self, uri: str) -> tuple[int, int] | None:
        """(size in bytes, modification time in ns) of what `uri` names, or None where only its bytes can tell.

        For `#cover` they are those of the audio file. Raises `BadItem` as `open` does.
        """
        base, _ = split_cover(uri)
        source = self._remote(base)
        if source is not None:
            return source.stat(base)
        path = self.local_path(base)
        check_file(path, self.limits)
        status = path.stat()
        return status.st_size, status.st_mtime_ns

    def _remote(self, uri: str) -> Source | None:
        scheme = _scheme(uri)
        if scheme in ("", "file"):
            return None
        if scheme not in self._sources:
            raise BadItem("bad_uri", f"the scheme {scheme!r} is not one of file, s3, http, https")
        if scheme != "s3":
            try:
                urlsplit(uri)
            except ValueError as error:
                raise BadItem("bad_uri", f"not a web address: {error}") from error
        return self._sources[scheme]

    def local_path(self, uri: str) -> Path:
        """The path that a local URI names, links followed. Raises `BadItem` `outside_root` or `bad_uri`."""
        if _scheme(uri) == "file":
            parts = urlsplit(uri)
            if parts.netloc not in ("", "localhost"):
                raise BadItem("bad_uri", f"file:// with the host {parts.netloc!r}")
            name = unquote(parts.path)
        else:
            name = uri
        if not name or "\0" in name:
            raise BadItem("bad_uri", "an empty path or a NUL in it")
        if self.root is None:
            raise BadItem("outside_root", "the catalogue has no folder that local files may be in")
        try:
            path = Path(os.path.realpath(self.root / name))
        except (OSError, ValueError) as error:
            raise BadItem("bad_uri", f"the path cannot be followed: {error}") from error
        if not path.is_relative_to(self.root):
            raise BadItem("outside_root", f"{name!r} leads outside the catalogue's folder")
        return path


def split_cover(uri: str) -> tuple[str, bool]:
    """(`uri` without `#cover`, whether it had it)."""
    return (uri[: -len(COVER)], True) if uri.endswith(COVER) else (uri, False)


def _scheme(uri: str) -> str:
    """The lower-case scheme of `uri`, "" for a plain path: file names may hold colons, so only `scheme://` counts."""
    head, found, _ = uri.partition("://")
    return head.lower() if found and head.isascii() and head.replace("+", "").isalnum() else ""


def _suffix(uri: str) -> str:
    """The file name ending, which helps a demuxer where the bytes alone are ambiguous."""
    suffix = Path(urlsplit(uri).path).suffix
    return suffix if len(suffix) <= 6 and suffix.isascii() and suffix[1:].isalnum() else ""


def _extract_cover(path: Path, target: Path) -> Path:
    from catalog.tags import embedded_cover

    picture = embedded_cover(path)
    if picture is None:
        raise BadItem("no_cover", f"{path.name} embeds no picture")
    target.write_bytes(picture)
    return target
