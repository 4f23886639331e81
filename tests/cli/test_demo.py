"""The demo: its catalogue is the same every time, what it says of itself is true, and its run finds it."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from catalog.audio import decode_audio
from catalog.media import SAMPLE_RATE
from cli.main import main

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (shutil.which("flite") or shutil.which("espeak-ng")), reason="needs Debian's flite"),
]


def media_hashes(folder: Path) -> dict[str, str]:
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name != ".complete"
    }


def test_the_catalogue_is_the_same_every_time(small_demo: Path, tmp_path: Path) -> None:
    from cli.demo.build import build_demo

    build_demo(tmp_path / "again", small=True)
    one, two = media_hashes(small_demo), media_hashes(tmp_path / "again")
    assert set(one) == set(two)
    # Encoders may write a serial number (Ogg) into their files; everything else is the same to the bit.
    assert {n for n in one if one[n] != two[n] and not n.endswith((".ogg", ".opus"))} == set()


def test_recurring_spots_are_where_the_truth_says(small_demo: Path) -> None:
    segments = json.loads((small_demo / "truth" / "segments.json").read_text())
    uris = {}
    for line in (small_demo / "catalog.jsonl").read_text().splitlines():
        row = json.loads(line)
        uris[row["content_id"]] = row.get("audio_uri")
    spots: dict[str, list[dict[str, object]]] = {}
    for segment in segments:
        spots.setdefault(str(segment["motif"]), []).append(segment)
    pairs = [found for found in spots.values() if len({s["content_id"] for s in found}) > 1]
    assert pairs, "the small demo must hold a spot that recurs"
    for first, second, *_ in pairs:
        sound = {s["content_id"]: decode_audio(small_demo / uris[s["content_id"]]).samples for s in (first, second)}
        start, end = (int(float(first[k]) * SAMPLE_RATE) for k in ("start_s", "end_s"))  # type: ignore[arg-type]
        spot, whole = sound[first["content_id"]][start:end], sound[second["content_id"]]
        size = 1 << int(np.ceil(np.log2(len(whole) + len(spot))))
        product = np.fft.rfft(whole, size) * np.conj(np.fft.rfft(spot, size))
        found_s = int(np.argmax(np.fft.irfft(product)[: len(whole)])) / SAMPLE_RATE
        assert found_s == pytest.approx(float(second["start_s"]), abs=0.05)  # type: ignore[arg-type]


def test_the_demo_ends_in_a_summary(small_demo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(small_demo, tmp_path / "catalog")
    assert main(["demo", "--folder", str(tmp_path), "--small"]) == 0
    out = capsys.readouterr().out
    for told in (
        "Demo catalogue",
        "In quarantine",
        "Indexes",
        "What sounds like",
        "get_online_features",
        "training set",
    ):
        assert told in out, told
    capsys.readouterr()
    assert main(["demo", "--folder", str(tmp_path), "--small", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    held = {(q["content_id"], q["stage"], q["reason"]) for q in report["summary"]["quarantine"]}
    truth = json.loads((small_demo / "truth" / "bad_items.json").read_text())
    assert held == {(b["content_id"], b["stage"], b["reason"]) for b in truth}
