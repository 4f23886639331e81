"""Exemplars ready to be compared with: those of some banks and one modality, by the tiers that suit it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from moderation.evidence import Evidence
from moderation.exemplars import Exemplar
from moderation.likeness import Likeness
from moderation.matches import Match, best_first
from moderation.pictures import PDQ_DISTANCE, PictureBank, PictureHashes
from moderation.sounds import SoundBank
from moderation.texts import text_hash
from skips.join import Patcher


@dataclass(frozen=True)
class Keypoints:
    """The keypoints of evidence, in the form that `moderation.overlay` compares."""

    points: np.ndarray
    descriptors: np.ndarray
    width: int
    height: int


class Bank:
    """Exemplars of one modality. `arrays` loads an exemplar's arrays, `patch` makes patches of frames."""

    def __init__(
        self,
        modality: str,
        exemplars: Sequence[Exemplar],
        arrays: Callable[[Exemplar], Mapping[str, np.ndarray]],
        patch: Patcher,
    ) -> None:
        self.modality = modality
        self.exemplars = {e.exemplar_id: e for e in exemplars if e.modality == modality}
        self._same: dict[str, list[str]] = {}  # SHA-256 of bytes, or of letters → exemplars
        self._vectors: dict[str, np.ndarray] = {}
        self._copies: Any = PictureBank() if modality == "image" else SoundBank(patch) if modality == "audio" else None
        for exemplar_id, exemplar in sorted(self.exemplars.items()):
            self._add(exemplar_id, exemplar, arrays(exemplar))

    def __len__(self) -> int:
        return len(self.exemplars)

    def _add(self, exemplar_id: str, exemplar: Exemplar, arrays: Mapping[str, np.ndarray]) -> None:
        said = exemplar.evidence
        letters = text_hash(said["text"]) if said.get("text") else said.get("text_hash")
        for own in (said.get("sha256"), letters):
            if own:
                self._same.setdefault(own, []).append(exemplar_id)
        if "vector" in arrays:
            self._vectors[exemplar_id] = np.asarray(arrays["vector"], np.float32)
        if self.modality == "image" and (said.get("pdq") or "pdq" in arrays):
            self._copies.add(exemplar_id, _hashes(arrays, said))
        if self.modality == "audio" and "frames" in arrays:
            self._copies.add(exemplar_id, arrays["frames"])

    def copies(self, evidence: Evidence, distance: int = PDQ_DISTANCE) -> list[Match]:
        """The exemplars that the content is, or holds, a copy of, by the first two tiers; PDQ hashes may differ in
        `distance` bits."""
        exact = self.same(evidence)
        worded = set(self._same.get(evidence.text_hash, ())) - exact
        found: list[Match] = []
        if self.modality == "image" and "pdq" in evidence.arrays:
            found = self._copies.match(_hashes(evidence.arrays, {}), distance)
        elif self.modality == "audio" and "frames" in evidence.arrays:
            found = self._copies.match(evidence.arrays["frames"])
        # Of the same audio, where it begins and ends is known as well.
        timed = {m.exemplar for m in found if m.start_s is not None}
        same = [Match(e, self.modality, "exact", 1.0) for e in sorted(exact - timed)]
        same += [Match(e, self.modality, "hash", 1.0) for e in sorted(worded)]
        return best_first([*same, *(_exact(m) if m.exemplar in exact else m for m in found)])

    def same(self, evidence: Evidence) -> set[str]:
        """The exemplars that have the very bytes of the content."""
        return set(self._same.get(evidence.sha256, ()))

    def likeness(self, evidence: Evidence, among: Iterable[str]) -> Likeness | None:
        """Cosines of a content as a whole and of its parts with those of some exemplars that have a vector of the same
        model; None where there is none."""
        whole = evidence.arrays.get("vector")
        if whole is None:
            return None
        named = sorted(e for e in among if self._comparable(e, whole, evidence.model_id))
        if not named:
            return None
        parts = evidence.arrays.get("parts", np.empty((0, len(whole)), np.float32))
        rows = np.concatenate([whole[None], parts]).astype(np.float32)
        return Likeness(named, rows @ self.vectors(named).T)

    def _comparable(self, exemplar_id: str, whole: np.ndarray, model_id: str) -> bool:
        if exemplar_id not in self._vectors or self._vectors[exemplar_id].shape != whole.shape:
            return False
        theirs = self.exemplars[exemplar_id].evidence.get("model_id")
        return not theirs or not model_id or theirs == model_id

    def vectors(self, exemplars: Sequence[str]) -> np.ndarray:
        """The vectors of some exemplars that have one, all of one length, float32 (n, dim)."""
        return np.stack([self._vectors[e] for e in exemplars])


def _exact(match: Match) -> Match:
    return Match(match.exemplar, match.modality, "exact", 1.0, match.start_s, match.end_s, match.exemplar_start_s)


def _hashes(arrays: Mapping[str, np.ndarray], said: Mapping[str, Any]) -> PictureHashes:
    """Of arrays, or of a list's hash alone, which has no keypoints."""
    if "pdq" in arrays:
        width, height = (int(side) for side in arrays["size"])
        shape = Keypoints(arrays["points"], arrays["descriptors"], width, height)
        return PictureHashes(arrays["pdq"], int(arrays["quality"]), shape)
    own = np.frombuffer(bytes.fromhex(said["pdq"]), np.uint8)
    nothing = Keypoints(np.empty((0, 2), np.float32), np.empty((0, 128), np.uint8), 1, 1)
    return PictureHashes(own[None], int(said.get("pdq_quality", 100)), nothing)
