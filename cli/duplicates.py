"""`earmark duplicates`."""

from __future__ import annotations

import argparse

from cli.common import add_store, console, local_store, open_run, print_json, table
from cli.parser import filled_path
from cli.progress import progress_bar
from cli.targets import check_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Contents are joined by pairs that are near enough, directly or over others. A recommender shows one of a\n"
        "group. Copies of a recording are usually above 0.95 by audio; so are voices in one room. Try some values."
    )
    parser.add_argument("--by", choices=("audio", "text", "image"), default="audio", help="alike in what (%(default)s)")
    parser.add_argument("--score", type=float, default=0.95, help="least cosine of a pair (%(default)s)")
    parser.add_argument(
        "--quarantined", action="store_true", help="also contents in quarantine, which are left out otherwise"
    )
    parser.add_argument("--out", type=filled_path, metavar="FILE", help="write the groups as Parquet")
    add_store(parser)


def run(args: argparse.Namespace) -> int:
    import pyarrow.parquet as pq

    from core.errors import StorageError
    from pipelines.duplicates import duplicates

    if args.out is not None:
        check_file(args.out, "--out")
    context = open_run(local_store(args))
    with progress_bar(args.quiet) as (progress, on_step):
        on_step("join near contents")
        before = 0

        def advance(done: int, total: int) -> None:
            nonlocal before
            progress("contents", done - before, total)
            before = done

        found = duplicates(context, by=args.by, score=args.score, quarantined=args.quarantined, progress=advance)
    if args.out is not None:
        try:
            pq.write_table(found, args.out)
        except OSError as error:
            raise StorageError(f"cannot write {args.out}: {error}") from error
    if args.json:
        print_json(found.to_pylist())
        return 0
    groups = len(set(found["group"].to_pylist()))
    if not groups:
        console().print(f"No two contents are nearer than {args.score} by {args.by}.")
        return 0
    rows = [
        [row["group"] if row["group"] == row["content_id"] else "", row["content_id"], row["title"], row["kind"]]
        for row in found.to_pylist()
    ]
    columns = [("group", "left"), ("content", "left"), ("title", "left"), ("kind", "left")]
    if args.quarantined:
        columns.append(("in quarantine", "left"))
        rows = [[*row, reason] for row, reason in zip(rows, found["quarantine"].to_pylist(), strict=True)]
    console().print(table(f"{groups} groups of {found.num_rows} contents, alike by {args.by}", columns, rows))
    return 0
