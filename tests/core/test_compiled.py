"""Functions that numba compiles, where it may keep them and where not."""

from __future__ import annotations

import numpy as np
import pytest
from numba.core import caching

from core.compiled import njit


def twice(values: np.ndarray) -> np.ndarray:
    return values * 2


@pytest.mark.parametrize("anywhere", [True, False])
def test_a_function_is_compiled_whether_or_not_a_cache_can_be_written(
    monkeypatch: pytest.MonkeyPatch, anywhere: bool
) -> None:
    if not anywhere:  # as in a container without a home, whose packages belong to another user
        monkeypatch.setattr(caching.CacheImpl, "_locator_classes", [])
    compiled = njit(nogil=True)(twice)
    assert compiled(np.arange(3)).tolist() == [0, 2, 4]
    assert bool(compiled.stats.cache_path) is anywhere


def test_other_errors_are_not_hidden() -> None:
    with pytest.raises(TypeError):
        njit(nogil=True)(3)
