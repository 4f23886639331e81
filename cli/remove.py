"""`earmark remove`."""

from __future__ import annotations

import argparse

from cli.common import add_store, console, local_store, open_run, print_json
from cli.parser import duration_s
from cli.progress import progress_bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Point-in-time reads before the removal still answer unless --erase is given. A removed content stays out,\n"
        "even when the catalogue still lists it, until: earmark restore ID"
    )
    parser.add_argument("ids", nargs="+", metavar="ID", help="content ids")
    parser.add_argument("--erase", action="store_true", help="also rewrite files, logs and caches that hold its rows")
    parser.add_argument("--wait", type=duration_s, default=0.0, metavar="SECONDS", help="wait for another writer")
    add_store(parser)


def run(args: argparse.Namespace) -> int:
    from core import lease
    from pipelines import removal
    from pipelines.inprocess import new_run_id

    context = open_run(local_store(args))
    with lease.hold(context.storage, new_run_id(), wait_s=args.wait), progress_bar(args.quiet) as (_, on_step):
        on_step("remove from every store and index" + (", and erase" if args.erase else ""))
        gone = removal.remove(context, args.ids, erase=args.erase)
    if args.json:
        print_json({"removed": gone, "erased": args.erase})
    else:
        console().print(
            f"removed {len(gone)} content{'s' if len(gone) != 1 else ''}"
            + (" and erased the rows" if args.erase else "")
        )
    return 0
