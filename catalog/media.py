"""Decoded media as the embedders and enrichers receive it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

SAMPLE_RATE = 16_000  # Hz; what musicnn, Whisper and the speech segmenter all expect


class Listener(Protocol):
    """Receives the audio at its native rate, block by block, during the only decode of the file.

    `start` is called once: a file whose rate or channels change is converted to those of its beginning. Files are
    decoded in worker processes, so a listener is pickled, sent there and sent back with its results.
    """

    name: str

    def start(self, sample_rate: int, channels: int) -> None: ...

    def hear(self, block: np.ndarray) -> None:
        """`block`: float32, shape (frames, channels), full scale ±1."""
        ...


@dataclass(frozen=True)
class Audio:
    """One decoded audio file.

    `samples`: float32 mono at `SAMPLE_RATE`, shape (n,). `duration_s`, `source_sample_rate` and `source_channels`
    describe the file (where they change on the way, what most of it has); `sha256` is of its bytes where somebody asked
    ("" elsewhere). `heard` holds the listeners that heard the native-rate audio during the decode, by name. `truncated`
    says how the file ends early, where it was decoded although it does; "" for a whole file. `language` is what the
    catalogue declares of the content.
    """

    samples: np.ndarray
    duration_s: float
    source_sample_rate: int = SAMPLE_RATE
    source_channels: int = 1
    heard: Mapping[str, Listener] = field(default_factory=dict)
    sha256: str = ""
    truncated: str = ""
    language: str | None = None


@dataclass(frozen=True)
class Picture:
    """One decoded picture. `pixels`: uint8 RGB, shape (height, width, 3), EXIF orientation applied.

    `width_px` and `height_px` are the file's own size, before any reduction for decoding.
    """

    pixels: np.ndarray
    width_px: int
    height_px: int
    sha256: str = ""  # of the file, where somebody asked for it


@dataclass(frozen=True)
class Text:
    """The written side of a content. `body` is lyrics, a given transcript, or what was transcribed."""

    title: str
    description: str | None = None
    body: str | None = None
    language: str | None = None

    @property
    def full(self) -> str:
        """Everything there is, one part a paragraph."""
        return "\n".join(part for part in (self.title, self.description, self.body) if part)


Media = Audio | Picture | Text
