"""The parts of a view's definition that decide how its part files are read. The ledger keeps their digest with each
part: a part that was read under another definition counts as not read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Definition:
    """`rows` decides which rows there are and how they are ordered in time: join keys as (name, type, column), the
    source's path and its time columns. `features` are (name, type, column)."""

    keys: tuple[tuple[str, str, str], ...]
    rows: tuple[str, ...]
    features: tuple[tuple[str, str, str], ...]

    @cached_property
    def text(self) -> str:
        parts = {"keys": self.keys, "rows": self.rows, "features": self.features}
        return json.dumps(parts, ensure_ascii=False, sort_keys=True)

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()[:16]

    @property
    def join_keys(self) -> list[str]:
        return [name for name, _, _ in self.keys]

    @property
    def feature_names(self) -> list[str]:
        return [name for name, _, _ in self.features]

    def has_other_rows_than(self, other: Definition) -> bool:
        """Whether the rows of the two definitions have other keys or cannot be compared by their times."""
        return (self.keys, self.rows) != (other.keys, other.rows)

    def has_other_keys_or_times_than(self, other: Definition) -> bool:
        """The same but for the source, whose place depends on where the repository is."""
        return (self.keys, self.rows[1:]) != (other.keys, other.rows[1:])

    @classmethod
    def parse(cls, text: str | None) -> Definition | None:
        """The definition that `text` describes; None if it cannot be read."""
        try:
            found = json.loads(text or "")
            triples = [tuple(tuple(map(str, one)) for one in found[name]) for name in ("keys", "features")]
            return cls(triples[0], tuple(map(str, found["rows"])), triples[1])  # type: ignore[arg-type]
        except (ValueError, KeyError, TypeError):
            return None


def define(config: Any, view: Any) -> Definition:
    """The definition of a Feast feature view."""
    source = view.batch_source
    own = {new: old for old, new in (source.field_mapping or {}).items()}

    times = (str(source.timestamp_field or ""), str(source.created_timestamp_column or ""))

    def triples(fields: Sequence[Any]) -> tuple[tuple[str, str, str], ...]:
        return tuple(sorted((f.name, _type_name(f), own.get(f.name, f.name)) for f in fields))

    return Definition(
        keys=triples(view.entity_columns),
        rows=(_place(config, source), *(own.get(name, name) or "" for name in times)),
        features=triples(view.features),
    )


def _type_name(one: Any) -> str:
    return str(one.dtype.to_value_type().name)


def _place(config: Any, source: Any) -> str:
    """Where the source is. Beside the repository it is seen from there, so that nothing changes when both are moved
    together; elsewhere the repository may be, say, a check-out that is in another folder each time."""
    path = str(getattr(source, "path", None) or getattr(source, "table", None) or source.name)
    path = path.replace("s3a://", "s3://", 1)  # Spark's name of the scheme
    if "://" in path or not os.path.isabs(path) or config.repo_path is None:
        return path
    relative = os.path.relpath(path, os.path.abspath(str(config.repo_path)))
    return path if relative.startswith(os.path.join("..", "..", "")) else relative


@dataclass(frozen=True)
class Ledger:
    """What an online store knows of a view: its definition at the last materialisation, whether all rows are online as
    that definition reads them (`is_whole`), and of each part the digest of the definition that read it and when the
    first of its rows that were held back is due (microseconds)."""

    definition: Definition | None = None
    is_whole: bool = True
    parts: dict[str, tuple[str, int | None]] = field(default_factory=dict)

    def seen(self, definition: Definition, until_us: int) -> set[str]:
        """The parts without anything to write under `definition`, for a materialisation of rows up to `until_us`."""
        return {
            part
            for part, (digest, due_us) in self.parts.items()
            if digest == definition.digest and (due_us is None or due_us > until_us)
        }
