"""The same vectors on a GPU as on a CPU, and a whole run there: `pytest -m gpu`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from catalog.audio import decode_audio
from catalog.media import Picture, Text
from embedders.registry import load_profile
from tests.embedders import tiny
from tests.pipelines.conftest import make_shelf

pytestmark = pytest.mark.gpu
MEDIA = Path(__file__).parent.parent / "media"
MIN_COSINE = 0.999  # TF32 and other kernels round otherwise


def vectors(profile: Any, modality: str) -> np.ndarray:
    if modality == "text":
        return np.asarray(profile.text.embed([Text("A calm evening"), Text("words " * 500)]))
    if modality == "image":
        rng = np.random.default_rng(0)
        pixels = [rng.integers(0, 255, (s, s, 3), dtype=np.uint8) for s in (64, 300)]
        return np.asarray(profile.image.embed([Picture(p, *p.shape[1::-1]) for p in pixels]))
    raw = profile.audio.raw
    heard = [
        decode_audio(MEDIA / name, listeners=getattr(raw, "listeners", list)()) for name in ("voice.opus", "music.mp3")
    ]
    found = raw.embed(heard)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True))


@pytest.mark.parametrize("modality", ["text", "image", "audio"])
@pytest.mark.parametrize("name", ["bundled", "hub"])
def test_a_gpu_makes_the_cpu_s_vectors(name: str, modality: str, tmp_path: Path) -> None:
    options = None
    if name == "hub":
        options = {
            "text": str(tiny.sentence_model(tmp_path / "text")),
            "image": str(tiny.clip_model(tmp_path / "clip")),
            "audio": str(tiny.clap_checkpoint(tmp_path / "clap.pt")),
        }
    on_cpu = vectors(load_profile(name, device="cpu", options=options), modality)
    on_gpu = vectors(load_profile(name, device="cuda", options=options), modality)
    assert (on_cpu * on_gpu).sum(axis=1).min() >= MIN_COSINE


def test_auto_takes_the_gpu_for_a_whole_run(tmp_path: Path) -> None:
    import torch

    from core.config import Config
    from pipelines.inprocess import run_catalog

    shelf = make_shelf(tmp_path / "catalog", sounds=3, texts=3)
    summary = run_catalog(shelf.source, str(tmp_path / "store"), Config())
    assert not summary["quarantine"] and summary["indexes"]["audio"]["count"] == 3
    assert torch.cuda.max_memory_allocated() > 0
