"""From bytes to text: byte order marks, UTF-16 without one, and UTF-8."""

from __future__ import annotations

import codecs

from catalog.legacy import code_page

# UTF-32 comes first: its little-endian mark begins with the one of UTF-16.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
SAMPLE_BYTES = 4096


def unicode_encoding(data: bytes) -> tuple[str, int]:
    """(the Unicode encoding of a text file, the bytes of its byte order mark); UTF-8 unless something shows another.

    UTF-16 without a mark is recognised by its zero bytes: every second byte of most text in it is zero, always on the
    same side, and valid UTF-8 text has none.
    """
    for mark, encoding in MARKS:
        if data.startswith(mark):
            return encoding, len(mark)
    sample = data[:SAMPLE_BYTES]
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    if len(sample) >= 4 and max(even, odd) * 2 >= len(sample) // 2 and min(even, odd) * 20 <= max(even, odd):
        return ("utf-16-le" if odd > even else "utf-16-be"), 0
    return "utf-8", 0


def decode_text(data: bytes) -> str:
    """The text of a file that people wrote: Unicode, else in the code page that `catalog.legacy` finds."""
    encoding, mark = unicode_encoding(data)
    if encoding != "utf-8":
        return data[mark:].decode(encoding, "replace")
    try:
        return data[mark:].decode("utf-8")
    except UnicodeDecodeError:
        return data[mark:].decode(code_page(data[mark:]), "replace")
