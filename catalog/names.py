"""The ids of the files of a folder: their relative paths, and a form for the paths that cannot be one."""

from __future__ import annotations

import hashlib
import unicodedata
from collections import defaultdict
from collections.abc import Iterable

from core.contracts import MAX_ID_BYTES, id_problem

HASH_DIGITS = 16


def content_ids(paths: Iterable[str]) -> dict[str, str]:
    """The content id of every relative path (valid Unicode, `/` between folders).

    It is the path in NFC. A path has `<path>~<16 hexadecimal digits>` instead, the digits of the SHA-256 of its UTF-8
    bytes, where it has control characters (written as escapes), is too long (cut), or is spelled differently from
    another path of the same NFC form (which keeps that form where it has it itself).
    """
    spellings: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        spellings[unicodedata.normalize("NFC", path)].append(path)
    found = {}
    for plain, same in spellings.items():
        first = plain if plain in same else min(same)
        for path in same:
            found[path] = plain if path == first and id_problem(plain) is None else _with_hash(path, plain)
    return found


def _with_hash(path: str, plain: str) -> str:
    end = f"~{hashlib.sha256(path.encode('utf-8')).hexdigest()[:HASH_DIGITS]}"
    shown = "".join(c.encode("unicode_escape").decode() if unicodedata.category(c) == "Cc" else c for c in plain)
    return shown.encode("utf-8")[: MAX_ID_BYTES - len(end)].decode("utf-8", "ignore") + end
