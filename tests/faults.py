"""Workers whose decoder fails as a native one could, by the name of the file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from catalog import isolated

# What a worker does with a file of such a name, as a native decoder could.
FAULTS = """
import os, signal, sys, time
import numpy as np
import catalog.worker as worker
whole = worker.decode_audio
def decode(path, *args, **options):
    if "segfault" in path.name:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "abort" in path.name:
        print("free(): invalid pointer", file=sys.stderr, flush=True)
        os.abort()
    if "exit" in path.name:
        os._exit(3)
    if "hang" in path.name:
        path.with_suffix(".begun").touch()
        time.sleep(600)
    if "memory" in path.name:
        hog = np.ones(1 << 28)
    if "surprise" in path.name:
        raise KeyError("surprise")
    return whole(path, *args, **options)
worker.decode_audio = decode
"""


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    isolated.close()
    monkeypatch.setattr(isolated, "_START", faulty_start())
    yield
    isolated.close()


def faulty_start() -> str:
    """The code that starts such a worker."""
    begins, serves = isolated._START.split("from catalog.worker import main;")
    return f"{begins}exec({FAULTS!r});from catalog.worker import main;{serves}"
