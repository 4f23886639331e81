"""Search parameters of a FAISS index of any make: which it has, what they cost, and how to set them for one call."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

EF_SEARCH = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
N_PROBE = (
    *range(1, 9), 10, 12, 14, 16, 20, 24, 28, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 256, 384, 512, 1024, 2048,
    4096, 8192,
)  # fmt: skip
K_FACTOR = (2, 3, 4, 6, 8, 16, 32, 64, 128)
QUERIES_A_THREAD = 8  # that are worth a second thread
REFINED_COST = 6.0  # a code that is looked up here and there, to one that is read in a row


def concrete(index: Any) -> Any:
    """The index as what it is, where it is on a card as its copy on the host. FAISS does not keep the owner alive: hold
    on to `index` as long as to the answer."""
    import faiss

    return faiss.downcast_index(getattr(index, "cpu", index))


def read_index(path: Path, *, mapped: bool = False) -> Any:
    """FAISS's index of a file; if `mapped`, what queries do not read in a row stays there."""
    import faiss

    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_READ_ONLY if mapped else 0)
    lists: Any = part(index, "IndexIVFPQFastScan")
    if lists is not None and lists.fine_quantizer is None:
        lists.fine_quantizer = lists.pq  # FAISS 1.15 forgets it and dies decoding
    return index


def part(index: Any, kind: str) -> Any:
    """The part of an index of that kind (`IndexHNSW`, `IndexIVF`, `IndexRefine`), or None."""
    import faiss

    found = concrete(index)
    if isinstance(found, getattr(faiss, kind)):
        return found
    if isinstance(found, faiss.IndexPreTransform):
        return part(found.index, kind)
    if isinstance(found, faiss.IndexRefine):
        return part(found.base_index, kind)
    return None


def knobs(index: Any) -> tuple[str, ...]:
    """Names of the index's parameters: any of efSearch, nprobe, k_factor."""
    names = [("efSearch", "IndexHNSW"), ("nprobe", "IndexIVF"), ("k_factor", "IndexRefine")]
    return tuple(name for name, kind in names if part(index, kind) is not None)


def ladders(index: Any) -> list[list[dict[str, int]]]:
    """Settings to try: lists in which recall rises with the cost."""
    names = knobs(index)
    if "efSearch" in names:
        steps = [{"efSearch": effort} for effort in EF_SEARCH]
    elif "nprobe" in names:
        lists = part(index, "IndexIVF").nlist
        steps = [{"nprobe": n} for n in sorted({min(n, lists) for n in (*N_PROBE, lists)})]
    else:
        steps = [{}]
    if "k_factor" not in names:
        return [steps]
    return [[{**step, "k_factor": factor} for step in steps] for factor in K_FACTOR]


def cost(index: Any, values: Mapping[str, int], k: int = 10) -> float:
    """About how many bytes of codes a query reads: it ranks settings that are equally good, alike on every machine."""
    ivf, refine, graph = (part(index, kind) for kind in ("IndexIVF", "IndexRefine", "IndexHNSW"))
    total = 0.0
    if graph is not None:
        total += values["efSearch"] * 16.0
    if ivf is not None:
        total += values["nprobe"] * ivf.ntotal / ivf.nlist * max(1, ivf.code_size)
    if refine is not None:
        width = concrete(refine.refine_index).sa_code_size()
        total += REFINED_COST * k * values["k_factor"] * width
    return total


def search_parameters(index: Any, values: Mapping[str, int], selector: Any = None) -> Any:
    """FAISS's object that sets `values`, and which rows may be found, for one call of `index.search`. None where that
    is nothing."""
    import faiss as typed

    faiss: Any = typed  # its stubs do not know these constructors
    found = concrete(index)
    chosen = {} if selector is None else {"sel": selector}
    if isinstance(found, faiss.IndexPreTransform):
        return faiss.SearchParametersPreTransform(index_params=search_parameters(found.index, values, selector))
    if isinstance(found, faiss.IndexRefine):
        inner = search_parameters(found.base_index, values, selector)
        return faiss.IndexRefineSearchParameters(k_factor=values["k_factor"], base_index_params=inner)
    if isinstance(found, faiss.IndexHNSW):
        return faiss.SearchParametersHNSW(efSearch=values["efSearch"], **chosen)
    if isinstance(found, faiss.IndexIVF):
        return faiss.SearchParametersIVF(nprobe=values["nprobe"], **chosen)
    return faiss.SearchParameters(**chosen) if chosen else None


def search_index(index: Any, vectors: np.ndarray, k: int, parameters: Any) -> tuple[np.ndarray, np.ndarray]:
    """(scores, labels) of `index.search`, in the caller's thread where there are few queries: others would not be done
    with their part before they were awake, and cost twice the CPU time."""
    import faiss

    threads = faiss.omp_get_max_threads() if len(vectors) < QUERIES_A_THREAD else 1
    if threads == 1:
        return index.search(vectors, k, params=parameters)  # type: ignore[no-any-return]
    faiss.omp_set_num_threads(1)  # of this thread; others have their own
    try:
        return index.search(vectors, k, params=parameters)  # type: ignore[no-any-return]
    finally:
        faiss.omp_set_num_threads(threads)


def takes_selector(index: Any) -> bool:
    """Whether the index can search among some rows only."""
    import faiss

    found = concrete(index)
    if isinstance(found, faiss.IndexPreTransform):
        return takes_selector(found.index)
    if isinstance(found, faiss.IndexRefine):
        return takes_selector(found.base_index)
    return isinstance(found, (faiss.IndexFlat, faiss.IndexHNSW, faiss.IndexIVF, faiss.IndexScalarQuantizer))
