"""How long a file says it is, container by container, and whether its bytes end early.

A file is truncated where its bytes end early. Most containers state their size in bytes, and then a wrong duration in
a header is only a wrong number:

- **WAV, AIFF, W64**: size of the data; 0 and the placeholders of streaming writers mean unknown. The duration is exact
  for PCM alone; of compressed WAV (ADPCM, GSM) the bytes a second are nominal.
- **MP4/M4A**: a top-level box that reaches past the end of the file is a cut, whether or not the index survived it.
- **Matroska, WebM**: the segment's size, where the writer knew it.
- **Ogg**: states no length, but pages state theirs: bytes after the last whole page, when that page does not end its
  stream or when they begin another page, are a cut. Dumps of live streams (whole pages without an end mark) count as
  whole.
- **MP3**: a Xing, Info or VBRI header counts frames and bytes. The file is cut where both exceed what is there: a tool
  that edits a file may leave either of them wrong.
- **FLAC**: total samples in STREAMINFO, the only length that it states; 0 means unknown.
- **ADTS AAC, MPEG audio without such a header**: state nothing; a last frame that is cut fails to decode, which
  `catalog.audio` sees.

Sources: RFC 9639 (FLAC), RFC 3533 (Ogg), RFC 9559 (Matroska), ISO/IEC 14496-12 (MP4 boxes), EBU Tech 3306 (RF64), and
the Xing/LAME tag as described in LAME's `VbrTag.c`.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from catalog.links import Span, last_ogg_page, links

_STREAMED_WAV_BYTES = (
    0x7FFFF000  # of WAV and AIFF: sizes from here on are placeholders of writers that could not seek back
)
MP3_FRAME_BYTES = 1441  # of the largest frame
MPEG_FRAME_BYTES = 1728  # of the largest frame of layer II
_MP4_SOUND = {b"moov", b"mdat", b"moof", b"styp", b"sidx"}  # boxes of sound and its index, also in fragments
_MP3_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8_000)}


@dataclass(frozen=True)
class Declared:
    """What a file states of its length.

    `duration_s` is None where nothing exact is stated; `cut` says how the bytes end early. `counted`: the duration is
    the only evidence of an early end, since the bytes say nothing. `audio_bytes`: what the header counts, None if
    nothing.
    """

    duration_s: float | None = None
    cut: str | None = None
    counted: bool = False
    audio_bytes: int | None = None


def declared(path: Path, spans: Sequence[Span] = ()) -> Declared:
    """Read the stated length of the file at `path` from its first and last kilobytes; never decodes. `spans` are its
    links, where they are known."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(24)
        if head[:4] in (b"RIFF", b"RF64", b"BW64") and head[8:12] == b"WAVE":
            return _wav(file, size)
        if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
            length = struct.unpack(">I", head[4:8])[0]
            return Declared(cut=_short("file", 8 + length, size) if length < _STREAMED_WAV_BYTES else None)
        if head[:4] == b"riff" and len(head) == 24:  # Sony Wave64
            return Declared(cut=_short("file", struct.unpack("<Q", head[16:24])[0], size))
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip"):
            cut, sized = _mp4_cut(file, size)
            return Declared(cut=cut, counted=not sized)
        if head[:4] == b"\x1aE\xdf\xa3":
            return Declared(cut=_matroska_cut(file, size))
        if head[:4] == b"OggS":
            return Declared(cut=_ogg_cut(file, size))
        start = _after_id3(file)
        file.seek(start)
        head = file.read(4)
        if head == b"fLaC":
            seconds = [_flac(file, at) for at in ([start] if start else [first for first, _ in spans or links(path)])]
            known = [s for s in seconds if s is not None]
            return Declared(sum(known) if len(known) == len(seconds) else None, counted=True)
        if len(head) == 4 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0 and head[1] & 0x06:
            file.seek(start)
            return _mp3(file.read(4096), start, size)
    return Declared()


