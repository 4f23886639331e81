"""Where the versions of an index lie. Every path below an index is made here, from names that are checked."""

from __future__ import annotations

from pathlib import Path

from core.names import path_name


def index_home(folder: Path, name: str) -> Path:
    """The folder of the index `name`. Raises `ConfigError` for a name that cannot be a folder's."""
    return Path(folder) / path_name(name, "the index name")


def version_home(folder: Path, name: str, version: str) -> Path:
    """The folder of a version. Raises `ConfigError` for a name or version that cannot be a folder's."""
    return index_home(folder, name) / path_name(version, "the index version")
