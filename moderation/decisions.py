"""What a policy said of a content, as a record that replays; and by what decisions compare."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from moderation import known
from moderation.calibration import Calibration, Threshold
from moderation.policies import Policy

KIND = "decision"  # of record
VERSION = 4  # of the code that decides: raised when the same inputs may lead elsewhere


@dataclass(frozen=True)
class Calibrated:
    """A policy's calibration for a modality, and the probability from which it may act by itself. It holds for scores
    that are `made_of` what those of its labels were (`Decision.made_of`)."""

    calibration: Calibration
    threshold: Threshold
    made_of: str = ""


@dataclass(frozen=True)
class Cited:
    """An exemplar that a decision rests on. `start_s` to `end_s` of the content are the exemplar from
    `exemplar_start_s` on; None of pictures and of text that was not heard. Of text, `first` to `last` are characters;
    None where it is the whole that is alike."""

    exemplar_id: str
    revision: int
    side: str  # positive or negative
    tier: str
    score: float
    shadow: bool = False
    start_s: float | None = None
    end_s: float | None = None
    exemplar_start_s: float | None = None
    first: int | None = None
    last: int | None = None


@dataclass(frozen=True)
class Place:
    """A part of a content: seconds, characters of a text, or both of one that was heard. None of the whole."""

    start_s: float | None = None
    end_s: float | None = None
    first: int | None = None
    last: int | None = None


@dataclass(frozen=True)
class Decision:
    """What a policy makes of one medium of a content. `raw` is the score, `probability` the calibrated one (None where
    nothing calibrates it); `action` is what the ladder asks for, and is taken where `enforced`; `held_back` says why a
    severer one was not."""

    policy_id: str
    policy_version: str
    modality: str
    action: str
    enforced: bool
    raw: float
    probability: float | None
    tier: str
    cited: tuple[Cited, ...] = ()
    calibration: str = ""
    threshold: float | None = None
    held_back: str = ""
    reason: str = ""
    # Of likeness: the sides that had exemplars, whether the plane between them and what ships had a part, and which
    # model made the vectors. Scores that are made of other things do not compare.
    made_of: str = ""
    where: Place = Place()  # what it is about, where no exemplar that is cited says it

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "cited": [asdict(c) for c in self.cited]}

    @property
    def rests_on(self) -> tuple[Cited, ...]:
        """The exemplars that led to it: shadows only where nothing else did."""
        acting = tuple(c for c in self.cited if not c.shadow)
        return acting if acting or self.tier == "classifier" else self.cited

    @property
    def place(self) -> Place:
        """What it is about: a part that an exemplar is like, or another."""
        cited = (Place(c.start_s, c.end_s, c.first, c.last) for c in self.rests_on)
        return next((place for place in (self.where, *cited) if place != Place()), Place())

    @property
    def same(self) -> tuple[Any, ...]:
        """What must be equal in a replay: all but the wording, and shadows beside exemplars that act."""
        rounded = [
            (c.exemplar_id, c.revision, c.side, c.tier, round(c.score, 5), _ms(c.start_s), c.first)
            for c in self.rests_on
        ]
        probability = None if self.probability is None else round(self.probability, 6)
        key = (self.policy_id, self.policy_version, self.modality, self.action, self.enforced, round(self.raw, 5))
        made = (self.made_of, probability, self.tier, self.where.first, _ms(self.where.start_s))
        return (*key, *made, tuple(rounded), self.calibration, self.threshold)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Decision:
        cited, where = tuple(Cited(**c) for c in values["cited"]), Place(**values.get("where", {}))
        said = {k: v for k, v in values.items() if k != "plane"}  # what version 3 said instead of `made_of`
        return cls(**{**said, "cited": cited, "where": where})


def detector(policy: Policy) -> list[Any]:
    """What scores of a policy are comparable by: labels of other scores calibrate nothing."""
    return [policy.detector, policy.vectors, policy.feature, _known_version(policy), VERSION]


def policy_version(policy: Policy) -> str:
    """Names everything that a policy says, what is known of it, and the code that reads it."""
    said = json.dumps([VERSION, policy.to_dict(), _known_version(policy)], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def _known_version(policy: Policy) -> str:
    if not policy.known:
        return ""
    return known.shipped(policy.known).version if policy.known in known.names() else "gone"


def _ms(value: float | None) -> int | None:
    return None if value is None else round(value * 1000)
