"""Everything bad that a catalogue can bring at once: each ends in quarantine with its reason, the rest is enriched."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from core.errors import CatalogError
from tests.pipelines.conftest import Shelf, make_shelf

RunOn = Callable[..., dict[str, Any]]


def ten_hours_of_silence(path: Path) -> None:
    with soundfile.SoundFile(path, "w", 8_000, 1) as file:
        for _ in range(10):
            file.write(np.zeros(8_000 * 3600, np.int16))


def bomb(path: Path) -> None:
    from cli.demo import pictures

    path.write_bytes(pictures.bomb())


@pytest.mark.slow
def test_all_of_it_at_once(tmp_path: Path, run_on: RunOn) -> None:
    shelf = make_shelf(tmp_path / "catalog", sounds=2, texts=1)
    folder = shelf.folder
    from tests.catalog.make import cut, signal, write

    cut(write(folder / "song.mp3", signal(3.0)), 0.5)
    (folder / "letter.wav").write_text("Dear listener, there is no sound in this file." * 20)
    (folder / "empty.flac").write_bytes(b"")
    ten_hours_of_silence(folder / "silence.flac")
    bomb(folder / "bomb.png")
    samples = np.zeros(16_000, np.float32)
    samples[8_000] = np.nan
    soundfile.write(folder / "nan.wav", samples, 16_000, subtype="FLOAT")
    base = {"kind": "track", "title": "bad", "updated_at": "2026-01-01T00:00:00Z"}
    shelf.rows += [
        {**base, "content_id": "truncated", "audio_uri": "cut-song.mp3"},
        {**base, "content_id": "letter", "audio_uri": "letter.wav"},
        {**base, "content_id": "empty", "audio_uri": "empty.flac"},
        {**base, "content_id": "silence", "audio_uri": "silence.flac"},
        {**base, "content_id": "bomb", "text": "words", "image_uri": "bomb.png"},
        {**base, "content_id": "nan", "audio_uri": "nan.wav"},
        {**base, "content_id": "missing", "audio_uri": "nowhere.mp3"},
        {**base, "content_id": "twice", "text": "one"},
        {**base, "content_id": "twice", "text": "two"},
        {**base, "content_id": "x" * 1000, "text": "long id"},
        {**base, "content_id": "bell\x07", "text": "rings"},
        {**base, "content_id": "naive", "text": "when?", "updated_at": "2026-01-01T00:00:00"},
        {**base, "content_id": "bare"},
    ]
    shelf.save()
    with open(shelf.source, "ab") as file:
        file.write(
            b'{"content_id": "latin", "kind": "track", "title": "caf\xe9", "updated_at": "2026-01-01T00:00:00Z"}\n'
        )
    summary = run_on(shelf.source)
    found = {(q["content_id"], q["stage"]): (q["reason"], q["detail"]) for q in summary["quarantine"]}
    reasons = {key: reason for key, (reason, _) in found.items()}
    by_content = {
        ("truncated", "audio"): "truncated",
        ("letter", "audio"): "not_audio",
        ("empty", "audio"): "empty_file",
        ("silence", "audio"): "too_long",
        ("bomb", "image"): "too_many_pixels",
        ("nan", "audio"): "non_finite_samples",
        ("missing", "audio"): "missing_file",
        ("twice", "catalogue"): "duplicate_id",
        ("naive", "catalogue"): "naive_timestamp",
        ("bare", "catalogue"): "nothing_to_enrich",
    }
    assert {key: reasons.get(key) for key in by_content} == by_content
    rest = sorted(reason for key, reason in reasons.items() if key not in by_content)
    assert rest == sorted(["bad_id", "bad_id", "invalid_utf8"]), found
    assert all(len(detail) > 5 for _, detail in found.values())
    # What was good is enriched: two sounds, and the words of everything that stands in the catalogue.
    assert summary["computed"]["acoustic"] == 2
    assert summary["computed"]["text"] == summary["contents"] == 3 + 7
    assert computed_again(run_on, shelf) == {}


def computed_again(run_on: RunOn, shelf: Shelf) -> dict[str, int]:
    return {name: count for name, count in run_on(shelf.source)["computed"].items() if count}


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("c.csv", "content_id,kind,titel,updated_at\na,track,b,2026-01-01T00:00:00Z\n", "titel"),
        ("c.csv", "content_id,kind,title\na,track,b\n", "updated_at"),
        ("c.jsonl", json.dumps({"content_id": "a", "kind": "track", "title": "b", "updated_at": 1, "mood": 2}), "mood"),
        ("c.parquet", "not parquet", "c.parquet"),
        ("c.csv", "", "c.csv"),
    ],
)
def test_a_wrong_catalogue_fails_before_any_work(
    tmp_path: Path, run_on: RunOn, name: str, text: str, told: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(CatalogError, match=told):
        run_on(str(tmp_path / name))
    assert not (tmp_path / "store" / "offline").exists()


def test_a_catalogue_that_is_not_there(tmp_path: Path, run_on: RunOn) -> None:
    with pytest.raises(CatalogError, match="does not exist"):
        run_on(str(tmp_path / "nowhere"))
