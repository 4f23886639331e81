"""Moderation of a store: what is new, and what policies, exemplars or calibrations changed for, is decided anew; the
rest is left alone."""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from core.contracts import CREATED, EVENT, WORK_KEY
from core.features import CONTENT, MODERATION
from core.keys import REMOVED, digest, work_key
from core.storage import Storage
from core.tables import now_us, rows_to_table
from core.threads import one_algebra_thread
from moderation.audit import Audit
from moderation.policies import ACTIONS, Policy, parse_policies, shipped_policies
from pipelines.context import Run, local_root

if TYPE_CHECKING:
    from moderation.cases import Case, Cases
    from moderation.decisions import Decision, Judge
    from moderation.evidence import Evidence
    from moderation.exemplars import Exemplar, Exemplars
    from pipelines.media import StoreMedia

POLICIES = "moderation/policies.yaml"  # the store's own; without it, those that ship
SCANNED = "moderation/scanned.json"
FLOOD_DAYS = 28  # that an exemplar's matches are compared with


def store_policies(storage: Storage) -> list[Policy]:
    """The policies of a store. Raises `ConfigError`."""
    try:
        text = storage.read(POLICIES).decode()
    except FileNotFoundError:
        return shipped_policies()
    return parse_policies(text, POLICIES)


def step(run: Run) -> dict[str, Any]:
    """The scan as a step of a run."""
    summary = scan(run)
    run.write_json("moderation.json", summary)
    return summary


def scan_now(run: Run) -> dict[str, Any]:
    """A scan between runs; what changed is online at once."""
    summary = scan(run)
    if summary["changed"]:
        _materialise(run)
    return summary


def publish(run: Run, cases: Cases) -> None:
    """Puts decisions that people made into the offline and the online store."""
    if commit(run, cases):
        _materialise(run)


def _materialise(run: Run) -> None:
    from feature_repo.materialise import materialise
    from feature_repo.store import open_store

    materialise(open_store(local_root(run.storage)))


def scan(run: Run) -> dict[str, Any]:
    """Decides what is to be decided, commits the decisions that changed, and quarantines exemplars that flood."""
    from pipelines.media import StoreMedia

    started = time.perf_counter()
    one_algebra_thread()
    policies = store_policies(run.storage)
    look = Scan(run, policies, StoreMedia(run, policies))
    made = look.all()
    flooding = look.floods()
    if flooding:
        made += look.all()
    changed = commit(run, look.cases)
    summary = {
        "policies": len(policies),
        "exemplars": len(look.exemplars),
        "looked_at": look.looked_at,
        "decided": len(made),
        "changed": changed,
        "actions": dict(Counter(case.decision.action for case in made)),
        "quarantined": flooding,
        "seconds": time.perf_counter() - started,
    }
    return summary


