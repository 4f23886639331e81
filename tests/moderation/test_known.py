"""What is known of abusive language before a store has an exemplar."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from bench.abuse import HARD
from catalog.media import Text
from core.errors import ConfigError
from core.storage import open_storage
from embedders.registry import load_profile
from embedders.text import SentenceEmbedder
from moderation import decisions, known
from moderation.calibration import Calibration, Threshold
from moderation.decisions import Calibrated, Decision, Place, policy_version
from moderation.evidence import Evidence, part_arrays
from moderation.exemplars import Exemplars
from moderation.known import ASK_FROM, Known, names, shipped, worth_asking
from moderation.policies import parse_policies, policy_from_dict, shipped_policies
from moderation.texts import text_hash
from tests.moderation.test_decisions import judge

ABUSE = next(p for p in shipped_policies() if p.id == "abusive-language")
INSULTS = (
    "You are a stupid, worthless piece of trash and everybody hates you.",
    "Shut up, you filthy pig, before I smash your ugly face.",
    "Go back to where you came from, you disgusting animals.",
    "What a pathetic loser, too dumb to tie his own shoes.",
)
ORDINARY = (
    "We planted tomatoes and beans in the garden behind the house.",
    "The committee agreed that the old bridge has to be repaired before the winter.",
    "Three friends talk about films they loved when they were young.",
    "A walk along the river, recorded at dawn, with birds and distant bells.",
)


@pytest.fixture(scope="module")
def model() -> SentenceEmbedder:
    found: SentenceEmbedder = load_profile("bundled", device="cpu").text
    return found


@pytest.fixture
def store(tmp_path: Path) -> Exemplars:
    return Exemplars(open_storage(str(tmp_path)))


def vectors(model: SentenceEmbedder, *texts: str) -> np.ndarray:
    return model.embed([Text("", "", text) for text in texts])


def evidence(model: SentenceEmbedder, text: str, *parts: str) -> Evidence:
    arrays = {"vector": vectors(model, text)[0]}
    if parts:
        spans = np.array([(text.index(part), text.index(part) + len(part)) for part in parts])
        arrays = part_arrays(vectors(model, *parts), spans, arrays["vector"])
    return Evidence("text", arrays=arrays, model_id=model.model_id)


def test_insults_are_told_from_what_only_sounds_like_them(model: SentenceEmbedder) -> None:
    classifier = shipped("abusive-language")
    odds = [classifier.log_odds(vectors(model, *texts), model.model_id) for texts in (INSULTS, ORDINARY, HARD)]
    assert all(each is not None for each in odds)
    bad, good, hard = (np.asarray(each) for each in odds)
    assert (bad > ASK_FROM).all() and (good < -2).all()
    assert (hard > ASK_FROM).mean() <= 0.03  # one of 48 at most


def test_odds_are_a_line_and_only_of_models_that_it_was_fitted_to() -> None:
    classifier = Known("x", "1", {"two": np.array([2.0, -1.0, 0.5])})
    rows = np.array([[1.0, 0.0], [0.6, 0.8]], np.float32)
    assert classifier.log_odds(rows, "two") == pytest.approx([2.5, 0.9])
    assert classifier.log_odds(rows, "another") is None
    assert classifier.log_odds(np.eye(3, dtype=np.float32), "two") is None  # the name of one, vectors of another


def test_both_profiles_are_served(model: SentenceEmbedder) -> None:
    dims = {name: len(w) - 1 for name, w in shipped("abusive-language").weights.items()}
    # The second is what the packages of all-mpnet-base-v2 hold, under the hash of its files.
    assert dims == {model.model_id: 384, "all-mpnet-base-v2-a96a9b1e-c160x16-v1": 768}
    assert names() == ["abusive-language"]
    with pytest.raises(ConfigError, match="'unheard' is no classifier that ships: there is abusive-language"):
        shipped("unheard")


def test_without_an_exemplar_people_look_at_what_it_is_sure_of(store: Exemplars, model: SentenceEmbedder) -> None:
    abuse = judge(ABUSE, "text", store)
    found = abuse.decide("content", evidence(model, INSULTS[0]))
    assert found is not None
    assert (found.action, found.tier, found.probability, found.cited) == ("review", "classifier", None, ())
    assert (found.reason, found.place) == ("it reads as abusive language", Place())
    assert Decision.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    odds = shipped("abusive-language").log_odds(vectors(model, INSULTS[0]), model.model_id)
    assert odds is not None and found.raw == pytest.approx(1 / (1 + np.exp(-odds[0])))
    assert abuse.decide("content", evidence(model, ORDINARY[0])) is None
    unknown = replace(evidence(model, INSULTS[0]), model_id="another model")
    assert abuse.decide("content", unknown) is None
    assert judge(replace(ABUSE, known=""), "text", store).decide("content", evidence(model, INSULTS[0])) is None


def test_one_passage_of_many_is_enough_and_is_named(store: Exemplars, model: SentenceEmbedder) -> None:
    parts = (*ORDINARY, INSULTS[1], *ORDINARY)
    text = " ".join(parts)
    found = judge(ABUSE, "text", store).decide("content", evidence(model, text, *parts))
    first = text.index(INSULTS[1])
    assert found is not None and found.tier == "classifier"
    assert found.place == Place(first=first, last=first + len(INSULTS[1]))
    assert found.reason == "a passage reads as abusive language"
    assert Decision.from_dict(json.loads(json.dumps(found.to_dict()))) == found


def test_an_exemplar_that_is_near_is_what_is_cited(store: Exemplars, model: SentenceEmbedder) -> None:
    own = {"text": INSULTS[0], "model_id": model.model_id}
    arrays = {"vector": vectors(model, INSULTS[0])[0]}
    store.add("abusive-language", "text", own, arrays, name="known", state="active")
    found = judge(ABUSE, "text", store).decide("content", evidence(model, INSULTS[0]))
    assert found is not None and (found.tier, found.cited[0].exemplar_id) == ("embedding", "abusive-language/known")


def test_of_many_passages_more_is_asked() -> None:
    """Of one 2.5, of a hundred 2.5 + ln(100) / 2 = 4.80. A short text is its own only passage."""
    for one in ([2.6], [2.6, 2.6]):
        assert worth_asking(np.array(one)).all() and not worth_asking(np.array(one) - 0.2).any()
    many = np.zeros(101)
    many[:2] = 4.7, 4.9
    assert worth_asking(many).tolist() == [False, True] + [False] * 99


def test_what_is_allowed_silences_it(store: Exemplars, model: SentenceEmbedder) -> None:
    insult = evidence(model, INSULTS[0])
    assert judge(ABUSE, "text", store).decide("content", insult) is not None
    near = {"text": "something else", "model_id": model.model_id}
    store.add("acceptable-language", "text", near, {"vector": insult.arrays["vector"]}, name="near", state="active")
    assert judge(ABUSE, "text", store).decide("content", insult) is None
    store.set_state("acceptable-language/near", "retired", by="ada", reason="a try")
    assert judge(ABUSE, "text", store).decide("content", insult) is not None
    # The very words, of whatever model.
    store.add("acceptable-language", "text", {"text": INSULTS[0]}, {}, name="said", state="active")
    worded = replace(insult, text_hash=text_hash(INSULTS[0]))
    assert judge(ABUSE, "text", store).decide("content", worded) is None


def test_a_shadow_has_no_part_in_it(store: Exemplars, model: SentenceEmbedder) -> None:
    text = " ".join((INSULTS[0], *ORDINARY))
    told = evidence(model, text, INSULTS[0], *ORDINARY)
    before = judge(ABUSE, "text", store).decide("content", told)
    shadow = {"text": ORDINARY[0], "model_id": model.model_id}
    arrays = {"vector": vectors(model, ORDINARY[0])[0]}
    store.add("abusive-language", "text", shadow, arrays, name="tried", state="shadow")
    after = judge(ABUSE, "text", store).decide("content", told)
    assert before is not None and after is not None and after.same == before.same
    assert after.rests_on == () and [c.exemplar_id for c in after.cited] == ["abusive-language/tried"]
    assert after.place == before.place == Place(first=0, last=len(INSULTS[0]))


def test_a_calibration_holds_for_the_vectors_that_it_was_learnt_of(store: Exemplars, model: SentenceEmbedder) -> None:
    steep = Calibration("logistic", 50, 50, 0.01, slope=50.0, intercept=0.0)
    sure = Threshold(0.9, 0.95, 0.96, 90, 90, 0)
    insult = evidence(model, INSULTS[0])
    own = {"text": INSULTS[1], "model_id": model.model_id}
    arrays = {"vector": insult.arrays["vector"]}
    made_of = f"positive known {model.model_id}"
    alone = judge(ABUSE, "text", store, Calibrated(steep, sure, made_of)).decide("content", insult)
    assert alone is not None and (alone.probability, alone.tier) == (None, "classifier")  # no label is of such a score
    store.add("abusive-language", "text", own, arrays, name="one", state="active")
    for made_of, holds in ((f"positive known {model.model_id}", True), ("positive known another", False)):
        found = judge(ABUSE, "text", store, Calibrated(steep, sure, made_of)).decide("content", insult)
        assert found is not None and (found.probability is not None) == holds
        assert found.made_of == f"positive known {model.model_id}"


def test_other_weights_are_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    before, detector = policy_version(ABUSE), decisions.detector(ABUSE)
    monkeypatch.setattr(known, "shipped", lambda name: Known(name, "other", {}))
    other = policy_version(ABUSE)
    assert other != before and decisions.detector(ABUSE) != detector
    # One that ships no more leaves the records of those days readable.
    monkeypatch.setattr(known, "names", list)
    assert policy_version(policy_from_dict(ABUSE.to_dict())) not in (before, other)


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ("known: unheard", "known: 'unheard' is no classifier that ships: there is abusive-language"),
        ("known: abusive-language\n    modalities: [audio]\n    vectors: voice", "of text, and add to its similarity"),
        ("known: abusive-language\n    detector: classifier\n    feature: a.b", "of text, and add to its similarity"),
        ("known: 7", "known must be text, not 7"),
    ],
)
def test_a_classifier_that_makes_no_sense_is_refused(settings: str, error: str) -> None:
    text = f"""
policies:
  - id: abuse
    title: Abuse
    clauses: [{{id: a.1, text: "No abuse."}}]
    modalities: [text]
    detector: similarity
    banks: {{positive: [abuse]}}
    ladder: {{review: 0.5}}
    {settings}
"""
    # What is given twice counts as it is given last.
    with pytest.raises(ConfigError, match=error):
        parse_policies(text, "here")
