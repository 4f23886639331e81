"""Batches of the log: whole or not at all, whichever of their bytes are lost, and damage further up is told."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import index.log
from core.errors import IndexUnavailable, StorageError
from index.log import DELETE, PUT, Reader, Record, Rewound, Writer, blank, segments
from index.records import first_number

ARTEFACT = Path(__file__).parent / "artefacts" / "live-log-1.bin"
PAGE = 4096
SPOIL: dict[str, Callable[[bytes], bytes]] = {
    "zeros": lambda data: bytes(len(data)),
    "garbage": lambda data: np.random.default_rng(len(data)).bytes(len(data)),
    "a flipped bit": lambda data: bytes([data[0] ^ 1]) + data[1:],
}


def batch(first: int, size: int, dim: int = 200) -> list[Record]:
    rng = np.random.default_rng(first)
    puts = [
        Record(first + n, PUT, f"c{first + n}", (first + n,), (0,), {"n": n}, rng.random((1, dim), np.float32), "m")
        for n in range(size - 1)
    ]
    return [*puts, Record(first + size - 1, DELETE, "gone")]


def written(home: Path, *sizes: int) -> tuple[Path, list[int]]:
    """(segment, where each batch ends in it)."""
    home.mkdir(exist_ok=True)
    writer, ends, first = Writer(home, 0), [], 1
    for size in sizes:
        writer.append(batch(first, size))
        (segment,) = segments(home)
        ends.append(segment.stat().st_size)
        first += size
    writer.close()
    return segment, ends


def read(home: Path) -> list[int]:
    return [record.number for record in Reader(home, 0).read()]


def test_a_reader_of_half_a_batch_sees_none_of_it(tmp_path: Path) -> None:
    """At any moment of its writing, and then all of it, without beginning again."""
    segment, ends = written(tmp_path, 3, 4)
    data = segment.read_bytes()
    for size in range(ends[0], ends[1]):
        segment.write_bytes(data[:size])
        reader = Reader(tmp_path, 0)
        assert [record.number for record in reader.read()] == [1, 2, 3]
        segment.write_bytes(data)
        assert [record.number for record in reader.read()] == [4, 5, 6, 7]


def test_a_reader_beside_a_writer_sees_whole_batches(tmp_path: Path) -> None:
    writer, reader, seen = Writer(tmp_path, 0), Reader(tmp_path, 0), 0
    done = threading.Event()

    def write() -> None:
        for n in range(30):
            writer.append(batch(1 + 100 * n, 100, dim=2000))
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    while True:
        was_done = done.is_set()
        seen += len(list(reader.read()))
        assert seen % 100 == 0
        if was_done:
            break
    thread.join()
    writer.close()
    assert seen == 3000


@pytest.mark.parametrize("kind", SPOIL)
@pytest.mark.parametrize("unit", [PAGE, 512, 28, 1])
def test_the_last_batch_counts_whole_or_not_at_all(tmp_path: Path, kind: str, unit: int) -> None:
    segment, (before, end) = written(tmp_path, 3, 24 if unit > 1 else 2)
    whole = segment.read_bytes()
    for page in range(before // unit, -(-end // unit)):
        first, last = max(before, page * unit), min(end, (page + 1) * unit)
        spoiled = whole[:first] + SPOIL[kind](whole[first:last]) + whole[last:]
        if spoiled == whole:
            continue
        segment.write_bytes(spoiled)
        assert read(tmp_path) == [1, 2, 3]
        if page % 7 and unit == 1:
            continue
        writer = Writer(tmp_path, 0)
        assert writer.number == 3 and segment.stat().st_size == before
        writer.append(batch(4, 2))
        writer.close()
        assert read(tmp_path) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("seed", range(40))
def test_any_pages_of_the_last_batch_may_be_lost(tmp_path: Path, seed: int) -> None:
    """Several at once, the end cut off too, and what stands there may be batches that another place once held."""
    rng = np.random.default_rng(seed)
    other, _ = written(tmp_path / "other", *rng.integers(2, 9, 5).tolist())
    segment, ends = written(tmp_path / "a", *rng.integers(2, 40, 4).tolist())
    stale, data = np.resize(np.frombuffer(other.read_bytes(), np.uint8), ends[-1]), bytearray(segment.read_bytes())
    pages = np.arange(ends[-2] // 512, -(-ends[-1] // 512))
    for page in rng.permutation(pages)[: rng.integers(1, len(pages) + 1)]:
        first, last = max(ends[-2], page * 512), min(ends[-1], (page + 1) * 512)
        lost = [bytes(last - first), rng.bytes(last - first), stale[17 : 17 + last - first].tobytes()]
        data[first:last] = lost[rng.integers(0, 3)]
    segment.write_bytes(data[: ends[-1] if rng.random() < 0.7 else rng.integers(ends[-2], ends[-1])])
    last_number = [record.number for record in Reader(tmp_path / "a", 0).read()][-1]
    writer = Writer(tmp_path / "a", 0)
    writer.close()
    assert segment.stat().st_size == ends[-2] and writer.number == last_number == read(tmp_path / "a")[-1]


@pytest.mark.parametrize("kind", SPOIL)
def test_damage_further_up_is_told_with_its_place(tmp_path: Path, kind: str) -> None:
    """And left alone, whether the last batch is whole or cut."""
    segment, ends = written(tmp_path, 2, 5, 3)
    whole = segment.read_bytes()
    begins = [0, *ends]
    for n in (0, 1):
        for first in [*range(begins[n], begins[n] + 32), *range(begins[n] + 32, ends[n], 101)]:
            last = min(first + 16, ends[n])
            for size in (len(whole), len(whole) - 1):
                spoiled = (whole[:first] + SPOIL[kind](whole[first:last]) + whole[last:])[:size]
                if spoiled == whole[:size]:
                    continue
                segment.write_bytes(spoiled)
                for look in (read, lambda home: Writer(home, 0)):
                    with pytest.raises(
                        IndexUnavailable, match=rf"live-0{{15}}1\.v2\.log is damaged at byte {begins[n]};"
                    ):
                        look(tmp_path)
                assert segment.read_bytes() == spoiled


def test_a_log_of_the_format_before_batches(tmp_path: Path) -> None:
    """`live-log-1.bin` was written by the code of that time: two puts at once, a delete, a put."""
    segment, data = tmp_path / "live-0000000000000001.log", ARTEFACT.read_bytes()
    segment.write_bytes(data)
    records = list(Reader(tmp_path, 0).read())
    assert [(one.number, one.op, one.content_id, one.ids, one.windows, one.about) for one in records] == [
        (1, PUT, "a", (10,), (0,), {"kind": "track"}),
        (2, PUT, "b", (11, 12), (0, 3), None),
        (3, DELETE, "a", (), (), None),
        (4, PUT, "c", (13,), (0,), None),
    ]
    np.testing.assert_array_equal(records[1].vectors, np.eye(4, dtype=np.float32)[1:3])
    for place in (2, 20, 60, 200):
        segment.write_bytes(data[:place] + bytes([data[place] ^ 0xFF]) + data[place + 1 :])
        with pytest.raises(
            IndexUnavailable, match=rf"live-0{{15}}1\.log is damaged at byte {0 if place < 143 else 143};"
        ):
            read(tmp_path)
    for cut in (1, 30, 100):
        segment.write_bytes(data[:-cut])
        assert read(tmp_path) == [1, 2, 3]
    writer = Writer(tmp_path, 0)
    writer.append(batch(writer.number + 1, 3))
    writer.close()
    assert [one.name for one in segments(tmp_path)] == [segment.name, "live-0000000000000004.v2.log"]
    assert read(tmp_path) == [1, 2, 3, 4, 5, 6]


def test_an_empty_segment_of_the_format_before(tmp_path: Path) -> None:
    """A reader that stands in it goes on to the one that takes its number."""
    (tmp_path / "live-0000000000000001.log").touch()
    reader = Reader(tmp_path, 0)
    assert list(reader.read()) == []
    writer = Writer(tmp_path, 0)
    writer.append(batch(1, 2))
    writer.close()
    assert [record.number for record in reader.read()] == [1, 2]


def test_blanked_puts_leave_sound_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    segment, ends = written(tmp_path, 4, 3)
    older = tmp_path / "live-0000000000000000.log"
    older.write_bytes(batch(1, 2)[0].to_bytes())
    held = open(segment, "rb")  # noqa: SIM115  the bytes that the name pointed at
    secrets = [batch(1, 4)[n].vectors for n in (0, 2)]
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("the power failed")))
        with pytest.raises(OSError, match="the power failed"):
            blank(tmp_path, ["c1", "c3"])
    assert len(read(tmp_path)) == 7
    blank(tmp_path, ["c1", "c3"])
    for one in tmp_path.iterdir():
        assert all(secret is not None and secret.tobytes() not in one.read_bytes() for secret in secrets)
    assert all(secret is not None and secret.tobytes() not in held.read() for secret in secrets[:1])
    held.close()
    assert segment.stat().st_size == ends[-1] and not (tmp_path / "live.blanked").exists()
    found = {record.number: record for record in Reader(tmp_path, 0).read()}
    assert [found[n].op for n in range(1, 8)] == [DELETE, PUT, DELETE, DELETE, PUT, PUT, DELETE]
    np.testing.assert_array_equal(found[2].vectors, batch(1, 4)[1].vectors)
    assert json.dumps(found[5].about) == '{"n": 0}'
    data = segment.read_bytes()
    segment.write_bytes(data[:200] + b"?" + data[201:])
    with pytest.raises(IndexUnavailable, match="damaged at byte 0"):
        read(tmp_path)


def die_while_writing(home: Path, told: int, seed: int) -> None:
    """Appends and rotates, confirming numbers to the file `told`, until it is killed; a step fails now and then."""
    rng, real, real_bytes = np.random.default_rng(seed), os.fsync, index.log.to_bytes
    left = int(rng.integers(1, 30))

    def step() -> None:
        nonlocal left
        left -= 1
        if not left:
            os._exit(0)
        if rng.random() < 0.2:
            raise OSError(28, "full")

    def half_written(records: list[Record], segment: Path, at: int) -> bytes:
        data = real_bytes(records, segment, at)
        with open(segment, "ab") as file:
            file.write(data[: rng.integers(0, len(data))])
            file.flush()
            step()
            file.truncate(at)
        return data

    def sync(file: int) -> None:
        step()
        real(file)

    index.log.to_bytes, os.fsync = half_written, sync  # type: ignore[assignment]
    writer = None
    while True:
        try:
            writer = writer or Writer(home, 0)
            if rng.random() < 0.3:
                writer.rotate()
            records = batch(writer.number + 1, int(rng.integers(1, 3)), dim=8)
            writer.append(records)
            os.write(told, bytes(record.number for record in records))
        except StorageError:
            continue


@pytest.mark.parametrize("seed", range(8))
def test_a_kill_or_a_failure_at_any_step(tmp_path: Path, seed: int) -> None:
    """Nothing that was confirmed is lost, nothing is called damaged, and who follows sees what who begins anew sees."""
    confirmed = tmp_path / "confirmed"
    home = tmp_path / "a"
    home.mkdir()
    follower, followed = Reader(home, 0), list[int]()
    for n in range(8):
        child = os.fork()
        if not child:
            try:
                die_while_writing(home, os.open(confirmed, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 100 * seed + n)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        seen = read(home)
        assert set(confirmed.read_bytes() if confirmed.exists() else b"") <= set(seen)
        assert seen == sorted(set(seen))
        try:
            followed += [record.number for record in follower.read()]
        except Rewound:
            follower = Reader(home, 0)
            followed = [record.number for record in follower.read()]
        assert followed == seen


def test_a_segment_does_not_go_on_beside_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rotation that failed may have made the next one: readers look no more at what came before."""
    writer = Writer(tmp_path, 0)
    writer.append(batch(1, 2))
    with monkeypatch.context() as patch:
        patch.setattr(index.log, "fsync_folder", lambda _: (_ for _ in ()).throw(OSError(28, "full")))
        for begin in (writer.rotate, lambda: writer.append(batch(3, 2))):
            with pytest.raises(StorageError, match="full"):
                begin()
    writer.append(batch(3, 2))
    writer.close()
    assert [record.number for record in Reader(tmp_path, 2).read()] == [3, 4]
    assert [first_number(one) for one in segments(tmp_path)] == [1, 3]


