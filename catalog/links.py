"""Where the streams of a chained file begin: Ogg (RFC 3533, section 4) and FLAC files that were joined byte by byte.

FFmpeg's Ogg demuxer refuses a later stream with other parameters than the first, and its FLAC parser reads a later
header as audio, so each stream ("link") is opened by itself.
"""

from __future__ import annotations

import mmap
from pathlib import Path

OGG_MAX_PAGE_BYTES = 27 + 255 + 255 * 255  # header, segment table, payload (RFC 3533)
_FLAC_INFO_BYTES = 4 + 4 + 34  # marker, block header, STREAMINFO
Span = tuple[int, int]  # first byte, and the byte after the last


def links(path: Path) -> list[Span]:
    """The byte ranges of the links of the file at `path`, in order; one range for every other kind of file."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        if data[:4] == b"OggS":
            starts = _ogg_starts(data)
        elif data[:4] == b"fLaC":
            starts = _flac_starts(data)
        else:
            starts = []
        bounds = [0, *(start for start in starts if start), len(data)]
    return list(zip(bounds[:-1], bounds[1:], strict=True))


def _ogg_starts(data: mmap.mmap) -> list[int]:
    """Offsets of the first page of each link. The first pages of streams that are multiplexed follow one another."""
    found = sorted(at for mark in (b"OggS\0\x02", b"OggS\0\x06") for at in _every(data, mark))
    starts, behind = [], -1
    for at in found:
        page = data[at : at + OGG_MAX_PAGE_BYTES]
        size = _page_bytes(page)
        if size is None or _ogg_crc(page[:size]) != int.from_bytes(page[22:26], "little"):
            continue  # the mark by chance, inside a payload
        if at != behind:
            starts.append(at)
        behind = at + size
    return starts


def _page_bytes(page: bytes) -> int | None:
    if len(page) < 27 or len(page) < 27 + page[26]:
        return None
    size = 27 + page[26] + sum(page[27 : 27 + page[26]])
    return size if size <= len(page) else None


def _flac_starts(data: mmap.mmap) -> list[int]:
    """Offsets of the `fLaC` markers that a plausible STREAMINFO follows."""
    return [at for mark in (b"fLaC\0\0\0\x22", b"fLaC\x80\0\0\x22") for at in _every(data, mark) if _is_flac(data, at)]


def _is_flac(data: mmap.mmap, at: int) -> bool:
    info = data[at + 8 : at + _FLAC_INFO_BYTES]
    if len(info) < 34:
        return False
    smallest, largest = int.from_bytes(info[:2], "big"), int.from_bytes(info[2:4], "big")
    rate = int.from_bytes(info[10:13], "big") >> 4
    return 16 <= smallest <= largest and 0 < rate <= 655_350


def _every(data: mmap.mmap, mark: bytes) -> list[int]:
    found, at = [], data.find(mark)
    while at >= 0:
        found.append(at)
        at = data.find(mark, at + 1)
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
