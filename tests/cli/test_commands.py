"""The command as a user meets it: output for people and for machines, exit codes, errors that say what to do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cli.main import COMMANDS, main
from core import lease
from core.storage import open_storage
from tests.pipelines.conftest import Shelf, make_shelf

Pair = tuple[Shelf, Path]
Output = pytest.CaptureFixture[str]
ROOT = Path(__file__).parent.parent.parent


def run(*arguments: object) -> int:
    return main([str(a) for a in arguments])


def answer(capsys: Output, *arguments: object) -> Any:
    assert run(*arguments, "--json") == 0
    return json.loads(capsys.readouterr().out)


def test_help_is_light_and_names_every_command() -> None:
    heavy = "import sys, cli.main\ntry: cli.main.main(['--help'])\nexcept SystemExit: pass\n"
    heavy += "print('HEAVY', [m for m in ('torch', 'feast', 'pandas', 'pyarrow', 'numpy', 'rich') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True, cwd=ROOT)
    assert "HEAVY []" in done.stdout
    assert all(name in done.stdout for name in COMMANDS) and "exit codes" in done.stdout


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_explains_itself(name: str, capsys: Output) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(name, "--help")
    assert stopped.value.code == 0 and "usage: earmark" in capsys.readouterr().out


def test_no_command_is_wrong_usage(capsys: Output) -> None:
    assert run() == 2
    assert "first steps" in capsys.readouterr().out


def test_search(enriched: Pair, capsys: Output) -> None:
    shelf, store = enriched
    found = answer(capsys, "search", "--store", store, "--audio", shelf.folder / "sound-1.wav", "-k", 2)
    assert [hit["content_id"] for hit in found["hits"]] == ["sound 1", "sound 0"]
    assert run("search", "--store", store, "--text", "words of text number 1", "-k", 1) == 0
    out = capsys.readouterr().out
    assert "text/1 😀" in out and "cosine" in out and "\x1b" not in out, "a table without colours in a pipe"
    assert run("search", "--store", store, "--id", "nobody") == 8
    assert "'nobody' is not in the store" in capsys.readouterr().err
    assert run("search", "--store", store, "--text", "calm", "--by", "audio") == 2
    assert "no text tower" in capsys.readouterr().err
    assert run("search", "--store", store, "--image", shelf.folder / "letter.wav") == 2
    assert "cannot be read" in capsys.readouterr().err
    assert run("search", "--store", store, "--text", "a", "-k", 0) == 2


def test_search_among_some(enriched: Pair, capsys: Output) -> None:
    """Against the catalogue's own words of what is found without a filter."""
    _, store = enriched
    every = answer(capsys, "search", "--store", store, "--text", "words", "-k", 100)["hits"]
    kinds = {hit["kind"] for hit in every}
    assert kinds
    for kind in kinds:
        some = answer(capsys, "search", "--store", store, "--text", "words", "-k", 100, "--kind", kind)["hits"]
        assert some == [hit for hit in every if hit["kind"] == kind]
    assert run("search", "--store", store, "--text", "words", "--show", "nobody's", "--since", "2100-01-01") == 0
    assert "No content with a vector fits" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        run("search", "--store", store, "--text", "words", "--until", "yesterday")
    assert "'yesterday' is no date such as 2026-01-31" in capsys.readouterr().err


def test_features_and_training_set(enriched: Pair, capsys: Output, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    _, store = enriched
    rows = answer(capsys, "features", "--store", store, "sound 1", "nobody", "--service", "playback")
    assert [row["content__title"] for row in rows] == ["Sound number 1", None]
    assert run("features", "--store", store, "sound 1") == 0
    assert "753 values" in capsys.readouterr().out
    (tmp_path / "rows.csv").write_text("content_id,event_timestamp,label\nsound 1,2026-03-01T00:00:00Z,7\n")
    made = answer(capsys, "training-set", tmp_path / "rows.csv", "--out", tmp_path / "set.parquet", "--store", store)
    assert made["rows"] == 1
    row = pq.read_table(tmp_path / "set.parquet").to_pylist()[0]
    assert row["label"] == 7 and row["content__title"] == "Sound number 1"
    (tmp_path / "bad.csv").write_text("content_id,when\nsound 1,2026\n")
    assert run("training-set", tmp_path / "bad.csv", "--out", tmp_path / "x", "--store", store) == 3
    assert "event_timestamp" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("second", "told"),
    [("yesterday", "'yesterday' is no time"), ("", "is no time"), ("01/02/2026", "'01/02/2026' is no time")],
)
def test_a_training_set_names_the_first_time_that_it_cannot_read(
    second: str, told: str, enriched: Pair, capsys: Output, tmp_path: Path
) -> None:
    _, store = enriched
    rows = tmp_path / "rows.csv"
    rows.write_text(f"content_id,event_timestamp\nsound 1,2026-03-01T00:00:00Z\nsound 1,{second}\nsound 0,never\n")
    assert run("training-set", rows, "--out", tmp_path / "x.parquet", "--store", store) == 2
    said = capsys.readouterr().err
    assert f"{rows}, row 2: event_timestamp" in said and told in said and "2 rows are like that" in said
    assert not (tmp_path / "x.parquet").exists()


