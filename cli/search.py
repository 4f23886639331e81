"""`earmark search`."""

from __future__ import annotations

import argparse
from pathlib import Path

from cli.common import add_store, console, local_store, open_run, print_json, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--id", help="a content of the store: what is like it?")
    what.add_argument("--text", help="words: which titles, descriptions, lyrics and transcripts are close?")
    what.add_argument("--audio", type=Path, help="an audio file: what sounds like it?")
    what.add_argument("--image", type=Path, help="a picture: which covers look like it?")
    parser.add_argument(
        "--by",
        choices=("text", "audio", "image"),
        help="with --id: similar in what (default: audio, else text); with --text: among what (audio and image need "
        "the hub profile's models)",
    )
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
    )
    if args.json:
        print_json(found)
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
    console().print(table(f"Most similar by {found['modality']} to {found['query']}", columns, rows))
    return 0
