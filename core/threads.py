"""How many threads linear algebra takes."""

from __future__ import annotations

from threading import Lock

_lock = Lock()


def one_algebra_thread() -> None:
    """Makes NumPy's and SciPy's linear algebra use one thread from now on, in the whole process.

    Work here is side by side on items, with small matrices: BLAS threads that wait for each other in a loop then cost
    several times what they compute.
    """
    import numpy  # noqa: F401 - what is not loaded cannot be limited
    import scipy.linalg  # noqa: F401
    from threadpoolctl import threadpool_limits

    with _lock:
        threadpool_limits(1, "blas")
