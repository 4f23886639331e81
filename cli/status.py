"""`earmark status`."""

from __future__ import annotations

import argparse

from cli.common import add_store, console, literal, local_store, open_run, print_json, table


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_store(parser)


def run(args: argparse.Namespace) -> int:
    from pipelines.status import status

    found = status(open_run(local_store(args, released=False)))
    if args.json:
        print_json(found)
        return 0
    out = console()
    released = found["released"] or "not yet"
    out.print(f"[bold]Store[/] {literal(found['store'])}   [bold]released[/] {released}", soft_wrap=True)
    writer = literal(found["writer"] or "none")
    out.print(f"[bold]Writer[/] {writer}   [bold]In quarantine[/] {found['quarantine']}", soft_wrap=True)
    left = found["unfinished"]
    if left is not None:
        word = "Running" if left["running"] else "[yellow]Interrupted[/]"
        out.print(f"[bold]{word}[/] {literal(left['text'])}", soft_wrap=True)
        if not left["running"]:
            out.print(f"[bold]Resume[/] {literal(left['resume'])}", soft_wrap=True)
    rows = [[v["view"], v["contents"], v["removed"], v["rows"], v["parts"]] for v in found["views"]]
    columns = [("view", "left"), ("keys", "right"), ("removed", "right"), ("rows", "right"), ("parts", "right")]
    out.print(table("Feature views", columns, rows))
    return 0
