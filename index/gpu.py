"""FAISS on a CUDA card: what to choose there, an index built there, an index searched there.

What is stored is always an index for the CPU, so that every machine can read it; a server with a card copies it there.
"""

from __future__ import annotations

import logging
import re
import threading
from typing import Any

import numpy as np

from core.errors import ConfigError, EarmarkError
from index.choice import Choice, choices, lists
from index.parameters import concrete
from index.vectors import Vectors

# What a query may read of the card's memory when it is compared with everything: published bandwidths make it 1 ms on
# an H100 (2 TB/s and more) and 7 ms on a T4 (0.3 TB/s). Not measured.
SCAN_BYTES = 2 * 2**30
GRAPH_DEGREE = 64  # neighbours of a node of CAGRA's graph, of 4 bytes each
LIST_BLOCK = 32  # vectors; a list on the card takes whole blocks
PIECES = (96, 64, 56, 48, 40, 32, 28, 24, 20, 16, 12, 8, 4, 3, 2, 1)  # bytes of product codes with kernels of FAISS
LEAST_WIDTH = 8  # dimensions of a piece
FLOAT_TABLE_PIECES = 48  # whose lookup tables of floats fill a block's 48 KiB of shared memory
DEEPEST = 2048  # rows, and lists, that FAISS selects on a card
SCRATCH_BYTES = 512 * 2**20  # of the card, for each index
CAGRA = re.compile(r"CAGRA(\d+)")
log = logging.getLogger(__name__)


def gpus() -> int:
    """CUDA cards that the installed FAISS sees; 0 where it knows none."""
    try:
        import faiss

        return int(getattr(faiss, "get_num_gpus", int)())
    except (ImportError, RuntimeError):
        return 0


def has_cagra() -> bool:
    """Whether the installed FAISS has CAGRA: `faiss-gpu-cuvs` has, `faiss-gpu` has not."""
    import faiss

    return hasattr(faiss, "GpuIndexCagra")


def on_card(device: str) -> bool:
    """Whether an index goes to a card: for `auto` where there is one. Raises `ConfigError` for `cuda` without one."""
    if device == "cuda" and not gpus():
        raise ConfigError("device cuda was asked for, but FAISS finds no CUDA device here")
    return device in ("auto", "cuda") and gpus() > 0


def room() -> float | None:
    """Bytes of the card that one version may take: a swap holds two, each with its scratch. None where torch, which can
    tell what is free, is not installed."""
    try:
        import torch
    except ImportError:
        return None
    return max(0.0, torch.cuda.mem_get_info()[0] / 2 - SCRATCH_BYTES) if torch.cuda.is_available() else None


def gpu_choices(count: int, dim: int, *, memory_bytes: float | None = None, has_cagra: bool = False) -> list[Choice]:
    """What to try on a card, the first that reaches the recall is taken; bytes are those on the card.

    Exact search as long as a query can read all there is, as floats or as halves. Beyond, a graph where the installed
    FAISS has cuVS, then codes in lists, finer ones later; where memory is short, coarser ones. Neither one-bit codes
    nor HNSW: FAISS has no kernels for them. Raises `ConfigError` where nothing fits.
    """
    many = f"IVF{lists(count)}"
    share = lists(count) / max(count, 1)  # of a list, a vector
    listed = 8 + 4 * dim * share  # its number, and its part of the centres
    padded = 1 + LIST_BLOCK / 2 * share
    pieces = _pieces(dim)
    all_ = [
        Choice("Flat", "exact search", 4 * dim),
        Choice("SQfp16", "exact search of halves", 2 * dim),
        Choice(f"CAGRA{GRAPH_DEGREE}", "cuVS's graph over floats", 4 * dim + 4 * GRAPH_DEGREE),
        Choice(f"{many},SQ8", "8-bit codes in lists", dim * padded + listed),
        Choice(f"{many},SQfp16", "halves in lists", 2 * dim * padded + listed),
        Choice(f"{many},Flat", "floats in lists", 4 * dim * padded + listed),
        Choice(f"{many},SQ4", "4-bit codes in lists", dim / 2 * padded + listed),
        Choice(f"{many},PQ{pieces}", "product codes in lists", pieces + listed),
    ]
    if not has_cagra:
        all_ = [one for one in all_ if not CAGRA.fullmatch(one.factory)]
    fitting = [one for one in all_ if memory_bytes is None or one.bytes_per_vector * count <= memory_bytes]
    if not fitting:
        least = min(one.bytes_per_vector for one in all_) * count
        raise ConfigError(
            f"index: {count} vectors of {dim} dimensions take at least {least / 2**20:.0f} MiB of the card, and "
            f"{(memory_bytes or 0) / 2**20:.0f} MiB are allowed"
        )
    limit = "" if memory_bytes is None else f", {memory_bytes / 2**20:.0f} MiB"
    return [
        Choice(one.factory, f"{count} vectors on a GPU{limit}: {one.why}", one.bytes_per_vector)
        for one in fitting
        if one.factory not in ("Flat", "SQfp16") or one.bytes_per_vector * count <= SCAN_BYTES
    ]


