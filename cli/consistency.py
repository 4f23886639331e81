"""`earmark consistency`."""

from __future__ import annotations

import argparse
from typing import Any

from cli.common import add_store, console, local_store, print_json, table
from cli.progress import progress_bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = (
        "Draws keys from the part files of every view and compares the latest row of each with what the online store\n"
        "holds. The interval bounds, with 95 % confidence, the share over all keys. Disagreements are: missing (no\n"
        "row online), stale (an older version), ahead (a newer one: pushed online alone, or a run is at work),\n"
        "different (the same version with another value), not_removed (removed, yet still online). Missing and stale\n"
        "rows are what the next earmark run writes; for the others look at who else writes to the online store.\n"
        "Keys that are online and in no part file are not seen.\n\n"
        "No run restores rows that were deleted or evicted in the online store, because its ledger lists their part\n"
        "files as done: --repair writes every row again, then compares.\n\n"
        "With --min-share the exit code is 1 if a view's share is lower."
    )
    parser.add_argument("--sample", type=int, default=1000, metavar="N", help="keys a view (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of the sample; the same seed draws the same keys")
    parser.add_argument("--view", action="append", metavar="VIEW", help="this view alone; may be given again")
    parser.add_argument("--repair", action="store_true", help="first write every row of the views again")
    parser.add_argument("--min-share", type=float, metavar="X", help="fail where fewer agree: 0 to 1")
    add_store(parser)


def run(args: argparse.Namespace) -> int:
    from core.errors import ConfigError
    from pipelines.consistency import consistency, repair

    if args.min_share is not None and not 0 <= args.min_share <= 1:
        raise ConfigError(f"--min-share {args.min_share} is no share; give 0 to 1")
    root = local_store(args)
    with progress_bar(args.quiet) as (progress, on_step):
        written = None
        if args.repair:
            on_step("write every row online again")
            written = repair(root, args.view, progress=progress)
        on_step("compare the online store with the offline store")
        found = consistency(root, sample=args.sample, seed=args.seed, views=args.view, progress=progress)
    low = [
        view["view"]
        for view in found["views"]
        if args.min_share is not None and view["share"] is not None and view["share"] < args.min_share
    ]
    if args.json:
        print_json({**found, "below": low, **({} if written is None else {"repaired": written})})
    else:
        if written is not None:
            console().print(f"{sum(written.values())} rows of {len(written)} views written again")
        _show(found)
        for name in low:
            console(stderr=True).print(f"{name}: fewer than {args.min_share:.2%} agree", soft_wrap=True)
    return 1 if low else 0


def _show(found: dict[str, Any]) -> None:
    rows = [
        [
            v["view"],
            f"{v['sampled']} of {v['population']}",
            _percent(v["share"]),
            "{:.2%} to {:.2%}".format(*v["interval"]),
            _disagreements(v),
        ]
        for v in found["views"]
    ]
    columns = [
        ("view", "left"),
        ("keys", "right"),
        ("agree", "right"),
        ("95 % interval", "right"),
        ("disagreements", "left"),
    ]
    out = console()
    out.print(table("Online against offline", columns, rows))
    out.print(
        f"{found['agree']} of {found['sampled']} rows agree ({_percent(found['share'])}), in {found['seconds']:.1f} s"
    )


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{share:.2%}"


def _disagreements(view: dict[str, Any]) -> str:
    lines = []
    for kind, count in view["disagree"].items():
        features = f" in {', '.join(view['features'])}" if kind == "different" else ""
        lines.append(f"{count} {kind}{features}, such as {', '.join(map(repr, view['examples'][kind][:2]))}")
    return "\n".join(lines)
