"""The cost of one-shot commands on an existing store: CPU seconds of one process for each command.

The limit is the same Python with only the imports of the libraries that the command needs (Arrow, DuckDB for tables,
FAISS for an index): no change to our code can save this cost. The peer is the earlier implementation: a query through
sentence-transformers, features through `import feast`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bench.frame import Benchmark, Row, alternate

CONTENTS, QUICK_CONTENTS = 500, 20
ROUNDS, QUICK_ROUNDS = 7, 1
TABLES = "import pyarrow, pyarrow.compute, pyarrow.parquet, duckdb, rich.table"
INDEX = f"{TABLES}, pyarrow.dataset, faiss"
PEER_QUERY = (
    "from embedders.text import MiniLM; from catalog.media import Text; MiniLM().embed([Text(title='calm piano')])"
)
PEER_FEAST = (
    "import sys; from pathlib import Path; from feature_repo.store import open_store; "
    "from feature_repo.reads import online_features; online_features(open_store(Path(sys.argv[1])), ['text/1'])"
)


@dataclass(frozen=True)
class Command:
    """A command line without its store, the imports that it needs, and code of the earlier implementation."""

    arguments: str
    limit: str
    peer: str = ""


COMMANDS = (
    Command("search --text calm", INDEX, PEER_QUERY),
    Command("search --id text/1", INDEX),
    Command("features text/1", TABLES, PEER_FEAST),
    Command("duplicates --by text", INDEX),
    Command("status", TABLES),
    Command("quarantine", TABLES),
    Command("skips", TABLES),
    Command("moderate decisions", TABLES),
    Command("remove nobody", TABLES),
)


def run(quick: bool) -> list[Row]:
    from core.config import Config
    from pipelines.inprocess import run_catalog

    with tempfile.TemporaryDirectory() as scratch:
        store = Path(scratch) / "store"
        run_catalog(str(_catalogue(Path(scratch), QUICK_CONTENTS if quick else CONTENTS)), str(store), Config())
        rows = []
        for command in COMMANDS:
            sides = {
                "ours": lambda c=command: _python("-m", "cli.main", *c.arguments.split(), "--store", str(store)),
                "limit": lambda c=command: _python("-c", c.limit),
            }
            if command.peer:
                sides["peer"] = lambda c=command: _python("-c", c.peer, str(store))
            middle = alternate(sides, QUICK_ROUNDS if quick else ROUNDS)
            peer_name = "the same through PyTorch or Feast" if command.peer else ""
            medians = (middle["ours"], middle.get("peer"), middle["limit"])
            rows.append(Row(command.arguments, *medians, "CPU s", peer_name, "imports alone"))
    return rows


def _catalogue(folder: Path, contents: int) -> Path:
    path = folder / "catalog.jsonl"
    with path.open("w", encoding="utf-8") as file:
        for n in range(contents):
            row = {"content_id": f"text/{n}", "kind": "chapter", "title": f"Chapter {n}, of bread and the sea"}
            text = f"What the keeper of lighthouse {n} wrote in the ledger of year {1800 + n % 200}."
            file.write(json.dumps({**row, "updated_at": "2026-01-01T00:00:00Z", "text": text}) + "\n")
    return path


def _python(*arguments: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "FEAST_USAGE": "False"}
    done = subprocess.run([sys.executable, *arguments], capture_output=True, env=environment)
    if done.returncode not in (0, 8):  # 8: `remove nobody` finds no such content
        raise RuntimeError(f"{' '.join(arguments)} ended with {done.returncode}: {done.stderr.decode()[-500:]}")


BENCHMARK = Benchmark("cli", "CPU seconds of one-shot commands, against their imports", run)
