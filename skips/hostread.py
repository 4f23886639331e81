"""Ads that hosts read: no fingerprint finds them, their words do.

A logistic regression over sentence embeddings and the lexicon scores every sentence; a chain of two hidden states,
talk and ad, makes stretches of them (Viterbi), so that a sentence without a cue stays in the ad around it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np

from core.errors import ModelError
from skips.lexicon import cues
from skips.markers import Marker
from skips.words import Sentence

SHORTEST_S, LONGEST_S = 6.0, 180.0  # of a host-read ad
ENTER, LEAVE = 1.5, 0.5  # nats that beginning and ending an ad cost
LEAST = 0.5  # mean probability of an ad's sentences
NEIGHBOUR = 0.5  # weight of the sentences before and behind
GAP_S = 15.0  # between sentences, in which nothing is said that is known: no ad goes on beyond it
CUED = 0.7  # an ad has a sentence with such a phrase: opinions about products have none


@dataclass(frozen=True)
class Classifier:
    """Weights over a sentence's embedding in its context, and over three scores of the lexicon."""

    model_id: str
    weights: np.ndarray  # float32 (dim,)
    lexicon: np.ndarray  # float32 (3,)
    bias: float

    def logits(self, embeddings: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Log-odds float32 (n,) that consecutive sentences are of an ad; `embeddings` are unit float32 (n, dim),
        `scores` float32 (n, 3)."""
        return in_context(embeddings) @ self.weights + scores @ self.lexicon + self.bias


def in_context(embeddings: np.ndarray) -> np.ndarray:
    """Each sentence's vector with half of both neighbours' added, float32 (n, dim): a sentence about a carrot is of an
    ad when those around it are."""
    around = np.pad(embeddings, ((1, 1), (0, 0)))
    return embeddings + NEIGHBOUR * (around[:-2] + around[2:])


@cache
def shipped() -> Classifier:
    """The classifier that comes with the package (`bench.host_read_train` fits it)."""
    stored = json.loads(resources.files("skips").joinpath("data/host_read.json").read_text())
    weights, lexicon = (np.array(stored[name], np.float32) for name in ("weights", "lexicon"))
    return Classifier(stored["model_id"], weights, lexicon, float(stored["bias"]))


def lexicon_scores(texts: Sequence[str]) -> np.ndarray:
    """float32 (n, 3): the lexicon's evidence for an ad in a sentence, in the stronger neighbour, and in the strongest
    of the two sentences before and behind."""
    own = np.array([cues(text).get("ad", 0.0) for text in texts], np.float32)
    around = np.pad(own, 2)
    near = np.maximum(around[1:-3], around[3:-1])
    far = np.maximum(np.maximum(around[:-4], around[4:]), near)
    return np.stack([own, near, far], axis=1)


def host_read(
    said: Sequence[Sentence], embeddings: np.ndarray, model_id: str, classifier: Classifier | None = None
) -> list[Marker]:
    """The host-read ads of a transcript, to be asked about, never skipped unasked.

    `embeddings` are the sentences' unit vectors, float32 (n, dim), by `model_id`. Raises `ModelError` where that is not
    the model that the classifier was fitted on.
    """
    classifier = classifier or shipped()
    if model_id != classifier.model_id:
        raise ModelError(
            f"the host-read classifier was fitted on {classifier.model_id}, not on {model_id}; "
            "fit it again with python -m bench.host_read_train, or leave host-read ads out"
        )
    found = []
    for first, last in _runs(said):
        found += _ads(said[first:last], embeddings[first:last], classifier)
    return found


def _runs(said: Sequence[Sentence]) -> list[tuple[int, int]]:
    """Sentences (first, behind the last) that follow each other without a gap."""
    cuts = [n for n in range(1, len(said)) if said[n].start_s - said[n - 1].end_s > GAP_S]
    return list(zip([0, *cuts], [*cuts, len(said)], strict=True)) if said else []


def _ads(said: Sequence[Sentence], embeddings: np.ndarray, classifier: Classifier) -> list[Marker]:
    """The ads among sentences that follow each other."""
    scores = lexicon_scores([s.text for s in said])
    logits = classifier.logits(embeddings, scores)
    found = []
    for first, last in _stretches(logits):
        start, end = said[first].start_s, said[last].end_s
        probability = float(np.mean(1 / (1 + np.exp(-logits[first : last + 1]))))
        cued = float(scores[first : last + 1, 0].max()) >= CUED
        if SHORTEST_S <= end - start <= LONGEST_S and probability >= LEAST and cued:
            found.append(Marker("ad", start, end, probability, 1, "", "ask", "transcript"))
    return found


def _stretches(logits: np.ndarray) -> list[tuple[int, int]]:
    """The runs (first, last) of the state "ad" on the best path."""
    clipped = np.clip(logits, -4, 4)
    best = np.array([0.0, clipped[0] - ENTER])
    back = np.zeros((len(logits), 2), np.int8)
    for n in range(1, len(logits)):
        talk = best[0], best[1] - LEAVE
        ad = best[0] - ENTER, best[1]
        back[n] = int(np.argmax(talk)), int(np.argmax(ad))
        best = np.array([max(talk), max(ad) + clipped[n]])
    state = int(np.argmax(best))
    path = np.zeros(len(logits), np.int8)
    for n in range(len(logits) - 1, -1, -1):
        path[n] = state
        state = int(back[n, state]) if n else state
    turns = np.diff(np.concatenate([[0], path, [0]]))
    return list(zip(np.flatnonzero(turns == 1).tolist(), (np.flatnonzero(turns == -1) - 1).tolist(), strict=True))
