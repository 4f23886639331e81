from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from catalog.names import content_ids
from catalog.read import read_catalog
from catalog.sources import Resolver
from core.contracts import id_problem

NFC, NFD = "caf\u00e9.wav", "cafe\u0301.wav"


def digest(path: str) -> str:
    return hashlib.sha256(path.encode()).hexdigest()[:16]


def test_paths_are_ids_in_nfc() -> None:
    assert content_ids(["a/b.wav", NFD, " lead.wav"]) == {"a/b.wav": "a/b.wav", NFD: NFC, " lead.wav": " lead.wav"}


def test_what_cannot_be_an_id_has_a_hash_of_the_path() -> None:
    assert content_ids([NFC, NFD]) == {NFC: NFC, NFD: f"{NFC}~{digest(NFD)}"}
    assert content_ids(["a\nb.wav"]) == {"a\nb.wav": f"a\\nb.wav~{digest('a' + chr(10) + 'b.wav')}"}
    long = "/".join(["ü" * 100] * 4) + ".wav"
    (found,) = content_ids([long]).values()
    assert found.startswith("ü" * 100 + "/") and found.endswith(f"~{digest(long)}")
    # Two spellings of which neither is the composed one: the first by code points keeps the plain id.
    marks = ["a\u0323\u0302", "a\u0302\u0323"]
    plain = unicodedata.normalize("NFC", marks[0])
    assert content_ids(marks) == {marks[1]: plain, marks[0]: f"{plain}~{digest(marks[0])}"}


@given(st.sets(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=30)))
def test_ids_are_valid_and_told_apart(paths: set[str]) -> None:
    found = content_ids(paths)
    assert set(found) == paths and len(set(found.values())) == len(paths)
    assert all(id_problem(content_id) is None for content_id in found.values())


def test_odd_names_are_read_and_opened(tmp_path: Path, wav: Callable[..., Path]) -> None:
    names = [" lead.wav", "trail.wav ", "two\nlines.wav", "tab\there.wav", " .wav", "#cover.wav", NFC, NFD]
    for hz, name in enumerate(names, 400):
        wav("x.wav", hz=hz).rename(tmp_path / name)
    catalog = read_catalog(tmp_path)
    assert not catalog.rejected
    rows = catalog.table.to_pylist()
    assert {row["audio_uri"] for row in rows} == set(names)
    resolver = Resolver(tmp_path)
    for row in rows:
        with resolver.open(row["audio_uri"]) as path:
            assert path.name == row["audio_uri"]
    assert {row["content_id"] for row in rows if row["audio_uri"] in (NFC, NFD)} == {NFC, f"{NFC}~{digest(NFD)}"}
