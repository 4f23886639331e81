"""Measured results that are kept in the repository, and the figures that the documents take from them.

`python -m bench NAME --save` writes `docs/results/NAME.json`. A document quotes a figure between markers,

    <!-- figure: feast-online/redis-100x(24+512d) CPU/ratio_to_peer -->0.04<!-- /figure -->

and `python -m bench.results` writes the numbers anew, to two digits. A test fails where a document says something else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "results"
DOCUMENTS = (ROOT / "README.md",)
FIGURE = re.compile(r"<!-- figure: ([^/]+)/(.+?)/(\w+) -->(.*?)<!-- /figure -->", re.DOTALL)
COLUMNS = ("ours", "peer", "limit", "ratio_to_peer", "ratio_to_limit")


def save(name: str, rows: Sequence[dict[str, Any]], folder: Path = FOLDER) -> Path:
    """Writes the rows of one benchmark, with the machine and the versions that they come from; returns the file.

    Raises `ValueError` for a quick run, which claims nothing.
    """
    if any(row["quick"] for row in rows):
        raise ValueError("a quick run claims nothing, so its results are not saved")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.json"
    about = {key: rows[0][key] for key in ("machine", "versions")} if rows else {}
    left_out = ("benchmark", "quick", "machine", "versions")
    measured = [{key: value for key, value in row.items() if key not in left_out} for row in rows]
    path.write_text(json.dumps({"benchmark": name, **about, "rows": measured}, indent=1) + "\n", encoding="utf-8")
    return path


def figure(benchmark: str, row: str, column: str, folder: Path = FOLDER) -> str:
    """A saved number to two digits. Raises `KeyError` for one that is not there."""
    path = folder / f"{benchmark}.json"
    if not path.is_file():
        raise KeyError(f"there are no saved results of {benchmark}: python -m bench {benchmark} --save")
    rows = {found["name"]: found for found in json.loads(path.read_text(encoding="utf-8"))["rows"]}
    if row not in rows or column not in COLUMNS or rows[row][column] is None:
        raise KeyError(f"{path.name} has no {column} of {row!r}; it has the rows {', '.join(rows)}")
    return f"{rows[row][column]:.2g}"


def rendered(text: str, folder: Path = FOLDER) -> str:
    """The text with every figure as it was last saved. Raises `KeyError`."""

    def number(match: re.Match[str]) -> str:
        benchmark, row, column, _ = match.groups()
        shown = figure(benchmark, row, column, folder)
        return f"<!-- figure: {benchmark}/{row}/{column} -->{shown}<!-- /figure -->"

    return FIGURE.sub(number, text)


def main() -> None:
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        path.write_text(rendered(text), encoding="utf-8")
        print(f"{path.relative_to(ROOT)}: {len(FIGURE.findall(text))} figures")


if __name__ == "__main__":
    main()
