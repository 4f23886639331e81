"""How long a file says it is, container by container, and whether its bytes end early.

Every rule rests on what the container states outright, so that intact but unusual files are never called truncated:

- **WAV**: size of the data chunk (RIFF, RF64 `ds64`); 0 and the placeholders of streaming writers say nothing.
- **FLAC**: total samples in STREAMINFO; 0 says nothing.
- **MP3**: frame count of a Xing, Info or VBRI header, less LAME's delay and padding; without one nothing is known.
- **MP4/M4A**: a top-level box that reaches past the end of the file is a cut, whether or not the index survived it.
- **Ogg** (Vorbis, Opus): states no length, but pages state theirs: bytes after the last whole page, when that page does
  not end its stream, are a cut. Dumps of live streams, whole pages without an end mark, pass.
- **ADTS AAC**: states nothing; a last frame that is cut fails to decode, which `catalog.audio` sees.

Sources: RFC 9639 (FLAC), RFC 3533 (Ogg), ISO/IEC 14496-12 (MP4 boxes), EBU Tech 3306 (RF64), and the Xing/LAME tag
as described in LAME's `VbrTag.c`.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

OGG_MAX_PAGE_BYTES = 27 + 255 + 255 * 255  # header, segment table, payload (RFC 3533)
_STREAMED_WAV_BYTES = 0x7FFFF000  # sizes from here on are placeholders of writers that could not seek back
_MP3_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


@dataclass(frozen=True)
class Declared:
    """`duration_s` is what the file states, None when it states nothing; `cut` says how its bytes end early."""

    duration_s: float | None = None
    cut: str | None = None


def declared(path: Path) -> Declared:
    """Read the stated length of the file at `path` from its first and last kilobytes; never decodes."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(12)
        if head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE":
            return _wav(file, size)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            return Declared(cut=_mp4_cut(file, size))
        if head[:4] == b"OggS":
            return Declared(cut=_ogg_cut(file, size))
        start = _after_id3(file)
        file.seek(start)
        head = file.read(4)
        if head == b"fLaC":
            return Declared(_flac(file))
        if len(head) == 4 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 0x06:
            file.seek(start)
            return Declared(_mp3(file.read(4096)))
    return Declared()


def _after_id3(file: BinaryIO) -> int:
    """Offset behind any ID3v2 tags and the zeros that some taggers leave behind them."""
    offset = 0
    while True:
        file.seek(offset)
        head = file.read(10)
        if len(head) < 10 or head[:3] != b"ID3":
            break
        a, b, c, d = (byte & 0x7F for byte in head[6:10])
        offset += 10 + (a << 21 | b << 14 | c << 7 | d) + (10 if head[5] & 0x10 else 0)
    file.seek(offset)
    block = file.read(65_536)
    stripped = block.lstrip(b"\0")
    return offset + len(block) - len(stripped) if stripped else offset


def _wav(file: BinaryIO, size: int) -> Declared:
    file.seek(12)
    wide_bytes: int | None = None
    bytes_per_s = 0
    while len(head := file.read(8)) == 8:
        name, length = head[:4], struct.unpack("<I", head[4:])[0]
        body = file.tell()
        if name == b"ds64":
            wide = file.read(16)
            wide_bytes = struct.unpack("<Q", wide[8:16])[0] if len(wide) == 16 else None
        elif name == b"fmt ":
            fmt = file.read(12)
            bytes_per_s = struct.unpack("<I", fmt[8:12])[0] if len(fmt) == 12 else 0
        elif name == b"data":
            if wide_bytes is not None and length == 0xFFFFFFFF:
                length = wide_bytes
            elif length == 0 or length >= _STREAMED_WAV_BYTES:
                return Declared()
            seconds = length / bytes_per_s if bytes_per_s else None
            missing = body + length - size
            # Some writers count the pad byte, some do not: a sample frame or two is no cut.
            cut = f"the data chunk is {missing:,} bytes short" if missing > max(64, length // 1000) else None
            return Declared(seconds, cut)
        file.seek(body + length + (length & 1))
    return Declared()


def _flac(file: BinaryIO) -> float | None:
    block = file.read(4 + 34)
    if len(block) < 38 or block[0] & 0x7F != 0:
        return None
    packed = struct.unpack(">Q", block[14:22])[0]  # 20 bits rate, 3 channels, 5 depth, 36 total samples
    rate, total = packed >> 44, packed & ((1 << 36) - 1)
    return total / rate if rate and total else None


def _mp3(frame: bytes) -> float | None:
    if len(frame) < 200:
        return None
    version, layer = frame[1] >> 3 & 3, frame[1] >> 1 & 3
    rate_index, mono = frame[2] >> 2 & 3, frame[3] >> 6 == 3
    if version not in _MP3_RATES or layer != 1 or rate_index == 3:
        return None
    rate = _MP3_RATES[version][rate_index]
    frame_samples = 1152 if version == 3 else 576
    side = (17 if mono else 32) if version == 3 else (9 if mono else 17)
    at = 4 + side
    if frame[at : at + 4] in (b"Xing", b"Info"):
        flags = struct.unpack(">I", frame[at + 4 : at + 8])[0]
        if not flags & 1:
            return None
        frames = struct.unpack(">I", frame[at + 8 : at + 12])[0]
        tag = at + 8 + 4 + (4 if flags & 2 else 0) + (100 if flags & 4 else 0) + (4 if flags & 8 else 0)
        trim = 0
        if frame[tag : tag + 4] in (b"LAME", b"Lavf", b"Lavc"):
            delay = int.from_bytes(frame[tag + 21 : tag + 24], "big")
            trim = (delay >> 12) + (delay & 0xFFF)
        return max(frames * frame_samples - trim, 0) / rate if frames else None
    if frame[36:40] == b"VBRI":
        frames = struct.unpack(">I", frame[50:54])[0]
        return frames * frame_samples / rate if frames else None
    return None


def _mp4_cut(file: BinaryIO, size: int) -> str | None:
    offset = 0
    while offset + 8 <= size:
        file.seek(offset)
        head = file.read(16)
        length, name = struct.unpack(">I", head[:4])[0], head[4:8]
        if length == 1 and len(head) == 16:
            length = struct.unpack(">Q", head[8:16])[0]
        elif length == 0:  # runs to the end of the file by definition
            return None
        if length < 8 or not name.isascii():
            return None  # trailing bytes that are not a box
        if offset + length > size:
            return f"the {name.decode('ascii', 'replace')!r} box is {offset + length - size:,} bytes short"
        offset += length
    return None


def _ogg_cut(file: BinaryIO, size: int) -> str | None:
    file.seek(max(0, size - 2 * OGG_MAX_PAGE_BYTES))
    tail = file.read()
    ends_stream = False
    at = tail.find(b"OggS\0")
    end = at
    while at >= 0:
        segments = tail[at + 26] if at + 26 < len(tail) else None
        table = tail[at + 27 : at + 27 + segments] if segments is not None else b""
        page_end = at + 27 + len(table) + sum(table)
        if segments is None or len(table) < segments or page_end > len(tail):
            # Half a page, unless this is the capture pattern by chance inside the junk behind an ended stream.
            return None if ends_stream else "the last page is incomplete"
        if at >= end:  # not inside the payload of the page before
            end, ends_stream = page_end, bool(tail[at + 5] & 0x04)
        at = tail.find(b"OggS\0", max(at + 5, end))
    return f"{len(tail) - end} bytes of an incomplete page at the end" if end < len(tail) and not ends_stream else None
