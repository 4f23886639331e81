"""What people decide: which cases wait, who may see which, what two say of the same, what appeals change, and what the
machine misses."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from core.errors import ConfigError, NotFound
from core.ids import Ids, id_list
from evaluation.intervals import clopper_pearson
from moderation.audit import Entry, Record
from moderation.calibration import Threshold, fit, held_out, threshold
from moderation.cases import CALIBRATION, VERDICT, VERDICTS, Case, Cases
from moderation.decisions import Decision, detector, policy_version
from moderation.policies import ACTIONS, Policy, policy_from_dict

APPEAL, SAMPLE = "appeal", "sample"  # kinds of record
TWICE = 0.1  # share of cases that two reviewers see, neither of whom knows what the other said
STAGES = ("first", "second", "third", "appeal")  # a third decides where two differ
PEOPLE = "people"  # the tier of what they decided


@dataclass(frozen=True)
class Waiting:
    """A case that waits for somebody: at which stage, and how pressing it is (0 to 1, appeals above)."""

    case: Case
    stage: str
    priority: float


@dataclass(frozen=True)
class Agreement:
    """How far pairs of reviewers agree beyond chance: Cohen's kappa (1960), None without two verdicts that differ in
    anything; `cases` that two saw, of which they said the same of `same`."""

    kappa: float | None
    cases: int
    same: int


@dataclass(frozen=True)
class Missed:
    """What a random sample of contents that nothing speaks against shows: of `seen`, `wrong` broke the policy after
    all; the share is between `low` and `high` (95 %, Clopper and Pearson)."""

    policy_id: str
    sampled: int
    seen: int
    wrong: int
    low: float
    high: float


class Review:
    """The queue and what comes out of it. Everything is in the audit."""

    def __init__(self, cases: Cases, policies: Sequence[Policy]) -> None:
        self.cases = cases
        self.policies = {p.id: p for p in policies}
        self.appeals: dict[str, list[Record]] = {}
        self.samples: list[Record] = []
        for record in cases.audit.history.of(APPEAL):
            self.appeals.setdefault(record.body["case_id"], []).append(record)
        self.samples += cases.audit.history.of(SAMPLE)

    def queue(self, reviewer: str = "", limit: int | None = None) -> list[Waiting]:
        """What waits, the most pressing first; with a `reviewer`, what that one may decide: nobody sees a case twice,
        and an appeal goes to somebody who had no part in it."""
        found = [w for case in self.cases.current.values() if (w := self._waiting(case)) is not None]
        if reviewer:
            found = [w for w in found if reviewer not in self._took_part(w.case)]
        found.sort(key=lambda w: (-w.priority, w.case.number))
        return found[:limit]

    def verdict(
        self, case_id: str, verdict: str, *, by: str, reason: str = "", clause: str = "", action: str = ""
    ) -> Case | None:
        """Records what a reviewer says; returns the decision that this makes, None while another verdict is awaited.

        `action` is what is to be done where the policy is broken: its ladder's severest by default. Raises
        `ConfigError` for what is no verdict and for a reviewer who may not, `NotFound`.
        """
        if not by.strip():
            raise ConfigError("a verdict is somebody's: say whose")
        if verdict not in VERDICTS:
            raise ConfigError(f"{verdict!r} is no verdict; there is {', '.join(VERDICTS)}")
        case = self._current(case_id)
        waiting = self._waiting(case)
        if waiting is None:
            raise ConfigError(f"decision {case.case_id} waits for nobody")
        if by in self._took_part(case):
            raise ConfigError(f"{by} has had a part in decision {case.case_id}; somebody else must look at it")
        policy = self.policies.get(case.decision.policy_id)
        if policy is None:
            raise NotFound(f"there is no policy {case.decision.policy_id!r} any more")
        if clause and clause not in {c.id for c in policy.clauses}:
            raise ConfigError(
                f"{policy.id} has no clause {clause!r}; there is {', '.join(c.id for c in policy.clauses)}"
            )
        if action and action not in ACTIONS:
            raise ConfigError(f"{action!r} is no action; there is {', '.join(ACTIONS)}")
        taken = (action or _severest(policy)) if verdict == "violates" else "none"
        body = {
            "case_id": case.case_id,
            "content_id": case.content_id,
            "policy_id": policy.id,
            "reviewer": by,
            "verdict": verdict,
            "clause": clause,
            "action": taken,
            "stage": waiting.stage,
        }
        self.cases.take(self.cases.audit.append([Entry(VERDICT, body, {"reason": reason} if reason else {})]))
        return self._settled(case, waiting.stage, policy)

    def appeal(self, case_id: str, *, by: str, text: str = "") -> Record:
        """Somebody objects to a decision that was taken. Raises `ConfigError` where none was, or where an appeal is
        open or was decided."""
        case = self._current(case_id)
        if case.decision.action in ("none", "review") or not case.decision.enforced:
            raise ConfigError(f"decision {case.case_id} took no action that one could appeal against")
        if case.case_id in self.appeals or self._appealed(case):
            raise ConfigError(f"decision {case.case_id} was appealed against before")
        body = {"case_id": case.case_id, "content_id": case.content_id, "by": by}
        (record,) = self.cases.audit.append([Entry(APPEAL, body, {"text": text} if text else {})])
        self.cases.take([record])
        self.appeals.setdefault(case.case_id, []).append(record)
        return record

    def agreement(self) -> Agreement:
        """Over the cases that two saw without knowing of each other."""
        pairs = []
        for said in self.cases.verdicts.values():
            blind = {r.body["stage"]: r.body["verdict"] for r in said if r.body["stage"] in ("first", "second")}
            if len(blind) == 2:
                pairs.append((blind["first"], blind["second"]))
        return Agreement(kappa(pairs), len(pairs), sum(a == b for a, b in pairs))

    def sample(self, policy_id: str, contents: Ids, count: int, *, by: str, seed: int) -> list[str]:
        """A random sample of contents that nothing speaks against, to be looked at by people: what it shows is what is
        missed. Returns the contents; they are recorded."""
        standing = [case for case in self.cases.current.values() if case.policy_id == policy_id]
        flagged = {case.content_id for case in standing if case.action != "none" or case.by != "machine"}
        seen = {r.body["content_id"] for r in self.cases.verdicts.get("", ()) if r.body["policy_id"] == policy_id}
        clean = sorted(set(id_list(contents)) - flagged - seen)
        clean.sort(key=lambda c: hashlib.sha256(f"{seed}\n{c}".encode()).digest())
        chosen = clean[:count]
        body = {"policy_id": policy_id, "contents": chosen, "of": len(clean), "seed": seed, "by": by}
        records = self.cases.audit.append([Entry(SAMPLE, body)])
        self.cases.take(records)
        self.samples += records
        return chosen

    def sampled(self, policy_id: str, content_id: str, verdict: str, *, by: str, reason: str = "") -> None:
        """What a reviewer says of a content of a sample. Raises `ConfigError` for one that is in none."""
        if verdict not in VERDICTS or not by.strip():
            raise ConfigError(f"a verdict is one of {', '.join(VERDICTS)}, and somebody's")
        if not any(s.body["policy_id"] == policy_id and content_id in s.body["contents"] for s in self.samples):
            raise ConfigError(f"{content_id!r} is in no sample of {policy_id}")
        body = {
            "case_id": "",
            "content_id": content_id,
            "policy_id": policy_id,
            "reviewer": by,
            "verdict": verdict,
            "clause": "",
            "action": "none",
            "stage": "sample",
        }
        self.cases.take(self.cases.audit.append([Entry(VERDICT, body, {"reason": reason} if reason else {})]))

    def missed(self, policy_id: str) -> Missed:
        """What the samples of a policy show; the last verdict on a content counts, if it is one."""
        contents = {c for s in self.samples if s.body["policy_id"] == policy_id for c in s.body["contents"]}
        said = {
            r.body["content_id"]: r.body["verdict"]
            for r in self.cases.verdicts.get("", ())
            if r.body["policy_id"] == policy_id and r.body["verdict"] != "unsure"
        }
        wrong = sum(v == "violates" for v in said.values())
        low, high = clopper_pearson(wrong, len(said), 0.975) if said else (0.0, 1.0)
        return Missed(policy_id, len(contents), len(said), wrong, low, high)

    def labels(self, policy_id: str, modality: str) -> tuple[list[float], list[bool], list[str]]:
        """Raw scores, whether the policy was broken, and the groups that hang together (the exemplar that was nearest),
        of the machine's decisions that people settled, where scores are still made as they were then."""
        policy, made_of = self.policies.get(policy_id), self._made_of(policy_id, modality)
        scores, truth, groups = [], [], []
        comparable = {
            version
            for version, record in self.cases.policies.items()
            if (then := policy_from_dict(record.body["policy"])).id == policy_id
            and policy_version(then) == version
            and policy is not None
            and detector(then) == detector(policy)
        }
        for case in self.cases.every.values():
            if case.by != "machine" or (case.policy_id, case.modality) != (policy_id, modality):
                continue
            d = case.decision
            if policy is None or d.made_of != made_of:
                continue
            if d.tier == "classifier" and policy.detector == "similarity":  # no exemplar had a part in it
                continue
            said = [r for r in self.cases.verdicts.get(case.case_id, ()) if r.body["verdict"] != "unsure"]
            if said and d.policy_version in comparable and d.tier not in ("exact", "hash", "fingerprint"):
                scores.append(d.raw)
                truth.append(said[-1].body["verdict"] == "violates")
                groups.append(d.cited[0].exemplar_id if d.cited else case.content_id)
        return scores, truth, groups

    def _made_of(self, policy_id: str, modality: str) -> str:
        """What the machine's last score was made of."""
        made = [
            case.decision.made_of
            for case in self.cases.every.values()
            if case.by == "machine"
            and (case.policy_id, case.modality, case.tier) == (policy_id, modality, "embedding")
            and not all(c.shadow for c in case.decision.cited)
        ]
        return made[-1] if made else ""

    def calibrate(self, policy_id: str, modality: str, *, by: str) -> tuple[dict[str, Any], Threshold]:
        """Fits a calibration on what people said and records it with the threshold that it proves; the next scan
        decides by it. Raises `ConfigError` where there are too few labels, and says how many."""
        import numpy as np

        policy = self.policies.get(policy_id)
        if policy is None:
            raise NotFound(f"there is no policy {policy_id!r}; there is {', '.join(self.policies)}")
        scores, truth, groups = self.labels(policy_id, modality)
        made = fit(scores, truth, groups)
        out = held_out(np.asarray(scores), np.asarray(truth), groups, made.method)
        proven = threshold(out, np.asarray(truth), policy.target_precision)
        body = {
            "policy_id": policy_id,
            "modality": modality,
            "detector": detector(policy),
            "calibration": made.to_dict(),
            "threshold": proven.to_dict(),
            "made_of": self._made_of(policy_id, modality),
            "by": by,
        }
        self.cases.take(self.cases.audit.append([Entry(CALIBRATION, body)]))
        return body, proven

    def _current(self, case_id: str) -> Case:
        case = self.cases.find(case_id)
        standing = self.cases.current[case.key]
        if standing.case_id != case.case_id:
            raise ConfigError(f"decision {case.case_id} was superseded by {standing.case_id}")
        return case

    def _waiting(self, case: Case) -> Waiting | None:
        said = self.cases.verdicts.get(case.case_id, [])
        if case.case_id in self.appeals:
            decided = any(r.body["stage"] == "appeal" for r in said)
            return None if decided else Waiting(case, "appeal", 2.0)
        if case.by != "machine" or case.action != "review":
            return None
        score = case.decision.raw if case.decision.probability is None else case.decision.probability
        priority = min(max(score, 0.0), 1.0)
        verdicts = [r.body["verdict"] for r in said]
        if not verdicts:
            return Waiting(case, "first", priority)
        if len(verdicts) == 1 and (verdicts[0] == "unsure" or seen_twice(case.case_id)):
            return Waiting(case, "second", priority)
        if len(verdicts) == 2 and (verdicts[0] != verdicts[1] or verdicts[0] == "unsure"):
            return Waiting(case, "third", 1.0)
        return None

    def _took_part(self, case: Case) -> set[str]:
        """Everybody who said something of a case or of those that it supersedes."""
        people: set[str] = set()
        here: Case | None = case
        while here is not None:
            people |= {r.body["reviewer"] for r in self.cases.verdicts.get(here.case_id, ())}
            people |= {r.body["by"] for r in self.appeals.get(here.case_id, ())}
            here = self.cases.every.get(here.supersedes)
        return people

    def _appealed(self, case: Case) -> bool:
        """Whether a decision came out of an appeal."""
        said = self.cases.verdicts.get(case.supersedes, ())
        return case.by != "machine" and any(r.body["stage"] == "appeal" for r in said)

    def _settled(self, case: Case, stage: str, policy: Policy) -> Case | None:
        said = self.cases.verdicts[case.case_id]
        verdicts = [r.body["verdict"] for r in said]
        last = said[-1].body
        if stage != "appeal" and self._waiting(case) is not None:
            return None
        if stage == "third":  # the two that agree; where all three differ, nothing is done to the content
            agreed = [v for v in VERDICTS if verdicts.count(v) > 1]
            last = next((r.body for r in reversed(said) if agreed and r.body["verdict"] == agreed[0]), last)
            if not agreed:
                last = {**last, "verdict": "unsure", "action": "none"}
        action = last["action"] if last["verdict"] == "violates" else "none"
        clause = f" ({last['clause']})" if last["clause"] else ""
        decision = _by_people(case.decision, policy, action, f"{last['verdict']}{clause}, by {stage} review")
        held = self.cases.evidence(case)
        (made,) = self.cases.record(
            [policy], [(case.content_id, decision, held)], bank_at=self.cases.at, by=said[-1].body["reviewer"]
        )
        return made


