"""Opening an audio file with FFmpeg's demuxers, restricted to the containers that a catalogue may hold."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import av
from av.audio.stream import AudioStream
from av.container import InputContainer

from catalog.limits import Limits
from catalog.links import Span
from core.errors import BadItem

# Without a white list FFmpeg would also follow playlists (HLS, concat) that make it read other files or call servers.
FORMATS = "wav,w64,aiff,flac,mp3,aac,ogg,mov,matroska"
# PyAV before 19 raises on tags that are not UTF-8 unless told otherwise; later ones have no such choice.
LENIENT: dict[str, Any] = {"metadata_errors": "replace"} if int(av.__version__.split(".")[0]) < 19 else {}
OPTIONS = {"protocol_whitelist": "file,subfile", "format_whitelist": FORMATS}


def check_file(path: Path, limits: Limits) -> int:
    """Size in bytes of the regular file at `path`.

    Raises `BadItem`: `missing_file` (also for folders and devices), `unreadable`, `empty_file`, `too_large`.
    """
    try:
        size = path.stat().st_size
        regular = path.is_file()
    except FileNotFoundError as error:
        raise BadItem("missing_file", f"there is no file {path.name}") from error
    except (OSError, ValueError) as error:
        cause = getattr(error, "strerror", None) or error.__class__.__name__
        reason = "unreadable" if getattr(error, "errno", None) in (errno.EACCES, errno.EIO) else "missing_file"
        raise BadItem(reason, f"{path.name} cannot be inspected: {cause}") from error
    if not regular:
        raise BadItem("missing_file", f"{path.name} is not a regular file")
    if size == 0:
        raise BadItem("empty_file", f"{path.name} has 0 bytes")
    if size > limits.max_file_bytes:
        raise BadItem("too_large", f"{path.name} has {size:,} bytes; {limits.max_file_bytes:,} are allowed")
    return size


@contextmanager
def open_audio(path: Path, span: Span | None = None) -> Iterator[tuple[InputContainer, AudioStream]]:
    """The container and its best audio stream, decoding in the calling thread only. `span` is the part of the file
    that is read, as if it stood alone.

    Raises `BadItem`: `not_audio` when no allowed demuxer knows the bytes, `no_audio_stream`, `missing_file`.
    """
    try:
        # The file: prefix keeps a name such as "concat:a.wav" or "pipe:0" from being read as a protocol.
        part = f"subfile,,start,{span[0]},end,{span[1]},,:" if span else ""
        container = av.open(f"{part}file:{path}", options=dict(OPTIONS), **LENIENT)
    except FileNotFoundError as error:
        raise BadItem("missing_file", f"{path.name} cannot be opened: {error.strerror}") from error
    except PermissionError as error:
        raise BadItem("unreadable", f"{path.name} cannot be opened: {error.strerror}") from error
    except (av.FFmpegError, ValueError) as error:
        raise BadItem("not_audio", f"{path.name} is in no audio container that is read ({FORMATS})") from error
    with container:
        stream = container.streams.best("audio")
        if not isinstance(stream, AudioStream):
            raise BadItem("no_audio_stream", f"{path.name} ({container.format.name}) has no audio stream")
        stream.thread_type = "NONE"  # type: ignore[attr-defined]
        _forget_order(stream)
        yield container, stream


def _forget_order(stream: AudioStream) -> None:
    """Makes the decoder number the channels where the container lists them in an order of its own, as AIFF and MOV do
    for 7.1. PyAV (up to 18) frees FFmpeg's list of them once for each frame, which ends the process."""
    layout = stream.codec_context.layout
    if "(" in layout.name:  # FFmpeg's name of every layout that is none of its own
        stream.codec_context.layout = f"{layout.nb_channels} channels"  # type: ignore[assignment]


def metadata(path: Path) -> dict[str, str]:
    """The tags of the container and of its audio stream by lower-case name, the container's before the stream's.
    Raises `BadItem` as `open_audio` does."""
    with open_audio(path) as (container, stream):
        found = {name.lower(): text for name, text in stream.metadata.items()}
        return found | {name.lower(): text for name, text in container.metadata.items()}
