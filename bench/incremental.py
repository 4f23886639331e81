"""What a rerun costs when little changed: CPU seconds of the whole run against those of the full one.

Every round is one child process: a run over three contents first, which pays for imports, models and Feast (the
start-up, printed apart), then the full catalogue into an empty store, then reruns with 0, 1 and 10 % of the contents
changed (new sound, new cover, new words, a new version time).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from bench.frame import Benchmark, Row, cost

SHARES = (0.0, 0.01, 0.1)
CONTENTS, QUICK_CONTENTS = 2_000, 100
ROUNDS = 3
RATE = 16_000
CLIP_S = 2.0
START = datetime(2026, 1, 1, tzinfo=UTC)


def write_catalog(folder: Path, count: int) -> list[dict[str, Any]]:
    """`count` contents: three of five with a sound of two seconds, every tenth with a cover, all with words."""
    folder.mkdir(parents=True)
    rows = []
    for number in range(count):
        row: dict[str, Any] = {
            "content_id": f"content-{number:05d}",
            "kind": "track",
            "title": f"Number {number}",
            "show_id": f"show-{number % 20}",
            "description": f"Some words about number {number}, which nobody will read twice.",
            "updated_at": (START + timedelta(minutes=number)).isoformat(),
        }
        if number % 5 < 3:
            row["audio_uri"] = f"{number:05d}.wav"
            write_sound(folder / row["audio_uri"], number)
        if number % 10 == 0:
            row["image_uri"] = f"{number:05d}.png"
            write_cover(folder / row["image_uri"], number)
        rows.append(row)
    save(folder, rows)
    return rows


def write_sound(path: Path, seed: int) -> None:
    import soundfile

    rng = np.random.default_rng(seed)
    t = np.arange(int(CLIP_S * RATE)) / RATE
    tones = sum(np.sin(2 * np.pi * hz * t) for hz in rng.uniform(100, 4000, 3))
    soundfile.write(path, (0.1 * tones + 0.01 * rng.standard_normal(len(t))).astype(np.float32), RATE)


def write_cover(path: Path, seed: int) -> None:
    from PIL import Image

    pixels = np.random.default_rng(seed).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((256, 256)).save(path)


def save(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / "catalog.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def change(folder: Path, rows: list[dict[str, Any]], share: float, seed: int) -> int:
    """Gives that share of the contents new sounds, covers, words and version times; returns how many."""
    chosen = np.random.default_rng(seed).permutation(len(rows))[: round(share * len(rows))]
    for number in chosen:
        row = rows[int(number)]
        row["title"] += " again"
        row["updated_at"] = (START + timedelta(days=60 + seed, minutes=int(number))).isoformat()
        if "audio_uri" in row:
            write_sound(folder / row["audio_uri"], 100_000 * seed + int(number))
        if "image_uri" in row:
            write_cover(folder / row["image_uri"], 100_000 * seed + int(number))
    save(folder, rows)
    return len(chosen)


def one_round(count: int) -> dict[str, float]:
    """CPU seconds of the start-up, the full run, and the rerun for each share."""
    from core.config import Config
    from pipelines.inprocess import run_catalog

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_catalog(folder / "few", 11)
        rows = write_catalog(folder / "all", count)
        source, store = str(folder / "all" / "catalog.jsonl"), str(folder / "store")
        few = str(folder / "few" / "catalog.jsonl")
        found = {"start-up": cost(lambda: run_catalog(few, str(folder / "small"), Config()))[0]}
        found["full"] = cost(lambda: run_catalog(source, store, Config()))[0]
        for number, share in enumerate(SHARES, 1):
            changed = change(folder / "all", rows, share, number)
            summary: dict[str, Any] = {}
            cpu, _ = cost(lambda summary=summary: summary.update(run_catalog(source, store, Config())))  # type: ignore[misc]
            embedded = summary["computed"].get("text", 0)
            assert embedded == changed, f"{embedded} embedded, {changed} changed"
            found[str(share)] = cpu
    return found


def run(quick: bool) -> list[Row]:
    count = QUICK_CONTENTS if quick else CONTENTS
    rounds = []
    for _ in range(1 if quick else ROUNDS):
        done = subprocess.run(
            [sys.executable, "-m", "bench.incremental", str(count)], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(done.stderr)
        rounds.append(json.loads(done.stdout.strip().splitlines()[-1]))
    median = {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
    full = median["full"]
    rows = [Row(f"full run of {count} contents", full, None, None, "CPU s")]
    for share in SHARES:
        ratio = statistics.median(r[str(share)] / r["full"] for r in rounds)
        note = f"{100 * ratio:.2f} % of a full run" + ("; the bar is 3 %" if share == 0.01 and not quick else "")
        rows.append(
            Row(
                f"rerun, {100 * share:g} % changed",
                median[str(share)],
                full,
                share * full or None,
                "CPU s",
                "a full run",
                "that share of a full run" if share else "",
                note=note,
            )
        )
    rows.append(Row("start-up (imports, models, Feast)", median["start-up"], None, None, "CPU s"))
    return rows


BENCHMARK = Benchmark("incremental", "CPU seconds of a rerun with 0, 1 and 10 % changed, against a full run", run)

if __name__ == "__main__":
    print(json.dumps(one_round(int(sys.argv[1]))))
