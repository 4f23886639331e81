"""Names that become parts of a path: one rule for index names, versions, run ids, shards, views and parts of a store.

A name that holds a separator would read or write outside the folder that it is meant for, so every place that makes a
path from a name asks here.
"""

from __future__ import annotations

from core.errors import ConfigError, WrongType

MAX_NAME_BYTES = 200  # file systems allow 255; suffixes and temporary names need the rest


def path_name(name: str, kind: str) -> str:
    """`name` if it can be the name of one file or folder; `kind` says in an error what it names.

    Raises `ConfigError` for a name that is empty, begins with a dot, is longer than 200 bytes, is not valid UTF-8, or
    contains a separator or a control character; `WrongType` for a value that is not text.
    """
    if not isinstance(name, str):
        raise WrongType(f"{kind}: a name is text, not {name!r}")
    if problem := _problem(name):
        raise ConfigError(f"{kind} {name!r} cannot be part of a path: {problem}")
    return name


def relative_path(path: str) -> str:
    """`path` if it stays below the folder that it is relative to. Raises `ConfigError` otherwise."""
    if "\0" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise ConfigError(f"the path {path!r} leads outside its store: give one without '..', '.' and empty parts")
    return path


def _problem(name: str) -> str | None:
    if not name:
        return "it is empty"
    if name.startswith("."):
        return "it begins with a dot"
    if any(letter in "/\\" or ord(letter) < 32 or ord(letter) == 127 for letter in name):
        return "it contains a separator or a control character"
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        return "it is not valid UTF-8"
    return f"it has {size} bytes, and {MAX_NAME_BYTES} are allowed" if size > MAX_NAME_BYTES else None
