"""The structure of the repository: lock files name no host, help loads quickly, generated files are up to date."""

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
    for name in ("requirements.lock", "requirements-cpu.lock"):
        assert "://" not in (ROOT / name).read_text()


def test_the_lock_for_cpus_has_the_same_versions_without_what_cards_need() -> None:
    usual, cpu = (
        re.findall(r"^([\w.-]+==[\w.+-]+)(?: ; ([^\\\n]+))?", (ROOT / name).read_text(), re.MULTILINE)
        for name in ("requirements.lock", "requirements-cpu.lock")
    )
    assert {pin for pin, _ in cpu} == {pin for pin, _ in usual}
    left_out = {pin.split("==")[0] for pin, marker in cpu if marker.strip() == "sys_platform == 'never'"}
    assert {"triton", "faiss-gpu", "nvidia-cublas-cu12"} <= left_out
    assert dict(cpu)[next(pin for pin, _ in cpu if pin.startswith("faiss-cpu=="))] == ""


def test_the_dictionary_is_up_to_date() -> None:
    from feature_repo.dictionary import feature_dictionary

    assert (ROOT / "docs" / "feature-dictionary.md").read_text() == feature_dictionary()
