"""`earmark skips`."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from cli.common import (
    add_store,
    console,
    literal,
    local_store,
    near,
    open_run,
    print_json,
    print_left_out,
    print_unread,
    table,
    writing,
)
from cli.parser import filled_path
from cli.progress import progress_bar
from cli.targets import check_folder

HELP = """\
  earmark skips ~/Podcasts               a folder of audio: a file is an episode, a subfolder a show
  earmark skips --store .earmark         the markers of an enriched catalogue
  earmark skips ~/Podcasts --report out  with a page per show: pictures, what recurs where, and listening
  earmark skips ~/Podcasts --export chapters edl --out out
  earmark skips ~/Music --music          what repeats in and over tracks; nothing is marked

A marker says what it is (intro, outro, ad, jingle, recap, silence), from when to when, and what to do: "auto" is
heard three times or more and may be skipped, "ask" should be offered. Markers hold for one audio file: compare
audio_sha256 before you skip.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = HELP
    parser.add_argument(
        "folder", nargs="?", type=filled_path, metavar="FOLDER", help="a folder of audio; else the store's"
    )
    parser.add_argument("--show", metavar="NAME", help="only this show's episodes")
    parser.add_argument(
        "--music",
        action="store_true",
        help="tell what repeats in music, mark nothing",
    )
    parser.add_argument(
        "--export",
        nargs="+",
        choices=("chapters", "webvtt", "edl"),
        metavar="FORMAT",
        default=[],
        help="write markers as Podcasting 2.0 chapters, WebVTT or edit lists (chapters, webvtt, edl); after FOLDER",
    )
    parser.add_argument(
        "--out", type=filled_path, metavar="DIR", default=Path("skips"), help="where exports go (%(default)s)"
    )
    parser.add_argument(
        "--report", type=filled_path, metavar="DIR", help="write a page per show and a picture per episode"
    )
    parser.add_argument(
        "--events",
        type=filled_path,
        metavar="FILE",
        help="player events (CSV, JSONL or Parquet: content_id, event, from_s, to_s) that raise or lower confidence; a "
        "store keeps them, of a FOLDER content_id is the path in it",
    )
    parser.add_argument(
        "--accept-truncated",
        action="store_true",
        help="of a FOLDER: mark files whose bytes end early as far as they go, and say which they are",
    )
    parser.add_argument("--workers", type=int, help="files that are decoded side by side (default: one a core)")
    add_store(parser)


def run(args: argparse.Namespace) -> int:
    from core.errors import ConfigError

    if args.workers is not None and args.workers < 1:
        raise ConfigError("--workers must be 1 or more")
    if args.music and (args.export or args.report is not None):
        raise ConfigError("--export and --report show markers; with --music nothing is marked: use --json")
    if args.accept_truncated and args.folder is None:
        raise ConfigError("--accept-truncated is for a FOLDER; for a store, give it to earmark run")
    if args.export:
        check_folder(args.out, "--out")
    if args.report is not None:
        check_folder(args.report, "--report")
    events = evidence = None
    if args.events is not None:
        from skips.events import read_events

        events = read_events(args.events)
    if events is not None and args.folder is None:
        from pipelines.skips import add_events

        with writing(args) as context:
            evidence = add_events(context, events)["evidence"]
    found = _of_folder(args) if args.folder is not None else _of_store(args)
    if events is not None and args.folder is not None:
        from dataclasses import asdict

        from skips.evidence import agreement, weighed

        evidence = asdict(agreement(found.episodes, events))
        found.episodes = weighed(found.episodes, events)
    episodes = [e for e in found.episodes if args.show is None or e.show == args.show]
    if args.show is not None and not episodes:
        from core.errors import NotFound

        shows = ", ".join(sorted({e.show for e in found.episodes if e.show})) or "none"
        raise NotFound(f"there is no show {args.show!r}; there is {shows}")
    written = _write(args, episodes, found.similarities)
    if args.json:
        from skips.markers import to_json

        document = to_json(episodes)
        if found.failures:
            document["failures"] = [{"path": path, "reason": reason} for path, reason in found.failures]
        if found.left_out:
            document["left_out"] = found.left_out
        if found.truncated:
            document["truncated"] = [{"path": path, "detail": detail} for path, detail in found.truncated]
        if args.music:
            document["repeats"] = found.repeats
        if written:
            document["written"] = [str(path) for path in written]
        if evidence is not None:
            document["evidence"] = evidence
        print_json(document)
    else:
        _print(args, episodes, found, written)
        if evidence is not None:
            _print_evidence(evidence)
    if args.folder is None and not args.music and not episodes:
        print(f"earmark: {_why_nothing(args)}", file=sys.stderr)
    return 1 if found.failures and not found.episodes else 0


