"""`earmark run`."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from cli.common import add_store, console, literal, near, print_json, seconds, table
from cli.parser import duration_s, filled, filled_path
from cli.progress import progress_bar

HELP = """\
CATALOG is a folder of media (tags and embedded covers are read) or a file with the columns
  content_id, kind (track|episode|chapter), title, updated_at                          required
  show_id, description, text, language, explicit, audio_uri, image_uri, published_at   optional

Run the same command again to resume a run that was killed, or to enrich what changed: what is done is
not done again. Contents that cannot be read go to the quarantine (earmark quarantine); the rest goes on.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = HELP
    parser.add_argument(
        "catalog", type=filled, metavar="CATALOG", help="folder of media; .csv, .jsonl or .parquet file"
    )
    add_store(parser)
    parser.add_argument("--config", type=filled_path, help="YAML file of settings")
    parser.add_argument("--profile", choices=("bundled", "hub"), help="models: inside packages, or from a hub")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda", "mps"), help="where models run (default: auto)")
    parser.add_argument("--workers", type=int, help="threads over items (default: one a core)")
    parser.add_argument("--timezone", help="zone of timestamps without one, e.g. Europe/Berlin; refused otherwise")
    parser.add_argument("--prune", action="store_true", help="remove contents that the catalogue no longer lists")
    parser.add_argument(
        "--accept-truncated",
        action="store_true",
        help="enrich files whose bytes end early as far as they go; acoustic:truncated is true for them",
    )
    parser.add_argument("--verify", action="store_true", help="hash files again instead of trusting size and mtime")
    parser.add_argument("--retry", action="store_true", help="try what is in the quarantine again")
    parser.add_argument("--refit", action="store_true", help="fit the audio statistics again: makes a new audio model")
    parser.add_argument("--wait", type=duration_s, default=0.0, metavar="SECONDS", help="wait for another writer")


def run(args: argparse.Namespace) -> int:
    from catalog.rows import zone_of
    from core.config import load_config, store_uri
    from core.errors import CatalogError, ConfigError
    from pipelines.inprocess import run_catalog

    config = load_config(args.config).replace(
        profile=args.profile,
        device=args.device,
        workers=args.workers,
        timezone=args.timezone,
        accept_truncated=args.accept_truncated or None,
    )
    try:
        zone_of(config.timezone)
    except CatalogError as error:  # of the settings, not of the catalogue
        raise ConfigError(str(error)) from error
    with progress_bar(args.quiet) as (progress, on_step):
        summary = run_catalog(
            args.catalog,
            store_uri(args.store),
            config,
            prune=args.prune,
            verify=args.verify,
            retry=args.retry,
            refit=args.refit,
            wait_s=args.wait,
            progress=progress,
            on_wait=lambda holder: args.quiet or print(f"earmark: waiting for {holder}", file=sys.stderr),
            on_step=on_step,
        )
    if args.json:
        print_json(summary)
    else:
        show(summary)
    return CatalogError.exit_code if summary["rejected"] and not summary["contents"] else 0


def show(summary: dict[str, Any], out: Any = None) -> None:
    """Prints a run's summary for people, on the rich console `out` where one is given."""
    out = out or console()
    kinds = ", ".join(f"{count} {kind}{'s' if count != 1 else ''}" for kind, count in sorted(summary["kinds"].items()))
    contents = "1 content" if summary["contents"] == 1 else f"{summary['contents']} contents"
    out.print(
        f"[bold]Read[/] {contents}{f' ({kinds})' if kinds else ''} from {literal(near(summary['source']))}",
        soft_wrap=True,
    )
    for key, text in (
        ("pruned", "no longer listed: removed"),
        ("removed_and_still_listed", "removed by name: left out"),
    ):
        if summary[key]:
            out.print(f"  {summary[key]} {text}")
    _show_differences(summary, out)
    stages = [name for name in summary["computed"] if not name.startswith("read ") and name != "write"]
    if any(summary["computed"][name] for name in stages):
        rows = []
        for name in stages:
            count, spent = summary["computed"][name], summary["activity_seconds"].get(name, 0.0)
            rows.append([name, count, seconds(spent), f"{1000 * spent / count:.0f} ms" if count else ""])
        for name in ("read audio", "read image"):
            if summary["computed"].get(name):
                count, spent = summary["computed"][name], summary["activity_seconds"][name]
                rows.append([name.replace("read", "decode"), count, seconds(spent), f"{1000 * spent / count:.0f} ms"])
        title = "Computed (work of all threads, with the loading of models)"
        out.print(table(title, [("stage", "left"), ("contents", "right"), ("work", "right"), ("each", "right")], rows))
    elif summary["quarantine"] and not summary["contents"]:
        held = len({q["content_id"] for q in summary["quarantine"]})
        out.print(f"[bold]Computed[/] nothing: no content was accepted ({held} in quarantine; see earmark quarantine)")
    else:
        out.print("[bold]Computed[/] nothing: everything was up to date")
    if summary["quarantine"]:
        rows = [[q["content_id"], q["stage"], q["reason"], q["detail"]] for q in summary["quarantine"][:20]]
        title = f"In quarantine: {len(summary['quarantine'])}"
        out.print(table(title, [("content", "left"), ("where", "left"), ("why", "left"), ("detail", "left")], rows))
    if summary["indexes"]:
        rows = [
            [m, i["count"], i["factory"], f"{i['recall'].get('10', i['recall'].get(10, 1.0)):.3f}", i["version"]]
            for m, i in summary["indexes"].items()
        ]
        columns = [
            ("index", "left"),
            ("vectors", "right"),
            ("FAISS", "left"),
            ("recall@10", "right"),
            ("version", "right"),
        ]
        out.print(table("Indexes", columns, rows))
    written = sum(summary["feast"]["rows_written"].values())
    total = sum(summary["step_seconds"].values())
    slowest = sorted(summary["step_seconds"].items(), key=lambda item: -item[1])[:4]
    out.print(
        f"[bold]Feast[/] {written} rows written online   [bold]Store[/] {literal(near(summary['store']))}",
        soft_wrap=True,
    )
    out.print(f"[bold]Took[/] {seconds(total)}: " + ", ".join(f"{name} {seconds(s)}" for name, s in slowest))


def _show_differences(summary: dict[str, Any], out: Any) -> None:
    """Prints the files that were left out, and the contents that are in the store but not in the catalogue."""
    from catalog.walk import shown_endings

    if summary["left_out"]:
        out.print(f"  left out: {literal(shown_endings(summary['left_out']))}")
    if summary["prune_withheld"]:
        out.print("[yellow]Nothing was pruned:[/] entries that cannot be read may be any content in the store")
        for detail in summary["prune_withheld"]:
            out.print(f"  {literal(detail)}")
    if count := summary["not_listed"]:
        examples = summary["not_listed_examples"]
        names = ", ".join([*examples, "…"] if count > len(examples) else examples)
        what = "1 content is" if count == 1 else f"{count} contents are"
        advice = "" if summary["prune_withheld"] else f"; remove {'it' if count == 1 else 'them'} with --prune"
        out.print(f"  {what} in the store but not in the catalogue ({literal(names)}){advice}")
