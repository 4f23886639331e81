"""An index belongs to the process that opened it: what it uses does not survive a fork."""

from __future__ import annotations

import os
import sys

from core.errors import StorageError


def _one_thread() -> None:
    """Lets the thread that forked use FAISS in the child. Otherwise it would wait for OpenMP threads of the parent,
    which do not exist there. Threads that the child starts get OpenMP threads of their own."""
    faiss = sys.modules.get("faiss")
    if faiss is not None:
        faiss.omp_set_num_threads(1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_one_thread)


class Process:
    """The process that opened an index of some name."""

    def __init__(self, name: str) -> None:
        self._name, self._pid = name, os.getpid()

    def check(self) -> None:
        """Raises `StorageError` in a process that was forked from it. FAISS's threads are not there, and a search would
        wait for them without end; a lock that another thread had taken stays taken."""
        if os.getpid() != self._pid:
            raise StorageError(
                f"the index {self._name} was opened by process {self._pid}, and process {os.getpid()} was forked from "
                "it: FAISS cannot be used over a fork. Open the index after the fork, in each process, or start "
                'processes with multiprocessing.get_context("spawn")'
            )
