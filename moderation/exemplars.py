"""Banks of exemplars: what breaks a policy, or only looks like that, with who added it, what reviewers think of it and
whether it is in use. Every change is a record of the audit, whose number is the exemplar's revision."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import nbinom

from core.errors import ConfigError, NotFound, StorageError
from core.ids import Ids, id_list
from core.storage import Storage
from moderation.audit import Audit, Entry, Record
from moderation.evidence import load_arrays, store_arrays
from moderation.matches import MODALITIES

KIND = "exemplar"  # of record
STATES = ("shadow", "active", "quarantined", "retired")
IN_USE = ("shadow", "active")  # what is matched; what only a shadow matches is recorded and nothing follows
OPINIONS = ("confirm", "deconfirm")
MAX_NAME, MAX_TAGS = 512, 100
FLOOD_LEAST = 20  # matches a day below which nothing is a flood
FLOOD_CHANCE = 1e-4  # that a day like the others looks like one


@dataclass(frozen=True)
class Exemplar:
    """One exemplar as of one revision. `evidence` is what it is matched by, by name: `sha256`, `pdq` (hexadecimal) with
    `pdq_quality`, `text` or its `text_hash`; `payload` names its arrays (keypoints, frames, vectors), "" where it has
    none. `opinions` are by reviewer."""

    exemplar_id: str
    bank: str
    modality: str
    state: str
    revision: int
    evidence: Mapping[str, Any]
    payload: str
    tags: tuple[str, ...]
    opinions: Mapping[str, str]
    provenance: Mapping[str, Any]

    @property
    def disputed(self) -> bool:
        """Whether more reviewers doubt it than stand by it."""
        said = list(self.opinions.values())
        return said.count("deconfirm") > said.count("confirm")


class Exemplars:
    """The exemplars of a store."""

    def __init__(self, storage: Storage, audit: Audit | None = None) -> None:
        self.storage, self.audit = storage, audit or Audit(storage)

    def every(self, banks: Ids | None = None, states: Ids = IN_USE, at: int | None = None) -> list[Exemplar]:
        """The newest revisions of those in some banks and states, by id; with `at`, as of that record of the audit."""
        chosen = None if banks is None else set(id_list(banks, "banks"))
        allowed = set(id_list(states, "states"))
        newest: dict[str, Exemplar] = {}
        for record in self._records():
            if at is None or record.number <= at:
                found = _exemplar(record)
                newest[found.exemplar_id] = found
        return [e for _, e in sorted(newest.items()) if e.state in allowed and (chosen is None or e.bank in chosen)]

    def get(self, exemplar_id: str, revision: int | None = None) -> Exemplar:
        """An exemplar as it is, or as it was at a revision. Raises `NotFound`."""
        found = None
        for record in self._records():
            if revision in (None, record.number) and record.body["exemplar_id"] == exemplar_id:
                found = _exemplar(record)
        if found is None:
            at = "" if revision is None else f" of revision {revision}"
            raise NotFound(f"there is no exemplar {exemplar_id!r}{at}")
        return found

    def add(
        self,
        bank: str,
        modality: str,
        evidence: Mapping[str, Any],
        arrays: Mapping[str, np.ndarray] | None = None,
        *,
        name: str = "",
        state: str = "shadow",
        tags: Ids = (),
        provenance: Mapping[str, Any] | None = None,
        by: str = "",
    ) -> Exemplar:
        """Adds one. Its id is `bank/name`, or made of its evidence; the same evidence in the same bank is one
        exemplar, which is returned as it is. Raises `ConfigError`."""
        payload = store_arrays(self.storage, arrays)
        draft = draft_of(bank, modality, evidence, payload, name, state, tags, provenance or {})
        (found,) = self.add_all([draft], by)
        return found

    def add_all(self, drafts: Sequence[Exemplar], by: str = "") -> list[Exemplar]:
        """Adds many in one record each, together; those that are there already come back as they are, unless something
        is known of them now that was not when they were added, such as whose voice it is."""
        known = {e.exemplar_id: e for e in self.every(states=STATES)}
        entries: dict[str, Entry] = {}
        for draft in drafts:
            there = known.get(draft.exemplar_id)
            if there is None or (there.state == "retired" and _another(there, draft)):
                entries[draft.exemplar_id] = Entry(KIND, _body(draft, by, "added"))
            elif _another(there, draft):
                raise ConfigError(f"there is another exemplar {draft.exemplar_id!r}; retire it, or choose another name")
            elif self._lacks(there, draft):
                anew = replace(there, evidence=draft.evidence, payload=draft.payload)
                entries[draft.exemplar_id] = Entry(KIND, _body(anew, by, "seen anew"))
        records = self.audit.append(list(entries.values()))
        known |= {e.exemplar_id: e for e in map(_exemplar, records)}
        return [known[draft.exemplar_id] for draft in drafts]

    def set_state(self, exemplar_id: str, state: str, *, by: str, reason: str = "") -> Exemplar:
        """Raises `ConfigError`, `NotFound`."""
        _one_of(state, STATES, "state")
        return self._changed(replace(self.get(exemplar_id), state=state), by, reason or f"set to {state}")

    def opine(self, exemplar_id: str, opinion: str, *, by: str, reason: str = "") -> Exemplar:
        """A reviewer confirms an exemplar or doubts it; the last opinion counts. One that more doubt than confirm is
        quarantined until somebody activates it."""
        _one_of(opinion, OPINIONS, "opinion")
        if not by:
            raise ConfigError("an opinion is somebody's: say whose")
        known = self.get(exemplar_id)
        changed = replace(known, opinions={**known.opinions, by: opinion})
        if changed.disputed and changed.state in IN_USE:
            changed = replace(changed, state="quarantined")
        return self._changed(changed, by, reason or opinion)

    def tag(self, exemplar_id: str, tags: Ids, *, by: str) -> Exemplar:
        """Replaces an exemplar's tags and records the change. Raises `NotFound` for an unknown exemplar."""
        return self._changed(replace(self.get(exemplar_id), tags=_tags(tags)), by, "tags")

    def arrays(self, exemplar: Exemplar) -> dict[str, np.ndarray]:
        """Raises `StorageError` where they are gone or not what they were."""
        return load_arrays(self.storage, exemplar.payload, f"exemplar {exemplar.exemplar_id!r}")

    def _records(self) -> Iterable[Record]:
        self.audit.history.refresh()
        return self.audit.history.of(KIND)

    def _lacks(self, there: Exemplar, draft: Exemplar) -> bool:
        """Whether a draft of the same says more of it, or what is compared now."""
        if set(draft.evidence) - set(there.evidence) or there.evidence.get("model_id") != draft.evidence.get(
            "model_id"
        ):
            return True
        if not draft.payload or draft.payload == there.payload:
            return False
        try:
            held = set(self.arrays(there))
        except StorageError:
            return True
        return bool(set(self.arrays(draft)) - held)

    def _changed(self, exemplar: Exemplar, by: str, reason: str) -> Exemplar:
        (record,) = self.audit.append([Entry(KIND, _body(exemplar, by, reason))])
        return _exemplar(record)


