"""Decodes an audio file in one pass: native-rate blocks for the listeners, 16 kHz mono for the models.

PyAV decodes every format: `python -m bench decode` measures it against soundfile with soxr and torchcodec. A crash of
a native decoder ends the process: `catalog.isolated` runs this in worker processes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

import av
import numpy as np
import soxr
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet

from catalog.blocks import BLOCK_FRAMES, Blocks, Converter, Shape
from catalog.completeness import Link, Reading
from catalog.container import check_file, open_audio
from catalog.lengths import declared
from catalog.limits import Limits
from catalog.links import Span, links
from catalog.media import SAMPLE_RATE, Audio, Listener
from core.errors import BadItem

__all__ = ["BLOCK_FRAMES", "decode_audio"]

CANCELLED = 0.02  # share of its energy that stereo keeps in the mean when one channel is the other, inverted
MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 1_000, 768_000  # Hz
MAX_DEMUX_ERRORS = 100  # in a row, after which nothing more is expected of a container
MAX_NOISE_ERRORS = 1000  # packets that fail before the first that decodes


class Samples(Protocol):
    """Where the mono samples go."""

    def append(self, mono: np.ndarray) -> None:
        """`mono`: float32, shape (n,), C-contiguous."""
        ...

    def restart(self) -> None:
        """Discards what was appended."""
        ...

    def finish(self) -> np.ndarray:
        """float32, shape (n,); not writeable."""
        ...


class Heap:
    """Samples in this process' memory, in a buffer that grows."""

    def __init__(self) -> None:
        self._buffer, self._length = np.empty(60 * SAMPLE_RATE, np.float32), 0

    def append(self, mono: np.ndarray) -> None:
        need = self._length + len(mono)
        if need > len(self._buffer):
            self._buffer.resize(max(need, len(self._buffer) * 3 // 2), refcheck=False)
        self._buffer[self._length : need] = mono
        self._length = need

    def restart(self) -> None:
        self._length = 0

    def finish(self) -> np.ndarray:
        samples = self._buffer[: self._length]
        samples.setflags(write=False)
        return samples


def decode_audio(
    path: str | Path,
    limits: Limits = Limits(),  # noqa: B008
    listeners: Sequence[Listener] = (),
    *,
    accept_truncated: bool = False,
    samples: Samples | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Audio:
    """Decode the file at `path` once, in blocks, in the calling thread.

    Each block (float32, C-contiguous, shape (frames, channels), native rate) goes to every listener, then is averaged
    over the channels and resampled (soxr HQ, streaming) to `SAMPLE_RATE`, into `samples` (memory unless given). Memory
    beyond the result is a few blocks. `progress` is called several times a second of work.

    A file may change its rate and channels on the way, as joined MP3s and chained Ogg do: listeners receive all of it
    at what it begins with. With `accept_truncated`, a file whose bytes end early is decoded as far as it goes and
    `Audio.truncated` says so.

    Raises `BadItem` with reason `missing_file`, `empty_file`, `too_large`, `not_audio`, `no_audio_stream`,
    `too_long`, `too_many_channels`, `non_finite_samples`, `truncated` (the bytes end before what the container
    states, see `catalog.lengths`), `empty_audio` (a valid container without samples) or `decode_failed`.
    """
    path = Path(path)
    size = check_file(path, limits)
    spans = links(path, progress)
    stated = declared(path, spans)
    if stated.cut and not accept_truncated:
        raise BadItem("truncated", f"{path.name}: {stated.cut}")
    single = len(spans) == 1
    whole = spans == [(0, size)]
    decode = _Decode(Reading(path), limits, listeners, samples or Heap(), progress)
    for number, span in enumerate(spans):
        try:
            with open_audio(path, None if whole else span) as (container, stream):
                index_s = _index_duration(container, stream)
                if single and stated.duration_s is not None:
                    index_s = stated.duration_s
                if number == 0:
                    _check_length(path, limits, index_s, container, stream, progress)
                decode.link(container, stream, _link(container, index_s, span))
        except BadItem as error:
            if number == 0 or error.reason not in ("not_audio", "no_audio_stream"):
                raise
            decode.reading.failed_links.append(f"the part from byte {span[0]:,} on is not audio")
    truncated = decode.reading.check_complete(stated, size, accept_truncated)
    audio = replace(decode.finish(), truncated=truncated)
    return _one_channel(path, limits, [None] if whole else spans, decode, audio) if decode.cancelled else audio


def _link(container: InputContainer, index_s: float | None, span: Span) -> Link:
    matroska = "matroska" in container.format.name  # whose index may stand in front, so that sound is at the end
    alone = matroska and all(isinstance(other, AudioStream) for other in container.streams)
    return Link(index_s, span, container.format.name == "ogg", alone)


def _one_channel(path: Path, limits: Limits, spans: Sequence[Span | None], first: _Decode, audio: Audio) -> Audio:
    """The first channel instead of the mix, for a file whose channels cancel each other out: one of them is inverted,
    and the mean of both would be next to silence."""
    first.samples.restart()
    again = _Decode(Reading(path), limits, (), first.samples, first.progress)
    again.first_only = True
    for span in spans:
        with open_audio(path, span) as (container, stream):
            again.link(container, stream, Link(None, (0, 0), False))
    return replace(audio, samples=again.finish().samples)


def _index_duration(container: InputContainer, stream: AudioStream) -> float | None:
    """The duration that an MP4, Matroska or Ogg index states; None where FFmpeg would only guess from the bit rate."""
    if container.format.name.split(",")[0] in ("mp3", "aac", "wav", "flac", "w64", "aiff"):
        return None
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else None


def _check_length(
    path: Path,
    limits: Limits,
    stated_s: float | None,
    container: InputContainer,
    stream: AudioStream,
    progress: Callable[[], None],
) -> None:
    """Refuse what is too long before decoding it."""
    guess_s = (container.duration or 0) / av.time_base if stated_s is None else stated_s
    if guess_s <= limits.max_audio_s:
        return
    if stated_s is None or "mp3" in container.format.name:
        # FFmpeg's guess may be far off for a variable bit rate, and a frame count may be wrong: count the packets,
        # which decodes nothing.
        guess_s = 0.0
        with open_audio(path) as (counted, counted_stream):
            for packet in counted.demux(counted_stream):
                progress()
                guess_s += _seconds(packet)
                if guess_s > limits.max_audio_s:
                    break
    if guess_s > limits.max_audio_s:
        raise BadItem("too_long", f"{_hours(guess_s)} or more; {_hours(limits.max_audio_s)} are allowed")


def _seconds(packet: Packet) -> float:
    return float(packet.duration * packet.time_base) if packet.duration and packet.time_base else 0.0


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds:.0f} s"


@dataclass
class _Decode:
    """State of one decode: the growing result and what was read of the file."""

    reading: Reading
    limits: Limits
    listeners: Sequence[Listener]
    samples: Samples
    progress: Callable[[], None]
    first_only: bool = False  # the first channel instead of the mean of all
    shape: Shape | None = None  # of the blocks now
    first: Shape | None = None  # what listeners receive
    seconds_of: dict[tuple[int, int], float] = field(default_factory=dict)  # (rate, channels) → seconds
    mixed_energy: float = 0.0  # of the mean of two channels, summed over samples
    channel_energy: float = 0.0  # of the channels themselves
    resampler: soxr.ResampleStream | None = None
    converter: Converter | None = None

    def link(self, container: InputContainer, stream: AudioStream, link: Link) -> None:
        """Decodes one stream to its end."""
        channels = stream.codec_context.channels
        if channels > self.limits.max_channels:
            raise BadItem("too_many_channels", f"{channels} channels; {self.limits.max_channels} are allowed")
        self.reading.links.append(link)
        begins_s, blocks = self.reading.seconds, Blocks()
        for frame, shape in _with_shapes(self._frames(container, stream, link), stream.codec_context.name):
            if self.shape is None or not (shape is self.shape or shape.same(self.shape)):
                for block in blocks.rest():
                    self._take(block)
                self._change(shape)
            for block in blocks.add(frame):
                self._take(block)
        for block in blocks.rest():
            self._take(block)
        link.seconds = self.reading.seconds - begins_s

    def _frames(self, container: InputContainer, stream: AudioStream, link: Link) -> Iterator[AudioFrame]:
        """Decoded frames; a packet that fails is counted and skipped, as players do."""
        packets = container.demux(stream)
        frame_s, errors_in_row, decoded = 0.0, 0, False
        while True:
            self.progress()
            try:
                packet = next(packets, None)
            except av.FFmpegError as error:
                errors_in_row += 1
                link.demux_error = str(error.strerror)
                if errors_in_row > MAX_DEMUX_ERRORS:
                    return
                packets = container.demux(stream)  # a generator that raised is at its end, the container may not be
                continue
            if packet is None:
                return
            if packet.size:
                errors_in_row, link.demux_error = 0, ""
                link.end_byte = max(link.end_byte, (packet.pos or 0) + packet.size)
            try:
                frames = packet.decode()
            except av.FFmpegError:
                self.reading.failed_packets += 1
                self.reading.failed_s += _seconds(packet) or frame_s
                link.last_failed = True
                if self.reading.failed_packets > MAX_NOISE_ERRORS and not decoded:
                    return  # noise that looks like packets
                continue
            link.packet_bytes += packet.size
            if packet.size:
                link.sound_end = link.end_byte
            for frame in frames:
                if not isinstance(frame, AudioFrame) or not frame.samples:
                    continue
                decoded, link.last_failed = True, False
                if frame.time is not None:
                    link.end_s = frame.time + frame.samples / max(frame.sample_rate, 1)
                frame_s = frame.samples / frame.sample_rate if frame.sample_rate else 0.0
                yield frame

    def _change(self, shape: Shape) -> None:
        """Goes on with another rate or other channels. The first frame knows better than the header: HE-AAC doubles
        the rate that its header states."""
        if not MIN_SAMPLE_RATE <= shape.rate <= MAX_SAMPLE_RATE:
            raise BadItem("decode_failed", f"a sample rate of {shape.rate} Hz")
        if not 1 <= shape.channels <= self.limits.max_channels:
            raise BadItem("too_many_channels", f"{shape.channels} channels; {self.limits.max_channels} are allowed")
        self._flush()
        self.shape = shape
        self.resampler = None
        if shape.rate != SAMPLE_RATE:
            self.resampler = soxr.ResampleStream(shape.rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        self.weights = np.full(shape.channels, 1 / shape.channels, np.float32)
        if self.first_only and shape.channels == 2:
            self.weights[:] = (1, 0)
        if self.first is None:
            self.first = shape
            for listener in self.listeners:
                listener.start(shape.rate, shape.channels)
        elif self.listeners and not shape.same(self.first):
            self.converter = Converter(shape, self.first)

    def _take(self, block: np.ndarray) -> None:
        """Check a block, hand it to the listeners, add its mono mix to the result."""
        assert self.shape is not None
        self.progress()
        mono = block @ self.weights
        # One pass over the mix finds every NaN and Inf; only a suspicion looks at each sample.
        if not math.isfinite(float(mono.sum(dtype=np.float64))) and not np.isfinite(block).all():
            at_s = self.reading.seconds + int(np.argmin(np.isfinite(block).all(axis=1))) / self.shape.rate
            raise BadItem("non_finite_samples", f"NaN or infinite sample at {at_s:.3f} s")
        if self.shape.channels == 2:
            self.mixed_energy += float(np.vdot(mono, mono))
            self.channel_energy += float(np.vdot(block, block)) / 2
        key = self.shape.rate, self.shape.channels
        self.seconds_of[key] = self.seconds_of.get(key, 0.0) + len(block) / self.shape.rate
        self.reading.seconds = sum(self.seconds_of.values())
        if self.reading.seconds > self.limits.max_audio_s:
            raise BadItem("too_long", f"more than {_hours(self.limits.max_audio_s)}, which is the limit")
        for converted in (block,) if self.converter is None else self.converter.convert(block):
            for listener in self.listeners:
                listener.hear(converted)
        self.samples.append(mono if self.resampler is None else self.resampler.resample_chunk(mono))

    def _flush(self) -> None:
        """What the resamplers still keep of the shape until now."""
        if self.resampler is not None:
            self.samples.append(self.resampler.resample_chunk(np.empty(0, np.float32), last=True))
            self.resampler = None
        if self.converter is not None:
            for converted in self.converter.rest():
                for listener in self.listeners:
                    listener.hear(converted)
            self.converter = None

    @property
    def cancelled(self) -> bool:
        """Whether two channels cancel each other out: unrelated ones keep half of their energy in the mean."""
        return not self.first_only and self.mixed_energy < CANCELLED * self.channel_energy

    def finish(self) -> Audio:
        self._flush()
        (rate, channels), _ = max(self.seconds_of.items(), key=lambda item: item[1])
        heard = {listener.name: listener for listener in self.listeners}
        return Audio(self.samples.finish(), self.reading.seconds, rate, channels, heard)


def _with_shapes(frames: Iterator[AudioFrame], codec: str) -> Iterator[tuple[AudioFrame, Shape]]:
    """Frames with what they really are. FFmpeg's MP3 decoder sets a frame's channels at once but its rate one frame
    late: the next frame has it."""
    now: Shape | None = None
    if not codec.startswith("mp3"):
        for frame in frames:
            now = Shape.of(frame, now)
            yield frame, now
        return
    waiting: AudioFrame | None = None
    for frame in frames:
        following = Shape.of(frame, now)
        if waiting is not None and now is not None:
            late = now.rate != following.rate and now.channels == following.channels
            yield waiting, replace(now, rate=following.rate) if late else now
        waiting, now = frame, following
    if waiting is not None and now is not None:
        yield waiting, now
