"""Builds from files that are larger than what may be held: sources of vectors, shards, what is killed in between."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import ConfigError, EarmarkError, StorageError
from index import LiveIndex, Sharding, open_index, publish_vectors, remove
from index.choice import Choice, choices
from index.load import load_members
from index.vectors import ArrayVectors, Joined, ParquetVectors, Subset, Vectors
from index.versions import current_manifest

DIM = 32
ROWS = 6000
FACTORY = "IVF32,RaBitQfs,Refine(SQ8)"


def clustered(rows: int = ROWS, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((20, DIM))
    vectors = (centres[rng.integers(0, 20, rows)] + 0.8 * rng.standard_normal((rows, DIM))).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def table(vectors: np.ndarray, first: int = 0, **columns: object) -> pa.Table:
    embedding = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    return pa.table(
        {"content_id": [f"c{first + n:05d}" for n in range(len(vectors))], "embedding": embedding, **columns}
    )


def files(folder: Path, vectors: np.ndarray, parts: int = 3) -> list[Path]:
    found, first = [], 0
    for number, part in enumerate(np.array_split(vectors, parts)):
        found.append(folder / f"part-{number}.parquet")
        pq.write_table(table(np.ascontiguousarray(part), first), found[-1], row_group_size=700)
        first += len(part)
    return found


def publish(folder: Path, paths: list[Path], **options: object) -> object:
    more = {"source": "s", "factory": FACTORY, "sharding": Sharding(rows=1500), "gate": 0.9, **options}
    return publish_vectors(folder, "a", paths, model_id="m", dim=DIM, **more)  # type: ignore[arg-type]


@given(st.data())
def test_every_source_is_its_array(data: st.DataObject) -> None:
    """Whatever is cut out of what: the same rows as of an array."""
    array = np.arange(60, dtype=np.float32).reshape(30, 2)
    source: Vectors = ArrayVectors(array)
    for _ in range(data.draw(st.integers(0, 4))):
        kind = data.draw(st.sampled_from(["subset", "part", "joined"]))
        if kind == "subset":
            chosen = np.array(sorted(data.draw(st.sets(st.integers(0, max(0, len(array) - 1))))), np.int64)
            chosen = chosen[chosen < len(array)]
            source, array = Subset(source, chosen), array[chosen]
        elif kind == "part":
            low = data.draw(st.integers(0, len(array)))
            high = data.draw(st.integers(low, len(array)))
            source, array = source.part(low, high), array[low:high]
        else:
            more = np.full((data.draw(st.integers(0, 3)), 2), -1, np.float32)
            source, array = Joined([source, ArrayVectors(more)]), np.concatenate([array, more])
    assert (source.count, source.dim) == array.shape
    low = data.draw(st.integers(0, len(array)))
    high = data.draw(st.integers(low, len(array)))
    read = np.full((high - low, 2), np.nan, np.float32)
    for first, block in source.blocks(low, high):
        read[first - low : first - low + len(block)] = block
    np.testing.assert_array_equal(read, array[low:high])
    some = np.array(data.draw(st.lists(st.integers(0, max(0, len(array) - 1)), max_size=9)), np.int64)
    some = some[some < len(array)]
    np.testing.assert_array_equal(source.take(some), array[some])


def test_files_are_their_rows(tmp_path: Path) -> None:
    vectors = clustered(2000)
    source = ParquetVectors(files(tmp_path, vectors), DIM)
    assert source.count == 2000
    for first, last in ((0, 2000), (666, 668), (699, 1401), (1999, 2000), (5, 5)):
        found = [block for _, block in source.blocks(first, last)]
        np.testing.assert_array_equal(np.concatenate([np.empty((0, DIM), np.float32), *found]), vectors[first:last])
        part = source.part(first, last)
        assert part.count == last - first
    rows = np.random.default_rng(0).integers(0, 2000, 300)
    np.testing.assert_array_equal(source.take(rows), vectors[rows])


@pytest.mark.parametrize(
    "factory",
    [FACTORY, "IVF32,PQ16x4fs,Refine(SQ8)", "IVF32,SQ8", "IVF32,RaBitQfs,Refine(SQfp16)", "IVF32_HNSW16,Flat", None],
)
def test_shards_find_what_one_build_finds(tmp_path: Path, factory: str | None) -> None:
    vectors = clustered()
    manifest = publish(tmp_path, files(tmp_path, vectors), factory=factory)
    searcher = open_index(tmp_path, "a")
    assert manifest.count == ROWS and manifest.recall["10"] >= 0.9  # type: ignore[attr-defined]
    queries = clustered(100, seed=5)
    best = np.argsort(-(queries @ vectors.T), axis=1)[:, :10]
    found = searcher.search(queries, 10)
    names = np.array(found["content_id"].to_pylist()).reshape(100, 10)
    right = [len({f"c{n:05d}" for n in row} & set(own)) / 10 for row, own in zip(best, names, strict=True)]
    assert np.mean(right) >= 0.9
    # Held out or not, at the border of a shard or not: every row is where its id says.
    for n in (0, 1499, 1500, 4321, ROWS - 1):
        assert np.sum(searcher.vectors(f"c{n:05d}")[0] * vectors[n]) > 0.99
    assert not [path for path in (tmp_path / "a").iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("more", [0, 56])
@pytest.mark.parametrize("rows", [1536, 1540])
@pytest.mark.parametrize(("codes", "shard"), [("RaBitQfs", 384), ("PQ16x4fs", 256)])
def test_lists_as_long_as_a_block_has_bytes(tmp_path: Path, codes: str, shard: int, rows: int, more: int) -> None:
    """FAISS writes beyond its memory there: a block of 32 codes of 32 dimensions has 384 or 256 bytes."""
    from index.shards import sharded
    from index.vectors import ArrayVectors

    vectors = clustered(rows + more)

    def trained() -> object:
        import faiss

        index = faiss.index_factory(DIM, f"IVF1,{codes},Refine(SQ8)", faiss.METRIC_INNER_PRODUCT)
        index.train(vectors)
        return index

    whole = trained()
    whole.add(vectors)  # type: ignore[attr-defined]
    merged = sharded(tmp_path, "f", ArrayVectors(vectors[:rows]), Sharding(), shard, more, trained)
    if more:
        merged.add(vectors[rows:])
    queries = clustered(50, seed=4)
    np.testing.assert_array_equal(merged.index.search(queries, 20)[1], whole.search(queries, 20)[1])  # type: ignore[attr-defined]
    assert merged.index.ntotal == rows + more


def test_windows_and_changes_come_along(tmp_path: Path) -> None:
    vectors = clustered()
    paths = files(tmp_path, vectors)
    publish(tmp_path, paths)
    before = dict(zip(*(ids(tmp_path)[name].to_pylist() for name in ("content_id", "id")), strict=True))
    fresh = clustered(2, seed=8)
    with LiveIndex(tmp_path, "a", write=True) as live:
        live.put("new", fresh[:1])
        live.put("c00007", fresh[1:])
        live.delete(["c00009"])
    remove(tmp_path, "a", ["c00010"])
    manifest = publish(tmp_path, paths, source="t")
    searcher = open_index(tmp_path, "a")
    assert manifest.count == ROWS  # type: ignore[attr-defined]  # one more, one less
    assert np.sum(searcher.vectors("new")[0] * fresh[0]) > 0.99
    assert np.sum(searcher.vectors("c00007")[0] * fresh[1]) > 0.99
    after = dict(zip(*(ids(tmp_path)[name].to_pylist() for name in ("content_id", "id")), strict=True))
    assert "c00009" not in after
    # Who stayed keeps its id; who was removed and came back has another, and nobody has an old one.
    assert {name: n for name, n in after.items() if name not in ("new", "c00010")} == {
        name: n for name, n in before.items() if name not in ("c00009", "c00010")
    }
    assert after["new"] not in before.values() and after["c00010"] not in before.values()


def ids(folder: Path) -> pa.Table:
    manifest = current_manifest(folder, "a")
    assert manifest is not None
    return load_members(folder, manifest).table()


def test_a_build_that_is_killed_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = files(tmp_path, clustered())
    told: list[tuple[int, int]] = []

    def stop(done: int, total: int) -> None:
        told.append((done, total))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish(tmp_path, paths, sharding=Sharding(processes=1, rows=500, progress=stop))
    assert len(told) == 1 and current_manifest(tmp_path, "a") is None
    with monkeypatch.context() as patch:
        patch.setattr("index.workers.subprocess.Popen", Dying)
        with pytest.raises(StorageError, match="process that builds a shard died by SIGKILL"):
            publish(tmp_path, paths, sharding=Sharding(processes=1, rows=500))
    # What is finished is not built again, unless of shards of another size.
    first = next((tmp_path / "a").glob(".shards-*")) / "IVF32-RaBitQfs-Refine-SQ8-" / "shard-0-500.faiss"
    stamp = first.stat().st_mtime_ns
    stamps: list[int] = []
    told.clear()

    def look(done: int, total: int) -> None:
        told.append((done, total))
        stamps.append(first.stat().st_mtime_ns)

    publish(tmp_path, paths, sharding=Sharding(processes=1, rows=500, progress=look))
    assert set(stamps) == {stamp} and told[-1] == (5400, 5400) and 1 <= len(told) < 11
    assert open_index(tmp_path, "a").manifest.count == ROWS


class Dying(subprocess.Popen):  # type: ignore[type-arg]
    """A process that is killed as soon as it lives."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.kill()


