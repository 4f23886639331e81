"""What a policy says of a content: the score, the action, and everything that led there.

The first two tiers, the same bytes and the same picture or recording, act by themselves. Whatever is only like an
exemplar, or scored by a classifier, acts where labels have proven how precise that is (`moderation.calibration`);
until then it is reviewed at most.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from moderation import known
from moderation.banks import Bank
from moderation.decisions import Calibrated, Cited, Decision, Place, policy_version
from moderation.evidence import Evidence
from moderation.exemplars import Exemplar
from moderation.likeness import FEATURE_WEIGHT, KNOWN_WEIGHT, PLANE_WEIGHT, Likeness, Plane, log_odds
from moderation.matches import TIERS
from moderation.policies import ACTIONS, AUTOMATIC, Policy

FIRST_TIERS = ("exact", "hash", "fingerprint")
# What a match of the first tiers is worth before labels say so: `bench` has next to no false ones.
WORTH = {"exact": 1.0, "hash": 0.97, "fingerprint": 0.95}
# Likeness to an exemplar from which what was never calibrated is worth a look, by the policy's `vectors`: two
# sentences in one voice reach .88 and more, other voices seldom .82.
LIKE = {"": 0.5, "voice": 0.85}
CITED = 5  # matches that a decision names
ALLOWED = "allowed"  # where a tier is asked for: a copy of what is allowed, and of nothing else


@dataclass(frozen=True)
class _Seen:
    """What a policy has against a content: the score, None of nothing; what it is made of, and the calibration that
    holds for such scores."""

    raw: float | None
    tier: str
    cited: Sequence[Cited] = ()
    made_of: str = ""
    calibrated: Calibrated | None = None
    reason: str = ""
    where: Place = Place()


@dataclass(frozen=True)
class Judge:
    """A policy with what it needs to decide about one modality."""

    policy: Policy
    modality: str
    bank: Bank
    calibrated: Calibrated | None = None
    lacking: int = 0  # labels until it may act by itself
    version: str = field(default="")
    _planes: dict[tuple[tuple[str, ...], ...], Plane | None] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "version", policy_version(self.policy))

    def decide(self, content_id: str, evidence: Evidence) -> Decision | None:
        """None where nothing speaks against the content."""
        seen = self._seen(evidence)
        if not seen.cited and seen.raw is None:
            return None
        acting = [c for c in seen.cited if not c.shadow]
        if seen.raw is None:  # only shadows match: it is recorded, and nothing follows
            return self._decision(seen, "none", False, None, "", "only shadow exemplars match")
        probability = self._probability(seen)
        asked = self.policy.action(seen.raw if probability is None else probability)
        action, held = self._allowed(asked, seen, probability)
        if action == "none" and (not acting or seen.tier == "embedding"):
            return None
        enforced = action != "none" and _share(content_id, self.policy.id) < self.policy.enforced
        return self._decision(
            seen, action, enforced, probability, held, seen.reason or self._reason(seen.raw, seen.tier, acting)
        )

    def _seen(self, evidence: Evidence) -> _Seen:
        if self.policy.vectors == "voice":
            # A copy of a protected recording is the person's own: it is how somebody speaks that is compared.
            acting = (e for e in self.bank.same(evidence) if self._exemplar(e).state != "shadow")
            allowed = any(self._side(e) == "negative" for e in acting)
            return _Seen(None, "") if allowed else self._alike(evidence, [])
        raw, tier, cited = self._copies(evidence)
        if raw is not None or self.policy.detector == "copy" or tier == ALLOWED:
            return _Seen(raw, tier, cited)
        if self.policy.detector == "similarity":
            return self._alike(evidence, cited)
        score = evidence.scores.get(self.policy.feature)
        least = min(self.policy.ladder.values(), default=1.0)
        if score is None or score < least:
            return _Seen(None, "", cited)
        return _Seen(score, "classifier", calibrated=self.calibrated, reason=f"{self.policy.feature} is {score:.2f}")

    def _copies(self, evidence: Evidence) -> tuple[float | None, str, list[Cited]]:
        found = self.bank.copies(evidence, self.policy.distance)
        cited = [
            Cited(
                m.exemplar,
                self._exemplar(m.exemplar).revision,
                self._side(m.exemplar),
                m.tier,
                m.score,
                self._exemplar(m.exemplar).state == "shadow",
                m.start_s,
                m.end_s,
                m.exemplar_start_s,
            )
            for m in found
        ]
        cited.sort(key=lambda c: (TIERS.index(c.tier), -c.score, c.exemplar_id))
        acting = [c for c in cited if not c.shadow]
        against = [c for c in acting if c.side == "positive"]
        allowed = [c for c in acting if c.side == "negative"]
        if not against:
            return (
                None,
                ALLOWED if allowed else "exact",
                [c for c in cited if c.shadow and c.side == "positive"][:CITED],
            )
        best = against[0]
        # What is just as surely a copy of something that is allowed is allowed.
        pardoned = allowed and (TIERS.index(allowed[0].tier), -allowed[0].score) <= (
            TIERS.index(best.tier),
            -best.score,
        )
        raw = 0.0 if pardoned else WORTH[best.tier]
        return raw, best.tier, [*cited[:CITED], *(c for c in allowed[:1] if c not in cited[:CITED])]

    def _alike(self, evidence: Evidence, shadows: list[Cited]) -> _Seen:
        sides: dict[str, set[str]] = {"positive": set(), "negative": set(), "shadow": set()}
        for name, exemplar in self.bank.exemplars.items():
            sides["shadow" if exemplar.state == "shadow" else self._side(name)].add(name)
        odds = self._odds(evidence)
        likeness = self.bank.likeness(evidence, self.bank.exemplars)
        if likeness is None:
            if odds is None:
                return _Seen(None, "embedding", shadows)
            likeness = Likeness((), np.empty((len(odds), 0), np.float32))
        positive, negative = (sides[side] & set(likeness.exemplars) for side in ("positive", "negative"))
        plane = self._plane(tuple(tuple(e for e in likeness.exemplars if e in side) for side in (positive, negative)))
        parts = {"positive": positive, "negative": negative, "plane": plane is not None, "known": odds is not None}
        made_of = " ".join([*(name for name, there in parts.items() if there), evidence.model_id]).strip()
        calibrated = self.calibrated if self.calibrated and self.calibrated.made_of == made_of else None
        near = likeness.best(positive)
        watched = {e for e in sides["shadow"] if self._side(e) == "positive"} - {c.exemplar_id for c in shadows}
        shadows = [*shadows, *self._by_shadows(evidence, likeness, watched)]
        # Labels know of what is less alike, too.
        like = near >= LIKE[self.policy.vectors] if calibrated is None else near > -1.0
        if not like.any():
            return self._read(evidence, odds, likeness.best(negative), shadows)
        scores = likeness.margins(positive, negative) + self._beyond(evidence, plane)
        if odds is not None:
            scores += KNOWN_WEIGHT * odds
        row = int(np.argmax(np.where(like, scores, -np.inf)))  # one passage is enough; the whole where none is worse
        where = _where(evidence, row)
        cited = [
            Cited(e, self._exemplar(e).revision, side, "embedding", value, **where)
            for side in ("positive", "negative")
            for e, value in likeness.nearest(row, sides[side])[:CITED]
        ]
        return _Seen(float(scores[row]), "embedding", [*cited, *shadows], made_of, calibrated)

    def _read(
        self, evidence: Evidence, odds: np.ndarray | None, allowed: np.ndarray, shadows: Sequence[Cited]
    ) -> _Seen:
        """What the classifier that ships finds without an exemplar, for people to look at: it is its probability, of
        texts that break the policy as often as not, and nothing calibrates it. What is like something that is `allowed`
        is let go."""
        if odds is None:
            return _Seen(None, "embedding", shadows)
        worth = known.worth_asking(odds) & (allowed < LIKE[self.policy.vectors])
        if not worth.any():
            return _Seen(None, "embedding", shadows)
        row = int(np.argmax(np.where(worth, odds, -np.inf)))
        where = _where(evidence, row)
        reason = f"{'a passage' if where else 'it'} reads as {self.policy.title.lower()}"
        return _Seen(float(1 / (1 + np.exp(-odds[row]))), "classifier", shadows, reason=reason, where=Place(**where))

    def _odds(self, evidence: Evidence) -> np.ndarray | None:
        """What the classifier that ships makes of the whole and of its parts."""
        if not self.policy.known or "vector" not in evidence.arrays:
            return None
        return known.shipped(self.policy.known).log_odds(_rows(evidence), evidence.model_id)

    def _by_shadows(self, evidence: Evidence, likeness: Likeness, shadows: set[str]) -> list[Cited]:
        """The likest of exemplars that are only watched."""
        row = int(np.argmax(likeness.best(shadows)))
        return [
            Cited(e, self._exemplar(e).revision, "positive", "embedding", value, True, **_where(evidence, row))
            for e, value in likeness.nearest(row, shadows)[:CITED]
            if value >= LIKE[self.policy.vectors]
        ]

    def _beyond(self, evidence: Evidence, plane: Plane | None) -> np.ndarray:
        """What the plane between the sides and a classifier add to the margins of the whole and of its parts."""
        rows = _rows(evidence)
        found = PLANE_WEIGHT * plane.side(rows) if plane is not None else np.zeros(len(rows))
        score = evidence.scores.get(self.policy.feature)
        return found if score is None else found + FEATURE_WEIGHT * log_odds(score)

    def _plane(self, sides: tuple[tuple[str, ...], ...]) -> Plane | None:
        if sides not in self._planes:
            whole = [self.bank.vectors(side) if side else np.empty((0, 0)) for side in sides]
            self._planes.clear()
            self._planes[sides] = Plane.between(*whole)
        return self._planes[sides]

    def _probability(self, seen: _Seen) -> float | None:
        if seen.tier in FIRST_TIERS:
            return seen.raw
        if seen.calibrated is None or seen.raw is None:
            return None
        return float(seen.calibrated.calibration([seen.raw])[0])

    def _allowed(self, asked: str, seen: _Seen, probability: float | None) -> tuple[str, str]:
        """The action that may be taken, and why not the one that was asked for."""
        if probability is None:
            # A score that nothing calibrates is no probability: somebody looks at it, or nobody does anything.
            action = asked if ACTIONS.index(asked) <= ACTIONS.index("review") else "review"
            if self.policy.detector == "similarity":
                action = "review"
            return action, f"nothing calibrates it; {self.lacking} labels are missing" if action != asked else ""
        if asked not in AUTOMATIC or seen.tier in FIRST_TIERS:
            return asked, ""
        threshold = seen.calibrated.threshold if seen.calibrated else None
        if threshold is not None and threshold.value is not None and probability >= threshold.value:
            return asked, ""
        missing = threshold.lacking if threshold is not None else self.lacking
        return "review", f"its precision is not proven; {missing} labels are missing"

    def _decision(
        self, seen: _Seen, action: str, enforced: bool, probability: float | None, held: str, reason: str
    ) -> Decision:
        calibrated = seen.calibrated
        return Decision(
            self.policy.id,
            self.version,
            self.modality,
            action,
            enforced,
            float(seen.raw or 0.0),
            probability,
            seen.tier,
            tuple(seen.cited),
            calibrated.calibration.version if calibrated else "",
            calibrated.threshold.value if calibrated else None,
            held,
            reason,
            seen.made_of,
            seen.where,
        )

    def _reason(self, raw: float, tier: str, cited: Sequence[Cited]) -> str:
        (best, *_) = [c for c in cited if c.side == "positive"]
        if tier == "embedding":
            part = "" if best.first is None and best.start_s is None else "a passage "
            if best.score < LIKE[self.policy.vectors]:  # only labels tell that this is enough
                return f"{part or 'it '}scores {raw:.2f}; the likest exemplar is {best.exemplar_id} ({best.score:.2f})"
            return f"{part or 'it '}is like {best.exemplar_id} ({best.score:.2f})"
        where = "" if best.start_s is None or best.end_s is None else f" from {best.start_s:.1f} to {best.end_s:.1f} s"
        pardon = "; it is as surely a copy of something allowed" if raw == 0 else ""
        return f"it is a copy of {best.exemplar_id}{where}{pardon}"

    def _exemplar(self, exemplar_id: str) -> Exemplar:
        return self.bank.exemplars[exemplar_id]

    def _side(self, exemplar_id: str) -> str:
        return "positive" if self._exemplar(exemplar_id).bank in self.policy.positive else "negative"


def _rows(evidence: Evidence) -> np.ndarray:
    """The vectors of the whole and of its parts, (1 + parts, dim)."""
    whole = evidence.arrays["vector"]
    return np.concatenate([whole[None], evidence.arrays.get("parts", np.empty((0, len(whole))))])


def _where(evidence: Evidence, row: int) -> dict[str, Any]:
    """Where a part of a content lies, as `Cited` says it; row 0 is the whole."""
    if not row:
        return {}
    first, last = evidence.arrays["spans"][row - 1].tolist()
    if evidence.modality == "audio":
        return {"start_s": float(first), "end_s": float(last)}
    times = evidence.arrays.get("times")
    heard = (
        {}
        if times is None or np.isnan(times[row - 1]).any()
        else dict(zip(("start_s", "end_s"), times[row - 1].tolist(), strict=True))
    )
    return {"first": int(first), "last": int(last), **heard}


def _share(content_id: str, policy_id: str) -> float:
    """A number in [0, 1) that is a content's forever: raising the share of what is enforced only adds contents."""
    own = hashlib.sha256(f"{policy_id}\n{content_id}".encode()).digest()
    return int.from_bytes(own[:8], "big") / 2**64
