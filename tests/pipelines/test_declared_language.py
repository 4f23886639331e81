"""A declared language decides over the transcript, and what is made of the words follows it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.config import Config
from core.features import WORDS
from core.storage import open_storage
from feature_repo.reads import online_features
from feature_repo.store import open_store
from pipelines import skip_words
from pipelines.context import Run
from pipelines.media import StoreMedia
from pipelines.search import search
from pipelines.stages import declared_speech
from tests.pipelines.conftest import computed

MEDIA = Path(__file__).parent.parent / "media"
FEATURES = ["transcript", "transcript_reason", "transcript_language", "transcript_word_count"]


def test_only_what_the_transcript_depends_on_is_part_of_its_key() -> None:
    assert declared_speech({"language": "en"}) == declared_speech({"language": "eng"}) == "english"
    assert declared_speech({"language": "es"}) == declared_speech({"language": "German"}) == "another language"
    assert declared_speech({"language": None}) is declared_speech({"language": "und"}) is None


@pytest.mark.slow
def test_a_transcript_comes_and_goes_with_the_declared_language(
    run_on: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    for name in ("voice.opus", "spanish.opus"):
        shutil.copy(MEDIA / name, tmp_path / name)

    def run(voice: str | None, other: str | None) -> dict[str, Any]:
        rows = [
            {"content_id": name, "kind": "episode", "title": name, "audio_uri": name, "language": language}
            | {"updated_at": "2026-01-01T00:00:00Z"}
            for name, language in (("voice.opus", voice), ("spanish.opus", other))
        ]
        catalog = tmp_path / "catalog.jsonl"
        catalog.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return run_on(str(catalog))

    def served() -> list[list[Any]]:
        found = online_features(open_store(tmp_path / "store"), ["voice.opus", "spanish.opus"]).to_pylist()
        return [[row[f"speech__{name}"] for name in FEATURES] for row in found]

    summary = run("en", None)
    assert not summary["quarantine"]
    voice, other = served()
    assert "open source" in voice[0] and voice[1:3] == [None, "en"] and voice[3] > 20
    assert other == [None, "not_english", None, None]
    store = Run(open_storage(tmp_path / "store"), "test", str(tmp_path / "store"), Config(device="cpu"))
    assert set(skip_words.said(store).sentences) == {"voice.opus"}
    assert "open source" in StoreMedia(store, []).words("voice.opus")
    said = {row["content_id"] for row in store.tables.read(WORDS, ["content_id"]).to_pylist()}
    assert said == {"voice.opus"}

    # The same language by another name: the catalogue's statement changes, the words do not.
    assert computed(run("en-US", "und")) == {"content": 2, "text": 2, "text_signals": 2, "passages": 2}

    # The owner says that it is German: the words go, and what was made of them.
    assert computed(run("de", "und")) == {"content": 1, "speech": 1, "text": 1, "text_signals": 1, "passages": 1}
    assert served()[0] == [None, "declared_language", None, None]
    store = Run(open_storage(tmp_path / "store"), "test", str(tmp_path / "store"), Config(device="cpu"))
    assert skip_words.said(store).sentences == {}
    assert StoreMedia(store, []).words("voice.opus") == "voice.opus"
    hits = search(store, text="thanks for setting up this phone software", k=2)["hits"]
    assert all(hit["score"] < 0.3 for hit in hits), "neither is found by words that it no longer has"
