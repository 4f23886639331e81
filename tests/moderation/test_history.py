"""A snapshot of the audit: what is read from it and the later records is what the whole chain says, and a snapshot that
is not the chain's is never used."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from core.storage import LocalStorage, open_storage
from core.tables import decode, encode
from moderation import history
from moderation.audit import BLOCKS, Audit, Entry
from moderation.cases import CALIBRATION, OPINION, POLICY, VERDICT, Cases
from moderation.decisions import KIND, Cited, Decision, Place
from moderation.exemplars import STATES, Exemplars
from moderation.history import DESCRIBED, FOLDER, NEWEST, verify_snapshot


def decided(content: int, score: float, supersedes: str = "") -> Entry:
    cited = (Cited(f"bank/é{content % 3}", 1, "positive", "embedding", score, first=0, last=content + 1),)
    made = Decision(
        "abuse", "v1", "text", "review", True, score, None, "embedding", cited, where=Place(first=3, last=9)
    )
    if score < 0.2:
        made = replace(made, action="none", tier="", cited=())
    evidence = {"modality": "text", "sha256": f"{content:064x}", "text_hash": "", "scores": {}, "model_id": "m"}
    body = {"content_id": f"text/{content} 😀", "decision": made.to_dict(), "bank_at": 1, "by": "machine"}
    return Entry(KIND, {**body, "evidence": {**evidence, "payload": "p"}, "supersedes": supersedes, "statement": {}})


def appended(audit: Audit, rng: random.Random, cases: Cases) -> None:
    """One random append: decisions, or what people and machines say beside them."""
    kind = rng.choice(["decision"] * 4 + ["verdict", "opinion", "exemplar", "policy", "calibration"])
    if kind == "decision":
        entries = []
        for content in rng.sample(range(8), rng.randint(1, 5)):
            before = cases.current.get((f"text/{content} 😀", "abuse", "text"))
            entries.append(decided(content, rng.random(), before.case_id if before else ""))
        audit.append(entries)
    elif kind == "exemplar":
        Exemplars(audit.storage, audit).add("bank", "text", {"text": str(rng.random())}, state=rng.choice(STATES))
    else:
        case_id = rng.choice(list(cases.every) or [""])
        body = {"case_id": case_id, "version": rng.random(), "policy_id": "abuse", "modality": "text"}
        named = {"verdict": VERDICT, "opinion": OPINION, "policy": POLICY, "calibration": CALIBRATION}[kind]
        audit.append([Entry(named, body, {"reason": "because"} if kind == "verdict" else {})])


def state(audit: Audit) -> dict[str, Any]:
    """Everything that is derived from the chain."""
    cases, exemplars = Cases(audit), Exemplars(audit.storage, audit)
    every = {name: (case, case.decision, case.record) for name, case in cases.every.items()}
    said = (cases.verdicts, cases.opinions, cases.policies, cases.calibrations)
    kept = [{name: found for name, found in sorted(each.items())} for each in said]
    number = cases.at // 2
    known = [exemplars.every(states=STATES), exemplars.every(states=STATES, at=number)]
    return {
        "every": every,
        "order": list(every),
        "current": cases.current,
        "said": kept,
        "exemplars": known,
        "at": cases.at,
    }


def snapshots(folder: Path) -> list[Path]:
    return sorted((folder / FOLDER).glob("*.parquet"))


@pytest.mark.parametrize("seed", range(4))
def test_a_snapshot_and_what_follows_say_what_the_whole_chain_says(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    storage = open_storage(tmp_path)
    writer = Audit(storage)  # of one process that goes on for long
    made = 0
    for _ in range(12):
        for _ in range(rng.randint(1, 4)):
            appended(writer, rng, Cases(writer))
        if rng.random() < 0.5:
            Audit(storage).append([decided(1, rng.random())])  # another process comes between
        if rng.random() < 0.6:
            made += rng.choice([writer, Audit(storage)]).history.keep(least=1, share=0.0)
        whole = state(Audit(storage, whole=True))
        assert state(Audit(storage)) == whole
        assert state(writer) == whole
    assert made > 3
    assert len(snapshots(tmp_path)) == 1  # older ones are deleted
    assert writer.verify().whole and verify_snapshot(writer) == []


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Twenty decisions in four blocks and an exemplar, a snapshot of them, and three decisions after it."""
    audit = Audit(open_storage(tmp_path))
    for block in range(4):
        audit.append([decided(5 * block + n, 0.5) for n in range(5)])
    Exemplars(audit.storage, audit).add("bank", "text", {"text": "words"}, state="active")
    assert audit.history.keep(least=21)
    audit.append([decided(n, 0.9) for n in range(3)])
    return tmp_path


