"""`earmark training-set`."""

from __future__ import annotations

import argparse
import contextlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cli.common import add_store, console, literal, local_store, print_json
from cli.features import SERVICES
from cli.parser import filled_path
from cli.progress import progress_bar
from cli.targets import check_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Example of ENTITIES, as CSV (further columns pass through):\n"
        "  content_id,event_timestamp,label\n"
        "  track:1,2026-06-01T12:00:00Z,1\n\n"
        "A timestamp is ISO 8601; one without a zone is taken as UTC."
    )
    parser.add_argument(
        "entities",
        metavar="ENTITIES",
        type=filled_path,
        help="CSV, JSONL or Parquet with content_id and event_timestamp",
    )
    parser.add_argument("--out", type=filled_path, required=True, help="Parquet file to write")
    parser.add_argument(
        "--service", choices=SERVICES, default="recommender", help="feature service (default: recommender)"
    )
    add_store(parser)


def run(args: argparse.Namespace) -> int:
    from feature_repo.reads import training_set
    from feature_repo.store import open_store

    root = local_store(args)
    check_file(args.out, "--out")
    rows = _with_times(_read(args.entities), args.entities)
    with progress_bar(args.quiet) as (_, on_step):
        on_step(f"join features to {rows.num_rows} rows")
        joined = training_set(open_store(root), rows, service=args.service)
        on_step(f"write {args.out}")
        _write(joined, args.out)
    if args.json:
        print_json({"rows": joined.num_rows, "columns": joined.column_names, "out": str(args.out)})
    else:
        console().print(f"wrote {joined.num_rows} rows of {joined.num_columns} columns to {literal(args.out)}")
    return 0


def _read(path: Path) -> Any:
    """The Arrow table of a file of entities. Raises `CatalogError`."""
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.json
    import pyarrow.parquet as pq

    from core.errors import CatalogError

    ids = {"content_id": pa.string()}  # never inferred: `007` is not the number 7
    try:
        match path.suffix.lower():
            case ".csv":
                rows = pa.csv.read_csv(path, convert_options=pa.csv.ConvertOptions(column_types=ids))
            case ".jsonl" | ".ndjson":
                texts = pa.schema({**ids, "event_timestamp": pa.string()})
                rows = pa.json.read_json(path, parse_options=pa.json.ParseOptions(explicit_schema=texts))
            case ".parquet" | ".pq":
                rows = pq.read_table(path)
            case ending:
                raise CatalogError(f"cannot read {path}: {ending or 'no ending'} is not .csv, .jsonl or .parquet")
    except (OSError, pa.ArrowInvalid) as error:
        raise CatalogError(f"cannot read {path}: {error}") from error
    for column in ("content_id", "event_timestamp"):
        if column not in rows.column_names:
            raise CatalogError(f"{path} has no column {column!r}")
    return rows


def _write(rows: Any, out: Path) -> None:
    """Writes Parquet whole or not at all: a full disk must not leave half a file, or a ruined one of before."""
    import pyarrow.parquet as pq

    from core.errors import StorageError

    unfinished = out.with_name(f".{out.name}.unfinished")
    try:
        pq.write_table(rows, unfinished)
        unfinished.replace(out)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink(missing_ok=True)
        raise StorageError(f"cannot write {out}: {error}") from error


def _with_times(entities: Any, path: Path) -> Any:
    """The Arrow table with `event_timestamp` as times. Raises `ConfigError` for the first row without a time.

    Numbers are refused: nothing says whether they are years, seconds or nanoseconds.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    from core.errors import ConfigError

    given = entities["event_timestamp"]
    kind = given.type.value_type if pa.types.is_dictionary(given.type) else given.type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        times = given
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        # A loop, because pandas lets a time without a zone inherit the zone of the row before it.
        times = pa.array([_time(text) for text in given.to_pylist()], pa.timestamp("us", tz="UTC"))
    else:
        times = pa.nulls(len(given), pa.timestamp("us", tz="UTC"))
    bad = np.flatnonzero(np.asarray(pc.is_null(times)))
    if bad.size:
        first = int(bad[0])
        told = f"{given[first].as_py()!r} is no time" if given[first].is_valid else "there is no time"
        raise ConfigError(
            f"{path}, row {first + 1}: event_timestamp: {told}; write it as 2026-06-01T12:00:00Z"
            + (f" ({bad.size} rows are like that)" if bad.size > 1 else "")
        )
    return entities.set_column(entities.column_names.index("event_timestamp"), "event_timestamp", times)


def _time(text: str | None) -> datetime | None:
    """A time from ISO 8601, in UTC unless it says otherwise; None where it is none."""
    try:
        time = datetime.fromisoformat((text or "").strip())
    except ValueError:
        return None
    return time if time.tzinfo else time.replace(tzinfo=UTC)
