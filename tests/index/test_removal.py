"""Contents taken out of a published index: what remains is as it was, and nothing of them comes back by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from index import LiveIndex, open_index, publish_vectors, remove
from index.load import load_members
from index.versions import current_manifest, current_version, point_to, versions
from tests.index.test_choice import clustered, table


def publish(folder: Path, rows: pa.Table, source: str = "s", **options: object) -> object:
    return publish_vectors(folder, "a", rows, model_id="m", dim=32, source=source, **options)  # type: ignore[arg-type]


def ids(folder: Path) -> dict[str, int]:
    manifest = current_manifest(folder, "a")
    assert manifest is not None
    found = load_members(folder, manifest).table()
    return dict(zip(found["content_id"].to_pylist(), found["id"].to_pylist(), strict=True))


@pytest.mark.parametrize(
    "factory", ["IVF16,PQ16x4fs,Refine(SQ8)", "IVF16,RaBitQfs,Refine(SQ8)", "IVF16,SQ4", "HNSW16,SQ8", "Flat"]
)
def test_what_remains_keeps_its_bytes(tmp_path: Path, factory: str) -> None:
    """However often something is removed: codes are not made of codes of codes."""
    vectors = clustered(1000)
    publish(tmp_path, table(vectors), factory=factory, gate=0.0)
    before = open_index(tmp_path, "a")
    kept = [f"c{n:06d}" for n in range(500, 1000, 50)]
    held = [before.vectors(one) for one in kept]
    for n in range(4):
        remove(tmp_path, "a", [f"c{n:06d}"])
    after = open_index(tmp_path, "a")
    assert after.manifest.count == 996 and after.manifest.factory == factory
    np.testing.assert_array_equal(np.concatenate([after.vectors(one) for one in kept]), np.concatenate(held))
    queries = clustered(50, seed=3)
    old, new = (one.search(queries, 5, exclude=[f"c{n:06d}" for n in range(4)]) for one in (before, after))
    share = np.mean(np.asarray(old["content_id"]) == np.asarray(new["content_id"]))
    assert share == 1 or (share > 0.9 and "HNSW" in factory)  # a graph is made anew


def test_a_live_delete_outlives_a_removal(tmp_path: Path) -> None:
    rows = table(clustered(30))
    publish(tmp_path, rows)
    with LiveIndex(tmp_path, "a", write=True) as live:
        live.delete(["c000001"])
    remove(tmp_path, "a", ["c000001"])
    publish(tmp_path, rows, "t")
    assert "c000001" not in ids(tmp_path) and len(ids(tmp_path)) == 29


def test_the_last_content_goes_and_what_is_live_stays(tmp_path: Path) -> None:
    rows = table(clustered(2))
    fresh = clustered(1, seed=9)
    publish(tmp_path, rows)
    with LiveIndex(tmp_path, "a", write=True) as live:
        live.delete(["c000000"])
    publish(tmp_path, rows, "t")
    with LiveIndex(tmp_path, "a", write=True) as live:
        live.put("new", fresh)
    assert remove(tmp_path, "a", ["c000001"]) is None and current_version(tmp_path, "a") is None
    publish(tmp_path, rows, "u")
    # What was put is there, what was deleted live is not, and what was removed is as its table says.
    assert sorted(ids(tmp_path)) == ["c000001", "new"]


def test_no_id_is_given_again_after_going_back(tmp_path: Path) -> None:
    first = publish(tmp_path, table(clustered(20)))
    publish(tmp_path, table(clustered(40)), "t")
    given = set(ids(tmp_path).values())
    point_to(tmp_path, "a", first.version)  # type: ignore[attr-defined]
    remove(tmp_path, "a", ["c000000"], purge=True)
    other = clustered(20, seed=4)
    fresh = table(other).set_column(0, "content_id", pa.array([f"x{n}" for n in range(20)]))
    publish(tmp_path, fresh, "u")
    assert not given & set(ids(tmp_path).values())


def test_an_id_that_only_the_log_gave_is_not_given_again(tmp_path: Path) -> None:
    publish(tmp_path, table(clustered(5)))
    with LiveIndex(tmp_path, "a", write=True) as live:
        live.put("x", clustered(1, seed=5))
    remove(tmp_path, "a", ["x"], purge=True)
    with LiveIndex(tmp_path, "a", write=True) as live:
        live.put("y", clustered(1, seed=6))
        live.merge()
    assert ids(tmp_path)["y"] == 6


def test_a_purge_takes_what_killed_builds_left(tmp_path: Path) -> None:
    publish(tmp_path, table(clustered(5)))
    for name in (".shards-1", ".staging-2", ".dying-3"):
        (tmp_path / "a" / name).mkdir()
        (tmp_path / "a" / name / "vectors").write_bytes(b"x")
    remove(tmp_path, "a", ["c000001"], purge=True)
    assert not [path for path in (tmp_path / "a").iterdir() if path.name.startswith(".")]
    assert len(versions(tmp_path, "a")) == 1
