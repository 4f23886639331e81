"""A hash of the sound alone, so that new tags do not make a file another one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import av
import blake3

from catalog.container import open_audio
from core.errors import BadItem

__all__ = ["media_hash"]

MEDIA_HASH_VERSION = b"earmark-media-1"


def media_hash(path: Path, progress: Callable[[], None] = lambda: None) -> str | None:
    """BLAKE3 of the compressed audio packets and the codec's parameters, in hexadecimal; None for no audio.

    Nothing is decoded. Tags, covers, chapters and padding are not part of it; a re-encoded file has another hash.
    """
    try:
        with open_audio(path) as (container, stream):
            codec = stream.codec_context
            digest = blake3.blake3(MEDIA_HASH_VERSION)
            digest.update(f"{codec.name} {codec.sample_rate} {codec.channels}\0".encode())
            digest.update(_parameters(codec.name, bytes(codec.extradata or b"")))
            packets = 0
            for packet in container.demux(stream):
                progress()
                if packet.size:
                    digest.update(bytes(packet))
                    packets += 1
    except (BadItem, av.FFmpegError, OSError):
        return None
    return digest.hexdigest() if packets else None


def _parameters(codec: str, extradata: bytes) -> bytes:
    """`extradata` without the comments that Vorbis keeps in it: its second of three Xiph-laced headers."""
    if codec != "vorbis" or len(extradata) < 3 or extradata[0] != 2:
        return extradata
    sizes, at = [], 1
    for _ in range(2):
        size = 0
        while at < len(extradata) and extradata[at] == 255:
            size, at = size + 255, at + 1
        if at >= len(extradata):
            return extradata
        sizes.append(size + extradata[at])
        at += 1
    return extradata[at : at + sizes[0]] + extradata[at + sizes[0] + sizes[1] :]
