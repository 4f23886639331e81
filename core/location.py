"""Where a store lies, and whether what lies there is one."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import unquote, urlsplit

from core.errors import ConfigError, StorageError

RELEASE = "release.json"
RUNS = "runs"
# What may lie in a folder before its first run: a file system's own, and the lease that a run takes first.
BEFORE_A_STORE = frozenset({"lease.json", "lost+found"})
SHOWN = 3  # names of other files in a message


def store_folder(uri: str | Path) -> Path:
    """The absolute folder that a path or a `file://` URI names. Raises `ConfigError` for any other URI: Feast's SQLite
    files and the FAISS indexes of a store are files of a disk."""
    text = str(uri)
    if "://" not in text:
        try:
            return Path(text).expanduser().absolute()
        except RuntimeError as error:  # `~name` of a user that does not exist
            raise ConfigError(f"the store {text!r} cannot be found: {error}") from error
    parts = urlsplit(text)
    if parts.scheme == "file" and parts.netloc in ("", "localhost") and parts.path.startswith("/"):
        return Path(unquote(parts.path))
    raise ConfigError(
        f"the store {text!r} must be a folder: a store holds SQLite and FAISS files, which cannot be used in place on "
        "an object store or a web server (on a cluster, name a folder of a volume that all steps mount)"
    )


def is_store(folder: Path) -> bool:
    """Whether a run has begun to write a store into the folder. Raises `ConfigError` if the folder cannot be read."""
    return is_released(folder) or any(folder.glob(f"{RUNS}/*/run.json"))


def is_released(folder: Path) -> bool:
    """Whether a run has ended there, so that the store can be read. Raises `ConfigError` if it cannot be opened."""
    try:
        return (folder / RELEASE).is_file()
    except OSError as error:
        raise ConfigError(f"the store {folder} cannot be opened: {error.strerror or error}") from error


def other_files(folder: Path) -> str:
    """What lies in a folder that is not a store, in words; empty where nothing does. Hidden files do not count."""
    if folder.is_file():
        return "a file, not a folder"
    if not folder.is_dir() or is_store(folder):
        return ""
    names = sorted(n for n in os.listdir(folder) if not n.startswith(".") and n not in BEFORE_A_STORE)
    more = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {more} more" if more > 0 else "")


def check_new_store(folder: Path) -> None:
    """Raises `ConfigError` for a folder with other files, such as media: a run must not begin a store there;
    and `StorageError` for a file."""
    if folder.exists() and not folder.is_dir():
        raise StorageError(f"cannot make the store {folder}: it is a file, not a folder")
    others = other_files(folder)
    if others:
        raise ConfigError(
            f"the folder {folder} is not a store and is not empty (it holds {others}): name a new or an empty folder, "
            f"such as --store {folder / '.earmark'}"
        )
