"""Whether a decoded file is whole: compares what was read with what the file states. A loss is an error, a wrong number
alone is not."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from catalog.lengths import MP3_FRAME_BYTES, Declared, cut_frame
from catalog.links import Span, stray_bytes
from core.errors import BadItem

MIN_MISSING_S = 0.25  # below this, decoders' delays and paddings explain what is missing
MAX_MISSING = 0.01  # share of the duration that may be missing before the file counts as damaged
MATROSKA_END_BYTES = 4096  # of an index and tags behind the sound
PACKETS = 0.9  # share of an Ogg stream of sound that is its packets, unless pictures or video are in it
# What may follow the last frame where nothing states a length (a tag, padding); more was audio once.
MAX_TAIL_BYTES, MAX_TAIL = 32_768, 0.05


@dataclass
class Link:
    """One stream of a file: what its index states, its size, and how reading it went."""

    index_s: float | None
    span: Span
    gapless: bool  # whether the index counts what is there, so that less is a loss
    sound_last: bool = False  # whether the file ends in sound, whose duration is what the index states
    seconds: float = 0.0  # decoded
    packet_bytes: int = 0  # of packets that could be decoded
    end_byte: int = 0  # of the last packet whose place is known
    sound_end: int = 0  # the same of the last packet that could be decoded
    end_s: float = 0.0  # of the last frame, by the file's own clock
    last_failed: bool = False  # the last packet could not be decoded
    demux_error: str = ""  # what ended the stream, unless it was its end

    @property
    def size_bytes(self) -> int:
        return self.span[1] - self.span[0]


@dataclass
class Reading:
    """What was read of a file, in all its links."""

    path: Path
    seconds: float = 0.0
    failed_packets: int = 0
    failed_s: float = 0.0
    failed_links: list[str] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)

    def check_complete(self, stated: Declared, size: int, accept_truncated: bool) -> str:
        """How the file ends early, "" for a whole one. Raises `BadItem` where that is not accepted, and where more
        than `MAX_MISSING` of the file could not be decoded."""
        if not self.seconds:
            if self.failed_packets:
                raise BadItem("decode_failed", f"none of the {self.failed_packets} packets could be decoded")
            raise BadItem("empty_audio", f"{self.path.name} holds no audio samples")
        truncated = stated.cut or self._short(stated, size)
        if truncated and not accept_truncated:
            raise BadItem("truncated", f"{self.path.name}: {truncated}")
        if not truncated:
            damaged = self._damage(stated)
            if damaged:
                raise BadItem("decode_failed", f"{self.path.name}: {damaged}")
        return truncated or ""

    def _short(self, stated: Declared, size: int) -> str | None:
        """How the sound ends before the bytes that the header promises."""
        index_s, link = self._stated_s(stated), self.links[-1]
        if stated.counted and index_s is not None:
            missing = index_s - self.seconds - self.failed_s > _tolerated(index_s)
            if missing and len(self.links) == 1 and index_s - link.end_s <= _tolerated(index_s):
                return None  # it goes on to its end: the loss is inside
            return f"{self.seconds:.2f} s of audio; the file states {index_s:.2f} s" if missing else None
        if link.last_failed and index_s is None and len(self.links) == 1:
            if cut_frame(self.path, link.sound_end):
                return f"the last packet is cut at {self.seconds:.2f} s"
            silent = size - link.sound_end
            if silent > max(MAX_TAIL_BYTES, MAX_TAIL * size):
                return f"the last {silent:,} bytes, after {self.seconds:.2f} s, are not audio"
        return None

    def _stated_s(self, stated: Declared) -> float | None:
        """The duration of the whole file. The index gives it only for a file of one stream."""
        return stated.duration_s or (self.links[0].index_s if len(self.links) == 1 else None)

    def _damage(self, stated: Declared) -> str | None:
        """What of the file could not be decoded, though its bytes are there."""
        if self.failed_links:
            return self.failed_links[0]
        if self.failed_s > _tolerated(self.seconds + self.failed_s):
            return f"{self.failed_s:.2f} of {self.seconds + self.failed_s:.2f} s could not be decoded"
        index_s = self._stated_s(stated)
        missing = index_s is not None and index_s - self.seconds > _tolerated(index_s)
        read = sum(link.packet_bytes for link in self.links)
        if (
            missing
            and stated.audio_bytes
            and stated.audio_bytes - read > max(2 * MP3_FRAME_BYTES, stated.audio_bytes // 50)
        ):
            return f"only {read:,} of {stated.audio_bytes:,} bytes are audio"
        if missing and stated.counted:
            return f"{self.seconds:.2f} s of audio; the file states {index_s:.2f} s and goes on to its end"
        for link in self.links:
            if link.gapless and link.index_s and link.index_s - link.seconds > _tolerated(link.index_s):
                return f"{link.index_s - link.seconds:.2f} of {link.index_s:.2f} s are missing inside the file"
            if link.gapless and link.packet_bytes < PACKETS * link.size_bytes:
                stray = stray_bytes(self.path, link.span)
                if stray > MAX_MISSING * link.size_bytes:
                    return f"{stray:,} bytes are of a stream whose beginning is damaged"
            unread = link.size_bytes - link.end_byte
            lost = link.sound_last and unread > max(MATROSKA_END_BYTES, MAX_TAIL * link.size_bytes)
            if missing and lost:
                return f"the last {unread:,} bytes, after {self.seconds:.2f} of {index_s:.2f} s, are not audio"
            if link.demux_error and (missing or (link.index_s is None and unread > link.size_bytes // 100)):
                return f"the container is damaged after {self.seconds:.2f} s: {link.demux_error}"
        return None


def _tolerated(seconds: float) -> float:
    return max(MIN_MISSING_S, MAX_MISSING * seconds)
