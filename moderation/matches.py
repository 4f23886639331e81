"""What every matcher says: which exemplar a content matches, how surely, and where."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

TIERS = ("exact", "hash", "fingerprint", "embedding")  # cheapest first
MODALITIES = ("image", "audio", "text")


@dataclass(frozen=True)
class Match:
    """A content's likeness to one exemplar. `tier` is the cheapest that found it; `score` is in [0, 1], 1 for the same
    bytes, and comparable within a tier. Of audio, `start_s` to `end_s` of the content are the exemplar from
    `exemplar_start_s` on, in seconds; else they are None. `distance` is the bits between hashes."""

    exemplar: str
    modality: str
    tier: str
    score: float
    start_s: float | None = None
    end_s: float | None = None
    exemplar_start_s: float | None = None
    distance: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The form of `earmark moderate match --json`, less the content's path: times rounded to the millisecond."""
        found: dict[str, Any] = {"exemplar": self.exemplar, "modality": self.modality, "tier": self.tier}
        found["score"] = round(self.score, 4)
        for name in ("start_s", "end_s", "exemplar_start_s"):
            value = getattr(self, name)
            found[name] = None if value is None else round(value, 3)
        return found


def best_first(found: Iterable[Match]) -> list[Match]:
    """One match an exemplar and place, of the cheapest tier that found it; the surest come first."""
    best: dict[tuple[str, float | None], Match] = {}
    for match in found:
        key = (match.exemplar, match.start_s)
        known = best.get(key)
        if known is None or (TIERS.index(match.tier), -match.score) < (TIERS.index(known.tier), -known.score):
            best[key] = match
    return sorted(best.values(), key=lambda m: (TIERS.index(m.tier), -m.score, m.exemplar, m.start_s or 0.0))
