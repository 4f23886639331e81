"""A removal killed between any two of its writes is completed by the next run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.config import Config
from core.storage import LocalStorage, open_storage
from feature_repo.reads import online_features
from feature_repo.store import open_store
from pipelines import removal
from pipelines.context import Run
from pipelines.search import search
from tests.pipelines.conftest import Shelf


@pytest.mark.slow
def test_any_write_may_be_the_last(
    shelf: Shelf, run_on: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_on(shelf.source)
    store = tmp_path / "store"
    writes = 0
    for number, content_id in enumerate(("sound 0", "sound 1", "sound 2", "sound 3", "sound 4")):
        run = Run(open_storage(store), "test", str(store), Config(device="cpu"))
        left, real = {"writes": 2 * number}, LocalStorage.write

        def dying(
            self: LocalStorage,
            path: str,
            data: bytes,
            left: dict[str, int] = left,
            real: Callable[..., None] = real,
        ) -> None:
            if left["writes"] == 0:
                raise KeyboardInterrupt
            left["writes"] -= 1
            real(self, path, data)

        with monkeypatch.context() as patch:
            patch.setattr(LocalStorage, "write", dying)
            try:
                removal.remove(run, [content_id])
            except KeyboardInterrupt:
                writes += 1
        run_on(shelf.source)
        gone = number > 0  # at the first write nothing was said yet, so nothing is to be completed
        row = online_features(open_store(store), [content_id]).to_pylist()[0]
        assert (row["content__title"] is None) == gone, content_id
        audio = shelf.folder / f"sound-{number}.wav"
        hits = search(run, audio=audio, k=10)["hits"]
        assert (content_id not in {hit["content_id"] for hit in hits}) == gone
    assert writes == 5, "each removal was interrupted"