def test_a_full_disk_on_opening(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(index.log, "fsync_folder", lambda _: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(StorageError, match="full"):
            Writer(tmp_path, 0)
    Writer(tmp_path, 0).close()


def test_a_reader_takes_back_what_an_append_took_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer, reader, real = Writer(tmp_path, 0), Reader(tmp_path, 0), os.fsync
    seen: list[int] = []

    def once(_: int) -> None:
        monkeypatch.setattr(os, "fsync", real)
        seen.extend(record.number for record in reader.read())
        raise OSError(28, "full")

    monkeypatch.setattr(os, "fsync", once)
    with pytest.raises(StorageError, match="full"):
        writer.append(batch(1, 2))
    writer.append(batch(writer.number + 1, 1))
    writer.close()
    assert seen == [1, 2] and read(tmp_path) == [3]
    with pytest.raises(Rewound):
        list(reader.read())


def test_damage_where_nothing_is_new_is_passed_over(tmp_path: Path) -> None:
    segment, _ = written(tmp_path, 3)
    writer = Writer(tmp_path, 0)
    writer.rotate()
    writer.append(batch(4, 2))
    writer.close()
    segment.write_bytes(b"?" + segment.read_bytes()[1:])
    assert [record.number for record in Reader(tmp_path, 3).read()] == [4, 5]
    Writer(tmp_path, 3).close()
    for look in (lambda: Writer(tmp_path, 2), lambda: list(Reader(tmp_path, 2).read())):
        with pytest.raises(IndexUnavailable, match="damaged at byte 0"):
            look()
