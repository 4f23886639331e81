"""`earmark quarantine`."""

from __future__ import annotations

import argparse

from cli.common import add_store, console, local_store, print_json, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "An item is tried again when what it is made from changes, or with: earmark run CATALOG --retry"
    add_store(parser)


def run(args: argparse.Namespace) -> int:
    from core.storage import open_storage
    from pipelines.quarantine import open_rows

    rows = open_rows(open_storage(local_store(args, released=False))).to_pylist()
    if args.json:
        print_json(rows)
        return 0
    columns = [
        ("content", "left"),
        ("where", "left"),
        ("why", "left"),
        ("detail", "left"),
        ("tries", "right"),
        ("since", "left"),
    ]
    cells = [
        [r["content_id"], r["stage"], r["reason"], r["detail"], r["attempts"], f"{r['first_seen']:%Y-%m-%d %H:%M}"]
        for r in rows
    ]
    console().print(table(f"In quarantine: {len(rows)}", columns, cells))
    return 0
