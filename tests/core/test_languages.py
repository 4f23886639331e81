"""What is declared in catalogues and tags: English, another language, or nothing that helps."""

from __future__ import annotations

import pytest

from core.languages import declared_english

ENGLISH = ["en", "EN", "eng", "en-US", "en_GB", "en-Latn-US", "English", "english (US)", " en ", "en-US, en-GB"]
ENGLISH += ["Anglais", "[eng]"]
OTHER = ["es", "spa", "de-DE", "ger", "deu", "RUS", "ru_RU", "Deutsch", "español", "Русский", "日本語", "fr;it"]
OTHER += ["ang", "enm", "Spanish (Mexico)", "sr-Latn", "und/ru"]
UNKNOWN = [None, "", " ", "und", "mul", "zxx", "XXX", "unknown", "x-klingon", "qaa", "0", "1.0", "?", "n/a", "-"]
UNKNOWN += ["eng/spa", "en, es", "English and Spanish"]


@pytest.mark.parametrize("language", ENGLISH)
def test_english(language: str) -> None:
    assert declared_english(language) is True


@pytest.mark.parametrize("language", OTHER)
def test_another_language(language: str) -> None:
    assert declared_english(language) is False


@pytest.mark.parametrize("language", UNKNOWN)
def test_nothing_that_helps(language: str | None) -> None:
    assert declared_english(language) is None
