"""Host-read ads: the chain against every possible path, the scores by hand, and the shipped classifier on real text."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import ModelError
from skips.hostread import (
    CUED,
    ENTER,
    LEAST,
    LEAVE,
    LONGEST_S,
    SHORTEST_S,
    Classifier,
    host_read,
    in_context,
    lexicon_scores,
    shipped,
)
from skips.lexicon import cues
from skips.markers import Marker
from skips.words import Sentence

CUE, TALK = "This hour is sponsored by Acme.", "The river was high that year."
PLAIN = Classifier("toy", np.array([1.0], np.float32), np.zeros(3, np.float32), 0.0)


def vectors_for(logits: list[float]) -> np.ndarray:
    """The vectors (n, 1) that give these logits under `PLAIN`: what context adds is solved for."""
    n = len(logits)
    context = np.eye(n) + 0.5 * (np.eye(n, k=1) + np.eye(n, k=-1))
    return np.linalg.solve(context, np.array(logits)).astype(np.float32)[:, None]


def said(texts: list[str], each_s: float = 10.0) -> list[Sentence]:
    return [Sentence(n * each_s, (n + 1) * each_s, text) for n, text in enumerate(texts)]


def spans(markers: list[Marker]) -> list[tuple[float, float]]:
    return [(m.start_s, m.end_s) for m in markers]


def slow(logits: list[float], texts: list[str], each_s: float) -> list[tuple[float, float]]:
    """The best of all paths, then the rules of length, probability and cue."""

    def worth(path: tuple[int, ...]) -> float:
        before = (0, *path[:-1])
        odds = sum(max(-4.0, min(4.0, v)) for v, ad in zip(logits, path, strict=True) if ad)
        turns = list(zip(before, path, strict=True))
        return odds - ENTER * turns.count((0, 1)) - LEAVE * turns.count((1, 0))

    best = max(itertools.product((0, 1), repeat=len(logits)), key=worth)
    found = []
    for state, run in itertools.groupby(enumerate(best), key=lambda item: item[1]):
        own = [n for n, _ in run]
        probability = sum(1 / (1 + np.exp(-logits[n])) for n in own) / len(own)
        cued = any(cues(texts[n]).get("ad", 0.0) >= CUED for n in own)
        start, end = own[0] * each_s, (own[-1] + 1) * each_s
        if state and SHORTEST_S <= end - start <= LONGEST_S and probability >= LEAST and cued:
            found.append((start, end))
    return found


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.floats(-6, 6, width=16), st.booleans()), min_size=1, max_size=10),
    st.sampled_from([2.0, 5.0, 10.0, 30.0]),
    st.integers(0, 2**31),
)
def test_stretches_are_those_of_the_best_of_all_paths(
    drawn: list[tuple[float, bool]], each_s: float, seed: int
) -> None:
    # A little noise, so that no two paths are worth the same.
    noise = np.random.default_rng(seed).uniform(0.001, 0.01, len(drawn))
    logits = [value + float(more) for (value, _), more in zip(drawn, noise, strict=True)]
    texts = [CUE if cue else TALK for _, cue in drawn]
    markers = host_read(said(texts, each_s), vectors_for(logits), "toy", PLAIN)
    assert spans(markers) == slow(logits, texts, each_s)


def test_a_weak_sentence_stays_in_the_ad_around_it() -> None:
    # Leaving and coming back would cost 0.5 + 1.5; staying costs 1.
    texts = [TALK, CUE, TALK, CUE, TALK]
    (marker,) = host_read(said(texts), vectors_for([-4, 3, -1, 3, -4]), "toy", PLAIN)
    assert (marker.start_s, marker.end_s) == (10.0, 40.0)
    assert marker.confidence == pytest.approx((2 / (1 + np.exp(-3)) + 1 / (1 + np.exp(1))) / 3, abs=1e-5)
    # At -2.5 it is dearer to stay.
    assert spans(host_read(said(texts), vectors_for([-4, 3, -2.5, 3, -4]), "toy", PLAIN)) == [(10, 20), (30, 40)]


def test_two_ads_far_apart_are_two_whatever_is_not_known_between_them() -> None:
    apart = [
        Sentence(s.start_s + (1_000 if n > 2 else 0), s.end_s + (1_000 if n > 2 else 0), s.text)
        for n, s in enumerate(said([CUE, TALK, CUE] * 2))
    ]
    vectors = np.concatenate([vectors_for([3.0] * 3), vectors_for([3.0] * 3)])
    assert spans(host_read(apart, vectors, "toy", PLAIN)) == [(0, 30), (1_030, 1_060)]


def test_what_is_found_is_offered_never_skipped_unasked() -> None:
    (marker,) = host_read(said([CUE]), vectors_for([3.0]), "toy", PLAIN)
    assert marker == Marker("ad", 0.0, 10.0, marker.confidence, 1, "", "ask", "transcript")


def test_an_ad_begins_only_where_it_is_worth_it() -> None:
    assert host_read(said([CUE]), vectors_for([1.4]), "toy", PLAIN) == []  # beginning costs 1.5
    assert host_read(said([CUE]), vectors_for([1.6]), "toy", PLAIN) != []


def test_without_a_phrase_of_an_ad_there_is_none() -> None:
    # Opinions about products sound like ads to an embedding.
    assert host_read(said([TALK] * 3), vectors_for([4.0] * 3), "toy", PLAIN) == []


def test_what_is_too_short_or_too_long_is_no_ad() -> None:
    for each_s, found in ((5.9, 0), (6.0, 1), (180.0, 1), (180.1, 0)):
        assert len(host_read(said([CUE], each_s), vectors_for([4.0]), "toy", PLAIN)) == found


def test_a_vector_in_context_has_half_of_both_neighbours() -> None:
    vectors = np.array([[1, 0], [0, 1], [2, 2]], np.float32)
    assert in_context(vectors).tolist() == [[1, 0.5], [1.5, 2], [2, 2.5]]
    assert in_context(vectors[:1]).tolist() == [[1, 0]]
    assert in_context(vectors[:0]).shape == (0, 2)


def test_lexicon_scores_are_a_sentences_own_its_neighbours_and_theirs() -> None:
    # "sponsored by" is 1 / (1 + e^-1.5); it stands third of five.
    x = 0.8175744761936437
    expected = [[0, 0, x], [0, x, x], [x, 0, 0], [0, x, x], [0, 0, x]]
    assert lexicon_scores([TALK, TALK, CUE, TALK, TALK]) == pytest.approx(np.array(expected))
    assert lexicon_scores([]).shape == (0, 3)


def test_log_odds_are_the_sum_of_both_kinds_of_evidence() -> None:
    classifier = Classifier("toy", np.array([1, -2], np.float32), np.array([3, 5, 7], np.float32), -0.25)
    vectors = np.array([[1, 0], [0, 1]], np.float32)
    scores = np.array([[0.5, 0, 0], [0, 0.5, 1]], np.float32)
    # [1, .5] and [.5, 1] in context: 1 - 1 + 1.5 - .25, and .5 - 2 + 2.5 + 7 - .25.
    assert classifier.logits(vectors, scores).tolist() == [1.25, 7.75]


def test_vectors_of_another_model_are_refused_with_what_to_do() -> None:
    with pytest.raises(ModelError, match="fitted on toy, not on other; .*bench.host_read_train"):
        host_read(said([CUE]), vectors_for([3.0]), "other", PLAIN)


def test_an_episode_without_words_has_no_ads() -> None:
    assert host_read([], np.empty((0, 1), np.float32), "toy", PLAIN) == []


def test_vectors_that_are_no_numbers_make_no_ad_of_them() -> None:
    vectors = np.array([[np.nan], [np.nan], [np.nan]], np.float32)
    assert host_read(said([CUE] * 3), vectors, "toy", PLAIN) == []


def test_the_shipped_classifier_has_a_weight_for_each_number_of_its_model() -> None:
    classifier = shipped()
    assert classifier.weights.shape == (384,) and classifier.lexicon.shape == (3,)  # all-MiniLM-L6-v2 has 384
    assert np.isfinite(classifier.weights).all() and np.isfinite([*classifier.lexicon, classifier.bias]).all()
    assert classifier.lexicon[0] > 0  # a phrase of an ad speaks for an ad


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "least_ads", "most_talk"), [("host_read.json", 7, 1), ("host_read_unseen.json", 4, 3)]
)
def test_most_ads_written_by_hand_are_found_and_hardly_any_talk_is_taken_for_one(
    name: str, least_ads: int, most_talk: int
) -> None:
    from bench.host_read_train import SENTENCE_S, by_hand, embedded, embedder

    model = embedder()
    ads = talk = 0
    for passage in by_hand(name):
        said_here = [Sentence(n * SENTENCE_S, (n + 1) * SENTENCE_S, t) for n, t in enumerate(passage.texts)]
        markers = host_read(said_here, embedded(model, list(passage.texts)), model.model_id)
        covered = {n for n, s in enumerate(said_here) for m in markers if m.start_s <= s.start_s < m.end_s}
        real = {n for n, ad in enumerate(passage.ad) if ad}
        if real:
            # Found: what is marked and what is an ad share more than half of both together.
            ads += len(covered & real) > 0.5 * len(covered | real)
        else:
            talk += bool(markers)
    print(name, ads, talk)
    assert ads >= least_ads
    assert talk <= most_talk
