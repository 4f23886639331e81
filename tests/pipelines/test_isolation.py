"""Folders with files that crash a decoder or surprise us: they are named, everything else is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from core.config import MediaLimits
from core.storage import LocalStorage
from pipelines import match as match_module
from pipelines import skip_folder as skip_module
from pipelines.exemplars import add_files
from pipelines.match import match_folder
from pipelines.skip_folder import skip_folder
from tests.faults import faulty

__all__ = ["faulty"]

LIMITS = MediaLimits(max_stall_s=5.0, max_decode_bytes=500 << 20)
CRASHES = ("hang", "memory", "segfault")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(5)
    made = tmp_path / "sounds"
    made.mkdir()
    for name in ("a good", *CRASHES, "surprise", "z good"):
        soundfile.write(made / f"{name}.wav", rng.uniform(-0.3, 0.3, 6 * 16_000), 16_000)
    return made


def reasons(failures: list[tuple[Any, str]]) -> dict[str, str]:
    return {Path(path).stem: reason.split(":")[0] for path, reason in failures}


WANTED = {**dict.fromkeys(CRASHES, "decoder_crashed"), "surprise": "failed"}


def test_skips_of_a_folder(faulty: None, folder: Path) -> None:
    found = skip_folder(folder, limits=LIMITS)
    assert [e.content_id for e in found.episodes] == ["a good.wav", "z good.wav"]
    assert reasons(found.failures) == WANTED


def test_matches_of_a_folder(faulty: None, folder: Path, tmp_path: Path) -> None:
    bank = tmp_path / "bank"
    bank.mkdir()
    (bank / "banned.wav").write_bytes((folder / "z good.wav").read_bytes())
    (bank / "segfault.wav").write_bytes((folder / "segfault.wav").read_bytes())
    found = match_folder(bank, folder, limits=LIMITS)
    assert [(path.name, m.exemplar, m.tier) for path, m in found.matches] == [("z good.wav", "banned.wav", "exact")]
    assert reasons(found.failures) == WANTED
    assert len(found.failures) == len(WANTED) + 1  # the exemplar that crashes is named as well


def test_exemplars_of_a_folder(faulty: None, folder: Path, tmp_path: Path) -> None:
    added = add_files(LocalStorage(tmp_path / "store"), "bank", [folder], limits=LIMITS)
    assert sorted(e.provenance["file"] for e in added.exemplars) == ["a good.wav", "z good.wav"]
    assert reasons(added.failures) == WANTED


def test_an_error_behind_the_decoder_is_one_files(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in folder.glob("*"):
        if "good" not in path.name:
            path.unlink()
    hear = skip_module._hear

    def surprise(path: Path, *more: Any) -> Any:
        if path.name.startswith("z"):
            raise ZeroDivisionError("surprise")
        return hear(path, *more)

    monkeypatch.setattr(skip_module, "_hear", surprise)
    found = skip_folder(folder)
    assert [e.content_id for e in found.episodes] == ["a good.wav"]
    assert found.failures == [("z good.wav", "failed: ZeroDivisionError: surprise")]
    matches = match_module._matches

    def fails(banks: Any, one: Any, look: Any) -> Any:
        if one.path.name.startswith("a"):
            raise ZeroDivisionError("surprise")
        return matches(banks, one, look)

    monkeypatch.setattr(match_module, "_matches", fails)
    compared = match_folder(folder, folder)
    assert [(p.name, reason) for p, reason in compared.failures] == [
        ("a good.wav", "failed: ZeroDivisionError: surprise")
    ]
    assert {path.name for path, _ in compared.matches} == {"z good.wav"}


def test_truncated_episodes_are_kept_where_that_is_accepted(folder: Path) -> None:
    for path in folder.glob("*"):
        if "good" not in path.name:
            path.unlink()
    path = folder / "z good.wav"
    path.write_bytes(path.read_bytes()[:100_000])
    refused = skip_folder(folder)
    assert [e.content_id for e in refused.episodes] == ["a good.wav"]
    assert reasons(refused.failures) == {"z good": "truncated"} and refused.truncated == []
    accepted = skip_folder(folder, accept_truncated=True)
    assert [e.content_id for e in accepted.episodes] == ["a good.wav", "z good.wav"]
    assert accepted.episodes[1].duration_s == pytest.approx(100_000 / 2 / 16_000, abs=0.01)
    assert accepted.failures == []
    ((name, detail),) = accepted.truncated
    assert name == "z good.wav" and "bytes short" in detail
