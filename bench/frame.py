"""What every benchmark is: a function that returns rows; helpers that alternate, time and describe the machine."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import resource
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

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


_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_servers: dict[int, float] = {}  # pid → CPU seconds when last seen
_apart: set[int] = set()  # pids of servers whose CPU time is reported on its own
_apart_ended_s = 0.0  # CPU seconds of such servers that have ended, which the kernel adds to our ended children


def adopt_orphans() -> None:
    """Makes this process the parent of descendants whose own parent ends, so that `cpu_seconds` still counts them.

    Linux only; elsewhere it does nothing, and a process that detaches itself is counted by `counted_server` alone.
    """
    if platform.system() == "Linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def cpu_seconds() -> float:
    """User and system seconds of this process with all its threads, its ended children, every living descendant, and
    the servers of `counted_server`. Servers of `server_apart` are left out.

    Living descendants count because work that a call hands to a process that outlives the call is a cost of the call.
    """
    return _own_seconds() + _other_seconds()


def _own_seconds() -> float:
    """Seconds of this process and its ended children; takes microseconds."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used) - _apart_ended_s


def _other_seconds() -> float:
    """Seconds of living descendants and counted servers; looks at every process of the machine, for milliseconds."""
    descendants = [p for p in _tree(os.getpid()) if p.pid != os.getpid()]
    apart = {p.pid for server in _apart for p in _tree(server)}
    counted = {p.pid for p in descendants} | apart
    living = sum(_process_seconds(p) for p in descendants if p.pid not in apart)
    for pid in _servers:
        _servers[pid] = sum(_process_seconds(p) for p in _tree(pid) if p.pid not in counted) or _servers[pid]
    return living + sum(_servers.values())


@contextmanager
def counted_server(pid: int) -> Iterator[None]:
    """Counts a running server that is not a descendant of this process in `cpu_seconds`, with its descendants."""
    _servers[pid] = 0.0
    try:
        yield
    finally:
        del _servers[pid]


@contextmanager
def server_apart(process: subprocess.Popen[Any]) -> Iterator[None]:
    """Keeps a server's CPU time out of `cpu_seconds`; ends the server on leaving.

    A database that ours and the peer both use is work of neither; a benchmark reports its share as a row of its own.
    """
    global _apart_ended_s
    _apart.add(process.pid)
    try:
        yield
    finally:
        if process.poll() is None:
            process.terminate()
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            _apart_ended_s += used.ru_utime + used.ru_stime
        _apart.discard(process.pid)


def _tree(pid: int) -> list[psutil.Process]:
    """A process and its descendants; none where it has ended."""
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _process_seconds(process: psutil.Process) -> float:
    """CPU seconds of a living process and of its children that have ended."""
    try:
        used = process.cpu_times()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return 0.0
    return float(used.user + used.system + used.children_user + used.children_system)


def cost(function: Callable[[], Any]) -> tuple[float, float]:
    """(CPU seconds, wall seconds) of one call."""
    gc.collect()
    others = _other_seconds()  # outside the measured stretch: looking at every process is dearer than a small call
    wall, own = time.perf_counter(), _own_seconds()
    function()
    own, wall = _own_seconds() - own, time.perf_counter() - wall
    return own + _other_seconds() - others, wall


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