class Scan:
    """One look at a store's contents."""

    def __init__(self, run: Run, policies: Sequence[Policy], media: StoreMedia) -> None:
        from moderation.cases import Cases
        from moderation.exemplars import Exemplars

        self.run, self.policies, self.media = run, policies, media
        self.audit = Audit(run.storage)
        self.cases: Cases = Cases(self.audit)
        self.banks: Exemplars = Exemplars(run.storage, self.audit)
        self.looked_at = 0
        self.known = _scanned(run.storage)
        self._load()

    def _load(self) -> None:
        self.cases.refresh()
        self.at = self.cases.at
        self.exemplars: list[Exemplar] = self.banks.every(at=self.at)

    def all(self) -> list[Case]:
        """Looks at whatever is due under every policy; returns the decisions that it led to."""
        self._load()
        made: list[Case] = []
        for modality, keys in self.media.keys.items():
            under = [p for p in self.policies if modality in p.modalities]
            due: dict[str, list[Judge]] = defaultdict(list)
            for policy in under:
                judge = self._judge(policy, modality)
                for content_id in self._due(judge, keys):
                    due[content_id].append(judge)
            self.run.progress("moderation", 0, len(due))
            found: list[tuple[str, Decision, Evidence]] = []
            for content_id, evidence in self.media.evidence(modality, sorted(due)):
                for judge in due[content_id]:
                    found += self._decided(judge, content_id, evidence)
                self.looked_at += 1
                self.run.progress("moderation", 1, 0)
            made += self.cases.record(self.policies, found, bank_at=self.at)
        self._remember()
        return made

    def floods(self) -> list[str]:
        """Quarantines exemplars that match suddenly more than they used to; returns which."""
        from moderation.exemplars import flooded

        today = datetime.now(UTC).date()
        counts: dict[str, Counter[int]] = defaultdict(Counter)
        for case in self.cases.every.values():
            age = (today - datetime.fromisoformat(case.record.at).date()).days
            if age <= FLOOD_DAYS:
                for cited in case.decision.cited[:1]:
                    counts[cited.exemplar_id][age] += 1
        found = []
        for exemplar in self.exemplars:
            days = counts.get(exemplar.exemplar_id)
            if days is None:
                continue
            first = max(days)
            if flooded(days[0], [days[n] for n in range(1, first + 1)]):
                reason = f"it matched {days[0]} times today, {sum(days.values()) - days[0]} in the {first} days before"
                self.banks.set_state(exemplar.exemplar_id, "quarantined", by="flood control", reason=reason)
                found.append(exemplar.exemplar_id)
        return found

    def _judge(self, policy: Policy, modality: str) -> Judge:
        from embedders.fingerprint import patches
        from moderation.banks import Bank
        from moderation.calibration import LEAST_OF_A_KIND
        from moderation.decisions import Judge

        chosen = [e for e in self.exemplars if e.bank in (*policy.positive, *policy.negative)]
        bank = Bank(modality, chosen, self.banks.arrays, patches)
        return Judge(policy, modality, bank, self.cases.calibrated(policy, modality), 2 * LEAST_OF_A_KIND)

    def _due(self, judge: Judge, keys: Mapping[str, str]) -> Iterable[str]:
        """The contents that a policy has not seen as they are; all of them after a change of the policy or its
        calibration; after one of the exemplars, those that it may concern."""
        before = self.known.get(_name(judge), {})
        seen: Mapping[str, str] = before.get("contents", {})
        fresh = {c for c, key in keys.items() if seen.get(c) != key}
        if not judge.policy.feature and not len(judge.bank) and not before.get("exemplars"):
            return ()  # nothing to compare with, now and before
        if before.get("rules") != _rules(judge):
            return keys
        known, now = before.get("exemplars", {}), _revisions(judge)
        if known == now:
            return fresh
        if judge.policy.detector == "similarity":
            return keys  # a product of matrices: whatever is near any exemplar may now be nearer
        touched = {e for e in {*known, *now} if known.get(e) != now.get(e)}
        cited = {
            case.content_id
            for case in self.cases.current.values()
            if case.decision.policy_id == judge.policy.id and touched & {c.exemplar_id for c in case.decision.cited}
        }
        return fresh | (cited & set(keys)) | self._matched(judge, touched, set(keys) - fresh - cited)

    def _matched(self, judge: Judge, touched: set[str], contents: set[str]) -> set[str]:
        """The contents that hold a copy of some exemplars: what is new is matched with the whole past."""
        from embedders.fingerprint import patches
        from moderation.banks import Bank

        some = [e for name, e in judge.bank.exemplars.items() if name in touched]
        if not some or not contents:
            return set()
        bank = Bank(judge.modality, some, self.banks.arrays, patches)
        found = set()
        for content_id, evidence in self.media.evidence(judge.modality, sorted(contents)):
            self.looked_at += 1
            if bank.copies(evidence):
                found.add(content_id)
        return found

    def _decided(self, judge: Judge, content_id: str, evidence: Evidence) -> Iterable[tuple[str, Decision, Evidence]]:
        """The decision, where it is another than the one that stands."""
        from moderation.cases import withdrawn

        before = self.cases.current.get((content_id, judge.policy.id, judge.modality))
        if before is not None and before.by != "machine" and _same_medium(before, evidence):
            return []  # people have decided of this very medium
        decision = judge.decide(content_id, evidence)
        if decision is None:
            if before is None or not before.decision.tier:
                return []
            return [(content_id, _under(judge, withdrawn(before.decision)), evidence)]
        if before is not None and before.decision.same == decision.same:
            return []
        return [(content_id, decision, evidence)]

    def _remember(self) -> None:
        """What was looked at. Written after the decisions: a scan that is killed before is made again, and decides the
        same, so that nothing is recorded twice."""
        state = {}
        for policy in self.policies:
            for modality in policy.modalities:
                judge = self._judge(policy, modality)
                state[_name(judge)] = {
                    "rules": _rules(judge),
                    "exemplars": _revisions(judge),
                    "contents": self.media.keys[modality],
                }
        if state != self.known:
            self.known = state
            self.run.storage.write(SCANNED, json.dumps(state).encode())


