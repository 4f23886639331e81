"""`earmark compact`."""

from __future__ import annotations

import argparse
import math
from typing import Any

from cli.common import add_store, console, local_store, open_run, print_json, seconds, table
from cli.parser import duration_s
from cli.progress import progress_bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Every run does this at its end; the command is for other limits, or for a store that is pushed to between\n"
        "runs. All versions of a row stay. Replaced files are deleted by the first run or compaction after the grace\n"
        "time, so that readers at work can finish; until then the disk holds both. Killed at any instant, the same\n"
        "command finishes the work."
    )
    parser.add_argument(
        "--min-parts", type=int, default=8, metavar="N", help="compact a view with so many small files (%(default)s)"
    )
    parser.add_argument(
        "--target-mb",
        type=float,
        default=128,
        metavar="N",
        help="size of a compacted file in MB; files below half of it are small (%(default)s)",
    )
    parser.add_argument(
        "--grace",
        type=float,
        default=900,
        metavar="SECONDS",
        help="how long replaced files stay for their readers (%(default)s); 0 deletes them at once",
    )
    parser.add_argument("--wait", type=duration_s, default=0.0, metavar="SECONDS", help="wait for another writer")
    add_store(parser)


def run(args: argparse.Namespace) -> int:
    from core import lease
    from core.errors import ConfigError
    from pipelines.compaction import MB, Limits, compact
    from pipelines.inprocess import new_run_id

    if not math.isfinite(args.target_mb):
        raise ConfigError(f"--target-mb {args.target_mb} is no size")
    limits = Limits(args.min_parts, int(args.target_mb * MB), args.grace)
    context = open_run(local_store(args))
    with lease.hold(context.storage, new_run_id(), wait_s=args.wait), progress_bar(args.quiet) as (progress, on_step):
        on_step("compact the views")
        context.progress = progress
        found = compact(context, limits)
    if args.json:
        print_json(found)
    else:
        _show(found, args.grace)
    return 0


def _show(found: dict[str, Any], grace_s: float) -> None:
    out = console()
    if found["views"]:
        rows = [
            [
                name,
                v["rows"],
                f"{v['parts_before']} → {v['parts_after']}",
                _mb(v["bytes_before"]),
                _mb(v["bytes_after"]),
            ]
            for name, v in found["views"].items()
        ]
        columns = [("view", "left"), ("rows", "right"), ("files", "right"), ("MB before", "right"), ("after", "right")]
        out.print(table("Compacted", columns, rows))
    else:
        out.print("no view has enough small files to be worth it")
    if found["retired"]:
        out.print(f"deleted {found['retired']} files that were replaced")
    if found["waiting"]:
        out.print(
            f"{found['waiting']} replaced files stay for {seconds(grace_s)}; the next run or compaction deletes them"
        )


def _mb(size_bytes: int) -> str:
    return f"{size_bytes / 1_000_000:.2f}"
