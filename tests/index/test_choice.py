"""Which index is chosen, how it is tuned and measured, and when it is not published."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from core.errors import ConfigError, IndexUnavailable
from index import open_index, publish_vectors
from index.build import build
from index.choice import choices, lists
from index.measure import Sample, exact_top
from index.parameters import concrete, knobs, ladders, search_parameters


def clustered(count: int, dim: int = 32, seed: int = 0) -> np.ndarray:
    """Unit vectors around 50 centres."""
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((50, dim))
    vectors = (centres[rng.integers(0, 50, count)] + 0.8 * rng.standard_normal((count, dim))).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def table(vectors: np.ndarray) -> pa.Table:
    names = [f"c{n:06d}" for n in range(len(vectors))]
    values = pa.array(np.ascontiguousarray(vectors).reshape(-1))
    embedding = pa.FixedSizeListArray.from_arrays(values, vectors.shape[1])
    return pa.table({"content_id": names, "embedding": embedding})


@pytest.mark.parametrize(
    ("count", "dim", "mib", "expected"),
    [
        (20_000, 512, None, "Flat"),
        (20_001, 512, None, "IVF128,PQ128x4fs,Refine(SQ8)"),
        (1_000_000, 512, None, "IVF1024,PQ128x4fs,Refine(SQ8)"),
        (1_000_000, 512, 400, "IVF1024,PQ128x4fs,Refine(SQ4)"),
        (1_000_000, 512, 100, "IVF1024,PQ128x4fs,Refine(SQ8)"),
        (20_000, 512, 20, "IVF128,PQ128x4fs,Refine(SQ8)"),
        (10_000_000, 128, None, "IVF4096,PQ64x4fs,Refine(SQ8)"),
    ],
)
def test_the_first_choice(count: int, dim: int, mib: int | None, expected: str) -> None:
    found = choices(count, dim, memory_bytes=None if mib is None else mib * 2**20)
    assert found[0].factory == expected
    assert str(count) in found[0].why
    assert mib is None or all(one.resident * count <= mib * 2**20 for one in found)


def test_nothing_fits() -> None:
    with pytest.raises(ConfigError, match="take at least .* MiB, and 10 MiB are allowed"):
        choices(1_000_000, 512, memory_bytes=10 * 2**20)


def test_lists_grow_with_the_root() -> None:
    assert [lists(n) for n in (1, 10_000, 160_000, 1_000_000, 10**12)] == [16, 128, 512, 1024, 65_536]


def test_exact_search_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.vectors.BLOCK_ROWS", 7)
    vectors, queries = clustered(100), clustered(9, seed=3)
    scores, rows = exact_top(vectors, queries, 12)
    product = queries @ vectors.T
    np.testing.assert_array_equal(rows, np.argsort(-product, axis=1)[:, :12])
    np.testing.assert_allclose(scores, -np.sort(-product, axis=1)[:, :12], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "factory",
    [
        "IVF64,RaBitQfs,Refine(SQ8)",
        "IVF64,PQ16x4fs,Refine(SQ8)",
        "IVF64,PQ32x4fs",
        "IVF64,RaBitQfs,Refine(SQfp16)",
        "RR32,IVF64,RaBitQfs,Refine(SQ8)",
        "HNSW32,SQ8",
        "HNSW32,SQfp16",
        "HNSW32",
        "IVF64,Flat",
        "IVF64,SQ8",
        "IVF64,PQ16",
        "SQ8",
    ],
)
def test_every_make_is_tuned_published_loaded_and_filtered(factory: str, tmp_path: Path) -> None:
    import pyarrow.compute as pc

    vectors = clustered(6000)
    target = 0.5 if "PQ" in factory else 0.95
    rows = table(vectors)
    kinds = pa.array(["rare" if n % 500 == 0 else "half" if n % 2 else "rest" for n in range(6000)])
    about = pa.table({"content_id": rows["content_id"], "kind": kinds})
    manifest = publish_vectors(
        tmp_path, "audio", rows, model_id="m", dim=32, source="s", factory=factory, target_recall=target, metadata=about
    )
    searcher = open_index(tmp_path, "audio")
    queries = clustered(200, seed=7)
    for kind, share in ((None, None), ("half", 1), ("rare", 0)):
        allowed = np.ones(6000, bool) if kind is None else np.asarray(kinds.to_numpy(zero_copy_only=False) == kind)
        exact = np.where(allowed, queries @ vectors.T, -9)
        best = np.argsort(-exact, axis=1)[:, :10]
        found = searcher.search(queries, 10, where=None if kind is None else pc.field("kind") == kind)
        assert found.num_rows == 2000
        numbers = np.array([int(one[1:]) for one in found["content_id"].to_pylist()]).reshape(200, 10)
        assert allowed[numbers].all()
        recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(best, numbers, strict=True)])
        assert recall >= target - 0.03, (kind, share)
    # A search asks for a few more than ten, so that coarse codes find more than was measured.
    assert recall_of(searcher, vectors, queries) > manifest.recall["10"] - 0.05
    decoded = np.concatenate([searcher.vectors(f"c{n:06d}") for n in (0, 3, 5999)])
    assert (np.sum(decoded * vectors[[0, 3, 5999]], axis=1) > (0.6 if "PQ" in factory else 0.98)).all()
    assert manifest.latency_ms["p50"] > 0 and manifest.bytes_per_vector > 0


def recall_of(searcher: object, vectors: np.ndarray, queries: np.ndarray) -> float:
    found = searcher.search(queries, 10)  # type: ignore[attr-defined]
    numbers = np.array([int(one[1:]) for one in found["content_id"].to_pylist()]).reshape(len(queries), 10)
    best = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    return float(np.mean([len(set(a) & set(b)) / 10 for a, b in zip(best, numbers, strict=True)]))


def test_the_cheapest_setting_that_reaches_the_target() -> None:
    """Against trying all of a ladder one by one."""
    import faiss

    vectors = clustered(5000)
    queries = clustered(400, seed=4)
    index = faiss.index_factory(32, "IVF64,Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    assert knobs(index) == ("nprobe",)
    tuned = Sample(vectors, queries).tune(index, 0.9)
    best = np.argsort(-(queries @ vectors.T), axis=1)[:200, :10]
    for setting in ladders(index)[0]:
        labels = index.search(queries[:200], 10, params=search_parameters(index, setting))[1]
        hits = np.array([len(set(a) & set(b)) / 10 for a, b in zip(best, labels, strict=True)])
        if hits.mean() - 2 * hits.std(ddof=1) / 200**0.5 >= 0.9:
            assert tuned == setting
            return
    raise AssertionError("no setting reaches the target")


def test_the_next_choice_where_one_finds_too_little(monkeypatch: pytest.MonkeyPatch) -> None:
    from index.choice import Choice

    two = [Choice("PQ2x4", "tiny codes", 1), Choice("Flat", "exact search", 128)]
    monkeypatch.setattr("index.build.candidates", lambda *a, **k: two)
    made = build(clustered(1000))
    assert made.choice.factory == "Flat" and made.quality.recall["10"] == 1.0
    assert len(made.refused) == 1 and made.refused[0].startswith("PQ2x4 reached 0.")


def test_not_below_the_published_version(tmp_path: Path) -> None:
    def publish(count: int, factory: str, target: float, source: str) -> object:
        return publish_vectors(
            tmp_path, "a", table(clustered(count)), model_id="m", dim=32, source=source, factory=factory,
            target_recall=target,
        )  # fmt: skip

    first = publish(3000, "IVF64,Flat", 0.98, "one")
    with pytest.raises(IndexUnavailable, match="in the published version: not published below"):
        publish_vectors(
            tmp_path, "a", table(clustered(3001)), model_id="m", dim=32, source="two", factory="IVF64,PQ8",
            target_recall=0.99, gate=0.1,
        )  # fmt: skip
    assert open_index(tmp_path, "a").manifest == first


def test_a_factory_string_that_faiss_does_not_take() -> None:
    from core.errors import EarmarkError

    with pytest.raises(EarmarkError, match="does not take the factory string 'Nonsense7'"):
        build(clustered(100), factory="Nonsense7")


def test_an_index_is_found_within_others() -> None:
    import faiss

    index = faiss.index_factory(32, "RR32,IVF16,RaBitQfs,Refine(SQ8)", faiss.METRIC_INNER_PRODUCT)
    assert set(knobs(index)) == {"nprobe", "k_factor"}
    assert type(concrete(index)).__name__ in ("IndexRefine", "IndexPreTransform")
