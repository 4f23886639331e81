"""How well abusive language is told from what is not, on sources that nothing was learnt from, beside
alt-profanity-check."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from bench.abuse import Labelled, labelled
from bench.frame import Benchmark, Row
from core.threads import one_algebra_thread
from moderation.banks import NEAREST
from moderation.calibration import calibration_error, fit

SEED = 5
QUICK_EACH = 60
FALSE_POSITIVES = 0.01
DRAWS = 500  # of the bootstrap
Pair = tuple[str, str]  # an abusive source and an ordinary one that were left out


@dataclass(frozen=True)
class _Held:
    """What sources that were left out show: scores, truth, and the calibrated probabilities."""

    pair: Pair
    scores: np.ndarray
    truth: np.ndarray
    probability: np.ndarray
    profanity: np.ndarray
    hard: np.ndarray  # scores of hard negatives


def run(quick: bool) -> list[Row]:
    one_algebra_thread()
    texts = labelled(SEED)
    if quick:
        kept: dict[str, int] = {}
        texts = [t for t in texts if kept.setdefault(t.source, 0) < QUICK_EACH and _count(kept, t.source)]
    vectors, profanity = _vectors(texts), _profanity(texts)
    source = np.array([t.source for t in texts])
    abusive = np.array([t.abusive for t in texts])
    hard = source == "hard"
    pairs = list(product(sorted(set(source[abusive])), sorted(set(source[~abusive & ~hard]))))
    held = [_held_out(pair, texts, source, abusive, vectors, profanity) for pair in pairs]
    return _rows(held)


def _count(kept: dict[str, int], source: str) -> bool:
    kept[source] += 1
    return True


def _vectors(texts: Sequence[Labelled]) -> np.ndarray:
    from catalog.media import Text
    from embedders.registry import load_profile

    model = load_profile("bundled", device="cpu").text
    return np.stack(model.embed([Text("", "", t.text) for t in texts])).astype(np.float32)


def _profanity(texts: Sequence[Labelled]) -> np.ndarray:
    from profanity_check import predict_prob

    return np.asarray(predict_prob([t.text for t in texts]), np.float64)


def _held_out(
    pair: Pair,
    texts: Sequence[Labelled],
    source: np.ndarray,
    abusive: np.ndarray,
    vectors: np.ndarray,
    profanity: np.ndarray,
) -> _Held:
    """Banks of what is left; scores of what was left out; the calibration is learnt from what is left, each text scored
    without its own group."""
    out = np.isin(source, pair)
    hard = source == "hard"
    bank = ~out & ~hard
    groups = np.array([f"{t.source} {t.group}" for t in texts])
    own = _margins(vectors[bank], vectors[bank], abusive[bank], groups[bank], groups[bank])
    made = fit(own.tolist(), abusive[bank].tolist(), source[bank].tolist())
    scores = _margins(vectors[out], vectors[bank], abusive[bank])
    return _Held(
        pair,
        scores,
        abusive[out],
        made(scores),
        profanity[out],
        _margins(vectors[hard], vectors[bank], abusive[bank]),
    )


def _margins(
    asked: np.ndarray,
    bank: np.ndarray,
    abusive: np.ndarray,
    asked_groups: np.ndarray | None = None,
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """`moderation.banks.margin` of many texts at once; exemplars of a text's own group do not count."""
    alike = asked @ bank.T
    if asked_groups is not None and groups is not None:
        alike[asked_groups[:, None] == groups[None]] = -1
    top = [np.sort(alike[:, side], axis=1)[:, -NEAREST:].mean(axis=1) for side in (abusive, ~abusive)]
    return np.asarray(top[0] - top[1], np.float64)


def _rows(held: Sequence[_Held]) -> list[Row]:
    from sklearn.metrics import roc_auc_score

    auc = [(float(roc_auc_score(h.truth, h.scores)), float(roc_auc_score(h.truth, h.profanity)), h) for h in held]
    recall = [(_recall(h.scores, h.truth), _recall(h.profanity, h.truth), h) for h in held]
    error = [(calibration_error(h.probability, h.truth), h) for h in held]
    rows = []
    for name, found in (("auc", auc), ("recall_at_1_percent", recall)):
        ours, peer, worst = min(found, key=lambda f: f[0])
        low, high = _interval(worst, name == "auc")
        mean = np.mean([f[0] for f in found])
        note = f"worst of {len(found)}: {' and '.join(worst.pair)} left out; [{low:.3f}, {high:.3f}]; mean {mean:.3f}"
        rows.append(_row(f"{name}_worst", ours, peer, note))
        best = max(found, key=lambda f: f[0])
        rows.append(_row(f"{name}_best", best[0], best[1], f"{' and '.join(best[2].pair)} left out"))
    worst_error, worst_held = max(error, key=lambda e: e[0])
    rows.append(
        Row(
            "calibration_error_worst",
            worst_error,
            None,
            None,
            "",
            note=f"{' and '.join(worst_held.pair)} left out; {len(worst_held.truth):,} labels; median "
            f"{np.median([e for e, _ in error]):.3f}",
        )
    )
    flagged = [float(np.mean(h.hard > np.quantile(h.scores[~h.truth], 1 - FALSE_POSITIVES))) for h in held]
    rows.append(
        Row(
            "hard_negatives_flagged",
            float(np.median(flagged)),
            None,
            None,
            "",
            note="share, at 1 % false positives; median",
        )
    )
    return rows


def _recall(scores: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean(scores[truth] > np.quantile(scores[~truth], 1 - FALSE_POSITIVES)))


def _interval(held: _Held, auc: bool) -> tuple[float, float]:
    """95 % by bootstrap over texts, abusive and ordinary ones apart."""
    from sklearn.metrics import roc_auc_score

    rng = np.random.default_rng(0)
    yes, no = np.flatnonzero(held.truth), np.flatnonzero(~held.truth)
    found = []
    for _ in range(DRAWS):
        some = np.concatenate([rng.choice(yes, len(yes)), rng.choice(no, len(no))])
        scores, truth = held.scores[some], held.truth[some]
        found.append(roc_auc_score(truth, scores) if auc else _recall(scores, truth))
    return float(np.quantile(found, 0.025)), float(np.quantile(found, 0.975))


def _row(name: str, ours: float, peer: float, note: str) -> Row:
    return Row(name, ours, peer, 1.0, "", "alt-profanity-check", "all", higher_is_better=True, note=note)


BENCHMARK = Benchmark("moderation-text", "abusive language told from what is not, on sources never learnt from", run)
