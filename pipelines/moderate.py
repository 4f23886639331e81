"""Moderation of a store: the scan, the rows that its decisions become, and their erasure."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from core.contracts import CREATED, EVENT, WORK_KEY
from core.features import CONTENT, MODERATION
from core.ids import Ids, id_list
from core.keys import REMOVED, work_key
from core.storage import Storage
from core.tables import now_us, rows_to_table
from core.threads import one_algebra_thread
from moderation.audit import Audit
from moderation.policies import ACTIONS, Policy, parse_policies, shipped_policies
from pipelines.context import Run, local_root

if TYPE_CHECKING:
    from moderation.cases import Case, Cases

POLICIES = "moderation/policies.yaml"  # the store's own; without it, those that ship


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
    cases.audit.history.keep()
    if commit(run, cases):
        _materialise(run)


def _materialise(run: Run) -> None:
    from feature_repo.materialise import materialise
    from feature_repo.store import open_store

    materialise(open_store(local_root(run.storage)))


def scan(run: Run) -> dict[str, Any]:
    """Decides what is to be decided, commits the decisions that changed, and quarantines exemplars that flood."""
    from pipelines.media import StoreMedia
    from pipelines.moderate_scan import Scan

    started = time.perf_counter()
    one_algebra_thread()
    policies = store_policies(run.storage)
    look = Scan(run, policies, StoreMedia(run, policies))
    made = look.all()
    flooding = look.floods()
    if flooding:
        made += look.all()
    changed = commit(run, look.cases)
    look.audit.history.keep()
    summary = {
        "policies": len(policies),
        "exemplars": len(look.exemplars),
        "looked_at": look.looked_at,
        "decided": len(made),
        "changed": changed,
        "actions": dict(Counter(case.decision.action for case in made)),
        "quarantined": flooding,
        "failed": [{"content_id": c, "modality": m, "why": why} for (m, c), why in sorted(look.failed.items())],
        "unheard": look.unheard(),
        "unread": look.unread(),
        "of_another_model": look.of_another_model(),
        "seconds": time.perf_counter() - started,
    }
    return summary


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
        if case.content_id in present and case.tier:
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


def erase(run: Run, content_ids: Ids) -> None:
    """Erases what the decisions of contents were made from, what a model was shown of them and answered, and what
    people wrote. The records stay, with the chain whole; they can no longer be made again. An exemplar that was made of
    such a content stays: what is banned stays banned."""
    from moderation.adjudicate import CACHE
    from moderation.cases import Cases
    from moderation.evidence import PAYLOADS
    from moderation.exemplars import STATES, Exemplars

    gone = set(id_list(content_ids))
    audit = Audit(run.storage)
    cases = Cases(audit)
    theirs = [case for case in cases.every.values() if case.content_id in gone]
    if not theirs:
        return
    held = {c.payload for c in cases.every.values() if c.content_id not in gone}
    held |= {e.payload for e in Exemplars(run.storage, audit).every(states=STATES)}
    for payload in {case.payload for case in theirs} - held - {""}:
        run.storage.delete(f"{PAYLOADS}/{payload}.npz")
    ids = {case.case_id for case in theirs}
    history = audit.history
    personal = [r for r in history.of(*history.kinds) if r.personal]
    audit.erase([r.record_id for r in personal if r.body.get("case_id") in ids or r.body.get("content_id") in gone])
    for record in (r for case_id in ids for r in cases.opinions.get(case_id, ())):
        run.storage.delete(f"{CACHE}/{record.body['key']}.json")


def _features(current: Sequence[Case]) -> dict[str, Any]:
    from moderation.decisions import Place

    decided = [case.decision for case in current]
    taken = [d.action for d in decided if d.enforced]
    surest = [d.rests_on[0] if d.rests_on else None for d in decided]
    places = [d.where if c is None else Place(c.start_s, c.end_s) for c, d in zip(surest, decided, strict=True)]
    return {
        "action": max(taken, key=ACTIONS.index, default="none"),
        "policy": [d.policy_id for d in decided],
        "policy_action": [d.action for d in decided],
        "policy_enforced": [d.enforced for d in decided],
        "policy_score": [d.raw if d.probability is None else d.probability for d in decided],
        "policy_calibrated": [d.probability is not None for d in decided],
        "policy_tier": [d.tier for d in decided],
        "policy_exemplar": [c.exemplar_id if c else "" for c in surest],
        "policy_start_s": [-1.0 if p.start_s is None else p.start_s for p in places],
        "policy_end_s": [-1.0 if p.end_s is None else p.end_s for p in places],
        "decision_id": [case.case_id for case in current],
    }
