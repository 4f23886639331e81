"""What can go wrong with an online store, in words, and what is worth another try."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeVar

from core.errors import StorageError
from feature_repo.plugins.online.wire import Moved, ServerError

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 2.0
# Answers of a Redis that will be well again: loading its data, a replica about to take over, a cluster moving slots.
PASSING = ("LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "MOVED", "ASK")
# Redis's replies to a client that has not given its password; it sends the last one for a large command.
WITHOUT_PASSWORD = ("NOAUTH", "Authentication required", "unauthenticated")
T = TypeVar("T")


def patiently(options: Any, function: Callable[..., T], *arguments: Any) -> T:
    """Calls the function, again for `options.retry_seconds` while Redis is away. Raises `StorageError`."""
    deadline = time.monotonic() + options.retry_seconds
    pause = FIRST_PAUSE_S
    while True:
        try:
            return function(*arguments)
        except Exception as error:
            if not _is_passing(error):
                raise _explained(options, error) from error
            failure = error
        if time.monotonic() + pause > deadline:
            raise _explained(options, failure) from failure
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE_S)


def _is_passing(error: Exception) -> bool:
    """Whether it is worth another try. Raises the error where it is not of Redis."""
    from redis import exceptions

    if isinstance(error, exceptions.AuthenticationError):
        return False
    if isinstance(error, (Moved, OSError, exceptions.ConnectionError, exceptions.TimeoutError)):
        return True
    if isinstance(error, (ServerError, exceptions.RedisError)):
        return str(error).startswith(PASSING)
    raise error


def _explained(options: Any, error: Exception) -> StorageError:
    address = ",".join(part for part in options.connection_string.split(",") if "=" not in part)
    text = str(error)
    if text.startswith(("OOM", "EXECABORT")) or "OOM" in text:
        return StorageError(
            f"Redis at {address} is out of memory (maxmemory) and refused a batch; what was written before stays. Give "
            "it more memory and run again: only what is missing is written"
        )
    if any(sign in text for sign in WITHOUT_PASSWORD):
        return StorageError(
            f"Redis at {address} asks for a password; give it in the connection string, as in "
            f"EARMARK_REDIS={address},password=…"
        )
    if "WRONGPASS" in text or "invalid password" in text or type(error).__name__ == "AuthenticationError":
        return StorageError(f"Redis at {address} refused the user name or the password of the connection string")
    if isinstance(error, ConnectionRefusedError) or "refused" in text:
        return StorageError(
            f"Redis at {address} cannot be reached: it refused the connection. Start it, or correct the connection "
            "string (EARMARK_REDIS)"
        )
    if isinstance(error, OSError) or type(error).__name__ in ("ConnectionError", "TimeoutError"):
        return StorageError(f"Redis at {address} cannot be reached: {text or type(error).__name__}")
    return StorageError(f"Redis at {address} refused: {text}")
