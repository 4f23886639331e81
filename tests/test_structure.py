"""The house: rooms import what stands below them, nothing names a machine, help is quick to load."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_help_imports_nothing_heavy() -> None:
    run = "try: main(['run', '--help'])\nexcept SystemExit: pass\n"
    code = f"import sys; from cli.main import main\n{run}print(sorted(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout
    assert "CATALOG" in out
    loaded = set(re.findall(r"'(\w+)'", out.splitlines()[-1]))
    assert not loaded & {"torch", "feast", "pandas", "pyarrow", "numpy", "faiss", "kfp", "rich"}


def test_no_lock_file_names_a_host() -> None:
    assert "://" not in (ROOT / "requirements.lock").read_text()


def test_the_dictionary_is_up_to_date() -> None:
    from feature_repo.dictionary import feature_dictionary

    assert (ROOT / "docs" / "feature-dictionary.md").read_text() == feature_dictionary()
