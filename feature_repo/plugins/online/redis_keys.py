"""Which Redis keys belong to which project and view.

A row's key is Feast's: the serialized entity key, then the project's name. Its parts carry their lengths, so that the
project is what remains: `…sic` is not a key of the project `sic` where the remainder is `music`.

The ledger and the pending rows of a view lie under keys of the same form with a value type that no row has, and hold a
field `_ts:<view>` as rows do. Whoever deletes the rows of the view or of the project the way Feast does, Feast's own
clients included, deletes them too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any
from urllib.parse import quote

from feast.infra.online_stores.helpers import _redis_key_prefix

OWN_TYPE = 0x4D524145  # a value type that Feast does not have
STRING_TYPE = 2
SCAN_COUNT = 1000  # keys that Redis looks at in one step of a scan
_SPECIAL = re.compile(rb"([*?\[\]\\^])")


def ledger_key(project: str, view: str, join_keys: Sequence[str]) -> bytes:
    """The key of the hash that is the ledger of a view's parts."""
    return _own_key(b"parts", project, view, join_keys)


def pending_key(project: str, view: str, join_keys: Sequence[str]) -> bytes:
    """The key of the hash of a view's rows that were pushed before their time."""
    return _own_key(b"pending", project, view, join_keys)


def _own_key(kind: bytes, project: str, view: str, join_keys: Sequence[str]) -> bytes:
    value = kind + b":" + view.encode()
    return _redis_key_prefix(list(join_keys)) + _little(OWN_TYPE) + _little(len(value)) + value + project.encode()


def plain_key(kind: str, project: str, view: str) -> bytes:
    """A key of ours that does not go with the rows: `pushes` counts pushes to the view; `writer` is a hash whose field
    `t` names the materialisation that began last (it alone may watch the counter of pushes and not the rows, all others
    watch the rows and raise the counter); `definition` is the definition of the last materialisation."""
    return f"earmark:{kind}:{quote(project, safe='')}:{quote(view, safe='')}".encode()


def plain_pattern(project: str) -> bytes:
    """The glob of Redis that matches every `plain_key` of a project."""
    return _escaped(b"earmark:") + b"*" + _escaped(f":{quote(project, safe='')}:".encode()) + b"*"


def owner(key: bytes) -> tuple[list[str], bytes] | None:
    """(join keys, project) of a row's key or of one of ours; None for a key of another form."""
    try:
        count, at = int.from_bytes(key[:4], "little"), 4
        names = []
        for _ in range(count):
            kind, name, at = _element(key, at)
            if kind != STRING_TYPE:
                return None
            names.append(name.decode())
        if not count:
            return None
        kind, _, after = _element(key, at)
        if kind == OWN_TYPE:
            return names, key[after:]
        for _ in range(count):
            _, _, at = _element(key, at)
    except (ValueError, UnicodeDecodeError):
        return None
    return names, key[at:]


def _element(key: bytes, at: int) -> tuple[int, bytes, int]:
    """(type, value, position behind it). Raises `ValueError` where the key ends before."""
    kind, size = (int.from_bytes(key[at + n : at + n + 4], "little") for n in (0, 4))
    end = at + 8 + size
    if end > len(key):
        raise ValueError("the key ends within a value")
    return kind, key[at + 8 : end], end


def own_keys(client: Any, project: str, join_keys: Sequence[str] | None = None) -> Iterator[bytes]:
    """The keys of a project in Redis, of rows of the given join keys or of all."""
    wanted = None if join_keys is None else sorted(join_keys)
    prefix = b"" if wanted is None else _redis_key_prefix(wanted)
    for key in client.scan_iter(_escaped(prefix) + b"*" + _escaped(project.encode()), count=SCAN_COUNT):
        found = owner(key)
        if found and found[1] == project.encode() and (wanted is None or found[0] == wanted):
            yield key


def in_pieces(client: Any, keys: Iterator[bytes], act: Callable[[Any, bytes], Any]) -> Iterator[tuple[bytes, Any]]:
    """(key, reply) of what `act(pipeline, key)` asks, some keys at a time."""
    while piece := list(islice(keys, SCAN_COUNT)):
        with client.pipeline(transaction=False) as pipeline:
            for key in piece:
                act(pipeline, key)
            yield from zip(piece, pipeline.execute(), strict=True)


def _escaped(text: bytes) -> bytes:
    """As a literal part of a pattern."""
    return _SPECIAL.sub(rb"\\\1", text)


def _little(number: int) -> bytes:
    return number.to_bytes(4, "little")
