"""One shard: an interrupt keeps what is done, a row that no column takes is one content's failure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import soundfile

from core.config import Config
from core.contracts import CONTENT_SCHEMA
from core.features import ACOUSTIC, CONTENT
from core.storage import LocalStorage
from core.tables import now_us
from pipelines import enrich, quarantine
from pipelines.context import Run
from pipelines.plan import Candidate, cut_shards, pending
from pipelines.stages import Stage, content_stage

NAMES = ("a", "b", "c")


def measured(batch: Sequence[Any]) -> list[dict[str, Any]]:
    return [{"duration_s": float(len(medium))} for medium in batch]


STAGE = Stage("acoustic", "audio", ACOUSTIC, "none", 1, measured)


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setattr(enrich, "media_stages", lambda run: [STAGE])
    monkeypatch.setattr(enrich, "one_thread_per_model", lambda: None)
    made = Run(LocalStorage(tmp_path / "store"), "run", str(tmp_path), Config(workers=1))
    made.tables.ensure(CONTENT)
    made.tables.ensure(ACOUSTIC)
    return made


def planned(run: Run) -> list[str]:
    now = now_us()
    base = dict.fromkeys(CONTENT_SCHEMA.names) | {"kind": "track", "title": "t", "updated_at": now}
    rows = [{**base, "content_id": name, "audio_uri": f"{name}.wav"} for name in NAMES]
    work = []
    for stage in (content_stage(), STAGE):
        candidates = [Candidate(n, name, now, name, stage.key(name)) for n, name in enumerate(NAMES)]
        work += pending(run, stage, candidates, now)
    return cut_shards(run, "media", pa.Table.from_pylist(rows, schema=CONTENT_SCHEMA), work, 10) if work else []


def ids(run: Run, view: Any) -> list[str]:
    return run.tables.latest(view)["content_id"].to_pylist()


def test_an_interrupt_keeps_what_is_done(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(run: Run, item: dict[str, Any], stages: list[Stage]) -> str:
        if item["content_id"] == "b":
            raise KeyboardInterrupt
        return "sound"

    monkeypatch.setitem(enrich._READERS, "audio", read)
    (shard,) = planned(run)
    with pytest.raises(KeyboardInterrupt):
        enrich.run_shard(run, shard)
    assert ids(run, CONTENT) == list(NAMES)
    kept = ids(run, ACOUSTIC)
    assert "a" in kept and "b" not in kept
    seen = []
    monkeypatch.setitem(enrich._READERS, "audio", lambda run, item, stages: seen.append(item["content_id"]) or "sound")
    (shard,) = planned(run)
    enrich.run_shard(run, shard)
    assert sorted(seen + kept) == list(NAMES)  # what was kept is not computed again
    assert ids(run, ACOUSTIC) == list(NAMES)


def test_a_value_that_no_column_takes_is_one_contents_failure(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def bad(batch: Sequence[Any]) -> list[dict[str, Any]]:
        return [{"duration_s": "long" if medium == "b" else 1.0} for medium in batch]

    stage = Stage("acoustic", "audio", ACOUSTIC, "none", 1, bad)
    monkeypatch.setattr(enrich, "media_stages", lambda run: [stage])
    monkeypatch.setitem(enrich._READERS, "audio", lambda run, item, stages: item["content_id"])
    (shard,) = planned(run)
    assert enrich.run_shard(run, shard)["failures"] == 1
    assert ids(run, ACOUSTIC) == ["a", "c"]
    (row,) = quarantine.open_rows(run.storage).to_pylist()
    assert (row["content_id"], row["stage"], row["reason"]) == ("b", "acoustic", "failed")
    assert planned(run) == []  # it waits in quarantine until its key changes


def test_a_truncated_file_is_kept_once_that_is_accepted(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flagged(batch: Sequence[Any]) -> list[dict[str, Any]]:
        return [{"duration_s": audio.duration_s, "truncated": bool(audio.truncated)} for audio in batch]

    stage = Stage("acoustic", "audio", ACOUSTIC, "none", 1, flagged)
    monkeypatch.setattr(enrich, "media_stages", lambda run: [stage])
    for name in NAMES:
        soundfile.write(tmp_path / f"{name}.wav", np.zeros(16_000), 16_000)
    (tmp_path / "b.wav").write_bytes((tmp_path / "a.wav").read_bytes()[:20_000])
    (shard,) = planned(run)
    enrich.run_shard(run, shard)
    (row,) = quarantine.open_rows(run.storage).to_pylist()
    assert (row["content_id"], row["stage"], row["reason"]) == ("b", "audio", "truncated")
    assert planned(run) == []
    run.config = run.config.replace(accept_truncated=True)
    (shard,) = planned(run)
    assert enrich.run_shard(run, shard) == {"shard": shard, "contents": 1, "failures": 0}
    rows = run.tables.latest(ACOUSTIC, ["truncated", "duration_s"]).to_pylist()
    assert {row["content_id"]: row["truncated"] for row in rows} == {"a": False, "b": True, "c": False}
    assert rows[1]["duration_s"] == pytest.approx(0.62, abs=0.01)
    assert quarantine.open_rows(run.storage).num_rows == 0 and planned(run) == []
