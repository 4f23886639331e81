"""What a scan decides anew: what is new, and what policies, exemplars or calibrations changed for; the rest is left
alone."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from core.errors import StorageError
from core.items import is_fatal, reason_of
from core.keys import digest
from core.storage import Storage
from core.tables import decode, encode
from moderation.audit import Audit
from moderation.policies import Policy
from pipelines.context import Run

if TYPE_CHECKING:
    from moderation.banks import Bank
    from moderation.cases import Case, Cases
    from moderation.decisions import Decision
    from moderation.evidence import Evidence
    from moderation.exemplars import Exemplar, Exemplars
    from moderation.judge import Judge
    from pipelines.media import StoreMedia

SEEN = "moderation/seen"
SEEN_ROWS = pa.schema([("modality", pa.string()), ("content_id", pa.string()), ("key", pa.string())])
RECORDED_AT_ONCE = 1_000  # decisions whose evidence is in memory, and which are one block of the audit
FLOOD_DAYS = 28  # that an exemplar's matches are compared with


class Rule:
    """A policy as it applies to one modality: the exemplars of its banks and its calibration. Exemplars are made ready
    to be compared with when they are first needed."""

    def __init__(
        self, policy: Policy, modality: str, every: Sequence[Exemplar], cases: Cases, banks: Exemplars
    ) -> None:
        chosen = [e for e in every if e.modality == modality and e.bank in (*policy.positive, *policy.negative)]
        self.policy, self.modality = policy, modality
        self.exemplars = {e.exemplar_id: e for e in chosen}
        self.calibrated = cases.calibrated(policy, modality)
        self._arrays = banks.arrays

    @property
    def name(self) -> str:
        return f"{self.policy.id} {self.modality}"

    @property
    def version(self) -> str:
        """Names what decides but the exemplars."""
        from moderation.decisions import policy_version

        known = self.calibrated
        told = [known.calibration.version, known.threshold.value] if known else []
        return digest([policy_version(self.policy), *told])

    @property
    def revisions(self) -> dict[str, int]:
        return {name: e.revision for name, e in sorted(self.exemplars.items())}

    @cached_property
    def judge(self) -> Judge:
        from moderation.calibration import LEAST_OF_A_KIND
        from moderation.judge import Judge

        return Judge(self.policy, self.modality, self.bank(), self.calibrated, 2 * LEAST_OF_A_KIND)

    def bank(self, among: Collection[str] | None = None) -> Bank:
        from embedders.fingerprint import patches
        from moderation.banks import Bank

        chosen = [e for name, e in self.exemplars.items() if among is None or name in among]
        return Bank(self.modality, chosen, self._arrays, patches)


class Scan:
    """One look at a store's contents."""

    def __init__(self, run: Run, policies: Sequence[Policy], media: StoreMedia) -> None:
        from moderation.cases import Cases
        from moderation.exemplars import Exemplars

        self.run, self.policies, self.media = run, policies, media
        self.audit = Audit(run.storage)
        self.cases: Cases = Cases(self.audit)
        self.banks: Exemplars = Exemplars(run.storage, self.audit)
        self.exemplars: list[Exemplar] = []
        self.looked_at = 0
        self.failed: dict[tuple[str, str], str] = {}  # (modality, content) → why nothing was decided
        self.seen = Seen.load(run.storage)

    def all(self) -> list[Case]:
        """Looks at whatever is due under every policy; returns the decisions that it led to."""
        self.failed.clear()
        self.cases.refresh()
        at = self.cases.at
        self.exemplars = self.banks.every(at=at)
        made: list[Case] = []
        rules: list[Rule] = []
        for modality, keys in self.media.keys.items():
            under = [Rule(p, modality, self.exemplars, self.cases, self.banks) for p in self.policies]
            under = [rule for rule in under if modality in rule.policy.modalities]
            due: dict[str, list[Rule]] = defaultdict(list)
            for rule in under:
                for content_id in self._due(rule, keys):
                    due[content_id].append(rule)
            self.run.progress("moderation", 0, len(due))
            found: list[tuple[str, Decision, Evidence]] = []
            for content_id, evidence in self.media.evidence(modality, due):
                for rule in due[content_id]:
                    try:
                        found += self._decided(rule, content_id, evidence)
                    except Exception as error:
                        self._failed(modality, content_id, error)
                self.looked_at += 1
                self.run.progress("moderation", 1, 0)
                if len(found) >= RECORDED_AT_ONCE:
                    made += self.cases.record(self.policies, found, bank_at=at)
                    found = []
            made += self.cases.record(self.policies, found, bank_at=at)
            rules += under
        # Written after the decisions: a scan that is killed before is made again, and decides the same.
        # A content that failed was not seen: the next scan looks at it again.
        seen = {m: {c: k for c, k in keys.items() if (m, c) not in self.failed} for m, keys in self.media.keys.items()}
        now = Seen(seen, {r.name: {"version": r.version, "exemplars": r.revisions} for r in rules})
        if now != self.seen:
            self.seen = now
            now.save(self.run.storage)
        return made

    def unheard(self) -> list[str]:
        """Policies on voices that have exemplars, in a store where nothing keeps whose voice is heard."""
        if self.media.voiced:
            return []
        banks = {e.bank for e in self.exemplars}
        return [p.id for p in self.policies if p.vectors == "voice" and banks & {*p.positive, *p.negative}]

    def unread(self) -> list[str]:
        """Policies with a classifier that ships, but not for the text model of this store."""
        from moderation import known

        asked = [p for p in self.policies if p.known]
        return [p.id for p in asked if self.media.text_model not in known.shipped(p.known).weights]

    def of_another_model(self) -> list[str]:
        """Exemplars whose vectors another text model made, so that no text is like them."""
        return [
            e.exemplar_id
            for e in self.exemplars
            if e.modality == "text" and e.evidence.get("model_id", self.media.text_model) != self.media.text_model
        ]

    def floods(self) -> list[str]:
        """Quarantines exemplars that match suddenly more than they used to; returns which."""
        from moderation.exemplars import flooded

        today = datetime.now(UTC).date()
        counts: dict[str, Counter[int]] = defaultdict(Counter)
        for case in self.cases.every.values():
            age = (today - datetime.fromisoformat(case.at).date()).days
            before = self.cases.every.get(case.supersedes)
            # What is only decided anew, after a change of the policy or by people, is no new match.
            known = before.cited if before else ()
            for exemplar_id in case.cited[:1]:
                if age <= FLOOD_DAYS and exemplar_id not in known:
                    counts[exemplar_id][age] += 1
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

    def _due(self, rule: Rule, keys: Mapping[str, str]) -> Iterable[str]:
        """The contents that were not seen as they are; all of them after a change of the policy or its calibration;
        after one of the exemplars, those that it may concern."""
        before = self.seen.rules.get(rule.name, {})
        then, now = before.get("exemplars", {}), rule.revisions
        if rule.policy.detector != "classifier" and not rule.policy.known and not now and not then:
            return ()  # nothing to compare with, now and before
        if before.get("version") != rule.version:
            return keys
        seen = self.seen.contents.get(rule.modality, {})
        fresh = {c for c, key in keys.items() if seen.get(c) != key}
        if then == now:
            return fresh
        if rule.policy.detector == "similarity":
            return keys  # a product of matrices: whatever is near any exemplar may now be nearer
        touched = {e for e in {*then, *now} if then.get(e) != now.get(e)}
        cited = {
            case.content_id
            for case in self.cases.current.values()
            if case.policy_id == rule.policy.id and touched & set(case.cited)
        }
        return fresh | (cited & set(keys)) | self._matched(rule, touched, set(keys) - fresh - cited)

    def _matched(self, rule: Rule, touched: set[str], contents: set[str]) -> set[str]:
        """The contents that hold a copy of some exemplars: what is new is matched with the whole past."""
        if not touched & set(rule.exemplars) or not contents:
            return set()
        bank, found = rule.bank(touched), set()
        for content_id, evidence in self.media.evidence(rule.modality, contents):
            self.looked_at += 1
            try:
                if bank.copies(evidence):
                    found.add(content_id)
            except Exception as error:
                self._failed(rule.modality, content_id, error)
        return found

    def _failed(self, modality: str, content_id: str, error: Exception) -> None:
        """An unexpected error is that content's, unless it would meet all of them."""
        if is_fatal(error):
            raise error
        self.failed[modality, content_id] = ": ".join(reason_of(error))

    def _decided(self, rule: Rule, content_id: str, evidence: Evidence) -> Iterable[tuple[str, Decision, Evidence]]:
        """The decision, where it is another than the one that stands."""
        from moderation.cases import let_go

        before = self.cases.current.get((content_id, rule.policy.id, rule.modality))
        if before is not None and before.by != "machine" and _same_medium(before, evidence):
            return []  # people have decided of this very medium
        decision = rule.judge.decide(content_id, evidence)
        if decision is None:
            if before is None or not before.tier:
                return []
            return [(content_id, let_go(before.decision, rule.judge), evidence)]
        if before is not None and before.decision.same == decision.same:
            return []
        return [(content_id, decision, evidence)]


