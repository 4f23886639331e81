"""What every embedder and every enricher must do, run on all that are registered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog.audio import decode_audio
from catalog.media import Picture, Text
from core.contracts import CREATED, EVENT, WORK_KEY
from core.errors import BadItem
from core.features import ACOUSTIC, SPEECH, TEXT_SIGNALS, VISUAL, View
from core.tables import now_us, rows_to_table
from embedders.standardise import default_statistics
from tests.embedders import tiny

EMBEDDERS = ["bundled text", "bundled audio", "bundled image", "hub text", "hub audio", "hub image"]
ENRICHERS = [ACOUSTIC.name, SPEECH.name, TEXT_SIGNALS.name, VISUAL.name]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    import soundfile

    folder = tmp_path_factory.mktemp("sounds")
    paths = []
    for number, seconds in enumerate((1.0, 4.5, 13.0, 0.3, 2.0)):
        rng = np.random.default_rng(number)
        t = np.arange(int(seconds * 22_050)) / 22_050
        samples = 0.3 * np.sin(2 * np.pi * rng.uniform(100, 3000) * t) + 0.02 * rng.standard_normal(len(t))
        soundfile.write(folder / f"{number}.wav", samples, 22_050)
        paths.append(folder / f"{number}.wav")
    return paths


@pytest.fixture(scope="module")
def media(files: list[Path]) -> Callable[[Any], list[Any]]:
    """Five media of a model's modality, decoded afresh with its listeners."""
    rng = np.random.default_rng(0)
    pictures = [
        Picture(rng.integers(0, 255, (h, w, 3), dtype=np.uint8), w, h)
        for h, w in ((64, 64), (300, 200), (17, 400), (224, 224), (1, 1))
    ]
    texts = [Text("A calm evening"), Text("Loud", "a song of the sea"), Text("x"), Text("words " * 900), Text("🎵 çà")]

    def make(model: Any) -> list[Any]:
        if model.modality == "audio":
            source = getattr(model, "raw", model)
            listeners = getattr(source, "listeners", list)
            return [decode_audio(path, listeners=listeners()) for path in files]
        return list(pictures if model.modality == "image" else texts)

    return make


@pytest.fixture(scope="module")
def profiles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from embedders.registry import load_profile

    folder = tmp_path_factory.mktemp("hub")
    options = {
        "text": str(tiny.sentence_model(folder / "text")),
        "image": str(tiny.clip_model(folder / "tiny-clip")),
        "audio": str(tiny.clap_checkpoint(folder / "tiny.pt")),
    }
    return {
        "bundled": load_profile("bundled", device="cpu"),
        "hub": load_profile("hub", device="cpu", options=options),
    }


@pytest.fixture(params=EMBEDDERS)
def embedder(request: pytest.FixtureRequest, profiles: dict[str, Any]) -> Any:
    profile, modality = request.param.split()
    found = getattr(profiles[profile], modality)
    if modality != "audio":
        return found
    return found.finish(default_statistics() if found.needs_statistics else None)


@pytest.mark.slow
def test_embedders(embedder: Any, media: Callable[[Any], list[Any]]) -> None:
    vectors = embedder.embed(media(embedder))
    assert vectors.dtype == np.float32 and vectors.shape == (5, embedder.dim) and vectors.flags.c_contiguous
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert embedder.model_id and embedder.modality in ("text", "audio", "image")
    # The same batch again: the same bits.
    assert embedder.embed(media(embedder)).tobytes() == vectors.tobytes()
    # Other batches: the same vectors, in the order of the items.
    alone = np.concatenate([embedder.embed([item]) for item in media(embedder)])
    assert (alone * vectors).sum(axis=1).min() >= 0.99999
    backwards = embedder.embed(media(embedder)[::-1])[::-1]
    assert (backwards * vectors).sum(axis=1).min() >= 0.99999
    assert embedder.embed([]).shape == (0, embedder.dim)


@pytest.mark.slow
def test_an_embedder_says_what_it_cannot_embed(profiles: dict[str, Any]) -> None:
    for profile in profiles.values():
        with pytest.raises(BadItem):
            profile.text.embed([Text(" ")])


@pytest.fixture(scope="module")
def enrichers() -> dict[str, Any]:
    from enrichers.registry import load_enrichers

    return load_enrichers("cpu")


def rows_of(enricher: Any, batch: Sequence[Any]) -> tuple[Any, list[Any]]:
    """(table of the view's schema, extra tables) of a batch."""
    found = enricher.enrich(batch)
    assert len(found) == len(batch)
    side = [row.pop("_side", None) for row in found]
    view: View = enricher.view
    names = {feature.name for feature in view.features}
    assert all(set(row) <= names for row in found)
    now = now_us()
    fixed = {EVENT: now, CREATED: now, WORK_KEY: "key"}
    table = rows_to_table(view, [{**row, **fixed, view.entity: str(n)} for n, row in enumerate(found)])
    return table.select(sorted(names)), side


@pytest.mark.slow
@pytest.mark.parametrize("name", ENRICHERS)
def test_enrichers(name: str, enrichers: dict[str, Any], media: Callable[[Any], list[Any]]) -> None:
    enricher = enrichers[name]
    assert enricher.view.name == name and enricher.model_id and enricher.version >= 1
    table, side = rows_of(enricher, media(enricher))
    again, side_again = rows_of(enricher, media(enricher))
    assert table.equals(again) and side == side_again
    alone = [rows_of(enricher, [item])[0].to_pylist()[0] for item in media(enricher)]
    for one, row in zip(alone, table.to_pylist(), strict=True):
        assert one == pytest.approx(row, rel=1e-4, abs=1e-5) if _numeric(row) else one == row
    assert enricher.enrich([]) == []
    fresh, other = enricher.listeners(), enricher.listeners()
    assert all(a is not b for a, b in zip(fresh, other, strict=True)), "listeners must not be shared by items"


def _numeric(row: dict[str, Any]) -> bool:
    return all(isinstance(value, float | int) for value in row.values())


def test_every_registered_enricher_is_tested(enrichers: dict[str, Any]) -> None:
    assert sorted(enrichers) == sorted(ENRICHERS)
