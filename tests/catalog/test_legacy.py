"""Code pages before Unicode, detected from the text alone; text that may be Western European is unchanged."""

from __future__ import annotations

import pytest

from catalog.encoding import decode_text
from catalog.legacy import repaired

OTHERS = {
    "cp1251": [
        "Привет",
        "Кино",
        "Группа крови",
        "Звезда по имени Солнце",
        "Алла Пугачёва",
        "АЛИСА",
        "Океан Ельзи Обійми",
    ],
    "koi8-r": ["Привет", "Группа крови", "Звезда по имени Солнце"],
    "cp866": ["Привет", "Звезда по имени Солнце"],
    "cp1253": ["Καλημέρα κόσμε", "Ελλάδα"],
    "cp1256": ["مرحبا بالعالم"],
    "cp1250": ["Żółta łódź", "Příliš žluťoučký kůň"],
    "cp932": ["こんにちは世界", "宇多田ヒカル", "サザンオールスターズ"],
    "gb2312": ["你好世界", "月亮代表我的心"],
    "big5": ["月亮代表我的心"],
    "euc_kr": ["안녕하세요 세계"],
    "utf-8": ["Déjà vu", "Привет"],
}
WESTERN = """Café|Déjà vu|Mañana|Für Elise|Ásgeir|Sigur Rós Ágætis byrjun|Señorita|Æther|naïve|Ça va|É|Motörhead|Björk
Þú|¿Dónde están?|«Les Élèves»|don’t stop|Ñandú|ÉTÉ|Élodie à l'Étoile|ÀÉÈ|Çà et là|Übermäßig öde Öfen|smörgåsbord på ö
Noël à Orly|¡Olé!|œuvre|ÅÄÖ|Ævintýri á öræfum|È|50° à 60°|©2001 «été»|Þór|ßäöü|nº 5|Mª José|5 m³|£5|100 ¥"""


@pytest.mark.parametrize(("encoding", "text"), [(e, t) for e, texts in OTHERS.items() for t in texts])
def test_other_code_pages(encoding: str, text: str) -> None:
    data = text.encode(encoding)
    assert repaired([data.decode("latin-1")]) == [text]
    assert decode_text(data) == text


@pytest.mark.parametrize("text", WESTERN.replace("\n", "|").split("|"))
def test_western_text_is_left_alone(text: str) -> None:
    assert repaired([text.encode("cp1252").decode("latin-1")]) == [text]
    assert decode_text(text.encode("cp1252")) == text


def test_short_texts_are_judged_with_the_others_of_their_file() -> None:
    texts = ["Я", "Би-2", "Звезда по имени Солнце", "Rock"]
    assert repaired([text.encode("cp1251").decode("latin-1") for text in texts]) == texts


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_unicode_text_files(encoding: str) -> None:
    text = "Words of an episode, naïve and 😀.\nA second line."
    assert decode_text(text.encode(encoding)) == text
