"""Which FAISS index to build, from how many vectors there are and how much memory they may take."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import log2

from core.errors import ConfigError

FLAT_ROWS = 20_000  # up to here exact search answers within a few milliseconds on one core
TRAINING_ROWS_A_LIST = 60  # of k-means
MOST_LISTS = 65_536
GRAPH_OF_LISTS = 8_192  # from so many lists on, a graph finds those to look at sooner than comparing with all
LINKS = 32  # of a graph's node; the bottom layer has twice as many, of 4 bytes each


@dataclass(frozen=True)
class Choice:
    """A FAISS factory string, why it is the one, and about how many bytes a vector takes: in all, and in memory where
    the rest is left on the disk (as much unless told)."""

    factory: str
    why: str
    bytes_per_vector: float
    resident: float = 0.0

    def __post_init__(self) -> None:
        if not self.resident:
            object.__setattr__(self, "resident", self.bytes_per_vector)


def lists(count: int) -> int:
    """Inverted lists for so many vectors: the power of two about √n. Small codes are read so fast that few long lists
    win (docs/decisions/0013)."""
    return int(min(MOST_LISTS, 2 ** round(log2(max(16.0, count**0.5)))))


def choices(count: int, dim: int, *, memory_bytes: float | None = None) -> list[Choice]:
    """What to try, the first that reaches the recall is taken: faster before slower, and all within the memory.

    Exact search for few vectors. Beyond, lists of product codes of 4 bits, scanned in registers, whose best are ranked
    again by 8-bit codes: at equal recall faster, smaller and built sooner than a graph (docs/benchmarks.md). Where that
    does not find enough, one-bit codes (RaBitQ), 16-bit codes, then a graph; where memory is short, coarser codes.
    Raises `ConfigError` where nothing fits.
    """
    many = f"IVF{lists(count)}" if lists(count) < GRAPH_OF_LISTS else f"IVF{lists(count)}_HNSW{LINKS}"
    centres = 4 * dim * lists(count) / max(count, 1)
    listed = 8 + centres  # of a vector in a list: its number, and its share of the centre
    width = code_width(dim)
    product, packed = dim / width / 2 + listed, f"{many},PQ{dim // width}x4fs"
    bits = dim / 8 + 8 + listed  # of a RaBitQ code: a bit a dimension and its factors
    graph = 8 * LINKS + 8
    of = f"4-bit product codes of {width} dimensions in lists"
    all_ = [
        Choice("Flat", "exact search", 4 * dim),
        Choice(f"{packed},Refine(SQ8)", f"{of}, ranked again by 8-bit codes", product + dim),
        Choice(f"{many},RaBitQfs,Refine(SQ8)", "one-bit codes in lists, ranked again by 8-bit codes", bits + dim),
        Choice(f"{packed},Refine(SQfp16)", f"{of}, ranked again by halves", product + 2 * dim),
        Choice(f"HNSW{LINKS},SQ8", "a graph over 8-bit codes", graph + dim),
        Choice(f"HNSW{LINKS},SQfp16", "a graph over halves", graph + 2 * dim),
        Choice(f"HNSW{LINKS}", "a graph over floats", graph + 4 * dim),
        Choice(f"{many},Flat", "floats in lists", 4 * dim + listed),
        Choice(f"{packed},Refine(SQ4)", f"{of}, ranked again by 4-bit codes", product + dim / 2),
        Choice(f"{packed},Refine(SQ8)", f"{of}, ranked again by 8-bit codes from the disk", product + dim, product),
        Choice(f"{many},SQ4", "4-bit codes in lists", dim / 2 + listed),
        Choice(packed, of, product),
        Choice(f"{many},PQ{_pieces(dim)}", "8-bit product codes in lists", _pieces(dim) + listed),
    ]
    few = count <= FLAT_ROWS
    fitting = [one for one in all_ if memory_bytes is None or one.resident * count <= memory_bytes]
    if not fitting:
        least = min(one.resident for one in all_) * count
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
    told = {one.factory: one for one in reversed(fitting)}  # what fits whole needs not be left on the disk
    fitting = [one for one in fitting if told[one.factory] is one]
    return [replace(one, why=f"{size}{limit}: {one.why}") for one in fitting]


def code_width(dim: int) -> int:
    """Dimensions that a 4-bit code stands for: a bit for each of many, more for each of few, of whom a code would tell
    too little."""
    most = 4 if dim >= 256 else 2 if dim >= 64 else 1
    return next(width for width in range(most, 0, -1) if dim % width == 0)


def _pieces(dim: int) -> int:
    """Bytes of a product code: one for eight dimensions, or as near to it as divides them."""
    return next(dim // width for width in (8, 6, 4, 5, 7, 3, 2, 1) if dim % width == 0)
