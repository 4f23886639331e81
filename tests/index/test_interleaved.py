"""Live changes, publications, merges and removals in any order, against a model of what each of them is to do."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from core.errors import EarmarkError
from index import LiveIndex, publish_vectors, remove

DIM, NAMES = 8, [f"c{number}" for number in range(12)]


def vector(name: str, step: int) -> np.ndarray:
    made = np.random.default_rng([int(name[1:]), step]).standard_normal(DIM).astype(np.float32)
    return made / np.linalg.norm(made)


def publish(folder: Path, rows: dict[str, int], source: str) -> None:
    table = pa.table({"content_id": list(rows), "embedding": [vector(n, at).tolist() for n, at in rows.items()]})
    publish_vectors(folder, "a", table, model_id="m", dim=DIM, source=source)


class Model:
    """Contents that are found, with the step of their vector; contents deleted live; and what a version lacks yet."""

    def __init__(self, rows: dict[str, int]) -> None:
        self.found, self.deleted, self.pending = dict(rows), set[str](), dict[str, int | None]()

    def put(self, name: str, step: int) -> None:
        self.found[name] = self.pending[name] = step
        self.deleted.discard(name)

    def delete(self, names: list[str]) -> None:
        for name in set(names) & set(self.found):
            del self.found[name]
            self.deleted.add(name)
            self.pending[name] = None

    def remove(self, names: list[str]) -> None:
        for name in names:
            self.found.pop(name, None)
            self.pending.pop(name, None)

    def publish(self, rows: dict[str, int]) -> None:
        self.found = {name: at for name, at in rows.items() if name not in self.deleted and name not in self.pending}
        self.found |= {name: at for name, at in self.pending.items() if at is not None}
        self.pending = {}


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(12))
def test_any_order_of_changes_gives_what_the_model_says(tmp_path: Path, seed: int) -> None:
    rng, model = random.Random(seed), Model(dict.fromkeys(NAMES, 0))
    publish(tmp_path, model.found, "0")
    for step in range(1, 60):
        what = rng.choice(["put", "put", "delete", "delete", "merge", "publish", "publish", "remove", "purge"])
        names = rng.sample(NAMES, rng.randint(1, 3))
        if what == "publish":
            rows = dict.fromkeys(rng.sample(NAMES, rng.randint(6, 12)), step)
            try:
                publish(tmp_path, rows, str(step))
            except EarmarkError:
                assert not (set(rows) - model.deleted) and not any(model.pending.values())
                continue
            model.publish(rows)
        elif what in ("remove", "purge"):
            if set(model.found) <= set(names):
                continue  # nothing would be left to open
            remove(tmp_path, "a", names, purge=what == "purge", missing_ok=True)
            model.remove(names)
        elif what == "merge" and not model.found:
            continue
        else:
            with LiveIndex(tmp_path, "a", write=True) as live:
                if what == "put":
                    live.put(names[0], vector(names[0], step))
                    model.put(names[0], step)
                elif what == "delete":
                    assert live.delete(names) == sorted(set(names) - set(model.found))
                    model.delete(names)
                else:
                    live.merge()
                    model.pending = {}
        found = LiveIndex(tmp_path, "a")
        names_found = found.search(np.ones(DIM), 100)["content_id"].to_pylist()
        assert sorted(names_found) == sorted(model.found), (step, what, names)
        for name, at in model.found.items():
            np.testing.assert_allclose(found.vectors(name)[0], vector(name, at), atol=1e-6)