def candidates(count: int, dim: int, *, memory_bytes: float | None = None, device: str = "cpu") -> list[Choice]:
    """What to try for a device. Only `cuda` asks for a card's makes: exact search of a million is quick there, and slow
    on the CPU that may serve it. Raises `ConfigError` for `cuda` without a card, and where nothing fits (without
    `memory_bytes`: what is free there)."""
    if device != "cuda":
        return choices(count, dim, memory_bytes=memory_bytes)
    on_card(device)
    memory = room() if memory_bytes is None else memory_bytes
    return gpu_choices(count, dim, memory_bytes=memory, has_cagra=has_cagra())


def empty(factory: str, dim: int) -> Any:
    """An index for the CPU, without vectors, of a factory string: FAISS's, or `CAGRA64`, which FAISS has no string for.
    That is a graph that CAGRA reads and writes; without a card it is filled as HNSW is. Raises `RuntimeError` as
    `faiss.index_factory` does."""
    import faiss as typed

    faiss: Any = typed
    graph = CAGRA.fullmatch(factory)
    if graph:
        return faiss.IndexHNSWCagra(dim, int(graph[1]) // 2, faiss.METRIC_INNER_PRODUCT)
    return faiss.index_factory(dim, factory, faiss.METRIC_INNER_PRODUCT)


def takes_gpu(index: Any) -> bool:
    """Whether FAISS has this make of index on a card; one that is wrapped in another (refined, transformed) it has not.

    FAISS's own `isGpuIndexImplemented` does not know of halves, and says yes to codes that are refused later.
    """
    import faiss as typed

    faiss: Any = typed
    found, coder = concrete(index), faiss.ScalarQuantizer
    kind = type(found).__name__
    if kind == "IndexScalarQuantizer":
        return bool(found.sq.qtype == coder.QT_fp16)
    if kind == "IndexIVFScalarQuantizer":
        return found.sq.qtype in (
            coder.QT_8bit, coder.QT_8bit_uniform, coder.QT_8bit_direct, coder.QT_6bit, coder.QT_4bit,
            coder.QT_4bit_uniform, coder.QT_fp16,
        )  # fmt: skip
    if kind == "IndexIVFPQ":
        return bool(found.pq.nbits == 8 and found.pq.M in PIECES and found.by_residual)
    if kind == "IndexHNSWCagra":
        return has_cagra()
    return kind in ("IndexFlat", "IndexFlatIP", "IndexFlatL2", "IndexIVFFlat")


class OnGpu:
    """An index on a card, and the same in memory (`cpu`) for what the card cannot do. Safe to search from several
    threads: they take turns, because FAISS's resources of a card are not safe to share."""

    def __init__(self, cpu: Any, gpu: Any, resources: Any = None) -> None:
        self.cpu = cpu  # CAGRA's vectors may stay in its memory
        self._gpu, self._resources = gpu, resources
        self._turn = threading.Lock()
        found = concrete(cpu)
        self._lists = int(getattr(found, "nlist", 1))
        self._is_graph = type(found).__name__ == "IndexHNSWCagra"

    @property
    def ntotal(self) -> int:
        return int(self.cpu.ntotal)

    @property
    def d(self) -> int:
        return int(self.cpu.d)

    def search(self, vectors: np.ndarray, k: int, *, params: Any = None) -> tuple[np.ndarray, np.ndarray]:
        """(scores, rows), each of shape (queries, k), as FAISS's own; `params` are those of the index in memory.

        Asked for some rows only, FAISS 1.15 without cuVS ignores that on a card, so memory answers then, as it does
        where more rows or lists are asked for than a card selects.
        """
        n_probe = min(getattr(params, "nprobe", 1), self._lists)
        if k > DEEPEST or n_probe > DEEPEST or getattr(params, "sel", None) is not None:
            scores, rows = self.cpu.search(vectors, k, params=params)
        else:
            with self._turn:
                scores, rows = self._gpu.search(vectors, k, params=self._of_card(params, k))
        return scores, rows

    def reconstruct_batch(self, rows: np.ndarray) -> np.ndarray:
        """Rows as they were stored, float32 (rows, dim)."""
        return np.asarray(self.cpu.reconstruct_batch(rows))

    def _of_card(self, params: Any, k: int) -> Any:
        if not self._is_graph:
            return params
        import faiss as typed

        faiss: Any = typed
        found = faiss.SearchParametersCagra()
        found.itopk_size = max(k, int(getattr(params, "efSearch", found.itopk_size)))
        return found


def to_gpu(index: Any, *, device: int = 0) -> OnGpu:
    """Copies an index to a card. Raises `ConfigError` where there is no card or FAISS has no such index there,
    `EarmarkError` where the card does not take it (its memory)."""
    import faiss as typed

    faiss: Any = typed
    on_card("cuda")
    _check(index)
    resources = _resources(faiss)
    try:
        return OnGpu(index, faiss.index_cpu_to_gpu(resources, device, index, _options(faiss, index)), resources)
    except RuntimeError as error:
        raise EarmarkError(f"index: the card does not take {type(concrete(index)).__name__}: {error}") from error


def on_device(index: Any, device: str) -> Any:
    """The index on a card where `device` says so (`auto`: where there is one) and FAISS has its make there; as it is
    otherwise. Raises `ConfigError` for `cuda` without a card, `EarmarkError` where the card does not take it; for
    `auto` the index stays in memory then, and the log says so."""
    if not on_card(device) or not takes_gpu(index):
        return index
    try:
        return to_gpu(index)
    except EarmarkError as error:
        if device == "cuda":
            raise
        log.warning("%s; it is searched in memory", error)
        return index


def filled_on_gpu(index: Any, rows: Vectors, training: np.ndarray, *, device: int = 0) -> Any:
    """`index` (of `empty`) trained on some rows and filled with all of them on a card; returns an index for the CPU.

    `rows`: read in blocks, all at once for a graph; `training`: which of them train, int64. The
    card's lists grow by doubling: building may take twice what the index does. Raises `ConfigError` as `to_gpu` does,
    `EarmarkError` where the card gives up.
    """
    import faiss as typed

    faiss: Any = typed
    on_card("cuda")
    _check(index)
    found, kind = concrete(index), type(concrete(index)).__name__
    if "IVF" not in kind and kind != "IndexHNSWCagra":  # nothing to compute
        return _add(index, rows)
    resources = _resources(faiss)
    try:
        if kind == "IndexHNSWCagra":
            return _graph(faiss, found, rows, resources, device)
        gpu = faiss.index_cpu_to_gpu(resources, device, index, _options(faiss, index))
        gpu.train(rows.take(training))
        return faiss.index_gpu_to_cpu(_add(gpu, rows))
    except RuntimeError as error:
        raise EarmarkError(f"index: {kind} of {rows.count} vectors cannot be built on the card: {error}") from error


def _graph(faiss: Any, index: Any, rows: Vectors, resources: Any, device: int) -> Any:
    config = faiss.GpuIndexCagraConfig()
    config.device, config.graph_degree = device, index.hnsw.nb_neighbors(0)
    config.intermediate_graph_degree = 2 * config.graph_degree
    gpu = faiss.GpuIndexCagra(resources, index.d, faiss.METRIC_INNER_PRODUCT, config)
    vectors = rows.take(np.arange(rows.count))  # FAISS keeps no copy: they have to live until the graph is copied back
    gpu.train(vectors)
    found = faiss.index_gpu_to_cpu(gpu)
    concrete(found).hnsw.efConstruction = index.hnsw.efConstruction
    return found


def _add(index: Any, rows: Vectors) -> Any:
    for _, block in rows.blocks():
        index.add(block)
    return index


def _check(index: Any) -> None:
    if not takes_gpu(index):
        raise ConfigError(f"index: the installed FAISS has no {type(concrete(index)).__name__} of this make on a GPU")


def _resources(faiss: Any) -> Any:
    found = faiss.StandardGpuResources()
    found.setTempMemory(SCRATCH_BYTES)
    return found


def _options(faiss: Any, index: Any) -> Any:
    found = faiss.GpuClonerOptions()
    found.use_cuvs = False  # its lists know neither all metrics nor all codes
    product = getattr(concrete(index), "pq", None)
    found.useFloat16 = product is not None and product.M > FLOAT_TABLE_PIECES
    return found


def _pieces(dim: int) -> int:
    """Bytes of a product code: the most that FAISS has kernels for, that divide the dimensions and leave each its
    width."""
    return next(pieces for pieces in PIECES if dim % pieces == 0 and (dim // pieces >= LEAST_WIDTH or pieces == 1))
