"""Decisions as they stand: what was decided of which content, what superseded it, what people said, and by what it is
made again. All of it is read from the audit; nothing else is kept."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from core.errors import ConfigError, NotFound, StorageError
from moderation import decisions
from moderation.audit import Audit, Entry, Record
from moderation.banks import Bank
from moderation.calibration import Calibration, Threshold
from moderation.case import Case, Key
from moderation.decisions import Calibrated, Decision, Place, policy_version
from moderation.evidence import Evidence, load_arrays, store_arrays
from moderation.exemplars import Exemplars
from moderation.judge import Judge
from moderation.opinions import replayed
from moderation.policies import Policy, policy_from_dict
from moderation.statement import statement_of_reasons
from skips.join import Patcher

POLICY, CALIBRATION, VERDICT, OPINION = "policy", "calibration", "verdict", "opinion"  # kinds of record
VERDICTS = ("violates", "allowed", "unsure")
JUDGES_IN_MEMORY = 4  # while decisions are replayed


@dataclass(frozen=True)
class Replay:
    """A decision made again: whether it came out the same, and in what it differs."""

    case: Case
    again: Decision | None
    differences: tuple[str, ...]

    @property
    def same(self) -> bool:
        return not self.differences


class Cases:
    """What the audit says of decisions, as of its head when this was made or last `refresh`ed."""

    def __init__(self, audit: Audit) -> None:
        self.audit = audit
        self._judges: dict[tuple[Any, ...], Judge] = {}
        self.refresh()

    def refresh(self) -> None:
        self.every: dict[str, Case] = {}
        self.current: dict[Key, Case] = {}
        self.verdicts: dict[str, list[Record]] = defaultdict(list)
        self.opinions: dict[str, list[Record]] = defaultdict(list)  # of language models
        self.policies: dict[str, Record] = {}  # by version
        self.calibrations: dict[tuple[str, str], Record] = {}
        history = self.audit.history
        history.refresh()
        for case in history.cases:
            self.every[case.case_id] = self.current[case.key] = case
        for record in history.of(VERDICT, OPINION, POLICY, CALIBRATION):
            self._take(record)
        self.at = history.head.number

    def _take(self, record: Record) -> None:
        self.at = record.number
        if record.kind == decisions.KIND:
            case = Case.of(record)
            self.every[case.case_id] = self.current[case.key] = case
        elif record.kind == VERDICT:
            self.verdicts[record.body["case_id"]].append(record)
        elif record.kind == OPINION:
            self.opinions[record.body["case_id"]].append(record)
        elif record.kind == POLICY:
            self.policies[record.body["version"]] = record
        elif record.kind == CALIBRATION:
            self.calibrations[record.body["policy_id"], record.body["modality"]] = record

    def take(self, records: Sequence[Record]) -> None:
        """Learns of records that were appended since."""
        for record in records:
            self._take(record)

    def find(self, case_id: str) -> Case:
        """By the id or the beginning of it that no other has. Raises `NotFound`, `ConfigError`."""
        found = [case for name, case in self.every.items() if name.startswith(case_id)]
        if not found:
            raise NotFound(f"there is no decision {case_id!r} in the audit")
        if len(found) > 1:
            raise ConfigError(f"{len(found)} decisions begin with {case_id!r}; give more of the id")
        return found[0]

    def calibrated(self, policy: Policy, modality: str) -> Calibrated | None:
        """The newest calibration of a policy; None where what it says has changed since."""
        record = self.calibrations.get((policy.id, modality))
        if record is None or record.body["detector"] != decisions.detector(policy):
            return None
        return _calibrated(record)

    def record(
        self,
        policies: Sequence[Policy],
        made: Sequence[tuple[str, Decision, Evidence]],
        *,
        bank_at: int,
        by: str = "machine",
    ) -> list[Case]:
        """Appends decisions, each superseding the one that stood; `bank_at` is the record up to which exemplars were
        known."""
        by_version = {policy_version(p): p for p in policies}
        entries = [
            Entry(POLICY, {"version": version, "policy": policy.to_dict()})
            for version, policy in by_version.items()
            if version not in self.policies and any(d.policy_version == version for _, d, _ in made)
        ]
        for content_id, decision, evidence in made:
            before = self.current.get((content_id, decision.policy_id, decision.modality))
            policy = by_version[decision.policy_version]
            body = {
                "content_id": content_id,
                "decision": decision.to_dict(),
                "evidence": {
                    **evidence.described(),
                    "payload": store_arrays(self.audit.storage, evidence.arrays),
                },
                "bank_at": bank_at,
                "by": by,
                "prompt": None,
                "supersedes": before.case_id if before else "",
                "statement": statement_of_reasons(policy, decision, by),
            }
            entries.append(Entry(decisions.KIND, body))
        records = self.audit.append(entries)
        self.take(records)
        return [Case.of(record) for record in records if record.kind == decisions.KIND]

    def evidence(self, case: Case) -> Evidence:
        """What a decision was made from. Raises `StorageError` where it is gone or was changed."""
        held = dict(case.record.body["evidence"])
        arrays = load_arrays(self.audit.storage, held.pop("payload"), f"decision {case.case_id}")
        return Evidence.from_described(held, arrays)

    def replay(self, case: Case, patch: Patcher) -> Replay:
        """Makes a decision again from what it was made from: the pinned evidence, the policy, the calibration and the
        exemplars as they were."""
        try:
            return self._replayed(case, patch)
        except StorageError as error:
            return Replay(case, None, (str(error),))

    def _replayed(self, case: Case, patch: Patcher) -> Replay:
        decision = Decision.from_dict(case.record.body["decision"])  # as the chain has it, not a snapshot
        if case.by != "machine":
            said = [r for r in self.verdicts.get(case.supersedes, ()) if r.number < case.number]
            asked = {r.body["action"] for r in said} | {"none"}
            theirs = any(r.body["reviewer"] == case.by for r in said) and decision.action in asked
            return Replay(case, decision, () if theirs else ("no verdict asks for this action",))
        held = self.policies.get(decision.policy_version)
        if held is None:
            return Replay(case, None, (f"the policy's version {decision.policy_version} is not in the audit",))
        policy = policy_from_dict(held.body["policy"])
        if policy_version(policy) != decision.policy_version:
            return Replay(case, None, ("the policy, or the code that reads it, is another by now",))
        judge = self._judge(policy, decision, case.record.body["bank_at"], patch)
        made = judge.decide(case.content_id, self.evidence(case)) or withdrawn(decision)
        opinions = [
            told for record in self.opinions.get(case.case_id, ()) if (told := replayed(self.audit, policy, record))
        ]
        return Replay(case, made, (*_differences(decision, made), *opinions))

    def _judge(self, policy: Policy, decision: Decision, bank_at: int, patch: Patcher) -> Judge:
        """The policy with its exemplars and its calibration as they were. The last ones that were asked for are kept:
        decisions of one scan share them."""
        key = (decision.policy_version, decision.modality, bank_at, decision.calibration, decision.threshold)
        found = self._judges.pop(key, None)
        if found is None:
            exemplars = Exemplars(self.audit.storage, self.audit)
            chosen = exemplars.every({*policy.positive, *policy.negative}, at=bank_at)
            bank = Bank(decision.modality, chosen, exemplars.arrays, patch)
            found = Judge(policy, decision.modality, bank, self._calibration_of(decision))
        self._judges[key] = found
        if len(self._judges) > JUDGES_IN_MEMORY:
            self._judges.pop(next(iter(self._judges)))
        return found

    def _calibration_of(self, decision: Decision) -> Calibrated | None:
        if not decision.calibration:
            return None
        for record in self.audit.history.of(CALIBRATION):
            found = _calibrated(record)
            if found.calibration.version == decision.calibration and found.threshold.value == decision.threshold:
                return found
        raise StorageError(f"the calibration {decision.calibration} is not in the audit")


def withdrawn(decision: Decision, reason: str = "nothing speaks against it any more") -> Decision:
    """What is left of a decision when nothing matches: no action, by the same policy and calibration."""
    return replace(
        decision,
        action="none",
        enforced=False,
        raw=0.0,
        probability=None,
        tier="",
        cited=(),
        held_back="",
        reason=reason,
        made_of="",
        where=Place(),
    )


def let_go(decision: Decision, judge: Judge) -> Decision:
    """What is left of a decision of which a judge makes nothing any more."""
    calibrated = judge.calibrated
    return replace(
        withdrawn(decision),
        policy_version=judge.version,
        calibration=calibrated.calibration.version if calibrated else "",
        threshold=calibrated.threshold.value if calibrated else None,
    )


def _calibrated(record: Record) -> Calibrated:
    body = record.body
    return Calibrated(
        Calibration.from_dict(body["calibration"]),
        Threshold(**body["threshold"]),
        body.get("made_of", ""),
    )


def _differences(one: Decision, other: Decision) -> tuple[str, ...]:
    if one.same == other.same:
        return ()
    names = ("action", "enforced", "raw", "probability", "tier", "calibration", "threshold")
    told = [
        f"{n} was {getattr(one, n)} and is {getattr(other, n)}" for n in names if getattr(one, n) != getattr(other, n)
    ]
    if one.cited != other.cited:
        told.append("it rests on other exemplars, or on the same ones otherwise")
    return tuple(told) or ("it differs in the last digits",)
