"""What a long command says of itself where no terminal is: lines on standard error."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from cli.main import main
from cli.progress import Lines, progress_bar
from tests.pipelines.conftest import Shelf, make_shelf

Output = pytest.CaptureFixture[str]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_line_per_step_and_per_minute() -> None:
    out, clock = io.StringIO(), Clock()
    lines = Lines(out, clock)
    lines.on_step("read")
    lines.progress("media", 0, 30)
    clock.now += 2
    lines.on_step("decode")
    for second in range(1, 126):
        clock.now += 1
        if second % 5 == 0:
            lines.progress("media", 1, 30)
        lines.beat()
    lines.on_step("index")
    clock.now += 3600
    lines.beat()
    assert out.getvalue().splitlines() == [
        "earmark: 0:00 read",
        "earmark: 0:02 decode",
        "earmark: 1:02 decode: media 12 of 30",
        "earmark: 2:02 decode: media 24 of 30",
        "earmark: 2:07 decode: media 25 of 30, done",
        "earmark: 2:07 index",
        "earmark: 62:07 index: still running",
    ]


def test_counts_without_a_total_and_of_several_things() -> None:
    out, clock = io.StringIO(), Clock()
    lines = Lines(out, clock)
    with lines.watched():
        lines.on_step("hear")
        lines.progress("files", 3, 0)
        lines.progress("shows", 1, 2)
    assert out.getvalue().splitlines()[-1] == "earmark: 0:00 hear: files 3, shows 1 of 2, done"


def test_a_log_that_cannot_be_written_ends_nothing() -> None:
    out = io.StringIO()
    out.close()
    Lines(out).on_step("read")


def test_quiet_says_nothing(capsys: Output) -> None:
    with progress_bar(quiet=True) as (progress, on_step):
        on_step("read")
        progress("media", 1, 2)
    assert capsys.readouterr().err == ""
    with progress_bar() as (progress, on_step):
        on_step("read")
    assert capsys.readouterr().err == "earmark: 0:00 read\n"


def test_a_run_tells_its_steps(tmp_path: Path, capsys: Output) -> None:
    from pipelines.graph import STEPS

    shelf = make_shelf(tmp_path / "catalog", sounds=0, texts=2)
    command = ["run", shelf.source, "--store", str(tmp_path / "store"), "--device", "cpu"]
    assert main(command) == 0
    told = capsys.readouterr().err
    assert all(f" {step.title}\n" in told for step in STEPS), "a line per step"
    assert "enrich text and transcripts: text 2 of 2, done" in told
    assert main([*command, "--quiet"]) == 0
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("command", "step"),
    [
        (["compact"], "compact the views: views"),
        (["consistency"], "compare the online store with the offline store: views"),
        (["duplicates"], "join near contents"),
        (["skips", "--music"], "read what repeats from the store"),
        (["moderate", "scan"], "match with the banks"),
        (["moderate", "replay", "--all"], "replay"),
    ],
)
def test_long_commands_tell_their_steps(
    command: list[str], step: str, enriched: tuple[Shelf, Path], capsys: Output
) -> None:
    store = str(enriched[1])
    assert main([*command, "--store", store]) == 0
    assert step in capsys.readouterr().err
    assert main([*command, "--store", store, "--quiet", "--json"]) == 0
    assert capsys.readouterr().err == ""
