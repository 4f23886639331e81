"""Options by their full names alone; the nearest name where one is misspelt."""

from __future__ import annotations

import pytest

from cli.main import main
from cli.parser import Parser, suggestion

Output = pytest.CaptureFixture[str]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["run", "x", "--prun"], "there is no option --prun; did you mean '--prune'?"),
        (["run", "x", "--dvice", "cpu"], "there is no option --dvice; did you mean '--device'?"),
        (["run", "--dvice=cpu"], "did you mean '--device'?"),  # before argparse misses CATALOG
        (["search", "--txt", "calm"], "did you mean '--text'?"),  # before argparse misses one of the group
        (["search", "-kind", "track", "--id", "a"], "there is no option -kind; did you mean '--kind'?"),
        (["moderate", "scan", "--stor", "s"], "did you mean '--store'?"),
        (["moderate", "verdict", "i", "allowed", "--bye", "ada"], "did you mean '--by'?"),
        (["pipeline", "compile", "--ou", "p.yaml"], "did you mean '--out'?"),
        (["remove", "a", "--eras"], "did you mean '--erase'?"),
        (["--versio"], "did you mean '--version'?"),
        (["status", "--xyzzy"], "there is no option --xyzzy\n"),
        (["moderat", "scan"], "did you mean 'moderate'?"),
        (["moderate", "scna"], "did you mean 'scan'?"),
        (["run", "x", "--device", "cud"], "did you mean 'cuda'?"),
    ],
)
def test_no_abbreviation_and_the_nearest_name(arguments: list[str], told: str, capsys: Output) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2 and told in capsys.readouterr().err


def test_what_looks_like_an_option_and_is_none() -> None:
    parser = Parser()
    parser.add_argument("ids", nargs="*")
    parser.add_argument("-k", type=int)
    parser.add_argument("--text")
    found = parser.parse_args(["-k5", "--text=--dvice", "-1", "--", "--dvice", "-abc"])
    assert (found.k, found.text, found.ids) == (5, "--dvice", ["-1", "--dvice", "-abc"])
    assert parser.parse_args(["--text", "-- a b"]).text == "-- a b", "words with a space are no option"


def test_suggestion() -> None:
    assert suggestion("--dvice", ["--store", "--device"]) == "; did you mean '--device'?"
    assert suggestion("xyzzy", ["run"]) == ""
