"""The guide's snippets run, and print what it says that they print."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "index.md"


def test_the_snippets_of_the_guide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.S))
    said = re.findall(r"^ *print\(.*\)  # (.+)$", code, re.M)
    told = io.StringIO()
    with contextlib.redirect_stdout(told):
        exec(compile(code, str(GUIDE), "exec"), {})
    assert told.getvalue().splitlines() == said
    assert len(said) >= 7