def _short(what: str, end: int, size: int) -> str | None:
    """How a part that should end at byte `end` is cut. A few bytes less are a writer's wrong padding."""
    return f"the {what} is {end - size:,} bytes short" if end - size > max(64, end // 1000) else None


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
            bytes_per_s = _pcm_bytes_per_s(file.read(min(length, 40)))
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


def _pcm_bytes_per_s(fmt: bytes) -> int:
    """Of a `fmt ` chunk: exact for integer and float PCM, A-law and µ-law; 0 for what is compressed."""
    if len(fmt) < 16:
        return 0
    tag, channels, rate, _, block_align, bits = struct.unpack("<HHIIHH", fmt[:16])
    if tag == 0xFFFE and len(fmt) >= 26:  # the real tag begins the extension's GUID
        tag = struct.unpack("<H", fmt[24:26])[0]
    if tag not in (1, 3, 6, 7) or block_align != channels * ((bits + 7) // 8):
        return 0
    return int(rate * block_align)


def _flac(file: BinaryIO, at: int) -> float | None:
    file.seek(at + 4)
    block = file.read(4 + 34)
    if len(block) < 38 or block[0] & 0x7F != 0:
        return None
    packed = struct.unpack(">Q", block[14:22])[0]  # 20 bits rate, 3 channels, 5 depth, 36 total samples
    rate, total = packed >> 44, packed & ((1 << 36) - 1)
    return total / rate if rate and total else None


def _mp3(frame: bytes, start: int, size: int) -> Declared:
    """Of the first frame, which begins at byte `start` of a file of `size` bytes."""
    if len(frame) < 200:
        return Declared()
    version, layer = frame[1] >> 3 & 3, frame[1] >> 1 & 3
    rate_index, mono = frame[2] >> 2 & 3, frame[3] >> 6 == 3
    if version not in _MP3_RATES or layer != 1 or rate_index == 3:
        return Declared()
    rate = _MP3_RATES[version][rate_index]
    frame_samples = 1152 if version == 3 else 576
    side = (17 if mono else 32) if version == 3 else (9 if mono else 17)
    at = 4 + side
    frames = counted_bytes = trim = 0
    if frame[at : at + 4] in (b"Xing", b"Info"):
        flags, at = struct.unpack(">I", frame[at + 4 : at + 8])[0], at + 8
        if flags & 1:
            frames, at = struct.unpack(">I", frame[at : at + 4])[0], at + 4
        if flags & 2:
            counted_bytes, at = struct.unpack(">I", frame[at : at + 4])[0], at + 4
        tag = at + (100 if flags & 4 else 0) + (4 if flags & 8 else 0)
        if frame[tag : tag + 4] in (b"LAME", b"Lavf", b"Lavc"):
            delay = int.from_bytes(frame[tag + 21 : tag + 24], "big")
            trim = (delay >> 12) + (delay & 0xFFF)
    elif frame[36:40] == b"VBRI":
        counted_bytes, frames = struct.unpack(">II", frame[46:54])
    seconds = max(frames * frame_samples - trim, 0) / rate if frames else None
    missing = start + counted_bytes - size if counted_bytes else 0
    cut = missing > max(MP3_FRAME_BYTES, counted_bytes // 100)
    if cut and seconds is None:
        return Declared(None, f"the header counts {missing:,} bytes more")
    # Some writers count the tag in front as well, so a difference is only evidence along with the frames'.
    return Declared(seconds, None, cut or not counted_bytes, counted_bytes or None)


def _mp4_cut(file: BinaryIO, size: int) -> tuple[str | None, bool]:
    """How a box is cut, and whether all boxes state their size."""
    offset, seen = 0, set[bytes]()
    while offset + 8 <= size:
        file.seek(offset)
        head = file.read(16)
        length, name = struct.unpack(">I", head[:4])[0], head[4:8]
        if length == 1 and len(head) == 16:
            length = struct.unpack(">Q", head[8:16])[0]
        elif length == 0:  # runs to the end of the file by definition
            return None, False
        if length < 8 or not name.isascii():
            return None, True  # trailing bytes that are not a box
        if offset + length > size:
            if b"moov" in seen and b"mdat" in seen and name not in _MP4_SOUND:
                return None, True  # a tag or other bytes behind the sound and its index
            return f"the {name.decode('ascii', 'replace')!r} box is {offset + length - size:,} bytes short", True
        seen.add(name)
        offset += length
    return None, True


def _matroska_cut(file: BinaryIO, size: int) -> str | None:
    """How the segment is cut: the EBML header, then the one segment, each with its size as a variable-length number."""
    file.seek(4)
    header = _ebml_size(file)
    if header is None:
        return None
    file.seek(file.tell() + header)
    if file.read(4) != b"\x18\x53\x80\x67":
        return None
    segment = _ebml_size(file)
    return None if segment is None else _short("segment", file.tell() + segment, size)


def _ebml_size(file: BinaryIO) -> int | None:
    """The number at the file's position; None where all its bits are ones, which means unknown."""
    first = file.read(1)
    if not first or not first[0]:
        return None
    more = 8 - first[0].bit_length()
    value = int.from_bytes(bytes([first[0] & (0xFF >> (more + 1))]) + file.read(more), "big")
    return None if value == (1 << 7 * (more + 1)) - 1 else value


def _ogg_cut(file: BinaryIO, size: int) -> str | None:
    end, ends_stream = last_ogg_page(file)
    file.seek(end)
    rest = file.read(5)
    if not end or rest == b"OggS\0":
        return "the last page is incomplete"
    return f"{size - end:,} bytes of an incomplete page at the end" if rest and not ends_stream else None


def cut_frame(path: Path, at: int) -> bool:
    """Whether a frame of ADTS AAC or MPEG audio begins at byte `at` and the file ends within it."""
    with path.open("rb") as file:
        left = os.fstat(file.fileno()).st_size - at
        file.seek(at)
        head = file.read(6)
    if len(head) < 6 or head[0] != 0xFF or head[1] & 0xE0 != 0xE0:
        return head[:1] == b"\xff" and len(head) < 6
    if head[1] & 0xF6 == 0xF0:  # ADTS
        return left < ((head[3] & 3) << 11 | head[4] << 3 | head[5] >> 5)
    return left < MPEG_FRAME_BYTES
