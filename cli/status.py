"""`earmark status`."""

from __future__ import annotations

import argparse

from cli.common import add_store, console, local_store, open_run, print_json, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)


def run(args: argparse.Namespace) -> int:
    from pipelines.status import status

    found = status(open_run(local_store(args)))
    if args.json:
        print_json(found)
        return 0
    out = console()
    out.print(f"[bold]Store[/] {found['store']}   [bold]released[/] {found['released']}")
    out.print(f"[bold]Writer[/] {found['writer'] or 'nobody'}   [bold]In quarantine[/] {found['quarantine']}")
    rows = [[v["view"], v["contents"], v["removed"], v["rows"], v["parts"]] for v in found["views"]]
    columns = [("view", "left"), ("keys", "right"), ("removed", "right"), ("rows", "right"), ("parts", "right")]
    out.print(table("Feature views", columns, rows))
    return 0