@pytest.mark.parametrize("again", [{"rows": 1500}, {"rows": 500, "processes": 2}])
def test_what_was_begun_otherwise_is_not_mixed_in(tmp_path: Path, again: dict[str, int]) -> None:
    """Another size of shards, or the files in another order: every row is where its id says."""
    vectors = clustered()
    paths = files(tmp_path, vectors)

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        publish(tmp_path, paths, sharding=Sharding(processes=1, rows=500, progress=stop))
    order = paths if again["rows"] != 500 else paths[::-1]
    publish(tmp_path, order, sharding=Sharding(**again))  # type: ignore[arg-type]
    searcher = open_index(tmp_path, "a")
    for n in range(0, ROWS, 97):
        assert np.sum(searcher.vectors(f"c{n:05d}")[0] * vectors[n]) > 0.95


def test_a_script_without_a_guard_publishes(tmp_path: Path) -> None:
    files(tmp_path, clustered(2000), parts=1)
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\n"
        "from index import Sharding, publish_vectors\n"
        f"publish_vectors(Path({str(tmp_path)!r}), 'a', [Path({str(tmp_path)!r}) / 'part-0.parquet'], model_id='m', "
        f"dim={DIM}, source='s', factory='IVF8,SQ8', sharding=Sharding(rows=800))\n"
        "print('done')\n"
    )
    root = str(Path(__file__).parents[2])
    told = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": root},
    )
    assert told.stdout == "done\n", told.stderr


