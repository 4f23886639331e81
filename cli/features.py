"""`earmark features`."""

from __future__ import annotations

import argparse

from cli.common import add_store, console, local_store, print_json, table

SERVICES = ("recommender", "moderation", "playback")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", nargs="+", metavar="ID", help="content ids")
    parser.add_argument(
        "--service", choices=SERVICES, default="recommender", help="feature service (default: recommender)"
    )
    add_store(parser)


def run(args: argparse.Namespace) -> int:
    from feature_repo.reads import online_features
    from feature_repo.store import open_store

    rows = online_features(open_store(local_store(args)), args.ids, service=args.service).to_pylist()
    if args.json:
        print_json(rows)
        return 0
    for row in rows:
        cells = [[name, short(value)] for name, value in row.items() if name != "content_id"]
        console().print(table(row["content_id"], [("feature", "left"), ("value", "left")], cells))
    return 0


def short(value: object, width: int = 80) -> str:
    """A value in a line: long lists and texts by their beginning."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)) and len(value) > 8:
        return (
            "["
            + ", ".join(f"{v:.3f}" if isinstance(v, float) else str(v) for v in value[:4])
            + f", … {len(value)} values]"
        )
    text = str(value)
    return text if len(text) <= width else text[: width - 1] + "…"
