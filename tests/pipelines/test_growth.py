"""A run reads a file of its store a number of times that does not depend on how many shards or parts there are."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from bench.growth import Episodes, ban, new_store, stub_models, write_catalog
from core.config import Config
from core.rows import _Parts
from core.storage import LocalStorage
from moderation.audit import Audit
from moderation.cases import Cases
from pipelines import moderate, skips
from pipelines.context import Run
from pipelines.inprocess import run_catalog

CONTENTS, SHARD = 60, 4
TIMES = 8  # that a run reads one file, whatever their number


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each path of a store was read."""
    found: Counter[str] = Counter()
    real = LocalStorage.read

    def counted(self: LocalStorage, path: str) -> bytes:
        if path != "lease.json":  # read as often as time asks
            found[path] += 1
        return real(self, path)

    monkeypatch.setattr(LocalStorage, "read", counted)
    return found


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[str, int, int]]:
    """How often each row group of a view was decoded."""
    found: Counter[tuple[str, int, int]] = Counter()
    real = _Parts._decoded

    def counted(self: _Parts, part: int, group: int):
        found[self.view.name, part, group] += 1
        return real(self, part, group)

    monkeypatch.setattr(_Parts, "_decoded", counted)
    return found


def test_every_file_is_read_a_few_times_by_a_run_and_by_a_scan(
    tmp_path: Path, reads: Counter[str], decoded: Counter[tuple[str, int, int]]
) -> None:
    source, store = tmp_path / "catalog.jsonl", tmp_path / "store"
    write_catalog(source, CONTENTS)
    with open(source, "a") as file:  # a shard's work that fails, in each of some fifteen shards
        lines = source.read_text().splitlines()
        file.write(
            "".join(
                line.replace("content-", f"broken-{n}-")[:-1] + ', "image_uri": "missing.png"}\n'
                for n, line in enumerate(lines)
                if "image_uri" not in line
            )
        )
    storage = new_store(store, source)
    ban(storage, 0)
    config = Config(device="cpu", shard_items=SHARD, text_shard_items=SHARD)
    with stub_models():
        summary = run_catalog(str(source), str(store), config)
        assert len(summary["quarantine"]) == CONTENTS
        quarantined = [path for path in reads if path.startswith("quarantine/")]
        assert len(quarantined) > 12
        assert max(reads.values()) <= TIMES, reads.most_common(5)
        assert set(decoded.values()) == {1}, decoded.most_common(5)
        # Looking again at everything, over a store with as many parts, reads each once more.
        reads.clear(), decoded.clear()
        ban(storage, 1)
        found = moderate.scan(Run.load(str(store), summary["run_id"]))
    assert found["looked_at"] > CONTENTS
    assert max(reads.values()) <= TIMES, reads.most_common(5)
    assert set(decoded.values()) == {1}, decoded.most_common(5)


def test_frames_are_read_from_their_own_row_group(tmp_path: Path, decoded: Counter[tuple[str, int, int]]) -> None:
    with stub_models():
        run = Episodes().store(tmp_path / "store", 12)
        assert skips.step(run)["new"] == 12
    assert set(decoded.values()) == {1}, decoded.most_common(5)
    assert {view for view, _, _ in decoded} == {"fingerprint"} and len(decoded) == 12


def test_a_replay_of_everything_reads_the_audit_a_few_times(tmp_path: Path, reads: Counter[str]) -> None:
    from embedders.fingerprint import patches

    source, store = tmp_path / "catalog.jsonl", tmp_path / "store"
    write_catalog(source, CONTENTS)
    storage = new_store(store, source)
    for number in range(5):
        ban(storage, number)
    with stub_models():
        run_catalog(str(source), str(store), Config(device="cpu"))
    reads.clear()
    cases = Cases(Audit(storage, whole=True))
    assert len(cases.every) >= 5
    assert all(cases.replay(case, patches).same for case in cases.every.values())
    audit = {path: count for path, count in reads.items() if path.startswith("moderation/audit/blocks")}
    assert max(audit.values()) <= 2, audit
