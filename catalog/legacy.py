"""Finds the code page of text that is not Unicode: Windows-1252 unless the bytes cannot be Western European words.

Statistical detectors (charset-normalizer, chardet) call titles of one or two words Chinese or Central European, so they
do not serve for tags. The rules here ask for evidence that Western European text cannot give: words that consist of
accented letters alone. Among the alphabets that could be meant, the frequencies of letters and the use of capitals
decide; where two are alike, nothing is changed.
"""

from __future__ import annotations

import itertools
import math
import re
import unicodedata
from dataclasses import dataclass

WESTERN, CENTRAL = "cp1252", "cp1250"
MIN_WORD = 3  # letters; Icelandic has words of two accented letters
MIN_LETTERS = 4
MAX_WESTERN = 0.1  # share of words that mix ASCII and accented letters, which other alphabets have in names at most
MIN_MARGIN = 0.2  # nats a letter by which the likeliest code page must lead
MIN_LIKELIHOOD = -3.2  # nats a letter; what is in an alphabet by chance lies below
CAPITAL_WITHIN = 3.0  # nats that a capital after a small letter costs
_WORDS = re.compile(rb"[A-Za-z\x80-\xff]+")
# What is a symbol within a word in Windows-1252, or nothing, and a Polish, Czech, Slovak or Hungarian letter in 1250.
_CENTRAL = re.compile(rb"[\x8d\x8f\xa3\xa5\xaf\xb3\xb9\xbc\xbe][a-z]|[A-Za-z\xc0-\xff]\xbf|[a-z][\x9d\x9f]")


@dataclass(frozen=True)
class _Alphabet:
    """Letters by falling frequency, and the code pages that write them."""

    letters: str
    code_pages: tuple[str, ...]


ALPHABETS = (
    _Alphabet("оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфъёіїєґ", ("cp1251", "koi8-r", "cp866")),
    _Alphabet("αοιετσνηυρπκμλςωδγάίόήέχθφβύώξζψϊΐϋΰ", ("cp1253",)),
    _Alphabet("יוהלאמרתבשנדקעחפכםגטזסצןףךץ", ("cp1255",)),
    _Alphabet("اليمونرتبةعدسفهكقأحجشطصخذىءضثئغإظآؤ", ("cp1256",)),
)


def code_page(data: bytes) -> str:
    """The code page of bytes that are not UTF-8."""
    return _other_script(data) or (CENTRAL if _CENTRAL.search(data) else WESTERN)


def repaired(texts: list[str]) -> list[str]:
    """Texts of one file that were decoded as Latin-1, decoded anew where they are UTF-8 or in another code page."""
    data = "\n".join(texts).encode("latin-1")
    if not any(byte >= 0x80 for byte in data):
        return texts
    for encoding in ("utf-8", code_page(data)):
        try:
            return [text.encode("latin-1").decode(encoding) for text in texts]
        except UnicodeDecodeError:
            continue
    return texts


def _other_script(data: bytes) -> str | None:
    """The code page of another script than the Latin one; None where the bytes may be Western European words."""
    words = [w for w in _WORDS.findall(data) if any(byte >= 0x80 for byte in w)]
    foreign = [w for w in words if all(byte >= 0x80 for byte in w)]
    if any(len(w) >= MIN_WORD for w in foreign) and len(foreign) >= (1 - MAX_WESTERN) * len(words):
        text = b" ".join(foreign)
        scores = sorted(((_likelihood(text, a, page), page) for a in ALPHABETS for page in a.code_pages), reverse=True)
        (best, page), (second, _) = scores[:2]
        if best >= MIN_LIKELIHOOD and best - second >= MIN_MARGIN:
            return page
    return _east_asian(data)


def _likelihood(data: bytes, alphabet: _Alphabet, page: str) -> float:
    """Log probability of a letter on average; minus infinity where the text is not of this alphabet."""
    try:
        text = data.decode(page)
    except UnicodeDecodeError:
        return -math.inf
    rank = {letter: number for number, letter in enumerate(alphabet.letters)}
    total, letters = 0.0, 0
    for word in text.split():
        for before, char in itertools.pairwise(" " + word.strip(_AROUND_WORDS)):
            number = rank.get(char.lower())
            if number is None:
                return -math.inf
            total -= math.log(number + 2)
            letters += 1
            if char.isupper() and before.islower():
                total -= CAPITAL_WITHIN
    return total / letters if letters >= MIN_LETTERS else -math.inf


_AROUND_WORDS = "«»„“”‘’…–—№©®°·"
# Code pages of two bytes a character, the scripts of all its characters, and how at least a third of them must begin:
# the script, and the highest first byte of the frequent ones.
_EAST_ASIAN = (
    ("cp932", ("HIRAGANA", "KATAKANA", "CJK UNIFIED"), ("HIRAGANA", "KATAKANA"), 0xFF),
    ("euc_jp", ("HIRAGANA", "KATAKANA", "CJK UNIFIED"), ("HIRAGANA", "KATAKANA"), 0xFF),
    ("euc_kr", ("HANGUL SYLLABLE",), ("HANGUL SYLLABLE",), 0xFF),
    ("gb2312", ("CJK UNIFIED",), ("CJK UNIFIED",), 0xD7),
    ("big5", ("CJK UNIFIED",), ("CJK UNIFIED",), 0xC6),
)
MIN_EAST_ASIAN = 2  # characters
MIN_KOREAN = 6  # frequent Chinese characters are Korean syllables in the other code page: a few prove nothing
_BESIDE_ASCII = re.compile(r"[A-Za-z][^\x00-\xa0]|[^\x00-\xa0][A-Za-z]")


def _east_asian(data: bytes) -> str | None:
    """The double-byte code page in which all of the text is of one language's script."""
    for page, allowed, most, highest in _EAST_ASIAN:
        try:
            text = data.decode(page)
        except UnicodeDecodeError:
            continue
        chars = [(unicodedata.name(c, ""), c.encode(page)[0]) for c in text if ord(c) >= 0x80 and c.isalpha()]
        if (
            len(chars) < MIN_EAST_ASIAN
            or _BESIDE_ASCII.search(text)  # Western letters between accented ones
            or not all(name.startswith(allowed) for name, _ in chars)
            or sum(name.startswith(most) and first <= highest for name, first in chars) * 3 < len(chars)
        ):
            continue
        return None if page == "euc_kr" and len(chars) < MIN_KOREAN else page
    return None
