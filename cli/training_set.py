"""`earmark training-set`."""

from __future__ import annotations

import argparse
from pathlib import Path

from cli.common import add_store, console, local_store, print_json
from cli.features import SERVICES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "Example of ENTITIES (CSV): content_id,event_timestamp,label — other columns pass through."
    parser.add_argument(
        "entities", metavar="ENTITIES", type=Path, help="CSV or Parquet with content_id and event_timestamp"
    )
    parser.add_argument("--out", type=Path, required=True, help="Parquet file to write")
    parser.add_argument(
        "--service", choices=SERVICES, default="recommender", help="feature service (default: recommender)"
    )
    add_store(parser)


def run(args: argparse.Namespace) -> int:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet as pq

    from core.errors import CatalogError
    from feature_repo.reads import training_set
    from feature_repo.store import open_store

    root = local_store(args)
    try:
        suffix = args.entities.suffix.lower()
        entities = pa.csv.read_csv(args.entities) if suffix == ".csv" else pq.read_table(args.entities)
    except (OSError, pa.ArrowInvalid) as error:
        raise CatalogError(f"cannot read {args.entities}: {error}") from error
    for column in ("content_id", "event_timestamp"):
        if column not in entities.column_names:
            raise CatalogError(f"{args.entities} has no column {column!r}")
    joined = training_set(open_store(root), entities, service=args.service)
    pq.write_table(joined, args.out)
    if args.json:
        print_json({"rows": joined.num_rows, "columns": joined.column_names, "out": str(args.out)})
    else:
        console().print(f"wrote {joined.num_rows} rows of {joined.num_columns} columns to {args.out}")
    return 0