def _another(one: Exemplar, other: Exemplar) -> bool:
    """Whether two drafts of one name are of different things, as far as both say what they are."""
    said = (set(one.evidence) & set(other.evidence)) - {"model_id", "pdq_quality"}
    return any(one.evidence[name] != other.evidence[name] for name in said)


def flooded(today: int, earlier: Sequence[int]) -> bool:
    """Whether an exemplar matches suddenly more than it used to: more a day than all but one in ten thousand days like
    the `earlier` ones would have (negative binomial: Poisson counts whose rate is known from those days alone, by
    Jeffreys' prior)."""
    if today < FLOOD_LEAST:
        return False
    shape, days = sum(earlier) + 0.5, len(earlier)
    if not days:
        return False  # nothing is known of it yet
    return bool(nbinom.sf(today - 1, shape, days / (days + 1)) < FLOOD_CHANCE)


def draft_of(
    bank: str,
    modality: str,
    evidence: Mapping[str, Any],
    payload: str = "",
    name: str = "",
    state: str = "shadow",
    tags: Ids = (),
    provenance: Mapping[str, Any] | None = None,
) -> Exemplar:
    """An exemplar that is not added yet. Raises `ConfigError`."""
    _one_of(modality, MODALITIES, "modality")
    _one_of(state, STATES, "state")
    for what, value in (("bank", bank), ("name", name or "-")):
        if not value.strip() or len(value) > MAX_NAME or any(ord(c) < 32 for c in value):
            raise ConfigError(f"{value!r} cannot be the {what} of an exemplar")
    if not evidence:
        raise ConfigError("an exemplar needs something that it is matched by")
    own = hashlib.sha256(repr(sorted(evidence.items())).encode()).hexdigest()[:16]
    tagged = _tags(tags)
    return Exemplar(f"{bank}/{name or own}", bank, modality, state, 0, evidence, payload, tagged, {}, provenance or {})


def _tags(tags: Ids) -> tuple[str, ...]:
    found = tuple(sorted({tag.strip() for tag in id_list(tags, "tags")} - {""}))
    if len(found) > MAX_TAGS or any(len(tag) > MAX_NAME for tag in found):
        raise ConfigError(f"an exemplar has at most {MAX_TAGS} tags of at most {MAX_NAME} characters")
    return found


def _one_of(value: str, choices: tuple[str, ...], what: str) -> None:
    if value not in choices:
        raise ConfigError(f"{value!r} is no {what}; there is {', '.join(choices)}")


def _body(exemplar: Exemplar, by: str, reason: str) -> dict[str, Any]:
    return {
        "exemplar_id": exemplar.exemplar_id,
        "bank": exemplar.bank,
        "modality": exemplar.modality,
        "state": exemplar.state,
        "evidence": dict(exemplar.evidence),
        "payload": exemplar.payload,
        "tags": list(exemplar.tags),
        "opinions": dict(exemplar.opinions),
        "provenance": dict(exemplar.provenance),
        "by": by,
        "reason": reason,
    }


def _exemplar(record: Record) -> Exemplar:
    body = record.body
    return Exemplar(
        body["exemplar_id"],
        body["bank"],
        body["modality"],
        body["state"],
        record.number,
        body["evidence"],
        body["payload"],
        tuple(body["tags"]),
        body["opinions"],
        body["provenance"],
    )
