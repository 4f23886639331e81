"""`earmark search`."""

from __future__ import annotations

import argparse
from datetime import UTC, datetime
from typing import Any

from cli.common import add_store, console, local_store, open_run, print_json, print_quarantined, table
from cli.parser import filled_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--id", help="a content of the store: what is like it?")
    what.add_argument("--text", help="words: which titles, descriptions, lyrics and transcripts are close?")
    what.add_argument("--audio", type=filled_path, help="an audio file: what sounds like it?")
    what.add_argument("--image", type=filled_path, help="a picture: which covers look like it?")
    parser.add_argument(
        "--by",
        choices=("text", "audio", "image"),
        help="with --id: similar in what (default: audio, else text); with --text: among what (audio and image need "
        "the hub profile's models)",
    )
    among = parser.add_argument_group("among which contents (all of these must hold)")
    among.add_argument("--kind", choices=("track", "episode", "chapter"), help="of this kind")
    among.add_argument("--show", metavar="ID", help="of this show, album or book")
    among.add_argument("--language", metavar="TAG", help="catalogued in this language (BCP 47)")
    among.add_argument("--explicit", choices=("yes", "no"), help="catalogued as explicit, or as not explicit")
    among.add_argument(
        "--quarantined", action="store_true", help="also contents in quarantine, which are left out otherwise"
    )
    among.add_argument("--since", type=_day, metavar="DATE", help="published on that day (UTC) or later")
    among.add_argument("--until", type=_day, metavar="DATE", help="published before that day (UTC)")
    parser.add_argument("-k", type=int, default=10, help="how many (default: 10)")
    add_store(parser)


def run(args: argparse.Namespace) -> int:
    from pipelines.search import search

    if args.k < 1:
        from core.errors import ConfigError

        raise ConfigError("-k must be at least 1")
    found = search(
        open_run(local_store(args)),
        content_id=args.id,
        text=args.text,
        audio=args.audio,
        image=args.image,
        by=args.by,
        k=args.k,
        where=_where(args),
        quarantined=args.quarantined,
    )
    if args.json:
        print_json(found)
        return 0
    if not found["hits"]:
        console().print("No content with a vector fits what was asked for.")
        print_quarantined(found["left_out"])
        return 0
    rows = [
        [n, f"{h['score']:.3f}", h["content_id"], h["title"], h["kind"], h["show_id"]]
        for n, h in enumerate(found["hits"], 1)
    ]
    columns = [
        ("#", "right"),
        ("cosine", "right"),
        ("content", "left"),
        ("title", "left"),
        ("kind", "left"),
        ("show", "left"),
    ]
    if args.quarantined:
        columns.append(("in quarantine", "left"))
        rows = [[*row, hit["quarantine"]] for row, hit in zip(rows, found["hits"], strict=True)]
    console().print(table(f"Most similar by {found['modality']} to {found['query']}", columns, rows))
    print_quarantined(found["left_out"])
    return 0


def _day(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no date such as 2026-01-31") from error


def _where(args: argparse.Namespace) -> Any:
    """What was asked for, as an expression over the content view; None where nothing was."""
    import operator
    from functools import reduce

    import pyarrow.compute as pc

    wanted = [
        pc.field(column) == value
        for column, value in (("kind", args.kind), ("show_id", args.show), ("declared_language", args.language))
        if value is not None
    ]
    if args.explicit:
        wanted.append(pc.field("explicit") == (args.explicit == "yes"))
    if args.since:
        wanted.append(pc.field("published_at") >= args.since)
    if args.until:
        wanted.append(pc.field("published_at") < args.until)
    return reduce(operator.and_, wanted) if wanted else None