def commit(run: Run, cases: Cases) -> int:
    """Commits the rows of contents whose decisions are others than those in the store; returns how many."""
    alive = run.tables.latest(CONTENT, [])
    present = {
        c for c, key in zip(alive["content_id"].to_pylist(), alive[WORK_KEY].to_pylist(), strict=True) if key != REMOVED
    }
    latest = run.tables.latest(MODERATION, [])
    keys = dict(zip(latest["content_id"].to_pylist(), latest[WORK_KEY].to_pylist(), strict=True))
    by_content: dict[str, list[Case]] = defaultdict(list)
    for case in cases.current.values():
        if case.content_id in present and case.decision.tier:
            by_content[case.content_id].append(case)
    created = now_us()
    rows = []
    for content_id in sorted(by_content.keys() | {c for c, key in keys.items() if key != REMOVED and c in present}):
        features = _features(sorted(by_content.get(content_id, ()), key=lambda c: c.key))
        key = work_key("moderation", 1, "decisions", features)
        if keys.get(content_id) != key:
            stamp = {EVENT: created, CREATED: created, WORK_KEY: key}
            rows.append({"content_id": content_id, **features, **stamp})
    if rows:
        run.tables.commit(MODERATION, rows_to_table(MODERATION, rows), created, "moderation")
    return len(rows)


def erase(run: Run, content_ids: Iterable[str]) -> None:
    """Erases what the decisions of contents were made from, what a model was shown of them and answered, and what
    people wrote. The records stay, with the chain whole; they can no longer be made again. An exemplar that was made of
    such a content stays: what is banned stays banned."""
    from moderation.adjudicate import CACHE
    from moderation.cases import Cases
    from moderation.evidence import PAYLOADS
    from moderation.exemplars import STATES, Exemplars

    gone = set(content_ids)
    audit = Audit(run.storage)
    cases = Cases(audit)
    theirs = [case for case in cases.every.values() if case.content_id in gone]
    if not theirs:
        return
    held = {c.record.body["evidence"]["payload"] for c in cases.every.values() if c.content_id not in gone}
    held |= {e.payload for e in Exemplars(run.storage, audit).every(states=STATES)}
    for payload in {case.record.body["evidence"]["payload"] for case in theirs} - held - {""}:
        run.storage.delete(f"{PAYLOADS}/{payload}.npz")
    ids = {case.case_id for case in theirs}
    about = [r for r in audit.records() if r.body.get("case_id") in ids or r.body.get("content_id") in gone]
    audit.erase([r.record_id for r in about if r.personal])
    for record in (r for case_id in ids for r in cases.opinions.get(case_id, ())):
        run.storage.delete(f"{CACHE}/{record.body['key']}.json")


def _features(current: Sequence[Case]) -> dict[str, Any]:
    decided = [case.decision for case in current]
    taken = [d.action for d in decided if d.enforced]
    surest = [d.cited[0] if d.cited else None for d in decided]
    return {
        "action": max(taken, key=ACTIONS.index, default="none"),
        "policy": [d.policy_id for d in decided],
        "policy_action": [d.action for d in decided],
        "policy_enforced": [d.enforced for d in decided],
        "policy_score": [d.raw if d.probability is None else d.probability for d in decided],
        "policy_calibrated": [d.probability is not None for d in decided],
        "policy_tier": [d.tier for d in decided],
        "policy_exemplar": [c.exemplar_id if c else "" for c in surest],
        "policy_start_s": [-1.0 if c is None or c.start_s is None else c.start_s for c in surest],
        "policy_end_s": [-1.0 if c is None or c.end_s is None else c.end_s for c in surest],
        "decision_id": [case.case_id for case in current],
    }


def _name(judge: Judge) -> str:
    return f"{judge.policy.id} {judge.modality}"


def _rules(judge: Judge) -> str:
    known = judge.calibrated
    return digest([judge.version, known.calibration.version if known else "", known.threshold.value if known else None])


def _revisions(judge: Judge) -> dict[str, int]:
    return {name: e.revision for name, e in sorted(judge.bank.exemplars.items())}


def _same_medium(case: Case, evidence: Evidence) -> bool:
    held = case.record.body["evidence"]
    if evidence.sha256:
        return bool(held["sha256"] == evidence.sha256)
    return bool(held["text_hash"] == evidence.text_hash)


def _under(judge: Judge, decision: Decision) -> Decision:
    from dataclasses import replace

    return replace(decision, policy_version=judge.version)


def _scanned(storage: Storage) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(storage.read(SCANNED))
    except (FileNotFoundError, ValueError):
        return {}
    return found
