"""What is chosen for a card, what a card is asked for, and (`pytest -m gpu`) what a card answers."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from core.errors import ConfigError, EarmarkError
from index.choice import choices
from index.gpu import (
    OnGpu,
    candidates,
    empty,
    filled_on_gpu,
    gpu_choices,
    gpus,
    has_cagra,
    on_card,
    on_device,
    takes_gpu,
    to_gpu,
)
from index.measure import exact_top
from index.parameters import concrete, search_parameters
from index.vectors import ArrayVectors
from tests.index.test_choice import clustered

no_card = pytest.mark.skipif(gpus() > 0, reason="there is a card here")
MAKES = ["Flat", "SQfp16", "IVF32,Flat", "IVF32,SQ8", "IVF32,SQfp16", "IVF32,SQ4", "IVF32,PQ4"]


@pytest.mark.parametrize(
    ("count", "dim", "mib", "cagra", "expected"),
    [
        (1_000, 512, None, True, "Flat"),
        (1_048_576, 512, None, True, "Flat"),  # of floats exactly 2 GiB
        (1_048_577, 512, None, True, "SQfp16"),
        (2_097_153, 512, None, True, "CAGRA64"),
        (2_097_153, 512, None, False, "IVF2048,SQ8"),
        (1_000_000, 512, 1953, True, "SQfp16"),  # floats take 1953.1 MiB, halves 976.6
        (1_000_000, 512, 976, True, "IVF1024,SQ8"),
        (1_000_000, 512, 500, True, "IVF1024,SQ4"),
        (1_000_000, 512, 200, True, "IVF1024,PQ64"),
        (10_000_000, 128, None, False, "IVF4096,SQ8"),
    ],
)
def test_the_first_choice(count: int, dim: int, mib: int | None, cagra: bool, expected: str) -> None:
    memory = None if mib is None else mib * 2**20
    found = gpu_choices(count, dim, memory_bytes=memory, has_cagra=cagra)
    assert found[0].factory == expected
    assert found[0].why.startswith(f"{count} vectors on a GPU") and (mib is None or f", {mib} MiB: " in found[0].why)
    assert memory is None or all(one.bytes_per_vector * count <= memory for one in found)
    assert cagra or not any("CAGRA" in one.factory for one in found)


def test_bytes_on_the_card_by_hand() -> None:
    # 2^22 vectors in 2048 lists of 2048: 16 of a list's places are empty, a 128th; a vector has 1/2048 of a centre of
    # 512 floats, a byte, and a number of 8.
    found = {one.factory: one.bytes_per_vector for one in gpu_choices(2**22, 512, has_cagra=True)}
    assert found == {
        "CAGRA64": 2048 + 256,
        "IVF2048,SQ8": 512 + 4 + 9,
        "IVF2048,SQfp16": 1024 + 8 + 9,
        "IVF2048,Flat": 2048 + 16 + 9,
        "IVF2048,SQ4": 256 + 2 + 9,
        "IVF2048,PQ64": 64 + 9,
    }


@pytest.mark.parametrize(("dim", "pieces"), [(512, 64), (768, 96), (1024, 64), (384, 48), (32, 4), (100, 4), (7, 1)])
def test_product_codes_that_faiss_has_kernels_for(dim: int, pieces: int) -> None:
    assert gpu_choices(10**8, dim)[-1].factory.endswith(f",PQ{pieces}")


def test_nothing_fits() -> None:
    with pytest.raises(ConfigError, match="take at least .* MiB of the card, and 10 MiB are allowed"):
        gpu_choices(1_000_000, 512, memory_bytes=10 * 2**20, has_cagra=True)


def test_what_is_tried_for_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.gpu.gpus", lambda: 1)
    monkeypatch.setattr("index.gpu.room", lambda: 300 * 2**20)
    for device in ("cpu", "auto", "mps"):
        assert candidates(10**6, 512, device=device) == choices(10**6, 512)
    cards = gpu_choices(10**6, 512, memory_bytes=300 * 2**20, has_cagra=has_cagra())
    assert [one.factory for one in cards] == ["IVF1024,SQ4", "IVF1024,PQ64"]
    assert candidates(10**6, 512, device="cuda") == cards
    assert candidates(10**6, 512, memory_bytes=2**40, device="cuda")[0].factory == "Flat"
    monkeypatch.setattr("index.gpu.gpus", lambda: 0)
    with pytest.raises(ConfigError, match="finds no CUDA device"):
        candidates(10**6, 512, device="cuda")


@pytest.mark.parametrize("factory", [*MAKES, "IVF32,PQ64"])
def test_makes_that_a_card_has(factory: str) -> None:
    assert takes_gpu(empty(factory, 64))


@pytest.mark.parametrize(
    "factory",
    ["IVF32,RaBitQfs", "IVF32,RaBitQfs,Refine(SQ8)", "HNSW32", "SQ8", "IVF32,PQ4x4", "IVF32,PQ6", "RR32,IVF32,Flat",
     "IVF32,SQbf16"],
)  # fmt: skip
def test_makes_that_a_card_has_not(factory: str) -> None:
    assert not takes_gpu(empty(factory, 96 if factory == "IVF32,PQ6" else 64))


def test_every_choice_can_be_made_and_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    monkeypatch.setattr(faiss, "GpuIndexCagra", object, raising=False)
    for count in (1_000, 10**8):
        for one in gpu_choices(count, 512, has_cagra=True):
            assert takes_gpu(empty(one.factory, 512)), one.factory


def test_cagra_where_the_installed_faiss_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    graph = empty("CAGRA64", 32)
    monkeypatch.delattr(faiss, "GpuIndexCagra", raising=False)
    assert not has_cagra() and not takes_gpu(graph)
    monkeypatch.setattr(faiss, "GpuIndexCagra", object, raising=False)
    assert has_cagra() and takes_gpu(graph)


def test_cagra_s_graph_is_a_file_that_a_cpu_searches(tmp_path: Path) -> None:
    import faiss

    vectors, queries = clustered(3000), clustered(100, seed=5)
    graph = empty("CAGRA64", 32)
    assert graph.hnsw.nb_neighbors(0) == 64
    graph.add(vectors)
    faiss.write_index(graph, str(tmp_path / "graph"))
    read = faiss.read_index(str(tmp_path / "graph"), faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_READ_ONLY)
    assert type(read) is faiss.IndexHNSWCagra
    rows = read.search(queries, 10, params=search_parameters(read, {"efSearch": 128}))[1]
    assert recall(rows, vectors, queries) > 0.98


@no_card
def test_without_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    assert gpus() == 0
    assert [on_card(device) for device in ("auto", "cpu", "mps")] == [False] * 3
    told = "device cuda was asked for, but FAISS finds no CUDA device here"
    for ask in (
        lambda: on_card("cuda"),
        lambda: to_gpu(empty("Flat", 8)),
        lambda: filled_on_gpu(empty("IVF4,Flat", 8), ArrayVectors(clustered(100, 8)), np.arange(100)),
    ):
        with pytest.raises(ConfigError, match=told):
            ask()
    monkeypatch.delattr(faiss, "get_num_gpus")  # faiss-cpu
    assert gpus() == 0


def test_a_driver_that_fails_is_no_card(monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    def fail() -> int:
        raise RuntimeError("CUDA driver version is insufficient")

    monkeypatch.setattr(faiss, "get_num_gpus", fail)
    assert gpus() == 0


def test_a_make_that_a_card_has_not_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.gpu.gpus", lambda: 1)
    assert on_card("auto") and on_card("cuda") and not on_card("cpu")
    with pytest.raises(ConfigError, match="no IndexHNSWFlat of this make on a GPU"):
        to_gpu(empty("HNSW32", 8))


@no_card
def test_a_card_that_gives_up_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.gpu.gpus", lambda: 1)  # FAISS finds out that it is not there
    with pytest.raises(EarmarkError, match="the card does not take IndexFlat: .*Invalid GPU device"):
        to_gpu(empty("Flat", 8))
    with pytest.raises(EarmarkError, match="IndexIVFFlat of 300 vectors cannot be built on the card"):
        filled_on_gpu(empty("IVF4,Flat", 8), ArrayVectors(clustered(300, 8)), np.arange(300))


def test_what_stays_in_memory(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    flat, graph = empty("Flat", 8), empty("HNSW32", 8)
    assert on_device(flat, "cpu") is flat
    with monkeypatch.context() as patched:
        patched.setattr("index.gpu.gpus", lambda: 0)
        assert on_device(flat, "auto") is flat
        with pytest.raises(ConfigError, match="finds no CUDA device"):
            on_device(flat, "cuda")
    monkeypatch.setattr("index.gpu.gpus", lambda: 1)
    assert on_device(graph, "auto") is graph and on_device(graph, "cuda") is graph

    def full(index: Any) -> Any:
        raise EarmarkError("the card is full")

    monkeypatch.setattr("index.gpu.to_gpu", full)
    assert on_device(flat, "auto") is flat
    assert caplog.messages == ["the card is full; it is searched in memory"]
    with pytest.raises(EarmarkError, match="the card is full"):
        on_device(flat, "cuda")


class Fake:
    """A card that notes what it is asked for, and whether two threads ask at once."""

    def __init__(self, index: Any) -> None:
        self.index, self.asked, self.inside, self.crowded = index, list[Any](), 0, False

    def search(self, vectors: np.ndarray, k: int, *, params: Any = None) -> Any:
        self.inside += 1
        self.crowded |= self.inside > 1
        self.asked.append(params)
        time.sleep(0.002)
        self.inside -= 1
        return np.zeros((len(vectors), k), np.float32), np.full((len(vectors), k), 7)


def filled(factory: str, vectors: np.ndarray) -> Any:
    index = empty(factory, vectors.shape[1])
    index.train(vectors)
    index.add(vectors)
    return index


def test_what_a_card_cannot_do_is_done_in_memory() -> None:
    import faiss

    vectors = clustered(4000)
    index = filled("IVF16,Flat", vectors)
    card = Fake(index)
    both = OnGpu(index, card)
    assert (both.ntotal, both.d) == (4000, 32) and both.cpu is index
    index.make_direct_map()
    np.testing.assert_allclose(both.reconstruct_batch(np.array([5, 9])), vectors[[5, 9]])
    few = search_parameters(index, {"nprobe": 4})
    assert both.search(vectors[:2], 3, params=few)[1].tolist() == [[7] * 3] * 2
    assert both.search(vectors[:1], 2048, params=few)[1].shape == (1, 2048)
    # So many lists are all there are.
    assert both.search(vectors[:2], 3, params=search_parameters(index, {"nprobe": 5000}))[1][0, 0] == 7
    assert len(card.asked) == 3 and card.asked[0].nprobe == 4
    deep = both.search(vectors[:1], 2049, params=search_parameters(index, {"nprobe": 16}))[1]
    assert len(set(deep[0])) == 2049
    chosen = np.arange(0, 4000, 3)
    selector = faiss.IDSelectorBatch(chosen)
    some = both.search(vectors[:5], 3, params=search_parameters(index, {"nprobe": 16}, selector))[1]
    np.testing.assert_array_equal(some, chosen[exact_top(vectors[chosen], vectors[:5], 3)[1]])
    assert len(card.asked) == 3


def test_more_lists_than_a_card_selects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.gpu.DEEPEST", 8)
    vectors = clustered(1000)
    index = filled("IVF16,Flat", vectors)
    card = Fake(index)
    found = OnGpu(index, card).search(vectors[:1], 3, params=search_parameters(index, {"nprobe": 9}))[1]
    assert found[0, 0] == 0 and not card.asked


def test_threads_take_turns() -> None:
    index = filled("Flat", clustered(100))
    card = Fake(index)
    both = OnGpu(index, card)
    threads = [threading.Thread(target=both.search, args=(clustered(1), 3)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(card.asked) == 8 and not card.crowded


def test_effort_as_cagra_calls_it(monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    if not has_cagra():
        monkeypatch.setattr(faiss, "SearchParametersCagra", lambda: SimpleNamespace(itopk_size=64), raising=False)
    index = filled("CAGRA64", clustered(500))
    card = Fake(index)
    both = OnGpu(index, card)
    both.search(clustered(1), 10, params=search_parameters(index, {"efSearch": 192}))
    both.search(clustered(1), 100, params=search_parameters(index, {"efSearch": 16}))
    both.search(clustered(1), 10)
    assert [asked.itopk_size for asked in card.asked] == [192, 100, 64]


def recall(rows: np.ndarray, vectors: np.ndarray, queries: np.ndarray) -> float:
    best = exact_top(vectors, queries, rows.shape[1])[1]
    return float(np.mean([len(set(a) & set(b)) / rows.shape[1] for a, b in zip(rows, best, strict=True)]))


@pytest.mark.gpu
@pytest.mark.parametrize("factory", MAKES)
def test_a_card_finds_what_a_cpu_finds(factory: str, tmp_path: Path) -> None:
    """Built on the card, written, mapped, copied to the card again."""
    import faiss

    vectors, queries = clustered(20_000), clustered(300, seed=5)
    index = filled_on_gpu(empty(factory, 32), vectors, np.arange(len(vectors)))
    assert type(concrete(index)) is type(empty(factory, 32)) and index.ntotal == len(vectors)
    faiss.write_index(index, str(tmp_path / "index"))
    read = faiss.read_index(str(tmp_path / "index"), faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_READ_ONLY)
    both = to_gpu(read)
    params = search_parameters(read, {"nprobe": 32}) if "IVF" in factory else None
    scores, rows = both.search(queries, 10, params=params)
    in_memory = read.search(queries, 10, params=params)
    np.testing.assert_allclose(scores, in_memory[0], atol=5e-3)
    least = {"Flat": 1.0, "IVF32,Flat": 1.0, "IVF32,SQ4": 0.7, "IVF32,PQ4": 0.2}.get(factory, 0.97)
    assert recall(rows, vectors, queries) >= least - 0.001  # whatever the order of equal scores
    few = both.search(queries, 10, params=search_parameters(read, {"nprobe": 1}))[1] if "IVF" in factory else rows
    assert "IVF" not in factory or (few != rows).any()  # what is asked for arrives there


@pytest.mark.gpu
def test_a_card_keeps_to_some_rows() -> None:
    import faiss

    vectors = clustered(5000)
    both = to_gpu(filled("Flat", vectors))
    chosen = np.arange(0, 5000, 7)
    params = search_parameters(both.cpu, {}, faiss.IDSelectorBatch(chosen))
    rows = both.search(vectors[:20], 5, params=params)[1]
    np.testing.assert_array_equal(rows, chosen[exact_top(vectors[chosen], vectors[:20], 5)[1]])


@pytest.mark.gpu
def test_threads_on_a_card() -> None:
    vectors, queries = clustered(20_000), clustered(64, seed=5)
    both = to_gpu(filled("Flat", vectors))
    expected = both.search(queries, 10)[1]
    found: list[Any] = [None] * 64

    def ask(n: int) -> None:
        found[n] = both.search(queries[n : n + 1], 10)[1][0]

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert recall(np.stack(found), vectors, queries) >= 0.999
    assert (np.stack(found) == expected).mean() >= 0.999


@pytest.mark.gpu
@pytest.mark.skipif(not has_cagra(), reason="the installed FAISS has no cuVS")
def test_cagra_on_a_card(tmp_path: Path) -> None:
    import faiss

    vectors, queries = clustered(20_000), clustered(300, seed=5)
    index = filled_on_gpu(empty("CAGRA64", 32), vectors, np.arange(0))
    index.add(queries[:10])  # as the sample that was held out is
    faiss.write_index(index, str(tmp_path / "index"))
    read = faiss.read_index(str(tmp_path / "index"), faiss.IO_FLAG_MMAP_IFC | faiss.IO_FLAG_READ_ONLY)
    both, params = to_gpu(read), search_parameters(read, {"efSearch": 128})
    held = np.concatenate([vectors, queries[:10]])
    assert recall(both.search(queries, 10, params=params)[1], held, queries) >= 0.95
    assert recall(read.search(queries, 10, params=params)[1], held, queries) >= 0.95
