from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from core.config import Config
from tests.pipelines.conftest import Shelf, make_shelf


@pytest.fixture(scope="session")
def shelf_and_store(tmp_path_factory: pytest.TempPathFactory) -> tuple[Shelf, Path]:
    """An enriched store, for reading alone."""
    from pipelines.inprocess import run_catalog

    folder = tmp_path_factory.mktemp("what? {a,b} [2020] 100%41 #1 * é $HOME")
    shelf = make_shelf(folder / "catalog", sounds=3, texts=3)
    run_catalog(shelf.source, str(folder / "store"), Config(device="cpu"))
    return shelf, folder / "store"


@pytest.fixture
def own_store(shelf_and_store: tuple[Shelf, Path], tmp_path: Path) -> Path:
    """A copy to change. Its definitions are applied anew, because they hold the folder's path."""
    import json

    from feature_repo.store import apply

    store = tmp_path / "own"
    shutil.copytree(shelf_and_store[1], store)
    (store / "feast" / "registry.db").unlink()
    (store / "feast" / "applied").unlink()
    apply(store, json.loads((store / "release.json").read_text()))
    return store
