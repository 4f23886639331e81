"""`earmark moderate match`: a bare folder against a folder of exemplars."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cli.common import console, literal, print_json, print_left_out, print_unread, table
from cli.progress import progress_bar


def match(args: argparse.Namespace) -> int:
    from core.errors import ConfigError
    from pipelines.match import match_folder

    if args.workers is not None and args.workers < 1:
        raise ConfigError("--workers must be 1 or more")
    with progress_bar(args.quiet) as (progress, on_step):
        on_step("look for copies")
        found = match_folder(args.bank, args.folder, workers=args.workers, told=progress)
    root, failures = args.folder.expanduser().absolute(), []
    for path, reason in found.failures:
        failures.append({"path": str(path), "reason": reason})
    if args.json:
        document: dict[str, Any] = {"matches": [{"path": str(path), **m.to_dict()} for path, m in found.matches]}
        if failures:
            document["failures"] = failures
        if found.left_out:
            document["left_out"] = found.left_out
        print_json(document)
    else:
        _print_matches(root, found, failures)
    return 1 if failures and not found.matches and len(failures) >= found.files else 0


def _print_matches(root: Path, found: Any, failures: list[dict[str, str]]) -> None:
    from skips.picture import hms

    out = console()
    rows, shown = [], None
    for path, match in found.matches:
        name = path.relative_to(root).as_posix()
        where = "" if match.start_s is None else f"{hms(match.start_s, True)} to {hms(match.end_s, True)}"
        there = "" if match.exemplar_start_s is None else hms(match.exemplar_start_s, True)
        rows.append([name if name != shown else "", match.exemplar, match.tier, f"{match.score:.2f}", where, there])
        shown = name
    columns = [("file", "left"), ("exemplar", "left"), ("found by", "left"), ("score", "right")]
    columns += [("from to", "left"), ("from in exemplar", "right")]
    matched = len({path for path, _ in found.matches})
    title = f"{matched} of {found.files} files match, {found.exemplars} exemplars"
    out.print(table(title, columns, rows) if rows else f"[bold]{literal(title)}[/]")
    print_unread((failure["path"], failure["reason"]) for failure in failures)
    print_left_out(found.left_out)
