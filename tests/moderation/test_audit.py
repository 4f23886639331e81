"""The chain: whatever is done to it is seen, several may write, and what is personal can go."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest

from core.errors import ConfigError, NotFound
from core.storage import LocalStorage, open_storage
from moderation.audit import BLOCKS, HINT, Audit, Entry, Head


def entry(number: int, **personal: str) -> Entry:
    return Entry(
        "decision", {"content_id": f"track:{number}", "score": number / 7, "title": "Größe \u2028 😀"}, personal
    )


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    return Audit(open_storage(tmp_path))


@pytest.fixture
def filled(audit: Audit) -> Audit:
    """Seven records in four blocks."""
    for block in ([1, 2], [3], [4, 5, 6], [7]):
        audit.append([entry(n, author=f"person {n}") for n in block])
    return audit


def blocks(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / BLOCKS).iterdir())


def test_what_is_appended_is_read_in_order(filled: Audit) -> None:
    records = list(filled.records())
    assert [r.number for r in records] == list(range(1, 8))
    assert [r.body["content_id"] for r in records] == [f"track:{n}" for n in range(1, 8)]
    assert records[0].previous == "0" * 64
    assert all(later.previous == before.hash for before, later in zip(records, records[1:], strict=False))
    assert filled.head() == records[-1].head
    assert filled.find(records[4].record_id) == records[4]
    assert filled.verify() == filled.verify(filled.head())
    assert filled.verify().whole and filled.verify().records == 7


def test_an_empty_chain_is_whole(audit: Audit) -> None:
    assert audit.head() == Head()
    assert audit.verify(Head()).whole
    assert audit.append([]) == []
    assert list(audit.records()) == []
    with pytest.raises(NotFound, match="no decision 'x'"):
        audit.find("x")


def rewritten(change: Callable[[list[str]], list[str]], block: int = 2) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = blocks(folder)[block]
        path.write_text("".join(line + "\n" for line in change(path.read_text().split("\n")[:-1])))

    return spoil


def changed_body(lines: list[str]) -> list[str]:
    record = json.loads(lines[1])
    record["body"]["score"] = 0.0
    line = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return [lines[0], line, *lines[2:]]


def changed_places(folder: Path) -> None:
    first, last = blocks(folder)[0], blocks(folder)[-1]
    one, other = first.read_bytes(), last.read_bytes()
    first.write_bytes(other)
    last.write_bytes(one)


SPOILT: dict[str, tuple[Callable[[Path], None], str]] = {
    "a body was changed": (rewritten(changed_body), "record 5 was changed"),
    "a record was lost": (rewritten(lambda lines: [lines[0], lines[2]]), "record 6 follows record 4"),
    "records were moved": (rewritten(lambda lines: [lines[1], lines[0], lines[2]]), "record 5 follows record 3"),
    "a record stands twice": (rewritten(lambda lines: [*lines, lines[-1]]), "record 6 follows record 6"),
    "a block was lost": (lambda folder: blocks(folder)[1].unlink(), "blocks are lost: 2"),
    "a block is empty": (rewritten(lambda lines: []), "block 3 of the audit is empty"),
    "a block is rubbish": (rewritten(lambda lines: ["{"]), "block 3 of the audit cannot be read"),
    "a field was added": (rewritten(lambda lines: [line[:-1] + ',"x":1}' for line in lines]), "cannot be read"),
    "blocks changed places": (
        changed_places,
        "record 7 follows record 0",
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_whatever_is_done_to_it_is_seen(filled: Audit, tmp_path: Path, name: str) -> None:
    spoil, said = SPOILT[name]
    spoil(tmp_path)
    report = filled.verify()
    assert not report.whole
    assert any(said in problem for problem in report.problems), report.problems


def test_a_head_that_was_kept_shows_what_was_cut_off(filled: Audit, tmp_path: Path) -> None:
    kept = filled.head()
    blocks(tmp_path)[-1].unlink()
    assert filled.verify().whole  # by itself, a shorter chain is a chain
    report = filled.verify(Head.parse(str(kept)))
    assert report.problems == ("record 7, whose head was kept, is gone: the chain ends at 6",)


def test_a_head_that_was_kept_shows_a_chain_that_was_made_anew(filled: Audit, tmp_path: Path) -> None:
    kept = list(filled.records())[4].head
    for path in [*blocks(tmp_path), tmp_path / HINT]:
        path.unlink()
    for number in range(1, 8):
        filled.append([entry(number)])
    assert filled.verify().whole
    assert filled.verify(kept).problems == ("record 5 is not the one whose head was kept",)


def test_it_goes_on_after_what_a_head_was_kept_of(filled: Audit) -> None:
    kept = filled.head()
    filled.append([entry(8)])
    assert filled.verify(kept).whole


def test_every_byte_counts(filled: Audit, tmp_path: Path) -> None:
    path = blocks(tmp_path)[1]
    whole = path.read_bytes()
    for at in range(0, len(whole) - 1, 7):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert not filled.verify().whole, at
    path.write_bytes(whole)
    assert filled.verify().whole


def test_personal_text_stands_beside_and_can_be_erased(filled: Audit, tmp_path: Path) -> None:
    head = filled.head()
    one, other = list(filled.records())[2:4]
    assert filled.personal(one) == {"author": "person 3"}
    assert b"person 3" not in b"".join(path.read_bytes() for path in blocks(tmp_path))
    assert filled.erase([one.record_id, "unknown"]) == 1
    assert filled.erase([one.record_id]) == 0
    assert filled.personal(one) == {"author": None}
    assert filled.personal(other) == {"author": "person 4"}
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"person 3" not in everything and b"person 4" in everything
    report = filled.verify(head)
    assert report.whole and report.erased == 1


def test_personal_text_that_was_changed_is_seen(filled: Audit, tmp_path: Path) -> None:
    record = list(filled.records())[0]
    (path,) = (tmp_path / "moderation").rglob(f"{record.record_id}.json")
    path.write_text(path.read_text().replace("person 1", "person 9"))
    assert filled.verify().problems == ("the personal text author of record 1 was changed",)


def test_a_write_that_is_cut_off_leaves_all_or_nothing(
    filled: Audit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = LocalStorage.write
    for left in range(4):
        count = [left]

        def dying(self: LocalStorage, path: str, data: bytes, count: list[int] = count) -> None:
            if not count[0]:
                raise KeyboardInterrupt
            count[0] -= 1
            real(self, path, data)

        before = filled.verify().records
        with monkeypatch.context() as patch:
            patch.setattr(LocalStorage, "write", dying)
            with contextlib.suppress(KeyboardInterrupt):
                filled.append([entry(8, author="a"), entry(9, author="b")])
        report = filled.verify()
        assert report.whole and report.records in (before, before + 2)
    filled.append([entry(10)])
    assert filled.verify().whole


def test_a_hint_that_is_wrong_does_no_harm(filled: Audit, tmp_path: Path) -> None:
    for hint in (b"rubbish", b'{"block": 1}', b'{"block": 99}', b"[]"):
        (tmp_path / HINT).write_bytes(hint)
        number = filled.head().number
        filled.append([entry(1)])
        assert filled.verify().whole and filled.head().number == number + 1


def append_many(folder: str, start: int) -> None:
    audit = Audit(open_storage(folder))
    for number in range(25):
        audit.append([entry(start + number), entry(start + number)])


def test_several_processes_write_one_chain(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=append_many, args=(str(tmp_path), 100 * n)) for n in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    audit = Audit(open_storage(tmp_path))
    report = audit.verify()
    assert report.whole and report.records == 150
    # The records of one append stand together, and each writer's in its order.
    contents = [int(r.body["content_id"].split(":")[1]) for r in audit.records()]
    assert contents[::2] == contents[1::2]
    for n in range(3):
        own = [c for c in contents[::2] if c // 100 == n]
        assert own == list(range(100 * n, 100 * n + 25))


@pytest.mark.parametrize("body", [{"score": float("nan")}, {"what": {1, 2}}])
def test_a_body_that_is_no_json_is_refused(audit: Audit, body: dict) -> None:
    with pytest.raises(ConfigError, match="a record of decision is no JSON"):
        audit.append([Entry("decision", body)])
    assert audit.verify().records == 0


@pytest.mark.parametrize("text", ["", "7", "7:abc", "x:" + "0" * 64, "7:" + "G" * 64])
def test_what_is_no_head_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="is no head of a chain"):
        Head.parse(text)
