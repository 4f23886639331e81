"""Where the streams of a chained file begin: Ogg (RFC 3533, section 4) and FLAC files that were joined byte by byte.

FFmpeg's Ogg demuxer refuses a later stream with other parameters than the first, and its FLAC parser reads a later
header as audio, so each stream ("link") is opened by itself.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import BinaryIO

import numpy as np

OGG_MAX_PAGE_BYTES = 27 + 255 + 255 * 255  # header, segment table, payload (RFC 3533)
_FLAC_INFO_BYTES = 4 + 4 + 34  # marker, block header, STREAMINFO
_CHUNK_BYTES = 4 << 20
Span = tuple[int, int]  # first byte, and the byte after the last


def links(path: Path, progress: Callable[[], None] = lambda: None) -> list[Span]:
    """The byte ranges of the links of the file at `path`, in order; one range for every other kind of file. Reads Ogg
    and FLAC files whole, and calls `progress` at each few megabytes of them."""
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        head, starts, end = file.read(4), [], size
        if head == b"OggS":
            starts = _ogg_starts(file, progress)
            end = last_ogg_page(file)[0] or size
        elif head == b"fLaC":
            starts = _flac_starts(file, progress)
    bounds = [0, *(start for start in starts if 0 < start < end), end]
    return list(zip(bounds[:-1], bounds[1:], strict=True))


def last_ogg_page(file: BinaryIO) -> tuple[int, bool]:
    """(the byte behind the last whole page, whether that page ends its stream); (0, False) without a whole page.

    What follows it is no sound, and FFmpeg would take it for a longer or a damaged stream.
    """
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - _CHUNK_BYTES)
        file.seek(start)
        data = file.read(end - start + OGG_MAX_PAGE_BYTES)
        at = data.rfind(b"OggS\0", 0, end - start + 4)
        while at >= 0:
            page = data[at : at + OGG_MAX_PAGE_BYTES]
            if _is_page(page):
                return start + at + (_page_bytes(page) or 0), bool(page[5] & 0x04)
            at = data.rfind(b"OggS\0", 0, at + 4)
        end = start
    return 0, False


def _ogg_starts(file: BinaryIO, progress: Callable[[], None]) -> list[int]:
    """Offsets of the first page of each link. The first pages of streams that are multiplexed follow one another."""
    starts, behind = [], -1
    for at in _every(file, (b"OggS\0\x02", b"OggS\0\x06"), progress):
        file.seek(at)
        page = file.read(OGG_MAX_PAGE_BYTES)
        if not _is_page(page):
            continue  # the mark by chance, inside a payload
        if at != behind:
            starts.append(at)
        behind = at + (_page_bytes(page) or 0)
    return starts


def stray_bytes(path: Path, span: Span) -> int:
    """Bytes of the pages in a link that belong to a stream which does not begin there: its first page is damaged, and
    FFmpeg leaves them out without a word."""
    known, stray = set[bytes](), 0
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as data:
        at = data.find(b"OggS\0", *span)
        while at >= 0:
            page = data[at : at + 27 + 255]
            size = 27 + page[26] + sum(page[27 : 27 + page[26]]) if len(page) >= 27 else len(page)
            if page[5:6] and page[5] & 0x02:
                known.add(page[14:18])
            elif page[14:18] not in known:
                stray += size
            at = data.find(b"OggS\0", max(at + size, at + 5), span[1])
    return stray


def _is_page(page: bytes) -> bool:
    """Whether bytes begin with a whole and undamaged page."""
    size = _page_bytes(page)
    return size is not None and _ogg_crc(page[:size]) == int.from_bytes(page[22:26], "little")


def _page_bytes(page: bytes) -> int | None:
    if len(page) < 27 or len(page) < 27 + page[26]:
        return None
    size = 27 + page[26] + sum(page[27 : 27 + page[26]])
    return size if size <= len(page) else None


def _flac_starts(file: BinaryIO, progress: Callable[[], None]) -> list[int]:
    """Offsets of the `fLaC` markers that a plausible STREAMINFO follows."""
    marks = b"fLaC\0\0\0\x22", b"fLaC\x80\0\0\x22"
    return [at for at in _every(file, marks, progress) if _is_flac(file, at)]


def _is_flac(file: BinaryIO, at: int) -> bool:
    file.seek(at + 8)
    info = file.read(_FLAC_INFO_BYTES - 8)
    if len(info) < 34:
        return False
    smallest, largest = int.from_bytes(info[:2], "big"), int.from_bytes(info[2:4], "big")
    rate = int.from_bytes(info[10:13], "big") >> 4
    return 16 <= smallest <= largest and 0 < rate <= 655_350


def _every(file: BinaryIO, marks: Sequence[bytes], progress: Callable[[], None]) -> list[int]:
    """Offsets of some byte strings of one length and with the same first two bytes, in order. NumPy looks for the first
    byte ten times as fast as `bytes.find` for the whole, which took a quarter of the time of decoding FLAC."""
    found, overlap, offset, rest = [], len(marks[0]) - 1, 0, b""
    file.seek(0)
    while chunk := file.read(_CHUNK_BYTES):
        progress()
        data = rest + chunk
        values = np.frombuffer(data, np.uint8)
        places = np.flatnonzero(values[: max(0, len(data) - overlap)] == marks[0][0])
        for at in places[values[places + 1] == marks[0][1]].tolist():
            if data.startswith(tuple(marks), at):
                found.append(offset + at)
        rest = data[-overlap:]
        offset += len(data) - len(rest)
    return found


def _crc_table() -> list[int]:
    table = []
    for number in range(256):
        rest = number << 24
        for _ in range(8):
            rest = ((rest << 1) ^ 0x04C11DB7 if rest & 0x80000000 else rest << 1) & 0xFFFFFFFF
        table.append(rest)
    return table


_CRC = _crc_table()


def _ogg_crc(page: bytes) -> int:
    """The checksum of a page, for which its own field counts as zero (RFC 3533, section 6)."""
    rest = 0
    for byte in page[:22] + b"\0\0\0\0" + page[26:]:
        rest = (rest << 8 & 0xFFFFFFFF) ^ _CRC[rest >> 24 ^ byte]
    return rest
