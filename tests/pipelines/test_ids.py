"""Functions that take ids, over the packages: a string is one id, and what is no id is refused before any work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from core.config import Config
from core.errors import NotFound, WrongType
from core.features import CONTENT
from core.storage import LocalStorage
from core.tables import decode, encode, now_us
from moderation.audit import Audit
from moderation.exemplars import Exemplars
from pipelines import exemplars, moderate, quarantine, removal, skip_events, skips
from pipelines.context import Run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(LocalStorage(tmp_path), "r", "", Config())


def _online(ids: Any) -> None:
    from feature_repo.reads import online_features

    online_features(None, ids)


def _remove_online(ids: Any) -> None:
    from feature_repo.materialise import remove_online

    remove_online(None, ids)


TAKING: list[Callable[[Run, Any], object]] = [
    lambda run, ids: removal.remove(run, ids),
    lambda run, ids: removal.remove(run, ids, erase=True),
    lambda run, ids: removal.prune(run, ids),
    lambda run, ids: removal.restore(run.storage, ids),
    lambda run, ids: quarantine.erase(run.storage, ids, now_us()),
    lambda run, ids: skips.forget(run, ids),
    lambda run, ids: skip_events.erase_events(run.storage, ids) or run.storage.write("x", b""),
    lambda run, ids: moderate.erase(run, ids),
    lambda run, ids: exemplars.add_contents(run, "bank", "text", ids),
    lambda run, ids: Exemplars(run.storage).every(ids),
    lambda run, ids: Exemplars(run.storage).every(["bank"], states=ids),
    lambda run, ids: Exemplars(run.storage).add("bank", "text", {"text": "x"}, tags=ids),
    lambda run, ids: Audit(run.storage).erase(ids),
    lambda run, ids: _online(ids),
    lambda run, ids: _remove_online(ids),
]


@pytest.mark.parametrize("call", TAKING, ids=range(len(TAKING)))
@pytest.mark.parametrize("wrong", [b"item-700", [b"item-700"], 700, [700]], ids=str)
def test_what_is_no_id_is_refused_before_any_work(run: Run, call: Callable[[Run, Any], object], wrong: object) -> None:
    with pytest.raises(WrongType):
        call(run, wrong)
    assert not [entry.path for entry in run.storage.entries("") if "audit" not in entry.path]


def test_one_string_is_one_id(run: Run) -> None:
    storage = run.storage
    with pytest.raises(NotFound, match="'item-700'"):
        removal.remove(run, "item-700")
    with pytest.raises(NotFound, match="'item-700'"):
        removal.restore(storage, "item-700")
    now = now_us()
    failures = [quarantine.Failure(c, "audio", "k", "truncated", "") for c in ("ab", "a", "b")]
    quarantine.record(storage, now, "p", failures)
    quarantine.erase(storage, "ab", now)
    assert {content_id for content_id, _ in quarantine.open_keys(storage)} == {"a", "b"}
    storage.write(f"{skip_events.FOLDER}/x.parquet", encode(pa.table({"content_id": ["ab", "a", "b"]})))
    skip_events.erase_events(storage, "ab")
    assert decode(storage.read(f"{skip_events.FOLDER}/x.parquet"))["content_id"].to_pylist() == ["a", "b"]
    held = Exemplars(storage)
    held.add("songs", "text", {"text": "x"}, tags="loud")
    held.add("song", "text", {"text": "y"})
    assert [e.bank for e in held.every("songs")] == ["songs"]
    assert [e.tags for e in held.every("songs")] == [("loud",)]


def test_a_lone_path_is_no_list_of_exemplars(run: Run, tmp_path: Path) -> None:
    with pytest.raises(WrongType, match="give a list of paths"):
        exemplars.add_files(run.storage, "bank", tmp_path)  # type: ignore[arg-type]


def test_rows_of_chosen_contents_take_one_id(run: Run) -> None:
    from core.rows import LatestRows
    from core.tables import rows_to_table

    now = now_us()
    rows = [
        {"content_id": c, "event_timestamp": now, "created_timestamp": now, "work_key": "k"} for c in ("ab", "a", "b")
    ]
    run.tables.commit(CONTENT, rows_to_table(CONTENT, rows), now, "p")
    latest = LatestRows(run.tables, CONTENT)
    assert latest.read("ab")["content_id"].to_pylist() == latest.ordered("ab") == ["ab"]
    with pytest.raises(WrongType):
        latest.read([b"ab"])  # type: ignore[list-item]
