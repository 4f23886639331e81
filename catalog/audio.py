"""One pass over an audio file for everybody: native-rate blocks for listeners, 16 kHz mono for the models.

PyAV decodes every format: `python -m bench decode` measures it against soundfile with soxr and torchcodec.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import soxr
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import InputContainer

from catalog.container import check_file, open_audio
from catalog.lengths import Declared, declared
from catalog.limits import Limits
from catalog.media import SAMPLE_RATE, Audio, Listener
from core.errors import BadItem

BLOCK_FRAMES = 65_536  # 1.5 s at 44.1 kHz: large enough for NumPy, small enough for the cache
MIN_MISSING_S = 0.25  # below this, decoders' delays and paddings explain what is missing
MAX_MISSING = 0.01  # share of the stated duration that may be missing before the file counts as damaged
CANCELLED = 0.02  # share of its energy that stereo keeps in the mean when one channel is the other, inverted
MIN_SAMPLE_RATE, MAX_SAMPLE_RATE = 1_000, 768_000  # Hz

# What brings a sample of each PCM type to full scale ±1: (offset, factor).
_SCALES = {
    "u1": (np.float32(-128), np.float32(1 / 128)),
    "i2": (np.float32(0), np.float32(1 / 2**15)),
    "i4": (np.float32(0), np.float32(1 / 2**31)),
    "i8": (np.float32(0), np.float32(1 / 2**63)),
}


def decode_audio(path: str | Path, limits: Limits = Limits(), listeners: Sequence[Listener] = ()) -> Audio:  # noqa: B008
    """Decode the file at `path` once, in blocks, in the calling thread.

    Each block (float32, C-contiguous, shape (frames, channels), native rate) goes to every listener, then is averaged
    over the channels and resampled (soxr HQ, streaming) to `SAMPLE_RATE`. Memory beyond the result is a few blocks.

    Raises `BadItem` with reason `missing_file`, `empty_file`, `too_large`, `not_audio`, `no_audio_stream`,
    `too_long`, `too_many_channels`, `non_finite_samples`, `truncated` (the bytes or the sound end before what the
    container states, see `catalog.lengths`), `empty_audio` (a valid container without samples) or `decode_failed`.
    """
    path = Path(path)
    check_file(path, limits)
    stated = declared(path)
    if stated.cut:
        raise BadItem("truncated", f"{path.name}: {stated.cut}")
    with open_audio(path) as (container, stream):
        stated_s = stated.duration_s if stated.duration_s is not None else _index_duration(container, stream)
        _check_length(path, limits, stated_s, container, stream)
        channels = stream.codec_context.channels
        if channels > limits.max_channels:
            raise BadItem("too_many_channels", f"{channels} channels; {limits.max_channels} are allowed")
        decode = _Decode(path, limits, listeners, stated_s)
        for block in decode.blocks(container, stream):
            decode.take(block)
        decode.check_complete(stated)
        audio = decode.finish()
    return _one_channel(path, limits, audio) if decode.cancelled else audio


def _one_channel(path: Path, limits: Limits, audio: Audio) -> Audio:
    """The first channel instead of the mix, for a file whose channels cancel each other out: one of them is inverted,
    and the mean of both would be next to silence."""
    with open_audio(path) as (container, stream):
        again = _Decode(path, limits, (), audio.duration_s)
        again.first_only = True
        for block in again.blocks(container, stream):
            again.take(block)
        return replace(audio, samples=again.finish().samples)


def _index_duration(container: InputContainer, stream: AudioStream) -> float | None:
    """The duration that an MP4, Matroska or Ogg index states; None where FFmpeg would only guess from the bit rate."""
    if container.format.name.split(",")[0] in ("mp3", "aac", "wav", "flac", "w64", "aiff"):
        return None
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / av.time_base if container.duration else None


def _check_length(
    path: Path, limits: Limits, stated_s: float | None, container: InputContainer, stream: AudioStream
) -> None:
    """Refuse what is too long before decoding it."""
    if stated_s is None and (container.duration or 0) / av.time_base > limits.max_audio_s:
        # FFmpeg's guess may be far off for a variable bit rate: count the packets, which decodes nothing.
        stated_s = 0.0
        with open_audio(path) as (counted, counted_stream):
            for packet in counted.demux(counted_stream):
                stated_s += float(packet.duration * packet.time_base) if packet.duration and packet.time_base else 0.0
                if stated_s > limits.max_audio_s:
                    break
    if stated_s is not None and stated_s > limits.max_audio_s:
        raise BadItem("too_long", f"{_hours(stated_s)} or more; {_hours(limits.max_audio_s)} are allowed")


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} hours" if seconds >= 3600 else f"{seconds:.0f} s"


class _Decode:
    """State of one decode: the growing result and what is needed to judge whether the file was whole."""

    def __init__(self, path: Path, limits: Limits, listeners: Sequence[Listener], stated_s: float | None) -> None:
        self.path, self.limits, self.listeners, self.stated_s = path, limits, listeners, stated_s
        self.rate = self.channels = self.frames = self.length = 0
        self.end_s = 0.0  # where the last good frame ends on the file's own clock
        self.errors = 0
        self.last_failed = False
        self.mono = np.empty(int((stated_s or 60.0) * SAMPLE_RATE) + SAMPLE_RATE, np.float32)
        self.weights = np.empty(0, np.float32)
        self.first_only = False  # the first channel instead of the mean of all
        self.mixed_energy = self.channel_energy = 0.0  # of the mean, and of the channels, summed over samples
        self.resampler: soxr.ResampleStream | None = None

    def blocks(self, container: InputContainer, stream: AudioStream) -> Iterator[np.ndarray]:
        """float32 (≤ `BLOCK_FRAMES`, channels) blocks; each is fresh memory, which a listener may keep."""
        block, filled = np.empty((0, 0), np.float32), 0
        for frame in self._frames(container, stream):
            samples = frame.to_ndarray()
            samples = samples.T if frame.format.is_planar else samples.reshape(-1, self.channels)
            done = 0
            while done < len(samples):
                if filled == len(block):
                    block, filled = np.empty((BLOCK_FRAMES, self.channels), np.float32), 0
                take = min(len(samples) - done, BLOCK_FRAMES - filled)
                _to_float(samples[done : done + take], block[filled : filled + take])
                done, filled = done + take, filled + take
                if filled == BLOCK_FRAMES:
                    yield block
        if 0 < filled < BLOCK_FRAMES:
            yield block[:filled]

    def _frames(self, container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
        """Decoded frames of one rate and layout; a packet that fails is counted and skipped, as players do."""
        same: AudioResampler | None = None
        first: tuple[int, str] | None = None
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
                frames = packet.decode()
            except av.FFmpegError:
                self.errors += 1
                self.last_failed = True
                if self.errors > 1000 and not self.frames:
                    return  # noise that looks like packets
                continue
            for frame in frames:
                if not isinstance(frame, AudioFrame) or not frame.samples:
                    continue
                self.last_failed = False
                if frame.time is not None:
                    self.end_s = frame.time + frame.samples / frame.sample_rate
                if first is None:
                    # The first frame knows better than the header: HE-AAC doubles the rate that its header states.
                    first = (frame.sample_rate, frame.layout.name)
                    self._start(frame)
                if (frame.sample_rate, frame.layout.name) == first:
                    yield frame
                else:  # chained streams may change their parameters; what follows is brought to the first ones
                    same = same or AudioResampler(format=frame.format, layout=first[1], rate=first[0])
                    yield from same.resample(frame)

    def _start(self, frame: AudioFrame) -> None:
        self.rate, self.channels = frame.sample_rate, frame.layout.nb_channels
        if not MIN_SAMPLE_RATE <= self.rate <= MAX_SAMPLE_RATE:
            raise BadItem("decode_failed", f"a sample rate of {self.rate} Hz")
        if self.channels > self.limits.max_channels:
            raise BadItem("too_many_channels", f"{self.channels} channels; {self.limits.max_channels} are allowed")
        self.weights = np.full(self.channels, 1 / self.channels, np.float32)
        if self.first_only:
            self.weights[:] = np.eye(1, self.channels)
        if self.rate != SAMPLE_RATE:
            self.resampler = soxr.ResampleStream(self.rate, SAMPLE_RATE, 1, dtype="float32", quality="HQ")
        for listener in self.listeners:
            listener.start(self.rate, self.channels)

    def take(self, block: np.ndarray) -> None:
        """Check a block, let the listeners hear it, add its mono mix to the result."""
        mono = block @ self.weights
        # One pass over the mix finds every NaN and Inf; only a suspicion looks at each sample.
        if not math.isfinite(float(mono.sum(dtype=np.float64))) and not np.isfinite(block).all():
            at_s = (self.frames + int(np.argmin(np.isfinite(block).all(axis=1)))) / self.rate
            raise BadItem("non_finite_samples", f"NaN or infinite sample at {at_s:.3f} s")
        if self.channels == 2:
            self.mixed_energy += float(np.vdot(mono, mono))
            self.channel_energy += float(np.vdot(block, block)) / 2
        self.frames += len(block)
        if self.frames > self.limits.max_audio_s * self.rate:
            raise BadItem("too_long", f"more than {_hours(self.limits.max_audio_s)}, which is the limit")
        for listener in self.listeners:
            listener.hear(block)
        self._append(mono if self.resampler is None else self.resampler.resample_chunk(mono))

    def _append(self, mono: np.ndarray) -> None:
        need = self.length + len(mono)
        if need > len(self.mono):
            self.mono.resize(max(need, len(self.mono) * 3 // 2), refcheck=False)
        self.mono[self.length : need] = mono
        self.length = need

    @property
    def cancelled(self) -> bool:
        """Whether two channels cancel each other out: unrelated ones keep half of their energy in the mean."""
        return self.channels == 2 and not self.first_only and self.mixed_energy < CANCELLED * self.channel_energy

    def check_complete(self, stated: Declared) -> None:
        """Raise unless what was decoded is what the file states, up to `MAX_MISSING`."""
        if not self.frames:
            if self.errors:
                raise BadItem("decode_failed", f"none of the {self.errors} packets could be decoded")
            raise BadItem("empty_audio", f"{self.path.name} holds no audio samples")
        heard_s = self.frames / self.rate
        if self.stated_s is None:
            if self.last_failed:
                raise BadItem("truncated", f"the last packet is cut at {heard_s:.2f} s")
        elif self.stated_s - heard_s > max(MIN_MISSING_S, MAX_MISSING * self.stated_s):
            detail = f"{heard_s:.2f} s of audio; the file states {self.stated_s:.2f} s"
            whole = self.errors and self.stated_s - self.end_s <= max(MIN_MISSING_S, MAX_MISSING * self.stated_s)
            raise BadItem("decode_failed" if whole else "truncated", detail)

    def finish(self) -> Audio:
        if self.resampler is not None:
            self._append(self.resampler.resample_chunk(np.empty(0, np.float32), last=True))
        samples = self.mono[: self.length]
        samples.setflags(write=False)
        heard = {listener.name: listener for listener in self.listeners}
        return Audio(samples, self.frames / self.rate, self.rate, self.channels, heard)


def _to_float(samples: np.ndarray, out: np.ndarray) -> None:
    """Convert PCM of any type, shape (n, channels), into float32 `out` of that shape at full scale ±1."""
    scale = _SCALES.get(samples.dtype.str[1:])
    if scale is None:
        out[...] = samples
        return
    offset, factor = scale
    np.multiply(samples, factor, out=out, casting="unsafe")
    if offset:
        out += offset * factor