def test_files_that_cannot_be_indexed(tmp_path: Path) -> None:
    vectors = clustered(300)
    paths = files(tmp_path, vectors)
    publish(tmp_path, paths, factory="IVF4,Flat")
    served = current_manifest(tmp_path, "a")

    def refused(rows: pa.Table, told: str) -> None:
        pq.write_table(rows, tmp_path / "bad.parquet")
        with pytest.raises(EarmarkError, match=told):
            publish(tmp_path, [*paths, tmp_path / "bad.parquet"], source="t", factory="IVF4,Flat")

    refused(table(2 * clustered(3), 900), "3 vectors are not finite and of unit norm, the first is row 300")
    refused(
        table(vectors[:2]), "302 rows, 2 of them of a content and window that stand there already, such as 'c00000'"
    )
    refused(table(np.ones((2, 3), np.float32), 900), "of 3 dimensions, the model makes 32")
    refused(table(vectors[:2], 900).drop_columns(["embedding"]), "no column 'embedding'")
    refused(table(vectors[:2], 900).drop_columns(["content_id"]), "no column 'content_id'")
    null = pa.table(
        {"content_id": ["x", "y"], "embedding": pa.array([None, vectors[0].tolist()], pa.list_(pa.float32()))}
    )
    refused(null, "1 rows have no vector")
    refused(pa.table({"content_id": pa.array([None]), "embedding": [vectors[0].tolist()]}), "1 rows have no content id")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 rubbish")
    with pytest.raises(EarmarkError, match="bad.parquet cannot be read"):
        publish(tmp_path, [*paths, tmp_path / "bad.parquet"], source="t", factory="IVF4,Flat")
    with pytest.raises(EarmarkError, match="only these are built in shards"):
        publish(tmp_path, paths, source="t", factory="HNSW16")
    with pytest.raises(EarmarkError, match="not of lists alone"):
        publish(tmp_path, paths, source="t", factory="PCA16,IVF4,SQ8")
    with pytest.raises(EarmarkError, match="the metadata has no column content_id"):
        publish(tmp_path, paths, source="t", metadata=pa.table({"kind": ["track"]}))
    with pytest.raises(ConfigError, match="0 processes and shards of 5 rows cannot build"):
        Sharding(processes=0, rows=5)
    with pytest.raises(EarmarkError, match="no vectors"):
        publish(tmp_path, [], source="t")
    assert current_manifest(tmp_path, "a") == served


