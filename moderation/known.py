"""What is known of a policy before a store has an exemplar: linear classifiers over text vectors, learnt from texts
that people labelled elsewhere. They ship as weights (`bench.abuse_train` fits them), for the text models named there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np

from core.errors import ConfigError

FOLDER = "data/known"
ASK_FROM = 2.5  # log-odds from which a text is worth a look though no exemplar is like it (decision 21)
ASK_MORE = 0.5  # times the logarithm of the number of passages: of many, one is soon above by chance


@dataclass(frozen=True)
class Known:
    """A classifier by name. `weights` by text model are float64 (dim + 1,), the bias last."""

    name: str
    version: str
    weights: Mapping[str, np.ndarray]

    def log_odds(self, vectors: np.ndarray, model_id: str) -> np.ndarray | None:
        """Of unit vectors (n, dim) that a text model made, float64 (n,); None of a model that it was not fitted to.

        As often breaking as not among the texts it learnt from: of a store's own, it is a score and no probability.
        """
        weights = self.weights.get(model_id)
        if weights is None or vectors.shape[1] + 1 != len(weights):
            return None
        return np.asarray(np.asarray(vectors, np.float64) @ weights[:-1] + weights[-1])


def worth_asking(odds: np.ndarray) -> np.ndarray:
    """Which of the log-odds of a whole and its passages, (1 + passages,), are worth a look by themselves, bool of that
    shape."""
    return np.asarray(odds > ASK_FROM + ASK_MORE * np.log(max(len(odds) - 1, 1)))


def names() -> list[str]:
    """Of the classifiers that ship."""
    folder = resources.files("moderation").joinpath(FOLDER)
    return sorted(entry.name.removesuffix(".json") for entry in folder.iterdir() if entry.name.endswith(".json"))


@cache
def shipped(name: str) -> Known:
    """The classifier of a name. Raises `ConfigError`."""
    if name not in names():
        raise ConfigError(f"{name!r} is no classifier that ships: there is {', '.join(names())}")
    data = resources.files("moderation").joinpath(f"{FOLDER}/{name}.json").read_bytes()
    held = {model: np.array(weights, np.float64) for model, weights in json.loads(data)["weights"].items()}
    return Known(name, hashlib.sha256(data).hexdigest()[:16], held)
