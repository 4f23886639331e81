from __future__ import annotations

from pathlib import Path

import pytest

from core.config import Config
from tests.pipelines.conftest import Shelf, make_shelf


@pytest.fixture(scope="session")
def enriched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shelf, Path]:
    """A catalogue and its store, for reading alone."""
    from pipelines.inprocess import run_catalog

    folder = tmp_path_factory.mktemp("cli")
    shelf = make_shelf(folder / "catalog", sounds=2, texts=2)
    (shelf.folder / "letter.wav").write_text("no sound")
    base = {"kind": "track", "title": "Letter", "updated_at": "2026-01-01T00:00:00Z"}
    shelf.rows.append({**base, "content_id": "letter", "audio_uri": "letter.wav"})
    shelf.save()
    run_catalog(shelf.source, str(folder / "store"), Config(device="cpu"))
    return shelf, folder / "store"
