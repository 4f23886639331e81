"""Every command on a store that is missing, foreign, unfinished or damaged: plain words, the right exit code, and
nothing lost."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cli.main import COMMANDS, _parser, main
from core.storage import open_storage
from pipelines.unfinished import unfinished
from tests.pipelines.conftest import Shelf, make_shelf

Output = pytest.CaptureFixture[str]
Pair = tuple[Shelf, Path]

# Every command that looks for a store, with arguments that are right.
OF_A_STORE = [
    "status", "quarantine", "search --id a", "search --text a", "features a", "duplicates", "skips", "skips --music",
    "training-set ROWS --out OUT", "consistency", "compact", "remove a", "restore a",
    "moderate policies --use FILE", "moderate add b --content a --modality audio", "moderate exemplars",
    "moderate look FILE", "moderate state e active", "moderate confirm e", "moderate deconfirm e",
    "moderate import b FILE", "moderate export b", "moderate scan", "moderate decisions", "moderate show i",
    "moderate replay --all", "moderate head", "moderate verify", "moderate queue", "moderate verdict i allowed --by a",
    "moderate appeal i --by a", "moderate adjudicate --url http://127.0.0.1:9 --model m", "moderate agreement",
    "moderate sample p --seed 1 --by a", "moderate sampled p c allowed --by a", "moderate missed p",
    "moderate calibrate p text --by a",
]  # fmt: skip
BEGIN_ONE = ["run CATALOG --device cpu", "pipeline local CATALOG"]
WITHOUT = {"dictionary", "demo"}
ACTIONS_WITHOUT = {"match"}


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the capital words of the commands stand for."""
    folder = tmp_path_factory.mktemp("arguments")
    (folder / "rows.csv").write_text("content_id,event_timestamp\nsound 1,2026-03-01T00:00:00Z\n")
    (folder / "file").write_text("policies: []\n")
    catalog = make_shelf(folder / "catalog", sounds=0, texts=1).source
    found = {"ROWS": folder / "rows.csv", "OUT": folder / "out.parquet", "FILE": folder / "file", "CATALOG": catalog}
    return {name: str(value) for name, value in found.items()}


def run(command: str, words: dict[str, str], store: object) -> int:
    return main([*(words.get(word, word) for word in command.split()), "--store", str(store), "--quiet"])


def test_the_list_is_complete() -> None:
    assert {command.split()[0] for command in OF_A_STORE + BEGIN_ONE} | WITHOUT == set(COMMANDS)
    parser = _parser(["moderate"])
    moderate = parser._subparsers._group_actions[0].choices["moderate"]  # type: ignore[union-attr, index]
    actions = set(moderate._subparsers._group_actions[0].choices)
    assert {c.split()[1] for c in OF_A_STORE if c.startswith("moderate")} | ACTIONS_WITHOUT == actions


@pytest.mark.parametrize("command", OF_A_STORE)
def test_no_store_there(command: str, words: dict[str, str], tmp_path: Path, capsys: Output) -> None:
    music = tmp_path / "music"
    music.mkdir()
    (music / "a.mp3").write_text("sound")
    for store, code, told in (
        (tmp_path / "nowhere", 8, "earmark run CATALOG"),
        (music, 8, f"{music} is not a store (a.mp3)"),
        (music / "a.mp3", 8, "is not a store (a file, not a folder)"),
        (f"file://{tmp_path}/no%20where", 8, f"no store in {tmp_path}/no where"),
        ("s3://bucket/store", 2, "must be a folder"),
        ("gs://bucket/store", 2, "must be a folder"),
        ("", 2, "--store is empty"),
    ):
        assert run(command, words, store) == code, store
        said = capsys.readouterr()
        assert said.err.startswith("earmark: ") and told in said.err and said.out == "", store
    assert [p.name for p in music.iterdir()] == ["a.mp3"] and not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize("command", BEGIN_ONE)
def test_no_store_is_begun_there(command: str, words: dict[str, str], tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "a.mp3").write_text("sound")
    for store, told in (
        (tmp_path, f"it holds a.mp3): name a new or an empty folder, such as --store {tmp_path / '.earmark'}"),
        ("s3://bucket/store", "must be a folder"),
        ("", "--store is empty"),
    ):
        assert run(command, words, store) == 2
        assert told in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp3"]


