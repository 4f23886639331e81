"""Files and folders that a command is asked to write: checked before its work, so that no work ends in that."""

from __future__ import annotations

import os
from pathlib import Path

from core.errors import ConfigError


def check_file(path: Path, option: str) -> None:
    """Raises `ConfigError` where the file `path`, the value of `option`, cannot be written."""
    folder = path.absolute().parent
    if path.is_dir():
        raise ConfigError(f"cannot write {option} {path}: it is a folder; name a file")
    if not folder.is_dir():
        raise ConfigError(f"cannot write {option} {path}: there is no folder {folder}")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise ConfigError(f"cannot write {option} {path}: permission denied")


def check_folder(path: Path, option: str) -> None:
    """Raises `ConfigError` where the folder `path`, the value of `option`, cannot be made or written to."""
    place = path.expanduser().absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    if not place.is_dir():
        raise ConfigError(f"cannot write to {option} {path}: {place} is a file, not a folder")
    if not os.access(place, os.W_OK | os.X_OK):
        raise ConfigError(f"cannot write to {option} {path}: permission denied in {place}")
