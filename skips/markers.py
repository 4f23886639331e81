"""What skip detection says of an episode: markers, bound to the audio they were found in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

KINDS = ("intro", "outro", "ad", "jingle", "recap", "silence")
ACTIONS = ("auto", "ask")
SOURCES = ("repeat", "silence", "transcript")
ALGORITHM = "skips-2"  # raised when the same audio may get other markers than before


@dataclass(frozen=True)
class Marker:
    """A stretch of an episode that a listener may want to skip.

    `confidence` is in [0, 1]. `occurrences` is how often the motif `motif_id` is heard over the catalogue; a marker of
    silence or of a host-read ad has no motif ("") and occurs once. `action` is what a player should do: skip (`auto`)
    or offer to (`ask`). `source` tells how it was found: it repeats, it is silent, or the transcript says so.
    """

    kind: str
    start_s: float
    end_s: float
    confidence: float
    occurrences: int = 1
    motif_id: str = ""
    action: str = "ask"
    source: str = "repeat"

    @property
    def duration_s(self) -> float:
        return self.end_s - self.start_s


@dataclass(frozen=True)
class MarkedEpisode:
    """An episode's markers, ordered by start. They hold for audio of this SHA-256 only: listeners of one episode can
    be sent different audio when ads are inserted. `path` is the file, or the content's audio URI."""

    content_id: str
    path: str
    audio_sha256: str
    duration_s: float
    markers: tuple[Marker, ...]
    show: str = ""
    title: str = ""
    algorithm: str = ALGORITHM

    def to_dict(self) -> dict[str, Any]:
        """The form of `earmark skips --json`: times in seconds, rounded to the millisecond."""
        return {
            "path": self.path,
            "audio_sha256": self.audio_sha256,
            "duration_s": round(self.duration_s, 3),
            "markers": [_rounded(marker) for marker in self.markers],
        }


def _rounded(marker: Marker) -> dict[str, Any]:
    row = asdict(marker)
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in row.items()}


def to_json(episodes: Sequence[MarkedEpisode]) -> dict[str, Any]:
    """`{"episodes": [...]}`, as `earmark skips --json` prints it."""
    return {"episodes": [episode.to_dict() for episode in episodes]}
