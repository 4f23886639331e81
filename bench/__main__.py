"""`python -m bench`: lists the benchmarks; with a name, runs one."""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from typing import Any

from bench.frame import Benchmark, Row, adopt_orphans, machine, versions
from bench.results import save

NAMES = (
    "cli",
    "incremental",
    "stages",
    "decode",
    "growth",
    "feast-history",
    "feast-materialize",
    "feast-online",
    "index-search",
    "index-gpu",
    "index-live",
    "index-swap",
    "index-scale",
    "skips-quality",
    "skips-cost",
    "moderation-audio",
    "moderation-hashes",
    "moderation-pictures",
    "moderation-text",
    "transcript-language",
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Ours, the peer and the limit in one run.")
    parser.add_argument("name", nargs="?", choices=NAMES, help="which benchmark; without it, they are listed")
    parser.add_argument("--all", action="store_true", help="every benchmark, one after another")
    parser.add_argument("--quick", action="store_true", help="smaller data, under a minute; claims no bar")
    parser.add_argument("--json", action="store_true", help="print a list of rows")
    parser.add_argument("--save", action="store_true", help="also keep the rows in docs/results (not of a quick run)")
    args = parser.parse_args()
    if args.save and args.quick:
        parser.error("a quick run claims nothing, so its results are not saved")
    chosen = NAMES if args.all else (args.name,) if args.name else ()
    if not chosen:
        for name in NAMES:
            print(f"{name:<22}{load(name).about}")
        return 0
    adopt_orphans()
    about = {"machine": machine(), "versions": versions()}
    rows: list[dict[str, Any]] = []
    for name in chosen:
        benchmark = load(name)
        found = benchmark.run(args.quick)
        made = [{"benchmark": name, "quick": args.quick, **row.to_dict(), **about} for row in found]
        rows += made
        if not args.json:
            show(benchmark, found, args.quick)
        if args.save:
            path = save(name, made)
            print(f"saved {path}", file=sys.stderr)
    if args.json:
        print(json.dumps(rows, indent=1))
    else:
        told = machine()
        print(f"{told['cpu']}, {told['cores']} cores, {told['memory_gib']} GiB, GPU: {told['gpu'] or 'none'}")
        print(", ".join(f"{name} {number}" for name, number in versions().items()))
    return 0


def load(name: str) -> Benchmark:
    """The benchmark of the module of that name."""
    found: Benchmark = importlib.import_module(f"bench.{name.replace('-', '_')}").BENCHMARK
    return found


def show(benchmark: Benchmark, rows: list[Row], quick: bool) -> None:
    print(f"{benchmark.name}: {benchmark.about}" + (" (quick: claims nothing)" if quick else ""))
    cells = [["", "ours", "peer", "limit", "to peer", "to limit", "unit", "peer is", "limit is"]]
    for row in rows:
        numbers = [_number(value) for value in (row.ours, row.peer, row.limit)]
        ratios = [f"{r:.3g}×" if r is not None else "–" for r in (row.ratio_to_peer, row.ratio_to_limit)]
        unit = row.unit + (" ↑" if row.higher_is_better else "")
        cells.append([row.name, *numbers, *ratios, unit, row.peer_name or "–", row.limit_name or "–"])
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for row in rows:
        if row.note:
            print(f"  {row.name}: {row.note}")
    print(flush=True)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


if __name__ == "__main__":
    sys.exit(main())
