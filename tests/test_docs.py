"""The documents tell the truth: links lead somewhere, commands exist, the Python in them runs on the demo's store."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from cli.main import COMMANDS, main

ROOT = Path(__file__).parent.parent
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", path.read_text()):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        linked = (path.parent / name).resolve() if name else path
        assert linked.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", linked.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^a-z0-9 -]", "", h.lower()).replace(" ", "-") for h in headings}, target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_and_options_exist(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for block in re.findall(r"```sh\n(.*?)```", path.read_text(), re.DOTALL):
        for command, rest in re.findall(r"^earmark ([a-z-]+)(.*)$", block, re.MULTILINE):
            assert command in COMMANDS, command
            # The first word after these is an action, which has options of its own.
            actions = re.findall(r"^ ([a-z]+)", rest) if command in ("pipeline", "moderate") else []
            with pytest.raises(SystemExit):
                main([command, *actions, "--help"])
            known = capsys.readouterr().out
            for option in re.findall(r"(?<!\S)--[a-z-]+", rest.split("#")[0]):
                assert option in known, f"earmark {command} has no {option}"


@pytest.mark.slow
def test_the_python_of_the_documents_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--small", "--json"]) == 0
    blocks = 0
    for path in DOCUMENTS:
        names: dict[str, object] = {}
        for block in re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL):
            exec(compile(block, path.name, "exec"), names)
            blocks += 1
        if path.name == "features.md":
            assert names["answer"]["content__title"] == ["Calm acoustic no. 1", None]  # type: ignore[index]
            assert names["history"]["content__title"].to_pylist() == [None, "Calm acoustic no. 1"]  # type: ignore[index]
            assert len(names["loud"]) == 7  # type: ignore[arg-type]
    assert blocks >= 5
