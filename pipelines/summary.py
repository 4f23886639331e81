"""What a run did, as numbers: read by the command line, the demo and the benchmarks."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

from core.release import read_release
from core.tables import now_us
from pipelines import quarantine
from pipelines.context import Run, by_start

KEPT_RUNS = 50


def summarise(run: Run, seconds: dict[str, float]) -> dict[str, Any]:
    """The run's summary: contents, work by stage, quarantine, seconds by step and by activity."""
    read = run.read_json("read.json")
    items: dict[str, int] = defaultdict(int)
    spent: dict[str, float] = defaultdict(float)
    failures = 0
    for entry in run.storage.entries(f"{run.folder}/metrics"):
        metrics = json.loads(run.storage.read(entry.path))
        failures += metrics["failures"]
        for name, count in metrics["items"].items():
            items[name] += count
        for name, value in metrics["seconds"].items():
            spent[name] += value
    held = quarantine.open_rows(run.storage).to_pylist()
    return {
        "run_id": run.run_id,
        "store": run.storage.uri,
        "source": run.source,
        "finished": now_us().isoformat(),
        "contents": read["contents"],
        "kinds": read["kinds"],
        "removed_and_still_listed": read["blocked"],
        "rejected": read["rejected"],
        "pruned": read["pruned"],
        "not_listed": read["not_listed"],
        "not_listed_examples": read["not_listed_examples"],
        "prune_withheld": read["prune_withheld"],
        "left_out": read["left_out"],
        "computed": dict(sorted(items.items())),
        "failures": failures,
        "quarantine": [
            {**{k: row[k] for k in ("content_id", "stage", "reason", "detail", "attempts")}} for row in held
        ],
        "audio": run.read_json("audio.json"),
        "shows": run.read_json("shows.json"),
        "feast": run.read_json("store.json"),
        "indexes": run.read_json("index.json"),
        "step_seconds": seconds,
        "activity_seconds": dict(sorted(spent.items())),
    }


def tidy(run: Run) -> None:
    """Deletes the files of runs beyond the last `KEPT_RUNS`, and the work lists of those that ended. The released run
    stays: its configuration says which models a search uses."""
    released = (read_release(run.storage) or {}).get("run_id")
    runs: dict[str, list[str]] = defaultdict(list)
    for entry in run.storage.entries("runs"):
        runs[entry.path.split("/")[1]].append(entry.path)
    for number, run_id in enumerate(reversed(by_start(run.storage, runs))):
        for path in runs[run_id]:
            work_list = "/shards/" in path or "/metrics/" in path or path.endswith("catalog.parquet")
            if (number >= KEPT_RUNS and run_id != released) or (work_list and run_id != run.run_id):
                run.storage.delete(path)
