"""`earmark demo`."""

from __future__ import annotations

import argparse
import shlex
import time
from pathlib import Path
from typing import Any

from cli.common import add_output, console, literal, open_run, print_json, save_picture, seconds, table
from cli.parser import filled_path
from cli.progress import progress_bar
from cli.targets import check_file, check_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--folder", type=filled_path, default=Path(".earmark-demo"), help="where to work (default: .earmark-demo)"
    )
    parser.add_argument("--small", action="store_true", help="a few contents of every kind")
    parser.add_argument("--svg", type=filled_path, help="also save what is printed as a picture")
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    from cli.demo.build import build_demo
    from core.config import Config
    from pipelines.inprocess import run_catalog

    started = time.perf_counter()
    check_folder(args.folder, "--folder")
    if args.svg is not None:
        check_file(args.svg, "--svg")
    folder = args.folder.absolute()
    with progress_bar(args.quiet) as (_, on_step):
        on_step("build the demo catalogue")
        report = build_demo(folder / "catalog", small=args.small)
    built = time.perf_counter()
    out = console(record=args.svg is not None)
    if not args.json:
        kinds = ", ".join(f"{n} {kind}s" for kind, n in sorted(report.kinds.items()))
        out.print(
            f"[bold]Demo catalogue[/] {kinds}, {report.audio_s / 60:.0f} minutes of audio ({seconds(built - started)})"
        )
        for reason in report.left_out:
            out.print(f"  [yellow]left out[/] {literal(reason)}")
    store = folder / "store"
    with progress_bar(args.quiet) as (progress, on_step):
        summary = run_catalog(
            str(folder / "catalog" / "catalog.jsonl"), str(store), Config(), progress=progress, on_step=on_step
        )
    tour = _tour(store)
    total = time.perf_counter() - started
    if args.json:
        print_json({"report": vars(report), "summary": summary, "tour": tour, "seconds": total})
        return 0
    from cli.run import show

    show(summary, out)
    _show_tour(out, tour, args.folder)
    out.print(f"[bold]Everything took[/] {seconds(total)}")
    if args.svg:
        save_picture(out, args.svg, "earmark demo")
    return 0


def _tour(store: Path) -> dict[str, Any]:
    """An example of everything that the store answers."""
    import pyarrow as pa

    from core.features import CONTENT
    from core.keys import REMOVED
    from feature_repo.reads import online_features, training_set
    from feature_repo.store import open_store
    from pipelines.search import search

    context = open_run(store)
    contents = context.tables.latest(CONTENT, ["title", "show_id"]).to_pylist()
    alive = [row for row in contents if row["work_key"] != REMOVED]
    track = next(row["content_id"] for row in alive if row["content_id"].startswith("track:"))
    feast = open_store(store)
    wanted = ["content__title", "acoustic__duration_s", "acoustic__loudness_lufs", "acoustic__tempo_bpm"]
    heard = [row["content_id"] for row in alive if not row["content_id"].startswith("broken:")]
    online = online_features(feast, heard[:: max(1, len(heard) // 4)][:4]).select(["content_id", *wanted])
    example = alive[len(alive) // 2]
    day = 86_400_000_000
    event = int(example["event_timestamp"].timestamp() * 1e6)
    times = pa.array([event - day, event + day], pa.timestamp("us", tz="UTC"))
    entities = pa.table({"content_id": [example["content_id"]] * 2, "event_timestamp": times, "label": [0, 1]})
    history = training_set(feast, entities).select(["content_id", "event_timestamp", "label", "content__title"])
    return {
        "by_sound": search(context, content_id=track, by="audio", k=4),
        "by_words": search(context, text="baking bread slowly overnight", k=4),
        "online": online.to_pylist(),
        "training_set": history.to_pylist(),
    }


def _show_tour(out: Any, tour: dict[str, Any], folder: Path) -> None:
    for name, question in (("by_sound", "What sounds like"), ("by_words", "What is about")):
        found = tour[name]
        rows = [[f"{hit['score']:.3f}", hit["content_id"], hit["title"]] for hit in found["hits"]]
        columns = [("cosine", "right"), ("content", "left"), ("title", "left")]
        out.print(table(f"{question} “{found['query']}”?", columns, rows))
    rows = [[_cell(v) for v in row.values()] for row in tour["online"]]
    columns = [(name.split("__")[-1], "left") for name in tour["online"][0]]
    out.print(table("Features online (FeatureStore.get_online_features)", columns, rows))
    rows = [[_cell(v) for v in row.values()] for row in tour["training_set"]]
    columns = [(name, "left") for name in tour["training_set"][0]]
    out.print(table("A training set: each row sees what was known at its time", columns, rows))
    store = literal(shlex.quote(str(folder / "store")))
    out.print("[bold]Go on[/]")
    out.print(f"  earmark search --store {store} --text 'a calm evening by the sea'")
    out.print(f"  earmark features --store {store} track:calm_acoustic_1")
    out.print(f"  earmark status --store {store}")


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.1f}"
    return "–" if value is None else str(value)
