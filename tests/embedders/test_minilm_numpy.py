"""The encoder of queries against sentence-transformers on the same weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from catalog.media import Text
from core.errors import BadItem
from embedders.minilm_numpy import NumpyMiniLM
from embedders.text import MiniLM, SentenceEmbedder, for_queries

ROOT = Path(__file__).parent.parent.parent
TEXTS = [
    Text(title="calm piano"),
    Text(title="a"),
    Text(title="Ünïcode 日本語 😀 — «quotes», naïve café"),
    Text(title="!!! ??? ..."),
    Text(title="x" * 300),  # one word that is no token
    Text(title="The Oldest Hill In Town", description="On bicycles, and what they weigh. " * 12),
    Text(title="antidisestablishmentarianism " * 150),  # a chunk of more than 256 tokens
    Text(title="A talk", body="word after word, and a sentence more. " * 200),  # several chunks
]


def test_the_vectors_are_those_of_sentence_transformers() -> None:
    light, full = NumpyMiniLM(), MiniLM()
    assert (light.model_id, light.dim) == (full.model_id, full.dim)
    mine, theirs = light.embed(TEXTS), full.embed(TEXTS)
    assert mine.dtype == np.float32 and mine.flags.c_contiguous
    assert np.einsum("ij,ij->i", mine.astype(np.float64), theirs.astype(np.float64)) == pytest.approx(1, abs=1e-5)
    assert mine == pytest.approx(theirs, abs=1e-6)


def test_a_text_without_words() -> None:
    with pytest.raises(BadItem, match="empty_text"):
        NumpyMiniLM().embed([Text(title="  ")])


def test_a_query_takes_the_light_one_unless_the_other_is_loaded(tmp_path: Path) -> None:
    full = MiniLM()
    assert isinstance(for_queries(full), NumpyMiniLM)
    full._model = object()  # as after a first batch
    assert for_queries(full) is full
    other = SentenceEmbedder(tmp_path, "other")
    assert for_queries(other) is other


def test_a_query_imports_no_torch() -> None:
    code = (
        "import sys; from catalog.media import Text; from embedders.registry import load_profile; "
        "from embedders.text import for_queries; "
        "for_queries(load_profile('bundled').text).embed([Text(title='calm')]); "
        "print([m for m in ('torch', 'transformers', 'sentence_transformers', 'feast', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "[]\n", done.stderr
