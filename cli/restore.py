"""`earmark restore`."""

from __future__ import annotations

import argparse

from cli.common import add_store, console, local_store, open_run, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ids", nargs="+", metavar="ID", help="content ids that were removed")
    add_store(parser)


def run(args: argparse.Namespace) -> int:
    from core import lease
    from pipelines import removal
    from pipelines.inprocess import new_run_id

    context = open_run(local_store(args))
    with lease.hold(context.storage, new_run_id()):
        removal.restore(context.storage, args.ids)
    if args.json:
        print_json({"restored": args.ids})
    else:
        console().print(f"{len(args.ids)} may return at the next run of their catalogue")
    return 0
