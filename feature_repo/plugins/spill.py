"""The point-in-time join of more keys than memory holds: DuckDB joins the key numbers, and spills to disk."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from core.errors import StorageError

if TYPE_CHECKING:
    from feature_repo.plugins.history import Budget, _Scan

SCHEMA = pa.schema([("code", pa.int32()), ("event", pa.int64()), ("created", pa.int64()), ("row", pa.int64())])
# ASOF takes one ordered value, so event and created are one wide number; full ties are settled before it.
ORDER = "event::HUGEINT * 18446744073709551616::HUGEINT + (created::HUGEINT + 9223372036854775808::HUGEINT)"
RANKED = f"SELECT code, {ORDER} AS rank, event, created, max(row) AS row FROM seen GROUP BY code, event, created"
LATEST = """
    SELECT e.at, f.row FROM entities e
    ASOF JOIN ranked f ON e.code = f.code
        AND e.time::HUGEINT * 18446744073709551616::HUGEINT + 18446744073709551615::HUGEINT >= f.rank
    WHERE {ttl} = 0 OR f.event >= e.time - {ttl}
"""
# What may be seen depends on two times here, which ASOF cannot say.
KNOWN = """
    SELECT e.at, arg_max(f.row, f.rank) AS row FROM entities e
    JOIN ranked f ON e.code = f.code AND f.event <= e.time AND f.created <= e.time AND f.created <> {never}
        AND ({ttl} = 0 OR f.event >= e.time - {ttl})
    GROUP BY e.at
"""


def connect(memory_limit: str | None = None, temp_directory: str | None = None) -> Any:
    """A DuckDB connection of one's own: a shared one fails under several threads. Times are UTC."""
    import duckdb

    # DuckDB's own default spills into the folder that the process happens to stand in.
    base = Path(temp_directory or tempfile.gettempdir())
    base.mkdir(parents=True, exist_ok=True)
    spill = base / f"earmark-duckdb-{uuid.uuid4().hex}"
    settings: dict[str, Any] = {"TimeZone": "UTC", "threads": pa.cpu_count(), "temp_directory": spill}
    if memory_limit:
        settings["memory_limit"] = memory_limit
    connection = duckdb.connect()
    for name, value in settings.items():
        connection.execute(f"SET {name} = '{str(value).replace(chr(39), chr(39) * 2)}'")
    return connection


def locate_spilling(
    scan: _Scan, codes: np.ndarray, times: np.ndarray, ttl: int, by_created: bool, budget: Budget
) -> np.ndarray:
    """As `history.find`. Raises `StorageError` where not even the disk has room."""
    import duckdb

    from feature_repo.plugins.history import NEVER

    found = np.full(len(codes), -1, np.int64)
    asked = np.flatnonzero(codes >= 0)
    entities = pa.table({"at": asked, "code": codes[asked], "time": times[asked]})

    def pieces() -> Iterator[pa.RecordBatch]:
        for group in scan.layout.groups:
            for piece in scan.of(group):
                arrays = [pa.array(values) for values in (piece.codes, piece.event, piece.created, piece.rows)]
                yield pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)

    connection = connect(budget.memory_limit, budget.temp_directory)
    try:
        # A table, not a view: the stream of feature rows can be read once, and a table spills.
        connection.register("seen", pa.RecordBatchReader.from_batches(SCHEMA, pieces()))
        connection.execute(f"CREATE TEMP TABLE ranked AS {RANKED}")
        connection.register("entities", entities)
        joined = connection.sql((KNOWN if by_created else LATEST).format(ttl=ttl, never=NEVER))
        for batch in joined.to_arrow_reader(1 << 16):
            found[batch["at"].to_numpy()] = batch["row"].to_numpy()
    except (duckdb.OutOfMemoryException, duckdb.IOException) as error:
        raise StorageError(f"the join needs more memory or disk (memory_limit, temp_directory): {error}") from error
    finally:
        connection.close()
    return found
