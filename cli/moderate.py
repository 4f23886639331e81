"""`earmark moderate`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from cli.common import console, print_json, progress_bar, table

HELP = """\
  earmark moderate match --bank banned ~/Music   files that are copies of, or like, those in the folder banned
  earmark moderate policies                      the policies that ship
  earmark moderate policies mine.yaml            check a file of policies and show what it says

Copies are found whatever was done to them: pictures that were recompressed, cropped, turned, framed, captioned or
photographed from a screen; recordings that were cut, sped up, equalised, recompressed or talked over, with the times.
Texts match when they say the same, or nearly.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = HELP
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    match = actions.add_parser("match", help="compare a folder with a folder of exemplars; no run is needed before")
    match.add_argument("folder", type=Path, metavar="FOLDER", help="pictures, audio and texts that are looked at")
    match.add_argument("--bank", type=Path, metavar="FOLDER", required=True, help="the exemplars, one a file")
    match.add_argument("--workers", type=int, help="files that are read side by side (default: one a core)")
    match.add_argument("--json", action="store_true", help="print JSON")
    policies = actions.add_parser("policies", help="check policies and show what they say")
    policies.add_argument("file", nargs="?", type=Path, metavar="FILE", help="YAML; else the policies that ship")
    policies.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace) -> int:
    return {"match": _match, "policies": _policies}[args.action](args)


def _match(args: argparse.Namespace) -> int:
    from core.errors import ConfigError
    from pipelines.match import match_folder

    if args.workers is not None and args.workers < 1:
        raise ConfigError("--workers must be 1 or more")
    with progress_bar(quiet=args.json) as (progress, on_step):
        on_step("look for copies")
        found = match_folder(args.bank, args.folder, workers=args.workers, told=progress)
    root, failures = args.folder.expanduser().absolute(), []
    for path, reason in found.failures:
        failures.append({"path": str(path), "reason": reason})
    if args.json:
        document: dict[str, Any] = {"matches": [{"path": str(path), **m.to_dict()} for path, m in found.matches]}
        if failures:
            document["failures"] = failures
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
    out.print(table(title, columns, rows) if rows else f"[bold]{title}[/]")
    for failure in failures:
        out.print(f"[red]could not read[/] {failure['path']}: {failure['reason']}")


def _policies(args: argparse.Namespace) -> int:
    from moderation.policies import load_policies, shipped_policies

    policies = load_policies(args.file) if args.file is not None else shipped_policies()
    if args.json:
        print_json({"policies": [policy.to_dict() for policy in policies]})
        return 0
    columns = [("policy", "left"), ("of", "left"), ("seen by", "left"), ("banks", "left"), ("ladder", "left")]
    columns += [("precision", "right"), ("enforced", "right")]
    rows = []
    for policy in policies:
        banks = [*policy.positive, *(f"not {name}" for name in policy.negative)]
        ladder = ", ".join(f"{action} {score:g}" for action, score in policy.ladder.items())
        shares = [f"{policy.target_precision:g}", f"{policy.enforced:.0%}"]
        rows.append([policy.id, ", ".join(policy.modalities), policy.detector, ", ".join(banks), ladder, *shares])
    console().print(table(f"{len(policies)} policies", columns, rows))
    return 0
