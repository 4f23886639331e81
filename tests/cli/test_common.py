"""What the commands print of others' words: as it is, whatever the words are."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from cli.common import console, literal, table
from cli.main import main


def printed(*things: object) -> str:
    out = io.StringIO()
    console(file=out).print(*things)
    return out.getvalue()


@pytest.mark.parametrize("text", ["[/]", "[bold]", "[/x]", "a\\[b]", "[2020]", ":cd:", "[link=x]", "ends in \\"])
def test_text_is_no_markup(text: str) -> None:
    assert text in printed(f"[bold]{literal(text)}[/]")
    shown = printed(table(text, [("c", "left")], [[text]]))
    assert shown.count(text) == 2, shown


def test_text_does_not_steer_the_terminal() -> None:
    shown = printed(table("title", [("c", "left")], [["\x1b[2Jgone\x9b\r\x07"], ["two\nlines"]]))
    assert "\\x1b[2Jgone\\x9b\\r\\x07" in shown and "two" in shown and "lines" in shown


@pytest.mark.parametrize(
    "before", [["--quiet", "status"], ["--json", "moderate", "head"], ["moderate", "--store=s", "head"]]
)
def test_an_option_before_its_command(before: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(before)
    assert ended.value.code == 2 and "give it after the command's name" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", ""], "CATALOG: it is empty"),
        (["pipeline", "local", " "], "CATALOG: it is empty"),
        (["skips", ""], "FOLDER: it is empty"),
        (["moderate", "match", "--bank", "", "."], "--bank: it is empty"),
        (["training-set", "", "--out", "x.parquet"], "ENTITIES: it is empty"),
        (["search", "--audio", ""], "--audio: it is empty"),
        (["search", "--text", "a", "--kind", "trak"], "did you mean 'track'"),
        (["run", "c.csv", "--wait", "nan"], "'nan' is no number of seconds"),
        (["compact", "--wait", "-1"], "'-1' is no number of seconds"),
    ],
)
def test_arguments_that_mean_nothing(words: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    """An unset variable of a script is an empty argument, which Python's `Path` takes for the folder it runs in."""
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2 and told in capsys.readouterr().err


@pytest.mark.parametrize("option", [["--workers", "-3"], ["--timezone", "Mars/Base"]])
def test_settings_that_mean_nothing(option: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "c.csv").write_text(
        "content_id,kind,title,updated_at,text\na,track,A,2026-01-01T00:00:00Z,some words\n"
    )
    assert main(["run", str(tmp_path / "c.csv"), "--store", str(tmp_path / "store"), *option, "--quiet"]) == 2
    assert option[1] in capsys.readouterr().err
