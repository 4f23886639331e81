"""Vectors to search: synthetic clusters, and sentences of a dictionary by MiniLM."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

CLUSTERS, INNER, SPREAD = 600, 64, 0.9
GLOSSES = Path.home() / ".cache" / "earmark-bench" / "wordnet-minilm.npy"
DICTIONARY = Path("/usr/share/wordnet")


def clustered(rows: int, dim: int, seed: int) -> np.ndarray:
    """Unit vectors, float32 (rows, dim): clusters whose sizes follow a power law, each spread in one of 32 subspaces of
    64 dimensions, and a little in all."""
    shape = np.random.default_rng(7)  # the clusters are the same whatever is drawn from them
    centres = shape.standard_normal((CLUSTERS, dim), np.float32)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    bases = shape.standard_normal((32, INNER, dim), np.float32) / np.sqrt(dim)
    weights = 1 / np.arange(1, CLUSTERS + 1) ** 0.7
    rng = np.random.default_rng(seed)
    out = np.empty((rows, dim), np.float32)
    for first in range(0, rows, 20_000):
        which = rng.choice(CLUSTERS, min(20_000, rows - first), p=weights / weights.sum())
        inner = rng.standard_normal((len(which), INNER), np.float32) / np.sqrt(INNER)
        noise = 0.1 * rng.standard_normal((len(which), dim), np.float32) / np.sqrt(dim)
        for number in range(32):
            own = which % 32 == number
            noise[own] += SPREAD * inner[own] @ bases[number]
        found = centres[which] + noise
        out[first : first + len(which)] = found / np.linalg.norm(found, axis=1, keepdims=True)
    return out


def glosses() -> np.ndarray | None:
    """MiniLM vectors, float32 (n, 384), of the glosses of Debian's `wordnet-base`; None where `python -m bench.vectors`
    has not made them."""
    return np.load(GLOSSES) if GLOSSES.is_file() else None


def make_glosses() -> None:
    """Takes some tens of minutes on two cores. Raises `SystemExit` where the dictionary is missing."""
    if not DICTIONARY.is_dir():
        raise SystemExit("the dictionary is missing: apt-get install wordnet-base")
    from catalog.media import Text
    from cli.common import console
    from embedders.registry import load_profile

    texts: list[str] = []
    for part in ("noun", "verb", "adj", "adv"):
        for line in (DICTIONARY / f"data.{part}").read_text("latin-1").splitlines():
            if not line.startswith("  ") and " | " in line:
                texts.append(re.split(r'; "', line.split(" | ", 1)[1])[0].strip())
    texts = sorted(set(texts), key=lambda text: (len(text), text))  # of like lengths together: less padding
    model = load_profile("bundled").text
    blocks: list[np.ndarray] = []
    for first in range(0, len(texts), 512):
        blocks.append(model.embed([Text(title=text) for text in texts[first : first + 512]]))
        console().print(f"{first + len(blocks[-1])} of {len(texts)} glosses", end="\r")
    GLOSSES.parent.mkdir(parents=True, exist_ok=True)
    np.save(GLOSSES, np.concatenate(blocks).astype(np.float32))


if __name__ == "__main__":
    make_glosses()
