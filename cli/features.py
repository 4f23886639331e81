"""`earmark features`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cli.common import add_store, console, local_store, print_json, table

SERVICES = ("recommender", "moderation", "playback")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", nargs="+", metavar="ID", help="content ids")
    parser.add_argument(
        "--service", choices=SERVICES, default="recommender", help="feature service (default: recommender)"
    )
    add_store(parser)


def run(args: argparse.Namespace) -> int:
    from core.errors import NotFound
    from feature_repo.reads import features_of

    root = local_store(args)
    rows = features_of(root, args.ids, args.service).to_pylist()
    found = [row for row in rows if any(value is not None for name, value in row.items() if name != "content_id")]
    held = _marked(root, rows)
    if args.json:
        print_json([{**row, "quarantine": held[c]} if (c := row["content_id"]) in held else row for row in rows])
    for row in [] if args.json else found:
        cells = [[name, short(value)] for name, value in row.items() if name != "content_id"]
        console().print(table(row["content_id"], [("feature", "left"), ("value", "left")], cells))
    known = {row["content_id"] for row in found}
    _tell_absent(root, [content_id for content_id in dict.fromkeys(args.ids) if content_id not in known])
    return 0 if found else NotFound.exit_code


def _marked(root: Path, rows: Sequence[dict[str, Any]]) -> dict[str, str]:
    """The reasons, by content id, of the contents that are in quarantine; also prints them on standard error. The
    features of such a content may be incomplete, or of an earlier version of the file."""
    from core.storage import open_storage
    from pipelines.quarantine import reasons

    asked = {row["content_id"] for row in rows}
    quarantined = {content_id: why for content_id, why in reasons(open_storage(root)).items() if content_id in asked}
    for content_id, why in quarantined.items():
        print(f"earmark: in quarantine: {content_id} ({why})", file=sys.stderr)
    return quarantined


def _tell_absent(root: Path, ids: Sequence[str]) -> None:
    """Says which contents have no features, and which of them were removed by name."""
    if not ids:
        return
    from core.storage import open_storage
    from pipelines.removal import blocked

    removed = blocked(open_storage(root))
    for label, some in (
        ("not in the store", [content_id for content_id in ids if content_id not in removed]),
        ("removed", [content_id for content_id in ids if content_id in removed]),
    ):
        if some:
            print(f"earmark: {label}: {', '.join(some)}", file=sys.stderr)


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
