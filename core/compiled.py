"""Functions that numba compiles, kept on the disk where there is a place for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba


def njit(**options: Any) -> Callable[[Any], Any]:
    """`numba.njit` that keeps what it compiled beside the source or in the user's cache. Where neither can be written,
    as in a container without a home, every process compiles for itself."""

    def compiled(function: Any) -> Any:
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError as error:
            if "cannot cache" not in str(error):
                raise
            return numba.njit(**options)(function)

    return compiled
