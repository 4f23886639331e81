"""From raw values to catalogue rows: every row is valid or rejected with a reason."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pyarrow as pa

from core.contracts import CONTENT_SCHEMA, KINDS, REQUIRED_COLUMNS, id_problem
from core.errors import CatalogError

SHOWN_CHARS = 80
TIMES = ("updated_at", "published_at")
TRUE, FALSE = {"true", "1", "yes", "t", "y"}, {"false", "0", "no", "f", "n"}


@dataclass(frozen=True)
class Rejected:
    """A row that cannot be a content, under its id where it has a printable one, else under where it stands."""

    content_id: str
    reason: str
    detail: str


class _Refused(Exception):
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


def zone_of(timezone: str | None) -> ZoneInfo | None:
    """The zone of naive timestamps. Raises `CatalogError` for a name that is not known."""
    if timezone is None:
        return None
    try:
        return ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise CatalogError(f"--timezone {timezone!r} is not a known time zone, such as Europe/Berlin") from error


def check_columns(names: Sequence[str], where: str) -> None:
    """Raises `CatalogError` naming the columns that are missing or not known."""
    import difflib

    known = CONTENT_SCHEMA.names
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]!r}?" if near else f"; the columns are {', '.join(known)}"
            raise CatalogError(f"{where}: column {printable(name)!r} is not known{hint}")
    twice = {name for name in names if list(names).count(name) > 1}
    if twice:
        raise CatalogError(f"{where}: column {sorted(twice)[0]!r} stands twice")
    for name in REQUIRED_COLUMNS:
        if name not in names:
            raise CatalogError(f"{where}: the required column {name!r} is missing")


def build_table(
    rows: Sequence[tuple[str, dict[str, Any]]], timezone: str | None, max_text_chars: int = 10_000_000
) -> tuple[pa.Table, list[Rejected]]:
    """Rows as (place, raw values) → a table of `CONTENT_SCHEMA` sorted by id, and what was rejected.

    `place` is what people call the row ("row 7", "line 3").
    """
    zone = zone_of(timezone)
    rejected: list[Rejected] = []
    valid: list[tuple[str, dict[str, Any]]] = []
    places: dict[str, list[str]] = defaultdict(list)
    for place, raw in rows:
        raw_id = raw.get("content_id")
        if isinstance(raw_id, str) and id_problem(raw_id) is None:
            places[raw_id].append(place)
        try:
            valid.append((place, clean_row(raw, zone)))
        except _Refused as error:
            rejected.append(Rejected(shown_id(raw_id, place), error.reason, f"{place}: {error.detail}"))
    doubled = {content_id for content_id, where in places.items() if len(where) > 1}
    rejected = [r for r in rejected if r.content_id not in doubled]
    for content_id in sorted(doubled):
        where = ", ".join(places[content_id])
        rejected.append(Rejected(content_id, "duplicate_id", f"the id stands in {where}; none of them is taken"))
    kept = sorted((row for _, row in valid if row["content_id"] not in doubled), key=lambda row: row["content_id"])
    columns = [pa.array([row[field.name] for row in kept], field.type) for field in CONTENT_SCHEMA]
    return pa.table(columns, schema=CONTENT_SCHEMA), rejected


def clean_row(raw: dict[str, Any], zone: ZoneInfo | None) -> dict[str, Any]:
    """One row with values of the contract's types. Raises `_Refused`."""
    row = {name: _READ[name](name, raw.get(name), zone) for name in CONTENT_SCHEMA.names}
    problem = "it is empty" if row["content_id"] is None else id_problem(row["content_id"])
    if problem:
        raise _Refused("bad_id", f"content_id is unusable: {problem}")
    if row["kind"] not in KINDS:
        raise _Refused("bad_kind", f"kind is {printable(str(row['kind']))!r}; use {', '.join(KINDS)}")
    if row["title"] is None:
        raise _Refused("no_title", "title is empty")
    if row["updated_at"] is None:
        raise _Refused("bad_timestamp", "updated_at is empty")
    if not any(row[name] for name in ("description", "text", "audio_uri", "image_uri")):
        raise _Refused("nothing_to_enrich", "it has neither media nor text: no audio_uri, image_uri, text, description")
    return row


def _string(name: str, value: Any, zone: ZoneInfo | None) -> str | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, (dict, list, bool)):
        raise _Refused("bad_value", f"{name} must be text, not {type(value).__name__}")
    text = str(value)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise _Refused("invalid_utf8", f"{name} is not valid Unicode: {printable(text)!r}") from None
    if name != "content_id":
        text = text.strip()
    return text or None


def _flag(name: str, value: Any, zone: ZoneInfo | None) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    text = str(value).strip().lower()
    if not text:
        return None
    if text in TRUE | FALSE:
        return text in TRUE
    raise _Refused("bad_value", f"{name} is {printable(str(value))!r}; use true or false")


def _time(name: str, value: Any, zone: ZoneInfo | None) -> datetime | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, (int, float)) or not isinstance(value, (str, datetime)):
        raise _Refused("bad_timestamp", f"{name} is {value!r}; write ISO 8601, such as 2026-01-31T12:00:00Z")
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            detail = f"{name} is {printable(value)!r}; write ISO 8601, such as 2026-01-31T12:00:00Z"
            raise _Refused("bad_timestamp", detail) from None
    if value.tzinfo is None:
        if zone is None:
            detail = f"{name} {value.isoformat()} has no time zone; add one, or say which with --timezone"
            raise _Refused("naive_timestamp", detail)
        value = value.replace(tzinfo=zone)
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise _Refused("bad_timestamp", f"{name} {value} is out of range") from None


_READ: dict[str, Callable[[str, Any, ZoneInfo | None], Any]] = {
    name: _time if name in TIMES else _flag if name == "explicit" else _string for name in CONTENT_SCHEMA.names
}


def printable(text: str) -> str:
    """Text that is safe to print and to store: control characters and lone surrogates escaped, cut to a line."""
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return safe if len(safe) <= SHOWN_CHARS else safe[: SHOWN_CHARS - 1] + "…"


def shown_id(raw_id: Any, place: str) -> str:
    """What a rejected row goes by."""
    if isinstance(raw_id, str) and raw_id:
        return raw_id if id_problem(raw_id) is None else printable(raw_id)
    return place
