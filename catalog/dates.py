"""Dates in tags: the timestamps of ID3v2.4, and what Vorbis comments, MP4 and APEv2 hold."""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, datetime

# ID3v2.4.0, section 4: yyyy, yyyy-MM, yyyy-MM-dd, yyyy-MM-ddTHH, yyyy-MM-ddTHH:mm, yyyy-MM-ddTHH:mm:ss, all in UTC.
# Others write the date with slashes or dots or without separators, add a fraction or a zone, and zeros for what they
# do not know. Seconds and zone are optional wherever a time is.
_DATE = re.compile(
    r"(?P<year>\d{4})(?:(?P<sep>[-/.]?)(?P<month>\d{2}|(?<=[-/.])\d)(?:(?P=sep)(?P<day>\d{2}|(?<=[-/.])\d))?)?"
    r"(?:[T ]+(?P<hour>\d{1,2})(?::?(?P<minute>\d{2})(?::?(?P<second>\d{2})(?:[.,]\d+)?)?)?"
    r"\s*(?P<zone>Z|UTC|GMT|[+-]\d{2}(?::?\d{2})?)?)?\Z",
    re.IGNORECASE,
)


def tag_date(text: str | None) -> datetime | None:
    """A tag's date as UTC; parts that it lacks are the first (month, day) or zero. None for anything else."""
    written = re.split(r"[;\0\n]", str(text or "").strip())[0].strip()
    match = _DATE.match(written) or _DATE.match(written.partition("/")[0].strip())  # of a span, its beginning
    if match is None:
        return None
    part = {
        name: int(value) if value else 0 for name, value in match.groupdict().items() if name not in ("sep", "zone")
    }
    zone = (match["zone"] or "Z").upper()
    offset = "+00:00" if zone.isalpha() else f"{zone[:3]}:{zone[-2:] if len(zone) > 3 else '00'}"
    with contextlib.suppress(ValueError, OverflowError):
        stamp = (
            f"{part['year']:04}-{part['month'] or 1:02}-{part['day'] or 1:02}"
            f"T{part['hour']:02}:{part['minute']:02}:{part['second']:02}{offset}"
        )
        return datetime.fromisoformat(stamp).astimezone(UTC)
    return None