def test_a_first_run_that_was_interrupted(tmp_path: Path, capsys: Output) -> None:
    from core.config import Config
    from pipelines.inprocess import run_catalog

    shelf, store = make_shelf(tmp_path / "my catalog", sounds=0, texts=2), tmp_path / "store"

    def stop(title: str) -> None:
        if title == "enrich text and transcripts":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_catalog(shelf.source, str(store), Config(device="cpu"), retry=True, on_step=stop)
    resume = f"earmark run '{shelf.source}' --store {store} --device cpu --retry"
    assert main(["status", "--store", str(store)]) == 0
    told = capsys.readouterr().out
    assert "Interrupted" in told and f"Resume {resume}\n" in told and "not yet" in told
    assert f"of 2 contents from {shelf.source}: audio and pictures were enriched; 1 of 2 shards are committed" in told
    assert main(["status", "--store", str(store), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["unfinished"]["resume"], found["released"]) == (resume, None)
    for command in ("search --id a", "features a", "moderate decisions"):
        assert main([*command.split(), "--store", str(store)]) == 8
        assert f"was interrupted; resume it with: {resume}\n" in capsys.readouterr().err
    assert main(["quarantine", "--store", str(store)]) == 0
    assert unfinished(open_storage(store)).running is False  # type: ignore[union-attr]
    run_catalog(shelf.source, str(store), Config(device="cpu"))
    assert unfinished(open_storage(store)) is None


@contextlib.contextmanager
def damaged(store: Path, pattern: str, data: bytes | None) -> Iterator[None]:
    """The store with other bytes in the files that match (None: cut in half), which are put back afterwards."""
    before = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    hit = [path for path in store.glob(pattern) if path.is_file()]
    assert hit, pattern
    for path in hit:
        path.write_bytes(before[path][: len(before[path]) // 2] if data is None else data)
    try:
        yield
    finally:
        for path in store.rglob("*"):
            if path.is_file() and path not in before:
                path.unlink()
        for path, old in before.items():
            if not path.exists() or path.read_bytes() != old:
                path.write_bytes(old)


def foreign_parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), sink)
    return sink.getvalue()


READ_CONTENTS = ["status", "search --id letter", "search --text a", "skips", "consistency", "remove a", "moderate scan"]
NEWER = b'{"format": 99, "models": {}, "indexes": {}}'


@pytest.mark.parametrize(
    ("pattern", "data", "told", "code", "commands"),
    [
        ("release.json", b"\0", "release.json in", 5, ["status", "search --id a", "duplicates", "remove letter"]),
        ("release.json", b'{"branches": ["main"]}', "not a file of Earmark's", 5, ["status", "moderate look FILE"]),
        ("release.json", NEWER, "newer version of Earmark", 5, ["status", "search --text a", "duplicates"]),
        ("offline/content/*/*.parquet", None, "cannot be read", 5, READ_CONTENTS),
        ("offline/content/*/*.parquet", foreign_parquet(), "rows without content_id", 5, READ_CONTENTS),
        ("beside/fingerprint/*/*.parquet", None, "cannot be read", 5, ["status", "moderate scan"]),
        ("quarantine/*", None, "quarantine/part-", 5, ["status", "quarantine", "remove a"]),
        ("skips/current.json", b"\0", "skips/current.json in", 5, ["skips --music"]),
        ("feast/registry.db", b"no database" * 500, "registry", 5, ["consistency", "training-set ROWS --out OUT"]),
        ("feast/registry.db", b"", "registry|repository", 5, ["consistency", "training-set ROWS --out OUT"]),
        ("feast/feature_store.yaml", b": [", "feature_store.yaml is damaged", 5, ["consistency"]),
        ("feast/feature_store.yaml", b"project: x\n", "not Earmark's", 5, ["training-set ROWS --out OUT"]),
        ("indexes/*/*/*", None, "manifest of index", 7, ["search --text a", "duplicates"]),
    ],
)
def test_a_damaged_store(
    pattern: str, data: bytes | None, told: str, code: int, commands: list[str], words: dict[str, str], enriched: Pair,
    capsys: Output,
) -> None:  # fmt: skip
    import re

    with damaged(enriched[1], pattern, data):
        for command in commands:
            assert run(command, words, enriched[1]) == code, command
            said = capsys.readouterr().err
            assert said.startswith("earmark: ") and re.search(told, said), (command, said)
    assert run("status", words, enriched[1]) == 0