@pytest.mark.parametrize(("only", "told"), [("2026", "2026 is no time"), ("", "there is no time")])
def test_a_training_set_guesses_no_unit_and_no_missing_time(
    only: str, told: str, enriched: Pair, capsys: Output, tmp_path: Path
) -> None:
    _, store = enriched
    (tmp_path / "rows.csv").write_text(f"content_id,event_timestamp\nsound 1,{only}\n")
    assert run("training-set", tmp_path / "rows.csv", "--out", tmp_path / "x.parquet", "--store", store) == 2
    assert f"row 1: event_timestamp: {told}" in capsys.readouterr().err


def test_a_training_set_reads_times_with_and_without_a_zone(enriched: Pair, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    _, store = enriched
    times = ("2026-03-01", "2026-03-01T12:00:00+02:00", "2026-03-01 10:00")
    (tmp_path / "rows.csv").write_text("content_id,event_timestamp\n" + "".join(f"sound 1,{t}\n" for t in times))
    assert run("training-set", tmp_path / "rows.csv", "--out", tmp_path / "x.parquet", "--store", store) == 0
    found = pq.read_table(tmp_path / "x.parquet")["event_timestamp"].to_pylist()
    assert [f"{t:%d %H:%M %Z}" for t in found] == ["01 00:00 UTC", "01 10:00 UTC", "01 10:00 UTC"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("rows.csv", "content_id,event_timestamp\n007,2026-03-01T12:00:00+02:00\n8,2026-03-01T10:00:00Z\n"),
        (
            "rows.jsonl",
            '{"content_id": "007", "event_timestamp": "2026-03-01T12:00:00+02:00"}\n'
            '{"content_id": "8", "event_timestamp": "2026-03-01T10:00:00Z"}\n',
        ),
    ],
)
def test_ids_of_a_training_set_that_look_like_numbers_are_texts(name: str, text: str, tmp_path: Path) -> None:
    from cli.training_set import _read, _with_times

    (tmp_path / name).write_text(text)
    rows = _with_times(_read(tmp_path / name), tmp_path / name).to_pylist()
    assert [row["content_id"] for row in rows] == ["007", "8"]
    assert {f"{row['event_timestamp']:%d %H:%M %Z}" for row in rows} == {"01 10:00 UTC"}


