"""Clear errors for faults of a Feast repository: a damaged or missing registry, a full disk, settings that are not
Earmark's."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from core.errors import StorageError

MEND = "run earmark on the catalogue once, which writes it again"


@contextlib.contextmanager
def registry_faults(root: Path) -> Iterator[None]:
    """Raises `StorageError` where Feast's registry of the store in `root` cannot be read or written, or lacks what
    every run applies to it."""
    from feast.errors import FeastError
    from pydantic import ValidationError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except SQLAlchemyError as error:
        raise StorageError(_of_registry(root, str(getattr(error, "orig", None) or error))) from error
    except (FeastError, ValidationError) as error:
        text = str(error).splitlines()[0]
        raise StorageError(f"the Feast repository in {root} is damaged or not Earmark's ({text}); {MEND}") from error


def _of_registry(root: Path, text: str) -> str:
    if "disk is full" in text or "disk I/O error" in text:
        return (
            f"the disk of Feast's registry in {root} is full or failing ({text}); what was committed before stays: "
            "free some space and run the same command again"
        )
    if "locked" in text:
        return f"Feast's registry in {root} is in use by another process ({text}); run the same command again"
    return f"Feast's registry in {root} cannot be used ({text}); move {root}/feast/registry.db away and {MEND}"