def read(kept: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[dict[str, Any], list[int]]:
    """What a new process finds, and which blocks it reads for that."""
    blocks: list[int] = []
    real = LocalStorage.read

    def counted(self: LocalStorage, path: str) -> bytes:
        if path.startswith(BLOCKS):
            blocks.append(int(Path(path).stem))
        return real(self, path)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "read", counted)
        cases = Cases(Audit(open_storage(kept)))
        told = {c.case_id: (c.content_id, c.decision.raw, c.number) for c in cases.every.values()}
    return told, blocks


def test_only_what_follows_a_snapshot_is_read(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told, blocks = read(kept, monkeypatch)
    assert blocks == [6, 7]  # the record that attests to it, and three decisions
    assert len(told) == 23
    # A decision's whole record is read from its block when it is asked for.
    audit = Audit(open_storage(kept))
    first = next(iter(audit.history.cases))
    assert first.record == next(iter(audit.records()))


def test_a_snapshot_is_made_when_enough_was_appended(kept: Path) -> None:
    audit = Audit(open_storage(kept))
    assert not audit.history.keep(least=5)  # the three, and the record that attests
    assert not audit.history.keep(least=1, share=0.2)
    assert audit.history.keep(least=4, share=0.1)
    assert Audit(open_storage(kept)).verify().whole


def _rewritten(change: Callable[[list[dict[str, Any]]], None]) -> Callable[[Path], None]:
    """Rewrites the snapshot's rows, under its name: somebody who does not know of the hash."""

    def spoil(folder: Path) -> None:
        (path,) = snapshots(folder)
        path.write_bytes(_changed(path, change))

    return spoil


def _changed(path: Path, change: Callable[[list[dict[str, Any]]], None]) -> bytes:
    table = decode(path.read_bytes())
    rows = table.to_pylist()
    change(rows)
    return encode(type(table).from_pylist(rows, schema=table.schema))


def _allowed(rows: list[dict[str, Any]]) -> None:
    said = json.loads(rows[0]["decision"])
    rows[0]["decision"] = json.dumps({**said, "action": "none", "raw": 0.0})


def _forged(folder: Path) -> None:
    """Another snapshot under its own right hash, which the pointer names."""
    import hashlib

    (path,) = snapshots(folder)
    data = _changed(path, _allowed)
    sha256 = hashlib.sha256(data).hexdigest()
    (folder / FOLDER / f"{sha256}.parquet").write_bytes(data)
    (folder / NEWEST).write_text(json.dumps({"sha256": sha256}))


def _attested_again(folder: Path) -> None:
    """The same, with the attesting record rewritten to name it."""
    old = json.loads((folder / NEWEST).read_text())["sha256"]
    _forged(folder)
    new = json.loads((folder / NEWEST).read_text())["sha256"]
    path = folder / BLOCKS / "000000000006.jsonl"
    path.write_text(path.read_text().replace(old, new))


def _earlier(folder: Path) -> None:
    """The chain's end is another than the one that the snapshot was made of."""
    path = folder / BLOCKS / "000000000006.jsonl"
    path.unlink()
    (folder / BLOCKS / "000000000007.jsonl").unlink()
    Audit(open_storage(folder)).append([decided(1, 0.7)])


def _replaced_chain(folder: Path) -> None:
    for path in (folder / BLOCKS).iterdir():
        path.unlink()
    audit = Audit(open_storage(folder), whole=True)
    for block in range(7):
        audit.append([decided(block, 0.3)])


SPOILT: dict[str, Callable[[Path], None]] = {
    "a decision was changed": _rewritten(_allowed),
    "a row was left out": _rewritten(lambda rows: rows.pop()),
    "it was cut off": lambda folder: snapshots(folder)[0].write_bytes(snapshots(folder)[0].read_bytes()[:-9]),
    "it is rubbish": lambda folder: snapshots(folder)[0].write_bytes(b"rubbish"),
    "it is gone": lambda folder: snapshots(folder)[0].unlink(),
    "the pointer is rubbish": lambda folder: (folder / NEWEST).write_bytes(b"{"),
    "the pointer leads elsewhere": lambda folder: (folder / NEWEST).write_text('{"sha256": "../../release"}'),
    "the pointer is another thing": lambda folder: (folder / NEWEST).write_bytes(b"[1]"),
    "another took its place": _forged,
    "another took its place, and the chain was changed to name it": _attested_again,
    "the chain was cut off": _earlier,
    "the chain was made anew": _replaced_chain,
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_snapshot_that_is_not_the_chains_is_not_used(
    kept: Path, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    SPOILT[name](kept)
    audit = Audit(open_storage(kept))
    with caplog.at_level(logging.WARNING):
        told, blocks = read(kept, monkeypatch)
    assert "the audit is read whole" in caplog.text
    assert set(blocks) >= set(audit._blocks())  # everything
    whole = {
        c.case_id: (c.content_id, c.decision.raw, c.number)
        for c in Cases(Audit(audit.storage, whole=True)).every.values()
    }
    assert told == whole
    assert verify_snapshot(audit) != []
    # The next scan makes a good one.
    assert Audit(open_storage(kept)).history.keep(least=1)
    caplog.clear()
    assert state(Audit(open_storage(kept))) == state(Audit(open_storage(kept), whole=True))
    assert caplog.text == "" and verify_snapshot(audit) == []


def test_without_a_snapshot_or_with_one_of_another_version_everything_is_read(
    kept: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    expected, _ = read(kept, monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(history, "VERSION", 99)
        told, blocks = read(kept, monkeypatch)
        assert (told, blocks) == (expected, [1, 2, 3, 4, 5, 6, 7])
        assert verify_snapshot(Audit(open_storage(kept))) == []
    for path in (kept / FOLDER).iterdir():
        path.unlink()
    told, blocks = read(kept, monkeypatch)
    assert (told, blocks) == (expected, [1, 2, 3, 4, 5, 6, 7]) and caplog.text == ""


def test_a_change_before_the_snapshot_is_found_by_who_reads_the_chain(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = kept / BLOCKS / "000000000001.jsonl"
    path.write_text(path.read_text().replace('"raw":0.5', '"raw":0.6', 1))
    audit = Audit(open_storage(kept))
    assert "record 1 was changed" in audit.verify().problems
    assert verify_snapshot(audit) == ["the snapshot of the audit differs from the audit"]
    assert read(kept, monkeypatch)[1] == [6, 7]


def test_a_snapshot_that_says_what_the_chain_does_not_is_found(kept: Path) -> None:
    """Even where whoever made it could append a record that attests to it."""
    _forged(kept)
    sha256 = json.loads((kept / NEWEST).read_text())["sha256"]
    told = json.loads(decode((kept / FOLDER / f"{sha256}.parquet").read_bytes()).schema.metadata[DESCRIBED])
    audit = Audit(open_storage(kept))
    audit.append([Entry(history.KIND, {"sha256": sha256, "at": told["head"], "version": history.VERSION})])
    assert audit.verify().whole
    assert verify_snapshot(audit) == ["the snapshot of the audit differs from the audit"]


def test_a_writer_that_is_killed_leaves_an_audit_that_reads(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, _ = read(kept, monkeypatch)
    real = LocalStorage.write
    for left in range(4):
        count = [left]

        def dying(self: LocalStorage, path: str, data: bytes, count: list[int] = count) -> None:
            if not count[0]:
                raise KeyboardInterrupt
            count[0] -= 1
            real(self, path, data)

        audit = Audit(open_storage(kept))
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(LocalStorage, "write", dying)
            audit.history.keep(least=1, share=0.0)
        told, _ = read(kept, monkeypatch)
        assert told == expected and Audit(open_storage(kept)).verify().whole


def test_the_command_that_verifies_names_a_snapshot_that_is_not_the_chains(
    kept: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from cli.main import main

    (kept / "release.json").write_text("{}")  # what makes a folder a store
    assert main(["moderate", "verify", "--store", str(kept), "--json"]) == 0
    SPOILT["a decision was changed"](kept)
    capsys.readouterr()
    assert main(["moderate", "verify", "--store", str(kept), "--json"]) == 1
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert "the snapshot" in problem and "was changed" in problem


def test_a_snapshot_stays_when_another_process_makes_one_meanwhile(kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one's is made between any two of this one's writes."""
    real = LocalStorage.replace_if
    for place in ("moderation/audit/blocks", NEWEST):
        others = iter([Audit(open_storage(kept))])

        def replaced(
            own: LocalStorage, path: str, data: bytes, tag: str | None, place: str = place, others: Any = others
        ) -> str:
            other = next(others, None) if path.startswith(place) else None
            if other is not None:
                other.append([decided(1, 0.4)])
                assert other.history.keep(least=1, share=0)
            return real(own, path, data, tag)

        audit = Audit(open_storage(kept))
        audit.append([decided(2, 0.6)])
        with monkeypatch.context() as patched:
            patched.setattr(LocalStorage, "replace_if", replaced)
            assert not audit.history.keep(least=1, share=0)
        assert verify_snapshot(Audit(open_storage(kept))) == []
        assert audit.history.keep(least=1, share=0)
        assert len(snapshots(kept)) == 1 and verify_snapshot(Audit(open_storage(kept))) == []


def test_a_file_that_only_looks_like_a_block_is_none(kept: Path) -> None:
    before = len(list(Audit(open_storage(kept)).records()))
    for name in ("000000000003.jsonl~", "000000000004.jsonl.bak", "\u0663.jsonl"):
        (kept / BLOCKS / name).write_bytes((kept / BLOCKS / "000000000003.jsonl").read_bytes())
    assert len(list(Audit(open_storage(kept)).records())) == before
    assert Audit(open_storage(kept)).verify().whole
