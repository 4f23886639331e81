from __future__ import annotations

import numpy as np
import pytest

from catalog.media import Picture, Text
from enrichers.text import TextEnricher, statistics
from enrichers.visual import VisualEnricher, dominant_colours


def test_statistics_by_hand() -> None:
    found = statistics("The cat sat. The cat's hat? Yes!")
    # The, cat, sat, The, cat's, hat, Yes: 3+3+3+3+5+3+3 characters; the, cat, sat, cat's, hat, yes differ.
    assert found == {
        "char_count": 32,
        "word_count": 7,
        "sentence_count": 3,
        "mean_word_chars": pytest.approx(23 / 7),
        "lexical_diversity": pytest.approx(6 / 7),
    }
    assert statistics("")["mean_word_chars"] is None
    assert statistics("1234 !!")["word_count"] == 0


def test_languages_and_offence() -> None:
    rows = TextEnricher().enrich(
        [
            Text("The weather in the mountains changed before anybody noticed."),
            Text("Das Wetter in den Bergen änderte sich, bevor es jemand bemerkte."),
            Text("Le temps a changé dans les montagnes avant que quelqu'un le remarque."),
            Text("La"),
            Text("You are a fucking idiot and a stupid bitch."),
        ]
    )
    assert [row["language"] for row in rows] == ["en", "de", "fr", None, "en"]
    assert rows[0]["profanity_score"] < 0.3 < 0.8 < rows[4]["profanity_score"]


def test_one_insult_is_not_diluted_by_a_long_text() -> None:
    calm = "The river runs past the old mill and the garden. " * 60
    rows = TextEnricher().enrich([Text(calm), Text(calm + " You fucking idiot. " + calm)])
    assert rows[1]["profanity_score"] > rows[0]["profanity_score"] + 0.3


def test_dominant_colours_by_hand() -> None:
    pixels = np.zeros((96, 96, 3), np.uint8)
    pixels[:, :72] = (255, 0, 0)  # three quarters red, a quarter blue
    pixels[:, 72:] = (0, 0, 255)
    names, shares = dominant_colours(pixels)
    assert names == ["#ff0000", "#0000ff"] and shares == pytest.approx([0.75, 0.25])


@pytest.mark.slow
def test_a_cover() -> None:
    from PIL import Image, ImageDraw, ImageFont

    skimage = pytest.importorskip("skimage.data")
    photograph = Image.fromarray(skimage.coffee()).resize((600, 400))
    titled = photograph.copy()
    draw = ImageDraw.Draw(titled)
    draw.rectangle((0, 0, 600, 110), fill="white")
    draw.text((30, 20), "CALM SEA", fill="black", font=ImageFont.load_default(64))
    small = photograph.resize((300, 200))
    other = Image.fromarray(skimage.astronaut())
    rows = VisualEnricher().enrich(
        [Picture(np.asarray(p.convert("RGB")), p.width, p.height) for p in (photograph, titled, small, other)]
    )
    assert rows[1]["cover_text"] is not None and "CALM" in rows[1]["cover_text"].upper()
    assert (rows[0]["width_px"], rows[0]["height_px"]) == (600, 400)
    bits = [np.unpackbits(np.frombuffer(bytes.fromhex(row["pdq_hash"]), np.uint8)) for row in rows]
    # 31 of 256 bits is PDQ's own threshold for "the same picture".
    assert int((bits[0] != bits[2]).sum()) <= 31 < int((bits[0] != bits[3]).sum())
    assert all(0 <= row["nsfw_score"] < 0.5 for row in rows)
    assert all(abs(sum(row["dominant_colour_shares"]) - 1) < 1e-6 for row in rows)
