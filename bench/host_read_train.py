"""Fits the classifier of host-read ads: `python -m bench.host_read_train`; `--check` only measures what is shipped.

A logistic regression on made-up passages (`bench.host_read_data`); measured on brands, products and sentences that it
never saw, and on passages written by hand (`tests/skips/data/host_read.json`).
"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bench.host_read_data import Passage, passages
from skips import hostread
from skips.words import Sentence

ROOT = Path(__file__).parent.parent
TARGET = ROOT / "skips" / "data" / "host_read.json"
BY_HAND = ROOT / "tests" / "skips" / "data"
SEED = 0
REGULARISED = 0.1  # inverse strength, as scikit-learn's C: the sentences to learn from are few
SENTENCE_S = 4.0


def embedder() -> Any:
    from embedders.registry import load_profile

    return load_profile("bundled", device="cpu", options={}).text


def embedded(model: Any, texts: list[str]) -> np.ndarray:
    """Unit vectors of texts, float32 (n, dim), as the store's text model makes them."""
    from catalog.media import Text

    return np.asarray(model.embed([Text(text) for text in texts]), np.float32)


def features(model: Any, made: list[Passage]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Embeddings in context, lexicon scores and labels of all sentences."""
    plain = embedded(model, [text for p in made for text in p.texts])
    ends = np.cumsum([len(p.texts) for p in made])[:-1]
    vectors = np.concatenate([hostread.in_context(own) for own in np.split(plain, ends)])
    scores = np.concatenate([hostread.lexicon_scores(p.texts) for p in made])
    return vectors, scores, np.array([label for p in made for label in p.ad])


def fit(model: Any) -> dict[str, Any]:
    from sklearn.linear_model import LogisticRegression

    vectors, scores, labels = features(model, passages("fit", SEED))
    found = LogisticRegression(C=REGULARISED, class_weight="balanced", max_iter=1000).fit(
        np.hstack([vectors, scores]), labels
    )
    weights = found.coef_[0]
    return {
        "model_id": model.model_id,
        "fitted": f"bench.host_read_train, seed {SEED}, {len(labels)} made-up sentences",
        "bias": round(float(found.intercept_[0]), 4),
        "lexicon": [round(float(w), 4) for w in weights[-3:]],
        "weights": [round(float(w), 4) for w in weights[:-3]],
    }


def by_hand(name: str) -> list[Passage]:
    """Passages written by hand, each all ad or all talk, with talk around it."""
    stored = json.loads((BY_HAND / name).read_text())
    made = []
    for kind, label in (("ads", True), ("talk", False)):
        for number, texts in enumerate(stored[kind]):
            around = stored["around"][number % len(stored["around"])]
            ad = (*(False for _ in around), *(label for _ in texts), *(False for _ in around))
            made.append(Passage((*around, *texts, *around), ad))
    return made


def measure(model: Any, made: list[Passage]) -> dict[str, tuple[int, int]]:
    """(hits, of how many) of sentence recall and precision, and of whole ads at IoU .5."""
    found = {name: [0, 0] for name in ("sentence recall", "sentence precision", "ad recall", "ad precision")}
    vectors = embedded(model, [text for p in made for text in p.texts])
    at = 0
    for passage in made:
        said = [Sentence(n * SENTENCE_S, (n + 1) * SENTENCE_S, text) for n, text in enumerate(passage.texts)]
        own = vectors[at : at + len(said)]
        at += len(said)
        markers = hostread.host_read(said, own, model.model_id)
        marked = [any(m.start_s <= s.start_s < m.end_s for m in markers) for s in said]
        both = sum(a and b for a, b in zip(passage.ad, marked, strict=True))
        for name, hits, count in (("recall", both, sum(passage.ad)), ("precision", both, sum(marked))):
            found[f"sentence {name}"][0] += hits
            found[f"sentence {name}"][1] += count
        hit = 0
        if any(passage.ad):
            start = passage.ad.index(True) * SENTENCE_S
            end = start + sum(passage.ad) * SENTENCE_S
            for m in markers:
                common = min(m.end_s, end) - max(m.start_s, start)
                hit |= common > 0.5 * (max(m.end_s, end) - min(m.start_s, start))
            found["ad recall"][0] += hit
            found["ad recall"][1] += 1
        found["ad precision"][0] += hit
        found["ad precision"][1] += len(markers)
    return {name: (hits, count) for name, (hits, count) in found.items()}


def wilson(hits: int, count: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    if not count:
        return 0.0, 1.0
    z, p = 1.96, hits / count
    middle = (p + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(p * (1 - p) / count + z * z / (4 * count * count))
    return middle - half, middle + half


def main() -> None:
    model = embedder()
    if "--check" not in sys.argv:
        TARGET.parent.mkdir(exist_ok=True)
        TARGET.write_text(json.dumps(fit(model)) + "\n")
        hostread.shipped.cache_clear()
    for name, made in (
        ("held-out", passages("held-out", SEED, 200)),
        ("by hand", by_hand("host_read.json")),
        ("unseen", by_hand("host_read_unseen.json")),
    ):
        for what, (hits, count) in measure(model, made).items():
            low, high = wilson(hits, count)
            print(f"{name:9} {what:19} {hits}/{count} = {hits / max(count, 1):.3f} [{low:.3f}, {high:.3f}]")


if __name__ == "__main__":
    main()
