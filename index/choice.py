"""Which FAISS index to build, from how many vectors there are and how much memory they may take."""

from __future__ import annotations

from dataclasses import dataclass
from math import log2

from core.errors import ConfigError

FLAT_ROWS = 20_000  # up to here exact search answers within a few milliseconds on one core
TRAINING_ROWS_A_LIST = 60  # of k-means
MOST_LISTS = 65_536
LINKS = 32  # of a graph's node; the bottom layer has twice as many, of 4 bytes each


@dataclass(frozen=True)
class Choice:
    """A FAISS factory string, why it is the one, and about how many bytes a vector takes."""

    factory: str
    why: str
    bytes_per_vector: float


def lists(count: int) -> int:
    """Inverted lists for so many vectors: the power of two about 2 √n."""
    return int(min(MOST_LISTS, 2 ** round(log2(max(16.0, 2 * count**0.5)))))


def choices(count: int, dim: int, *, memory_bytes: float | None = None) -> list[Choice]:
    """What to try, the first that reaches the recall is taken: faster before slower, and all within the memory.

    Exact search for few vectors. Beyond, lists of one-bit codes (RaBitQ, scanned in registers) whose best are ranked
    again by 8-bit codes: at equal recall faster, smaller and built sooner than a graph (docs/benchmarks.md). Where that
    does not find enough, 16-bit codes, then a graph; where memory is short, coarser codes. Raises `ConfigError` where
    nothing fits.
    """
    many = f"IVF{lists(count)}"
    centres = 4 * dim * lists(count) / max(count, 1)
    bits = dim / 8 + 24 + centres  # of a RaBitQ code: a bit a dimension, its factors, its place in a list
    graph = 8 * LINKS + 8
    all_ = [
        Choice("Flat", "exact search", 4 * dim),
        Choice(f"{many},RaBitQfs,Refine(SQ8)", "one-bit codes in lists, ranked again by 8-bit codes", bits + dim),
        Choice(f"{many},RaBitQfs,Refine(SQfp16)", "one-bit codes in lists, ranked again by halves", bits + 2 * dim),
        Choice(f"HNSW{LINKS},SQ8", "a graph over 8-bit codes", graph + dim),
        Choice(f"HNSW{LINKS},SQfp16", "a graph over halves", graph + 2 * dim),
        Choice(f"HNSW{LINKS}", "a graph over floats", graph + 4 * dim),
        Choice(f"{many},Flat", "floats in lists", 4 * dim + 8 + centres),
        Choice(f"{many},RaBitQfs,Refine(SQ4)", "one-bit codes in lists, ranked again by 4-bit codes", bits + dim / 2),
        Choice(f"{many},SQ4", "4-bit codes in lists", dim / 2 + 8 + centres),
        Choice(f"{many},RaBitQfs", "one-bit codes in lists", bits),
        Choice(f"{many},PQ{_pieces(dim)}", "product codes in lists", _pieces(dim) + 8 + centres),
    ]
    few = count <= FLAT_ROWS
    fitting = [one for one in all_ if memory_bytes is None or one.bytes_per_vector * count <= memory_bytes]
    if not fitting:
        least = min(one.bytes_per_vector for one in all_) * count
        raise ConfigError(
            f"index: {count} vectors of {dim} dimensions take at least {least / 2**20:.0f} MiB, and "
            f"{(memory_bytes or 0) / 2**20:.0f} MiB are allowed"
        )
    if few and fitting[0].factory == "Flat":
        fitting = fitting[:1]
    else:
        fitting = [one for one in fitting if one.factory != "Flat"] or fitting
    size = f"{count} vectors, {'at most' if few else 'more than'} {FLAT_ROWS}"
    limit = "" if memory_bytes is None else f", {memory_bytes / 2**20:.0f} MiB"
    return [Choice(one.factory, f"{size}{limit}: {one.why}", one.bytes_per_vector) for one in fitting]


def _pieces(dim: int) -> int:
    """Bytes of a product code: one for eight dimensions, or as near to it as divides them."""
    return next(dim // width for width in (8, 6, 4, 5, 7, 3, 2, 1) if dim % width == 0)
