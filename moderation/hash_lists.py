"""Lists of hashes as they are exchanged: ThreatExchange's descriptors as JSON or CSV, and plain columns."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from core.errors import ConfigError
from moderation.exemplars import Exemplar, draft_of

# ThreatExchange's type → modality, evidence, and what an indicator looks like.
TYPES = {
    "HASH_PDQ": ("image", "pdq", re.compile(r"[0-9a-f]{64}")),
    "HASH_SHA256": (None, "sha256", re.compile(r"[0-9a-f]{64}")),
    "TEXT_STRING": ("text", "text", re.compile(r"(?s).*\S.*")),
}
MAX_BYTES = 256 << 20
COLUMNS = ("type", "indicator", "modality", "status", "tags", "added_on", "owner", "description")
MODALITY = "image"  # of files whose list does not say
# What a list says of an indicator → the state in which it comes in.
STATUS = {"MALICIOUS": "active", "SUSPICIOUS": "shadow", "UNKNOWN": "shadow", "NON_MALICIOUS": "retired"}


def read_hash_list(
    data: bytes, bank: str, *, source: str = "", state: str | None = None
) -> tuple[list[Exemplar], list[str]]:
    """Exemplars for `bank`, not added yet, and what could not be read, with its row.

    JSON is ThreatExchange's `{"data": [...]}`, a list of such descriptors, or one a line; CSV has columns of the same
    names. `state` is that of all of them; without it, an indicator that is marked MALICIOUS is active and any other a
    shadow. Raises `ConfigError` for what is no list.
    """
    if len(data) > MAX_BYTES:
        raise ConfigError(f"the list {source} has {len(data) >> 20} MiB; {MAX_BYTES >> 20} are allowed")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigError(f"the list {source} is not UTF-8: {error}") from error
    found: dict[str, Exemplar] = {}
    wrong = []
    for number, row in enumerate(_rows(text, source), 1):
        try:
            exemplar = _exemplar(row, bank, source, state)
        except (ConfigError, TypeError, ValueError) as error:
            wrong.append(f"row {number}: {error}")
        else:
            found[exemplar.exemplar_id] = exemplar
    return list(found.values()), wrong


def write_hash_list(exemplars: Iterable[Exemplar], form: str) -> str:
    """The list of those that have a hash or a text, as `json` or `csv`."""
    rows = [row for exemplar in exemplars for row in _written(exemplar)]
    if form == "json":
        return json.dumps({"data": rows}, indent=1, ensure_ascii=False) + "\n"
    if form != "csv":
        raise ConfigError(f"{form!r} is no form of a list; there is csv and json")
    held = io.StringIO()
    writer = csv.DictWriter(held, COLUMNS, lineterminator="\n", extrasaction="ignore")
    writer.writeheader()
    writer.writerows({**row, "tags": ";".join(row["tags"])} for row in rows)
    return held.getvalue()


def _rows(text: str, source: str) -> Iterator[Mapping[str, Any]]:
    start = text.lstrip()[:1]
    if start not in ("{", "["):
        reader = csv.DictReader(io.StringIO(text, newline=""))
        names = {name.strip().lower() for name in reader.fieldnames or ()}
        if not names & {"indicator", "raw_indicator", "hash"}:
            raise ConfigError(f"the list {source} is neither JSON nor CSV with a column `indicator` and one `type`")
        for row in reader:
            yield {str(k).strip().lower(): v for k, v in row.items() if k is not None}
        return
    try:
        held = json.loads(text)
    except ValueError:
        try:
            held = [json.loads(line) for line in text.split("\n") if line.strip()]
        except ValueError as error:
            raise ConfigError(f"the list {source} is no JSON: {error}") from error
    if isinstance(held, Mapping):
        held = held.get("data", [held])
    if not isinstance(held, list):
        raise ConfigError(f"the list {source} must hold a list under `data`")
    yield from held


def _exemplar(row: Mapping[str, Any], bank: str, source: str, state: str | None) -> Exemplar:
    if not isinstance(row, Mapping):
        raise ConfigError(f"{row!r} is no descriptor")
    given = row.get("indicator")
    nested = given if isinstance(given, Mapping) else {}
    indicator = nested.get("indicator") or row.get("raw_indicator") or row.get("hash") or given
    kind = str(nested.get("type") or row.get("type") or "").upper()
    if kind not in TYPES:
        raise ConfigError(f"the type {kind!r} is not known; there is {', '.join(TYPES)}")
    modality, name, form = TYPES[kind]
    value = str(indicator or "")
    value = value if name == "text" else value.strip().lower()
    if not form.fullmatch(value):
        raise ConfigError(f"{value[:80]!r} is no {kind}")
    status = str(row.get("status") or "UNKNOWN").upper()
    evidence: dict[str, Any] = {name: value}
    if name == "pdq":
        evidence["pdq_quality"] = 100  # a list has none; whoever made it kept good ones
    about = {key: row[key] for key in ("added_on", "description") if row.get(key)}
    owner = row.get("owner")
    about["owner"] = owner.get("name", "") if isinstance(owner, Mapping) else owner or ""
    return draft_of(
        bank,
        modality or str(row.get("modality") or MODALITY),
        evidence,
        state=state or STATUS.get(status, "shadow"),
        tags=_tags(row.get("tags")),
        provenance={"source": source, "status": status, **about},
    )


def _tags(value: Any) -> list[str]:
    if isinstance(value, Mapping):
        value = value.get("data") or []
    if isinstance(value, str):
        value = re.split(r"[;,]", value)
    return [str(tag.get("text", "")) if isinstance(tag, Mapping) else str(tag) for tag in value or []]


def _written(exemplar: Exemplar) -> Iterator[dict[str, Any]]:
    back = {state: status for status, state in reversed(STATUS.items())}
    for kind, (_, name, _) in TYPES.items():
        if name in exemplar.evidence:
            yield {
                "type": kind,
                "indicator": exemplar.evidence[name],
                "modality": exemplar.modality,
                "status": back.get(exemplar.state, "UNKNOWN"),
                "tags": list(exemplar.tags),
                "added_on": exemplar.provenance.get("added_on", ""),
                "owner": exemplar.provenance.get("owner", ""),
                "description": exemplar.provenance.get("description", ""),
            }