@pytest.mark.parametrize(("name", "text"), [("rows.jsonl", '{"content_id": "7"'), ("rows.xlsx", "x"), ("rows", "x")])
def test_a_training_set_of_a_file_that_cannot_be_read(
    name: str, text: str, enriched: Pair, capsys: Output, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    assert run("training-set", tmp_path / name, "--out", tmp_path / "x.parquet", "--store", enriched[1]) == 3
    assert f"cannot read {tmp_path / name}" in capsys.readouterr().err


def test_a_training_set_is_not_joined_for_a_file_that_cannot_be_written(
    enriched: Pair, capsys: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, store = enriched
    monkeypatch.setattr("feature_repo.reads.training_set", lambda *a, **k: pytest.fail("joined"))
    rows = tmp_path / "rows.csv"
    rows.write_text("content_id,event_timestamp\nsound 1,2026-03-01T00:00:00Z\n")
    assert run("training-set", rows, "--out", tmp_path / "none" / "x.parquet", "--store", store) == 2
    assert f"there is no folder {tmp_path / 'none'}" in capsys.readouterr().err
    assert run("training-set", rows, "--out", tmp_path, "--store", store) == 2
    assert "it is a folder" in capsys.readouterr().err
    monkeypatch.setattr(os, "access", lambda *a, **k: False)  # root, who may run the tests, may write anywhere
    assert run("training-set", rows, "--out", tmp_path / "x.parquet", "--store", store) == 2
    assert "permission denied" in capsys.readouterr().err


def test_features_of_contents_that_are_not_there(enriched: Pair, capsys: Output) -> None:
    _, store = enriched
    assert run("features", "--store", store, "sound 1", "nobody") == 0
    told = capsys.readouterr()
    assert told.err == "earmark: not in the store: nobody\n" and "nobody" not in told.out and "sound 1" in told.out
    assert run("features", "--store", store, "nobody", "no one", "nobody") == 8
    told = capsys.readouterr()
    assert told.err == "earmark: not in the store: nobody, no one\n" and told.out == ""
    assert run("features", "--store", store, "nobody", "--service", "playback", "--json") == 8
    told = capsys.readouterr()
    assert json.loads(told.out)[0]["content__title"] is None and "nobody" in told.err


def test_a_store_one_level_off(enriched: Pair, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    _, store = enriched
    monkeypatch.chdir(store.parent)
    for command in ("status", "quarantine"):
        assert run(command, "--store", ".") == 8
        assert "did you mean --store store?" in capsys.readouterr().err
        assert run(command, "--store", store / "feast") == 8
        assert "did you mean --store store?" in capsys.readouterr().err
        assert run(command, "--store", store.parent / "catalog" / "nowhere") == 8
        assert "did you mean" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "near"),
    [
        (["serach"], "search"),
        (["features", "a", "--service", "playbak"], "playback"),
        (["pipeline", "lcoal"], "local"),
        (["xyzzy"], None),
    ],
)
def test_a_slip_of_the_pen(arguments: list[str], near: str | None, capsys: Output) -> None:
    with pytest.raises(SystemExit) as stopped:
        run(*arguments)
    said = capsys.readouterr().err
    assert stopped.value.code == 2 and "invalid choice" in said
    assert (f"did you mean {near!r}?" in said) if near else ("did you mean" not in said)


def test_a_run_that_accepts_nothing_says_so(tmp_path: Path, capsys: Output) -> None:
    rows = "content_id,kind,title,updated_at\na,trakc,A,2026-01-01T00:00:00Z\nb,track,B,2026-01-01\n"
    (tmp_path / "c.csv").write_text(rows)
    for _ in range(2):
        assert run("run", tmp_path / "c.csv", "--store", tmp_path / "store", "--device", "cpu") == 3
        out = capsys.readouterr().out
        assert "no content was accepted (2 in quarantine; see earmark quarantine)" in out
        assert "up to date" not in out and "Read 0 contents from" in out


def test_status_and_quarantine(enriched: Pair, capsys: Output) -> None:
    _, store = enriched
    found = answer(capsys, "status", "--store", store)
    assert found["quarantine"] == 1 and found["writer"] is None
    assert {v["view"]: v["contents"] for v in found["views"]}["content"] == 5
    held = answer(capsys, "quarantine", "--store", store)
    assert [(q["content_id"], q["reason"]) for q in held] == [("letter", "not_audio")]
    assert run("status", "--store", store) == 0 and run("quarantine", "--store", store) == 0
    assert "not_audio" in capsys.readouterr().out


def test_a_run_removal_and_return(tmp_path: Path, capsys: Output) -> None:
    shelf = make_shelf(tmp_path / "catalog [/bold]", sounds=0, texts=3)
    store = tmp_path / "[2020] :cd: [/]" / "store"
    assert run("run", shelf.source, "--store", store, "--device", "cpu") == 0
    out = capsys.readouterr().out
    assert "3 contents (3 chapters)" in out and "recall@10" in out
    assert "catalog [/bold]/" in out and "[2020] :cd: [/]/store" in out, "a path is neither markup nor an emoji"
    assert run("run", shelf.source, "--store", store, "--device", "cpu") == 0
    assert "everything was up to date" in capsys.readouterr().out
    gone = "text/1 😀"
    assert answer(capsys, "remove", gone, "--store", store)["removed"] == [gone]
    assert run("features", gone, "nobody", "--store", store) == 8
    assert capsys.readouterr().err == f"earmark: not in the store: nobody\nearmark: removed: {gone}\n"
    assert answer(capsys, "run", shelf.source, "--store", store)["removed_and_still_listed"] == 1
    assert answer(capsys, "restore", gone, "--store", store)["restored"] == [gone]
    assert answer(capsys, "run", shelf.source, "--store", store)["computed"]["text"] == 1
    assert run("restore", gone, "--store", store) == 8


def test_errors_say_what_to_do(tmp_path: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "store"

    def told(code: int, *arguments: object) -> str:
        assert run(*arguments) == code
        return capsys.readouterr().err

    assert "does not exist" in told(3, "run", tmp_path / "nowhere", "--store", store)
    (tmp_path / "c.csv").write_text("content_id,kind,titel,updated_at\n")
    assert "titel" in told(3, "run", tmp_path / "c.csv", "--store", store)
    (tmp_path / "e.yaml").write_text("shard_itmes: 3\n")
    message = told(2, "run", tmp_path / "c.csv", "--store", store, "--config", tmp_path / "e.yaml")
    assert "did you mean 'shard_items'" in message
    assert "models.audio" in told(
        2, "run", make_shelf(tmp_path / "k", 0, 1).source, "--store", store, "--profile", "hub"
    )
    one = make_shelf(tmp_path / "o", 0, 1).source
    assert "must be a folder" in told(2, "run", one, "--store", "s3://bucket/store")
    assert "earmark run CATALOG" in told(8, "status", "--store", tmp_path / "none")
    with lease.hold(open_storage(store), "another run"):
        assert "another run" in told(4, "run", make_shelf(tmp_path / "s", 0, 1).source, "--store", store)
    monkeypatch.setenv("EARMARK_STORE", str(tmp_path / "elsewhere"))
    assert "elsewhere" in told(8, "status")


@pytest.mark.skipif(os.getuid() == 0, reason="root may write anywhere")
def test_a_store_that_cannot_be_written(tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "store").mkdir(mode=0o500)
    assert run("run", make_shelf(tmp_path / "s", 0, 1).source, "--store", tmp_path / "store") == 5
    assert "it is a file, not a folder" in capsys.readouterr().err


def test_a_file_where_the_store_should_be(tmp_path: Path, capsys: Output) -> None:
    (tmp_path / "store").write_text("a file")
    assert run("run", make_shelf(tmp_path / "s", 0, 1).source, "--store", tmp_path / "store") == 5
    assert "cannot" in capsys.readouterr().err


def test_the_pipeline_commands(tmp_path: Path, capsys: Output) -> None:
    assert run("pipeline", "graph") == 0
    assert "plan_text" in capsys.readouterr().out
    assert run("pipeline", "compile", "--out", tmp_path / "p.yaml", "--volume", "claim", "--gpus", 1) == 0
    text = (tmp_path / "p.yaml").read_text()
    assert "nvidia.com/gpu" in text and "claim" in text


def test_the_dictionary_is_the_committed_one(capsys: Output) -> None:
    assert run("dictionary") == 0
    assert capsys.readouterr().out.strip() == (ROOT / "docs" / "feature-dictionary.md").read_text().strip()


def test_duplicates(enriched: Pair, capsys: Output, tmp_path: Path) -> None:
    """Single linkage at a low cosine joins what search shows to be near."""
    import pyarrow.parquet as pq

    _, store = enriched
    near = answer(capsys, "search", "--store", store, "--id", "sound 0", "-k", 1)["hits"][0]
    groups = answer(capsys, "duplicates", "--store", store, "--score", max(0.01, near["score"] - 0.01))
    together = [row["group"] for row in groups if row["content_id"] in ("sound 0", near["content_id"])]
    assert len(together) == 2 and len(set(together)) == 1
    assert run("duplicates", "--store", store, "--score", 1, "--out", tmp_path / "groups.parquet") == 0
    assert "No two contents are nearer than 1.0 by audio" in capsys.readouterr().out
    assert pq.read_table(tmp_path / "groups.parquet").column_names[0] == "group"
    assert run("duplicates", "--store", store, "--score", 2) == 1
    assert "a cosine between 0 and 1" in capsys.readouterr().err
    assert run("duplicates", "--store", store, "--out", tmp_path / "no" / "groups.parquet") == 2


def test_contents_in_quarantine_are_left_out_and_marked(enriched: Pair, capsys: Output) -> None:
    """`letter` is no sound; its title alone finds it."""
    _, store = enriched
    found = answer(capsys, "search", "--store", store, "--text", "letter", "-k", 100)
    assert "letter" not in [hit["content_id"] for hit in found["hits"]] and found["left_out"] == 1
    assert all(hit["quarantine"] is None for hit in found["hits"])
    every = answer(capsys, "search", "--store", store, "--text", "letter", "-k", 100, "--quarantined")
    assert every["hits"][0]["content_id"] == "letter" and every["left_out"] == 0
    assert every["hits"][0]["quarantine"] == "audio: not_audio"
    assert [hit for hit in every["hits"] if hit["content_id"] != "letter"] == found["hits"]
    assert run("search", "--store", store, "--text", "letter") == 0
    assert "1 content in quarantine left out" in capsys.readouterr().out
    assert run("search", "--store", store, "--text", "letter", "--quarantined") == 0
    assert "audio: not_audio" in capsys.readouterr().out
    near = answer(capsys, "search", "--store", store, "--id", "letter", "-k", 1)["hits"][0]
    low = ["duplicates", "--store", store, "--by", "text", "--score", max(0.01, near["score"] - 0.01)]
    assert "letter" not in [row["content_id"] for row in answer(capsys, *low)]
    marked = {row["content_id"]: row["quarantine"] for row in answer(capsys, *low, "--quarantined")}
    assert marked["letter"] == "audio: not_audio" and marked[near["content_id"]] is None
    assert run("features", "letter", "sound 1", "--store", store, "--json") == 0
    told = capsys.readouterr()
    assert [row.get("quarantine") for row in json.loads(told.out)] == ["audio: not_audio", None]
    assert told.err == "earmark: in quarantine: letter (audio: not_audio)\n"
