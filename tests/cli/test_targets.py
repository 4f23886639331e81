"""What a command is asked to write is checked before its work; documents of commands about no store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cli.main import main

WRITING = [
    ["pipeline", "compile", "--volume", "claim", "--out", "TARGET"],
    ["training-set", "--store", "STORE", "entities.csv", "--out", "TARGET"],
    ["duplicates", "--store", "STORE", "--out", "TARGET"],
    ["demo", "--small", "--folder", "made", "--svg", "TARGET"],
]


@pytest.mark.parametrize("command", WRITING, ids=lambda command: command[0])
@pytest.mark.parametrize(("target", "problem"), [("nowhere/y", "there is no folder"), (".", "it is a folder")])
def test_a_file_that_cannot_be_written_ends_a_command_at_once(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    command: list[str],
    target: str,
    problem: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "release.json").write_text("{}")
    assert main([{"TARGET": target, "STORE": "store"}.get(word, word) for word in command]) == 2
    assert problem in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]


@pytest.mark.parametrize("words", [["--report", "a/b"], ["--export", "edl", "--out", "a"]])
def test_a_folder_that_cannot_be_made_ends_skips_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").write_text("a file")
    (tmp_path / "media").mkdir()
    assert main(["skips", "media", *words]) == 2
    assert "is a file, not a folder" in capsys.readouterr().err


def test_the_demo_needs_a_folder_that_can_be_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").write_text("a file")
    assert main(["demo", "--small", "--folder", str(tmp_path / "a" / "demo")]) == 2
    assert "cannot write to --folder" in capsys.readouterr().err


def test_a_pipeline_without_shared_storage_is_not_compiled(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "p.yaml"
    for volume in ([], ["--volume", ""]):
        assert main(["pipeline", "compile", "--out", str(out), *volume]) == 2
        told = capsys.readouterr().err
        assert "--volume CLAIM" in told and "/data/store" in told and not out.exists()
    assert main(["pipeline", "compile", "--out", str(out), "--volume", "claim", "--gpus", "-1"]) == 2


def test_the_dictionary_and_the_graph_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    from core.features import FAMILIES
    from pipelines.graph import STEPS

    assert main(["dictionary", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == sum(len(view.features) for view in FAMILIES) + 3
    assert {
        "view": "acoustic",
        "entity": "content_id",
        "feature": "tempo_bpm",
        "type": "float32",
        "description": "beats per minute; null where no beat was found",
    } in rows
    assert main(["pipeline", "graph", "--json"]) == 0
    steps = json.loads(capsys.readouterr().out)
    assert [step["name"] for step in steps] == [step.name for step in STEPS]
    assert steps[1] == {
        "name": "media",
        "after": ["read"],
        "over": "read",
        "gpu": True,
        "title": "decode and enrich audio and pictures",
    }
