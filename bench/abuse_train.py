"""Fits what is known of abusive language: `python -m bench.abuse_train`; `--check` only measures what is shipped.

A logistic regression on the vectors of comments that people labelled (`bench.abuse.comments`), for the text models of
both profiles; measured on comments that it never saw and on comments of another place (`bench.abuse.insults`).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bench.abuse import comments, insults
from bench.packages import mpnet
from moderation.known import ASK_FROM

TARGET = Path(__file__).parent.parent / "moderation" / "data" / "known" / "abusive-language.json"
SEED = 0
LEARNT, ASKED = 12_000, 4_000  # twice as many gain .001 of AUC
REGULARISED = 1.0  # inverse strength, as scikit-learn's C: .3 to 10 differ by .004 of AUC elsewhere


def models() -> list[Any]:
    """The text models of the profiles."""
    from embedders.hub import hub_text
    from embedders.registry import load_profile

    return [load_profile("bundled", device="cpu").text, hub_text(str(mpnet()), "cpu")]


def embedded(model: Any, texts: list[str]) -> np.ndarray:
    """Unit vectors of texts, float32 (n, dim): those of a store's text model to three digits, in less time."""
    import torch

    from catalog.media import Text

    with torch.autocast("cpu", dtype=torch.bfloat16):
        return np.asarray(model.embed([Text("", "", text) for text in texts]), np.float32)


def fit(vectors: np.ndarray, labels: np.ndarray) -> list[float]:
    """Weights with the bias last."""
    from sklearn.linear_model import LogisticRegression

    found = LogisticRegression(C=REGULARISED, max_iter=2_000).fit(vectors, labels)
    return [round(float(w), 4) for w in (*found.coef_[0], found.intercept_[0])]


def main() -> None:
    from sklearn.metrics import roc_auc_score

    texts, labels = comments(SEED, LEARNT + ASKED)
    elsewhere, found_insults = insults(SEED)
    check = "--check" in sys.argv
    held: dict[str, Any] = json.loads(TARGET.read_text()) if check else {"weights": {}}
    held["fitted"] = f"bench.abuse_train, seed {SEED}, {LEARNT:,} comments"
    for model in models():
        if not check:
            held["weights"][model.model_id] = fit(embedded(model, texts[:LEARNT]), labels[:LEARNT])
        weights = np.array(held["weights"][model.model_id])
        for name, asked, truth in (
            ("comments", texts[LEARNT:], labels[LEARNT:]),
            ("insults", elsewhere, found_insults),
        ):
            scores = embedded(model, asked) @ weights[:-1] + weights[-1]
            auc, flagged = roc_auc_score(truth, scores), np.mean(scores[~truth] > ASK_FROM)
            print(f"{model.model_id} {name}: AUC {auc:.3f}, {flagged:.3f} of {sum(~truth):,} others worth a look")
    if not check:
        TARGET.parent.mkdir(exist_ok=True)
        TARGET.write_text(json.dumps(held, sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
