"""One small hierarchy of errors. A message says what was wrong, with which item, and what to do."""

from __future__ import annotations


class EarmarkError(Exception):
    """Base of every error that Earmark raises on purpose; the command line prints it without a traceback."""

    exit_code = 1


class ConfigError(EarmarkError):
    """The configuration or the command line cannot be used. Raised before any work."""

    exit_code = 2


class MissingExtra(ConfigError):
    """A part of the distribution that was asked for is not installed; the message names the extra that brings it."""


class WrongType(ConfigError, TypeError):
    """A value of another type than the function takes, such as bytes where an id is wanted."""


class CatalogError(EarmarkError):
    """The catalogue as a whole cannot be read (wrong column, unreadable file). Raised before any work."""

    exit_code = 3


class StoreBusy(EarmarkError):
    """Another run holds the store's writer lease; the message names the holder."""

    exit_code = 4


class StorageError(EarmarkError):
    """Reading or committing to the store failed (disk full, bucket missing, checksum mismatch)."""

    exit_code = 5


class ModelError(EarmarkError):
    """A model's files are missing, damaged or of another architecture."""

    exit_code = 6


class DecoderUnavailable(EarmarkError):
    """The processes that decode media cannot be started."""

    exit_code = 6


class IndexUnavailable(EarmarkError):
    """No index, or one that must not be used here (wrong model, failed checksum, below the recall gate)."""

    exit_code = 7


class NotFound(EarmarkError):
    """What was asked for by id does not exist in this store."""

    exit_code = 8


class BadItem(EarmarkError):
    """One content cannot be enriched. It becomes a row of the quarantine and never ends a batch.

    `reason` is a short stable code in snake_case (`truncated`, `too_long`, `missing_file`, …); `detail` is for people.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type[BadItem], tuple[str, str]]:
        return type(self), (self.reason, self.detail)