def _why_nothing(args: argparse.Namespace) -> str:
    """A message: why the store has no marked episode, and what to do."""
    import pyarrow.compute as pc

    from core.contracts import WORK_KEY
    from core.features import CONTENT
    from core.keys import REMOVED

    rows = open_run(local_store(args)).tables.latest(CONTENT, ["kind", "has_audio"])
    rows = rows.filter(pc.and_(pc.not_equal(rows[WORK_KEY], REMOVED), rows["has_audio"]))
    others = {str(c["values"]): c["counts"] for c in pc.value_counts(rows["kind"]).to_pylist()}
    hint = (
        "set kind: episode in the catalogue for every episode (a file of a bare folder is a track, unless its tags say "
        "podcast)"
    )
    if others.get("episode"):
        return "the episodes of this store are not marked yet: run earmark on the catalogue"
    if not others:
        return f"this store has no content with audio, so there is nothing to mark; {hint}"
    kinds = " and ".join(_count(number, kind) for kind, number in sorted(others.items()))
    again = f"earmark skips --music{f' --store {shlex.quote(args.store)}' if args.store else ''}"
    verb = "is" if sum(others.values()) == 1 else "are"
    return (
        f"only episodes are marked, and this store has none: {kinds} {verb} not marked. To see what repeats in "
        f"tracks: {again}. Otherwise {hint}"
    )


def _print_evidence(evidence: dict[str, Any]) -> None:
    if not evidence["events"]:
        console().print("[bold]Evidence[/] no event was about a marker")
        return
    low, high = evidence["interval"]
    console().print(
        f"[bold]Evidence[/] of {evidence['events']} events left out, {evidence['before']:.0%} agreed with the "
        f"markers before and {evidence['after']:.0%} ({low:.0%} to {high:.0%}) after the others were counted"
    )


def _of_folder(args: argparse.Namespace) -> Any:
    from pipelines.skip_folder import skip_folder

    with progress_bar(args.quiet) as (progress, on_step):
        on_step("find what repeats")
        return skip_folder(
            args.folder,
            music=args.music,
            curves=args.report is not None,
            workers=args.workers,
            accept_truncated=args.accept_truncated,
            told=progress,
        )


def _of_store(args: argparse.Namespace) -> Any:
    from pipelines.skips import stored_skips

    context = open_run(local_store(args))
    with progress_bar(args.quiet) as (progress, on_step):
        on_step("read what repeats from the store")
        context.progress = progress
        return stored_skips(context, music=args.music, curves=args.report is not None)


def _write(args: argparse.Namespace, episodes: list[Any], similarities: dict[str, Any]) -> list[Path]:
    written: list[Path] = []
    if args.export:
        from skips.exports import write_exports

        written += write_exports(episodes, args.out, args.export, as_files=args.folder is not None)
    if args.report is not None:
        from core.storage import LocalStorage
        from skips.exports import file_name
        from skips.picture import timeline_svg
        from skips.report import show_report
        from skips.similarity import HOP_S

        storage = LocalStorage(args.report)
        shows = defaultdict(list)
        for episode in episodes:
            shows[episode.show].append(episode)
            picture = timeline_svg(episode, similarities.get(episode.content_id), HOP_S)
            storage.write(f"pictures/{file_name(episode.content_id)}.svg", picture.encode())
        for show, own in shows.items():
            name = f"{file_name(show or 'no show')}.html"
            storage.write(name, show_report(show, own, similarities, HOP_S).encode())
            written.append(args.report / name)
    return written


def _print(args: argparse.Namespace, episodes: list[Any], found: Any, written: list[Path]) -> None:
    from skips.exports import TITLES, total_s
    from skips.picture import hms

    out = console()
    if args.music:
        rows = [
            [r["motif_id"][:8], f"{r['duration_s']:.1f} s", r["tracks"], _places(r["places"])] for r in found.repeats
        ]
        columns = [("motif", "left"), ("length", "right"), ("tracks", "right"), ("where", "left")]
        out.print(table(f"{len(rows)} stretches repeat in and over tracks", columns, rows))
    else:
        rows = []
        for episode in episodes:
            name = episode.content_id
            for m in episode.markers:
                times = [hms(m.start_s, True), hms(m.end_s, True)]
                heard = m.occurrences if m.motif_id else ""
                rows.append([name, TITLES[m.kind], *times, f"{m.confidence:.2f}", heard, m.action])
                name = ""
        columns = [("episode", "left"), ("kind", "left"), ("from", "right"), ("to", "right")]
        columns += [("confidence", "right"), ("heard", "right"), ("action", "left")]
        every = [m for e in episodes for m in e.markers]
        hours = sum(e.duration_s for e in episodes) / 3600
        title = (
            f"{_count(len(every), 'marker')} in {_count(len(episodes), 'episode')}, {hours:.1f} hours: "
            f"{total_s(every, ('auto',)) / 60:.1f} minutes to skip, {total_s(every, ('ask',)) / 60:.1f} to ask about"
        )
        if episodes or args.folder is not None:
            out.print(table(title, columns, rows))
    print_unread(found.failures)
    print_left_out(found.left_out)
    for path, detail in found.truncated:
        out.print(f"[yellow]accepted, though truncated[/] {literal(f'{path}: {detail}')}")
    for path in written[:20]:
        out.print(f"[bold]Wrote[/] {literal(near(str(path)))}")
    if len(written) > 20:
        out.print(f"[bold]Wrote[/] {len(written) - 20} more files beside them")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _places(places: list[dict[str, Any]]) -> str:
    from skips.picture import hms

    return ", ".join(f"{p['content_id']} {hms(p['start_s'])}" for p in places[:6]) + (" …" if len(places) > 6 else "")
