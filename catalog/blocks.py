"""Decoded frames → float32 blocks of one rate and channel count, and the conversion between rates and layouts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.layout import AudioLayout
from av.audio.resampler import AudioResampler

from core.errors import BadItem

BLOCK_FRAMES = 65_536  # 1.5 s at 44.1 kHz: large enough for NumPy, small enough for the cache

# PyAV finds the planes of a frame by walking to the null pointer behind them, which eight planes or more do not have.
MAX_PLANES = 7
_DTYPES = {  # of the sample formats that NumPy has, interleaved and in planes
    f"{name}{planar}": np.dtype(dtype)
    for name, dtype in {"u8": "u1", "s16": "i2", "s32": "i4", "flt": "f4", "dbl": "f8"}.items()
    for planar in ("", "p")
}
_LAYOUTS = ("mono", "stereo", "2.1", "4.0", "5.0", "5.1", "6.1", "7.1")  # FFmpeg's own, by number of channels

# What brings a sample of each PCM type to full scale ±1: (offset, factor).
_SCALES = {
    "u1": (np.float32(-128), np.float32(1 / 128)),
    "i2": (np.float32(0), np.float32(1 / 2**15)),
    "i4": (np.float32(0), np.float32(1 / 2**31)),
}


@dataclass(frozen=True)
class Shape:
    """Sample rate in Hz, channels, and FFmpeg's name of their layout, which does not count in comparisons."""

    rate: int
    channels: int
    layout: str

    @classmethod
    def of(cls, frame: AudioFrame, last: Shape | None = None) -> Shape:
        """Of a frame; `last` again where that is the same."""
        rate, layout = frame.sample_rate, frame.layout
        if last is not None and last.rate == rate and last.channels == layout.nb_channels:
            return last
        return cls(rate, layout.nb_channels, layout.name)

    def same(self, other: Shape) -> bool:
        """Whether rate and channels are equal, whatever the layouts' names."""
        return (self.rate, self.channels) == (other.rate, other.channels)


class Blocks:
    """Collects frames into blocks, float32 (≤ `BLOCK_FRAMES`, channels); each is fresh memory, which a listener may
    keep. A block never spans a change of the rate or of the channels."""

    def __init__(self) -> None:
        self._block, self._filled = np.empty((0, 0), np.float32), 0
        self._packers: dict[tuple[str, str, int], AudioResampler] = {}

    def add(self, frame: AudioFrame) -> Iterator[np.ndarray]:
        """The blocks that a frame of the present shape fills."""
        for parts, channels in self._samples(frame):
            done, count = 0, len(parts[0])
            while done < count:
                if self._filled == len(self._block):
                    self._block, self._filled = np.empty((BLOCK_FRAMES, channels), np.float32), 0
                take = min(count - done, BLOCK_FRAMES - self._filled)
                out = self._block[self._filled : self._filled + take]
                if len(parts) == 1:
                    _to_float(parts[0][done : done + take], out)
                else:
                    for channel, plane in enumerate(parts):
                        _to_float(plane[done : done + take], out[:, channel])
                done, self._filled = done + take, self._filled + take
                if self._filled == BLOCK_FRAMES:
                    yield self._block

    def rest(self) -> Iterator[np.ndarray]:
        """The last block before a change or the end, which may be short."""
        if 0 < self._filled < len(self._block):
            yield self._block[: self._filled]
        self._block, self._filled = np.empty((0, 0), np.float32), 0

    def _samples(self, frame: AudioFrame) -> Iterator[tuple[list[np.ndarray], int]]:
        """PCM: one array of shape (n, channels), or one of shape (n,) for each channel; and the number of channels."""
        channels, kind = frame.layout.nb_channels, frame.format
        dtype = _DTYPES.get(kind.name)
        if dtype is not None and not (kind.is_planar and channels > MAX_PLANES):
            # Without the copy that `frame.to_ndarray` makes of planes.
            if kind.is_planar and channels > 1:
                yield [_values(plane, dtype, frame.samples) for plane in frame.planes], channels
            else:
                samples = _values(frame.planes[0], dtype, frame.samples * channels)
                yield [samples.reshape(-1, channels)], channels
            return
        key = kind.name, frame.layout.name, frame.sample_rate
        packer = self._packers.get(key)
        if packer is None:
            packed = "dbl" if kind.name.startswith("s64") else kind.packed.name
            packer = AudioResampler(format=packed, layout=frame.layout, rate=frame.sample_rate)
            self._packers = {key: packer}
        for packed_frame in packer.resample(frame):
            yield [packed_frame.to_ndarray().reshape(-1, channels)], channels


class Converter:
    """Blocks of one shape → blocks of another, by FFmpeg's own rules of mixing and resampling."""

    def __init__(self, source: Shape, target: Shape) -> None:
        self.source, self.target = source, target
        self._layout = _named_layout(source)
        self._at = 0
        self._resampler = AudioResampler(format="flt", layout=_named_layout(target), rate=target.rate)

    def convert(self, block: np.ndarray) -> Iterator[np.ndarray]:
        """The converted blocks, float32 (n, target channels), that a block (n, source channels) completes."""
        frame = AudioFrame.from_ndarray(np.ascontiguousarray(block).reshape(1, -1), "flt", self._layout)
        frame.sample_rate, frame.pts, frame.time_base = self.source.rate, self._at, Fraction(1, self.source.rate)
        self._at += len(block)
        yield from self._arrays(self._resampler.resample(frame))

    def rest(self) -> Iterator[np.ndarray]:
        """The samples that the resampler still keeps after the last block."""
        if self._at:
            yield from self._arrays(self._resampler.resample(None))

    def _arrays(self, frames: list[AudioFrame]) -> Iterator[np.ndarray]:
        for frame in frames:
            if frame.samples:
                yield frame.to_ndarray().reshape(-1, self.target.channels)


def _values(plane: Any, dtype: np.dtype[Any], count: int) -> np.ndarray:
    """The first `count` values of a plane, in the frame's own memory. Planes are buffers, though untyped as such."""
    return np.frombuffer(plane, dtype, count)


def _named_layout(shape: Shape) -> str:
    """A layout whose channels have positions, without which there are no rules of mixing."""
    if shape.channels <= len(_LAYOUTS) and shape.layout == f"{shape.channels} channels":
        return _LAYOUTS[shape.channels - 1]
    try:
        AudioLayout(shape.layout)
    except (ValueError, av.FFmpegError) as error:
        raise BadItem("decode_failed", f"it changes from or to the unknown layout {shape.layout!r}") from error
    return shape.layout


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