def kappa(pairs: Sequence[tuple[str, str]]) -> float | None:
    """Cohen's kappa of pairs of verdicts; None where chance alone would agree on all."""
    if not pairs:
        return None
    names = {name for pair in pairs for name in pair}
    observed = sum(a == b for a, b in pairs) / len(pairs)
    first, second = ([pair[side] for pair in pairs] for side in (0, 1))
    chance = sum(first.count(n) * second.count(n) for n in names) / len(pairs) ** 2
    return None if chance == 1 else (observed - chance) / (1 - chance)


def seen_twice(case_id: str) -> bool:
    """Whether two reviewers see a case: so many of all, whoever it is."""
    own = hashlib.sha256(case_id.encode()).digest()
    return int.from_bytes(own[:8], "big") / 2**64 < TWICE


def _severest(policy: Policy) -> str:
    """What a reviewer's verdict leads to where nobody says otherwise; a policy that only asks for reviews restricts."""
    action = max(policy.ladder, key=ACTIONS.index)
    return action if ACTIONS.index(action) > ACTIONS.index("review") else "restrict"


def _by_people(decision: Decision, policy: Policy, action: str, reason: str) -> Decision:
    return replace(
        decision,
        policy_version=policy_version(policy),
        action=action,
        enforced=action != "none",
        tier=PEOPLE,
        probability=None,
        held_back="",
        reason=reason,
    )
