"""Contents that a catalogue no longer lists, and catalogues that are too damaged to tell."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.main import main
from core.contracts import WORK_KEY
from core.errors import CatalogError
from core.features import CONTENT
from core.keys import REMOVED
from core.storage import open_storage
from core.tables import Tables

RunOn = Callable[..., dict[str, Any]]
NOW = "2026-01-01T00:00:00Z"
ROWS = [f"{name},track,Title {name},{NOW},some words" for name in "abcd"]


def alive(store: Path) -> str:
    latest = Tables(open_storage(store)).latest(CONTENT, [])
    pairs = zip(latest["content_id"].to_pylist(), latest[WORK_KEY].to_pylist(), strict=True)
    return "".join(content_id for content_id, key in pairs if key != REMOVED)


def test_a_damaged_catalogue_prunes_nothing(
    tmp_path: Path, run_on: RunOn, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source, store = tmp_path / "c.csv", tmp_path / "store"

    def catalogue(*rows: str) -> str:
        source.write_text("\n".join(["content_id,kind,title,updated_at,text", *rows]) + "\n")
        return str(source)

    run_on(catalogue(*ROWS))
    with pytest.raises(CatalogError, match=r"row 2 \(line 3\)"):
        run_on(catalogue(ROWS[0], f'b,track,"B,{NOW},words', *ROWS[2:]), prune=True)
    assert alive(store) == "abcd"
    # A row that is cut short may be any content; one whose time cannot be read is itself.
    summary = run_on(catalogue(ROWS[0], "b,tra"), prune=True)
    assert alive(store) == "abcd"
    assert (summary["pruned"], summary["not_listed"]) == (0, 3)
    assert summary["prune_withheld"] == ["row 2 has 2 cells, the header 5"]
    summary = run_on(catalogue(ROWS[0], "b,track,B,yesterday,words", ROWS[2], ROWS[2]), prune=True)
    assert alive(store) == "abc"
    assert (summary["pruned"], summary["not_listed"], summary["prune_withheld"]) == (1, 0, [])
    # Without --prune, people read what is missing and what to do.
    monkeypatch.chdir(tmp_path)
    capsys.readouterr()
    assert main(["run", catalogue(ROWS[0]), "--store", str(store)]) == 0
    assert "2 contents are in the store but not in the catalogue (b, c); remove them with --prune" in one_line(capsys)
    # Where no row is accepted, the command fails, and what the store has stays.
    assert main(["run", catalogue("a,track,A,yesterday,words", "x"), "--store", str(store), "--prune"]) == 3
    assert "Nothing was pruned" in capsys.readouterr().out
    assert alive(store) == "abc"


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().out.split())
