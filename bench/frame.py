"""What every benchmark is: a function that returns rows; helpers that alternate, time and describe the machine."""

from __future__ import annotations

import gc
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

VERSIONS = ("numpy", "pyarrow", "duckdb", "feast", "torch", "sentence-transformers", "faiss-gpu", "av", "soundfile")


@dataclass(frozen=True)
class Row:
    """One measured quantity: medians of ours, the peer's and the limit's, None where there is no such thing.

    Less is better, unless `higher_is_better`; a ratio is ours to the other, so under 1 beats it (over 1 where more is
    better).
    """

    name: str
    ours: float
    peer: float | None
    limit: float | None
    unit: str
    peer_name: str = ""
    limit_name: str = ""
    higher_is_better: bool = False
    note: str = ""

    @property
    def ratio_to_peer(self) -> float | None:
        return self.ours / self.peer if self.peer else None

    @property
    def ratio_to_limit(self) -> float | None:
        return self.ours / self.limit if self.limit else None

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "ratio_to_peer": self.ratio_to_peer, "ratio_to_limit": self.ratio_to_limit}


@dataclass(frozen=True)
class Benchmark:
    """A benchmark's name, what it answers, and `run(quick) -> rows`. A quick run is for seeing that it works; it
    claims no bar."""

    name: str
    about: str
    run: Callable[[bool], list[Row]]


def cpu_seconds() -> float:
    """User and system time of this process, all its threads, and its ended children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def cost(function: Callable[[], Any]) -> tuple[float, float]:
    """(CPU seconds, wall seconds) of one call."""
    gc.collect()
    wall, cpu = time.perf_counter(), cpu_seconds()
    function()
    return cpu_seconds() - cpu, time.perf_counter() - wall


def alternate(
    sides: Mapping[str, Callable[[], Any]], rounds: int, *, warm: bool = True, use_cpu: bool = True
) -> dict[str, float]:
    """Median seconds of each side, called in turn `rounds` times, so that a noisy neighbour troubles all alike. CPU
    seconds unless told otherwise: they suffer less from other people's work."""
    if warm:
        for function in sides.values():
            function()
    found: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(rounds):
        for name, function in sides.items():
            cpu, wall = cost(function)
            found[name].append(cpu if use_cpu else wall)
    return {name: statistics.median(times) for name, times in found.items()}


def machine() -> dict[str, Any]:
    """Processor, cores, memory and accelerator."""
    model = platform.processor() or platform.machine()
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.is_file():
        names = [line.split(":", 1)[1].strip() for line in cpu_info.read_text().splitlines() if "model name" in line]
        model = names[0] if names else model
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"cpu": model, "cores": os.cpu_count(), "memory_gib": round(memory), "gpu": _gpu()}


def _gpu() -> str | None:
    try:
        import torch
    except ImportError:
        return None
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else None


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in VERSIONS:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