@dataclass(frozen=True)
class Seen:
    """What the last scan looked at: the key of every content's evidence by modality, and the version and exemplars of
    every rule."""

    contents: Mapping[str, Mapping[str, str]]
    rules: Mapping[str, Any]

    @classmethod
    def load(cls, storage: Storage) -> Seen:
        try:
            rules = json.loads(storage.read(f"{SEEN}.json"))
            rows = decode(storage.read(f"{SEEN}.parquet"))
        except (FileNotFoundError, ValueError, StorageError):
            return cls({}, {})  # everything is looked at again
        contents: dict[str, dict[str, str]] = defaultdict(dict)
        for modality, content_id, key in zip(*(rows[n].to_pylist() for n in SEEN_ROWS.names), strict=True):
            contents[modality][content_id] = key
        return cls(contents, rules)

    def save(self, storage: Storage) -> None:
        # In this order: contents that are told as seen under older rules are looked at once more.
        rows = [(m, c, key) for m, keys in self.contents.items() for c, key in keys.items()]
        columns = [list(column) for column in zip(*rows, strict=True)] or [[], [], []]
        storage.write(f"{SEEN}.parquet", encode(pa.table(columns, schema=SEEN_ROWS)))
        storage.write(f"{SEEN}.json", json.dumps(self.rules).encode())


def _same_medium(case: Case, evidence: Evidence) -> bool:
    if evidence.sha256 and case.sha256:
        return case.sha256 == evidence.sha256
    return case.text_hash == evidence.text_hash
