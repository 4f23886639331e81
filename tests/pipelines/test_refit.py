"""Fitting the audio statistics again makes a new model: another view, another index, one switch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.config import Config
from core.storage import open_storage
from feature_repo.reads import online_features
from feature_repo.store import open_store
from index import open_index
from pipelines import removal
from pipelines.context import Run
from pipelines.search import search
from pipelines.steps import MIN_FIT
from tests.pipelines.conftest import computed, make_shelf

RunOn = Callable[..., dict[str, Any]]


@pytest.mark.slow
def test_a_refit_switches_model_view_and_index_together(tmp_path: Path, run_on: RunOn) -> None:
    shelf = make_shelf(tmp_path / "catalog", sounds=MIN_FIT, texts=0)
    run_on(shelf.source)
    store = tmp_path / "store"
    first = json.loads((store / "release.json").read_text())
    before = online_features(open_store(store), ["sound 1"])["audio__embedding"][0].as_py()

    # Without being asked, new sounds are standardised by the frozen statistics: the model stays.
    row = {**shelf.row("sound 3"), "content_id": "new", "audio_uri": shelf.sound("new.wav", 77)}
    shelf.rows.append(row)
    shelf.save()
    assert computed(run_on(shelf.source))["audio_raw"] == 1
    assert json.loads((store / "release.json").read_text())["models"] == first["models"]

    summary = run_on(shelf.source, refit=True)
    assert computed(summary) == {}, "raw vectors are not computed again"
    assert summary["audio"]["embedded"] == MIN_FIT + 1
    second = json.loads((store / "release.json").read_text())
    assert second["models"]["audio"] != first["models"]["audio"]
    assert second["models"]["text"] == first["models"]["text"]
    after = online_features(open_store(store), ["sound 1"])["audio__embedding"][0].as_py()
    assert after != before
    names = {view.name for view in open_store(store).list_feature_views()}
    assert {first["models"]["audio"]["view"], second["models"]["audio"]["view"]} <= names
    run = Run(open_storage(store), "test", str(store), Config(device="cpu"))
    assert search(run, audio=shelf.folder / "new.wav", k=1)["hits"][0]["content_id"] == "new"
    assert run_on(shelf.source)["audio"]["embedded"] == 0

    # A removal goes through the models of before as well.
    removal.remove(run, ["sound 1"])
    for models in (first["models"], second["models"]):
        found = open_index(store / "indexes", models["audio"]["view"])
        assert found.manifest.count == MIN_FIT
    view = first["models"]["audio"]["view"]
    old = open_store(store).get_online_features([f"{view}:embedding"], [{"content_id": "sound 1"}]).to_dict()
    assert old["embedding"] == [None]
