"""A small catalogue of short sounds, covers and texts, and helpers to run it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from core.config import Config
from core.contracts import CREATED
from core.storage import open_storage
from core.tables import Tables
from pipelines import removal

RATE = 16_000


@dataclass
class Shelf:
    """A catalogue on disk that tests change row by row."""

    folder: Path
    rows: list[dict[str, Any]]

    @property
    def source(self) -> str:
        return str(self.folder / "catalog.jsonl")

    def save(self) -> str:
        lines = (json.dumps(row, ensure_ascii=False) for row in self.rows)
        (self.folder / "catalog.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        return self.source

    def row(self, content_id: str) -> dict[str, Any]:
        return next(row for row in self.rows if row["content_id"] == content_id)

    def sound(self, name: str, seed: int) -> str:
        rng = np.random.default_rng(seed)
        t = np.arange(RATE) / RATE
        samples = 0.3 * np.sin(2 * np.pi * rng.uniform(200, 2000) * t) + 0.01 * rng.standard_normal(RATE)
        soundfile.write(self.folder / name, samples, RATE)
        return name


def make_shelf(folder: Path, sounds: int = 6, texts: int = 4) -> Shelf:
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    shelf = Shelf(folder, [])
    Image.effect_noise((64, 64), 60).convert("RGB").save(folder / "cover.png")
    for number in range(sounds):
        shelf.rows.append(
            {
                "content_id": f"sound {number}",
                "kind": "track",
                "title": f"Sound number {number}",
                "updated_at": f"2026-01-{number % 28 + 1:02d}T00:00:00Z",
                "show_id": f"album {number % 2}",
                "audio_uri": shelf.sound(f"sound-{number}.wav", number),
                "image_uri": "cover.png" if number == 0 else None,
            }
        )
    for number in range(texts):
        shelf.rows.append(
            {
                "content_id": f"text/{number} 😀",
                "kind": "chapter",
                "title": f"Text {number}",
                "updated_at": "2026-02-01T00:00:00Z",
                "text": f"These are the words of text number {number}, and there are a few of them.",
            }
        )
    shelf.save()
    return shelf


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return make_shelf(tmp_path / "catalog")


@pytest.fixture(scope="session")
def config() -> Config:
    return Config(device="cpu", shard_items=3, text_shard_items=5)


@pytest.fixture
def run_on(tmp_path: Path, config: Config) -> Callable[..., dict[str, Any]]:
    """Runs a catalogue in-process into a store under the test's folder."""
    from pipelines.inprocess import run_catalog

    def run(source: str, store: str = "store", **options: Any) -> dict[str, Any]:
        return run_catalog(source, str(tmp_path / store), config, **options)

    return run


def computed(summary: dict[str, Any]) -> dict[str, int]:
    """Contents by stage, of those stages that computed anything."""
    return {
        name: count
        for name, count in summary["computed"].items()
        if count and name != "write" and not name.startswith("read ")
    }


def visible(store: Path) -> dict[str, list[dict[str, Any]]]:
    """The latest rows of every view but for the time of their computing."""
    tables = Tables(open_storage(store))
    found = {}
    for view in removal.stored_views(tables.storage):
        found[view.name] = [{k: v for k, v in row.items() if k != CREATED} for row in tables.latest(view).to_pylist()]
    return found