def test_shards_fit_the_memory() -> None:
    """By hand: 10 million codes of 10 bytes take 100 MB, two processes' blocks 2 x 3 x 65,536 x 512 = 201.3 MB."""
    choice = Choice("IVF", "", 100, 10)
    assert Sharding().rows_a_shard(choice, 10_000_000, 128) == 1_000_000
    limited = Sharding(memory_bytes=321_326_592)  # 20 MB are left, 10 for each process
    assert limited.rows_a_shard(choice, 10_000_000, 128) == 1_000_000
    assert Sharding(memory_bytes=311_326_592).rows_a_shard(choice, 10_000_000, 128) == 500_000
    with pytest.raises(ConfigError, match="takes 288 MiB, and 100 MiB are allowed; fewer processes take less"):
        Sharding(memory_bytes=100 * 2**20).rows_a_shard(choice, 10_000_000, 128)
    with pytest.raises(ConfigError, match="4096 lists cannot be trained"):
        Sharding(memory_bytes=100 * 2**20).training_rows(60 * 4096, 4096, 512)


@pytest.mark.parametrize("count", [20_001, 49_999, 50_000, 50_001, 99_999, 100_000, 100_001, 199_999, 200_001])
@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_few_rows_in_small_shards_are_no_lack_of_memory(count: int, processes: int) -> None:
    """Every size beyond one piece builds where the memory is plenty: its share of the rows, whatever the least is."""
    for choice in (one for one in choices(count, 64) if one.factory.startswith("IVF")):
        sharding = Sharding(processes=processes, memory_bytes=2 * 2**30)
        assert sharding.rows_a_shard(choice, count, 64) == -(-count // processes)
        assert Sharding(processes, rows=10, memory_bytes=2 * 2**30).rows_a_shard(choice, count, 64) == 10


def test_the_least_memory_that_is_named_is_enough() -> None:
    """A MiB more than an error asks for builds, and a MiB less does not."""
    choice = Choice("IVF", "", 100, 10)
    for count in (20_001, 60_000, 150_000, 3_000_000):
        with pytest.raises(ConfigError) as raised:
            Sharding(memory_bytes=2**20).rows_a_shard(choice, count, 128)
        named = int(str(raised.value).split("takes ")[1].split(" MiB")[0])
        assert Sharding(memory_bytes=(named + 1) * 2**20).rows_a_shard(choice, count, 128) > 0
        with pytest.raises(ConfigError):
            Sharding(memory_bytes=(named - 1) * 2**20).rows_a_shard(choice, count, 128)


def test_a_build_just_beyond_one_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.build.FLAT_ROWS", 2999)
    monkeypatch.setattr("index.choice.FLAT_ROWS", 2999)
    paths = files(tmp_path, clustered(3000))
    made = publish(tmp_path, paths, factory=None, gate=None, sharding=Sharding(processes=2, memory_bytes=2**30))
    assert made.count == 3000 and made.factory.startswith("IVF") and made.recall["10"] >= 0.93  # type: ignore[attr-defined]


def test_no_more_memory_than_allowed_is_an_error_and_nothing_is_lost(tmp_path: Path) -> None:
    paths = files(tmp_path, clustered())
    publish(tmp_path, paths)
    with pytest.raises(ConfigError, match="MiB are allowed"):
        publish(tmp_path, paths, source="t", sharding=Sharding(memory_bytes=2**20))
    assert open_index(tmp_path, "a").manifest.source == "s"
