"""From raw values to catalogue rows: every row is valid or rejected with a reason."""

from __future__ import annotations

import math
import reprlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pyarrow as pa

from core.contracts import CONTENT_SCHEMA, KINDS, REQUIRED_COLUMNS, id_problem
from core.errors import CatalogError

SHOWN_CHARS = 80
TIMES = ("updated_at", "published_at")
URIS = ("audio_uri", "image_uri")
TRUE, FALSE = {"true", "1", "yes", "t", "y"}, {"false", "0", "no", "f", "n"}


# What other catalogues call our columns, in lower case without separators.
ALIASES = {
    "content_id": "id contentid guid uuid key itemid trackid episodeid songid mediaid assetid isrc sku",
    "kind": "type contenttype mediatype category format",
    "title": "name caption headline trackname episodetitle tracktitle songtitle",
    "updated_at": "updated modified modifiedat lastmodified mtime timestamp changed changedat updatedat eventtimestamp",
    "show_id": "show album podcast series book showname showid albumid podcastid seriesid",
    "description": "summary subtitle about notes shownotes comment comments abstract",
    "text": "lyrics transcript transcription body content words",
    "language": "lang locale languagecode",
    "explicit": "isexplicit adult nsfw advisory",
    "audio_uri": "path file url uri filename filepath location href audio audiourl audiofile audiopath enclosure media "
    "mediaurl mp3 source src",
    "image_uri": "image picture cover artwork thumbnail imageurl coverurl imagefile imagepath coverart art photo",
    "published_at": "date published pubdate releasedate released release year publishedat publicationdate created "
    "createdat",
}
COLUMN_OF = {alias: column for column, aliases in ALIASES.items() for alias in aliases.split()}


@dataclass(frozen=True)
class Rejected:
    """A row that cannot be a content, under its id where it has a printable one, else under where it stands.

    `has_id` says whether `content_id` is an id: the catalogue then lists that content, though its row cannot be used.
    """

    content_id: str
    reason: str
    detail: str
    has_id: bool = False


@dataclass(frozen=True)
class Unreadable:
    """Stands for a value that the catalogue's file holds and Python cannot represent."""

    why: str


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
    known = CONTENT_SCHEMA.names
    for position, name in enumerate(names, 1):
        if not name:
            raise CatalogError(f"{where}: column {position} has no name; the columns are {', '.join(known)}")
        if name not in known:
            raise CatalogError(f"{where}: column {printable(name)!r} is not known{_hint(name, names)}")
    twice = {name for name in names if list(names).count(name) > 1}
    if twice:
        raise CatalogError(f"{where}: column {sorted(twice)[0]!r} appears twice")
    for name in REQUIRED_COLUMNS:
        if name not in names:
            raise CatalogError(f"{where}: the required column {name!r} is missing")


def _hint(name: str, names: Sequence[str]) -> str:
    """What the writer of an unknown column probably meant."""
    import difflib

    known = CONTENT_SCHEMA.names
    for separator, called in ((";", "semicolons"), ("\t", "tabs"), ("|", "bars")):
        if len(names) == 1 and set(name.split(separator)) & set(known):
            return f"; the cells seem to be separated by {called}: separate them by commas"
    plain = "".join(char for char in name.lower() if char.isalnum())
    spellings = {column.replace("_", ""): column for column in known}
    meant = spellings.get(plain) or COLUMN_OF.get(plain)
    if meant is None:
        near = difflib.get_close_matches(plain, spellings, 1)
        meant = spellings[near[0]] if near else None
    return f"; did you mean {meant!r}?" if meant else f"; the columns are {', '.join(known)}"


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
            has_id = isinstance(raw_id, str) and id_problem(raw_id) is None
            rejected.append(Rejected(shown_id(raw_id, place), error.reason, f"{place}: {error.detail}", has_id))
    doubled = {content_id for content_id, where in places.items() if len(where) > 1}
    rejected = [r for r in rejected if r.content_id not in doubled]
    for content_id in sorted(doubled):
        where = ", ".join(places[content_id])
        detail = f"the id appears in {where}; none of them is used"
        rejected.append(Rejected(content_id, "duplicate_id", detail, has_id=True))
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
        raise _Refused("bad_kind", f"kind is {printable(row['kind'] or '')!r}; use {', '.join(KINDS)}")
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
    if isinstance(value, Unreadable):
        raise _Refused("bad_value", f"{name} {value.why}")
    if isinstance(value, (dict, list, bool)) or (isinstance(value, float) and math.isinf(value)):
        raise _Refused("bad_value", f"{name} must be text, not {reprlib.repr(value)}")
    if name == "content_id" and isinstance(value, float):
        raise _Refused("bad_id", f"content_id is the number {value!r}, whose digits may be rounded; write it as text")
    text = str(value)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        detail = f"{name} is not valid Unicode: {printable(text)!r}; catalogues are read as UTF-8"
        raise _Refused("invalid_utf8", detail) from None
    if name == "content_id":
        return text or None  # `id_problem` judges it
    if "\0" in text:
        raise _Refused("bad_value", f"{name} contains a zero byte, as damaged files do")
    # A path may begin or end with a space, and then names another file without it.
    return (text if name in URIS and text.strip() else text.strip()) or None


def _flag(name: str, value: Any, zone: ZoneInfo | None) -> bool | None:
    if value is None or isinstance(value, bool):
        return value
    text = value.strip().lower() if isinstance(value, str) else reprlib.repr(value)
    if not text:
        return None
    if text in TRUE | FALSE:
        return text in TRUE
    raise _Refused("bad_value", f"{name} is {printable(text)!r}; use true or false")


def _time(name: str, value: Any, zone: ZoneInfo | None) -> datetime | None:
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, Unreadable):
        raise _Refused("bad_timestamp", f"{name} {value.why}")
    if type(value) is date:  # of a Parquet file: the day begins in a time zone, as that of "2026-01-31" does
        value = datetime(value.year, value.month, value.day)
    if not isinstance(value, (str, datetime)):
        raise _Refused(
            "bad_timestamp", f"{name} is {reprlib.repr(value)}; write ISO 8601, such as 2026-01-31T12:00:00Z"
        )
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            detail = f"{name} is {printable(value)!r}; write ISO 8601, such as 2026-01-31T12:00:00Z"
            raise _Refused("bad_timestamp", detail) from None
    try:
        if value.tzinfo is None:
            if zone is None:
                detail = f"{name} {value.isoformat()} has no time zone; add one, or say which with --timezone"
                raise _Refused("naive_timestamp", detail)
            value = value.replace(tzinfo=zone)
        return value.astimezone(UTC)
    except (OverflowError, ValueError):
        raise _Refused("bad_timestamp", f"{name} {value} is out of range: the years 1 to 9999 in UTC") from None


_READ: dict[str, Callable[[str, Any, ZoneInfo | None], Any]] = {
    name: _time if name in TIMES else _flag if name == "explicit" else _string for name in CONTENT_SCHEMA.names
}


def printable(text: str, limit: int = SHOWN_CHARS) -> str:
    """Text that is safe to print and to store: control characters and lone surrogates escaped, cut to `limit`."""
    safe = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return safe if len(safe) <= limit else safe[: limit - 1] + "…"


def shown_id(raw_id: Any, place: str) -> str:
    """What a rejected row goes by."""
    if isinstance(raw_id, str) and raw_id:
        return raw_id if id_problem(raw_id) is None else printable(raw_id)
    return place
