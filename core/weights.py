"""Finding the weights inside packages, and refusing any that are not the ones we measured."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from core.errors import ModelError
from core.extras import hint


@cache
def package_file(package: str, relative: str, sha256: str, extra: str = "bundled") -> Path:
    """The file `relative` inside an installed package, found without importing it, after checking its SHA-256. The
    package comes with `earmark[extra]`.

    Raises `ModelError` where the package or the file is missing, or the bytes are others.
    """
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(f"the package {package} with model weights is not installed: {hint([extra])}")
    path = Path(spec.submodule_search_locations[0]) / relative
    if not path.is_file():
        raise ModelError(f"{relative} is missing from the package {package}: install it again")
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise ModelError(f"{path.name} of the package {package} has SHA-256 {found}, expected {sha256}")
    return path
