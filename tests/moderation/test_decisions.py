"""What a policy makes of evidence: tiers, banks of both sides, shadows, ladders, calibration, the share enforced."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.storage import open_storage
from embedders.fingerprint import patches
from moderation.banks import Bank
from moderation.calibration import Calibration, Threshold
from moderation.decisions import Calibrated, Decision, policy_version
from moderation.evidence import Evidence, part_arrays
from moderation.exemplars import Exemplars
from moderation.judge import WORTH, Judge
from moderation.likeness import Likeness
from moderation.policies import Policy, shipped_policies
from pipelines.match import picture_evidence, picture_hashes

SHIPPED = {p.id: p for p in shipped_policies()}


@pytest.fixture
def store(tmp_path: Path) -> Exemplars:
    return Exemplars(open_storage(str(tmp_path)))


def judge(policy: Policy, modality: str, store: Exemplars, calibrated: Calibrated | None = None) -> Judge:
    return Judge(policy, modality, Bank(modality, store.every(), store.arrays, patches), calibrated, 10)


def picture(pixels: np.ndarray, sha256: str = "") -> Evidence:
    return Evidence("image", sha256, picture_evidence(picture_hashes(pixels)))


def banned(store: Exemplars, bank: str, pixels: np.ndarray, name: str = "it", state: str = "active") -> None:
    arrays = picture_evidence(picture_hashes(pixels))
    said = {"sha256": name, "pdq": arrays["pdq"][0].tobytes().hex(), "pdq_quality": int(arrays["quality"])}
    store.add(bank, "image", said, arrays, name=name, state=state)


def test_the_cheapest_tier_that_finds_it_is_named(store: Exemplars, photographs: dict[str, np.ndarray]) -> None:
    banned(store, "banned-pictures", photographs["cat"], "cat")
    pictures = judge(SHIPPED["banned-pictures"], "image", store)
    for evidence, tier in (
        (picture(photographs["coffee"], "cat"), "exact"),  # the bytes say it, whatever is seen
        (picture(photographs["cat"][:, ::-1]), "hash"),
        (picture(photographs["cat"][60:, 90:]), "fingerprint"),
    ):
        found = pictures.decide("content", evidence)
        assert found is not None and (found.tier, found.action) == (tier, "restrict")
        assert found.raw == found.probability == WORTH[tier]
    assert pictures.decide("content", picture(photographs["rocket"])) is None


def test_what_is_as_surely_a_copy_of_something_allowed_is_let_go(
    store: Exemplars, photographs: dict[str, np.ndarray]
) -> None:
    banned(store, "banned-pictures", photographs["cat"], "cat")
    banned(store, "allowed-pictures", photographs["cat"][:, ::-1], "mirrored")
    pictures = judge(SHIPPED["banned-pictures"], "image", store)
    found = pictures.decide("content", picture(photographs["cat"]))
    assert found is not None and found.action == "restrict"  # it is nearer to the banned one
    found = pictures.decide("content", picture(photographs["coffee"], "mirrored"))
    assert found is None or found.action == "none"


def test_a_list_of_hashes_alone_finds_pictures(store: Exemplars, photographs: dict[str, np.ndarray]) -> None:
    pdq = picture_hashes(photographs["cat"]).pdq[0].tobytes().hex()
    store.add("banned-pictures", "image", {"pdq": pdq, "pdq_quality": 100}, name="list", state="active")
    pictures = judge(SHIPPED["banned-pictures"], "image", store)
    found = pictures.decide("content", picture(photographs["cat"]))
    assert found is not None and found.tier == "hash"


def test_a_policy_may_ask_for_nearer_hashes(store: Exemplars) -> None:
    rng = np.random.default_rng(1)
    bits = rng.integers(0, 2, 256).astype(np.uint8)
    near = bits.copy()
    near[:20] ^= 1  # twenty bits apart
    store.add("banned-pictures", "image", {"pdq": np.packbits(bits).tobytes().hex()}, name="list", state="active")
    nothing = {"points": np.empty((0, 2), np.float32), "descriptors": np.empty((0, 128), np.uint8)}
    arrays = {"pdq": np.packbits(near)[None], "quality": np.array(100), "size": np.array([8, 8]), **nothing}
    for distance, found in ((31, True), (20, True), (19, False)):
        policy = replace(SHIPPED["banned-pictures"], distance=distance)
        assert (judge(policy, "image", store).decide("c", Evidence("image", "x", arrays)) is not None) == found


def test_shadows_are_named_and_do_nothing(store: Exemplars, photographs: dict[str, np.ndarray]) -> None:
    banned(store, "banned-pictures", photographs["cat"], "cat", state="shadow")
    found = judge(SHIPPED["banned-pictures"], "image", store).decide("content", picture(photographs["cat"]))
    assert found is not None
    assert (found.action, found.enforced, found.cited[0].shadow) == ("none", False, True)


def test_a_classifier_is_reviewed_until_labels_calibrate_it(store: Exemplars) -> None:
    policy = replace(SHIPPED["sexual-imagery"], ladder={"review": 0.5, "remove": 0.9})
    seen = Evidence("image", "x", scores={"visual.nsfw_score": 0.95})
    found = judge(policy, "image", store).decide("content", seen)
    assert found is not None and (found.action, found.probability) == ("review", None)
    assert "10 labels are missing" in found.held_back and found.reason == "visual.nsfw_score is 0.95"
    assert judge(policy, "image", store).decide("content", Evidence("image", "x")) is None
    assert judge(policy, "image", store).decide("content", replace(seen, scores={"visual.nsfw_score": 0.4})) is None
    made = Calibration("logistic", 50, 50, 0.01, slope=20.0, intercept=-10.0)  # .95 → .9999
    proven = Calibrated(made, Threshold(0.99, 0.95, 0.96, 90, 90, 0))
    found = judge(policy, "image", store, proven).decide("content", seen)
    assert found is not None and (found.action, found.held_back) == ("remove", "")
    unproven = Calibrated(made, Threshold(None, 0.95, 0.7, 9, 9, 81))
    found = judge(policy, "image", store, unproven).decide("content", seen)
    assert found is not None and found.action == "review" and "81 labels are missing" in found.held_back


def test_the_margin_is_the_mean_of_the_nearest() -> None:
    named = ["p1", "p2", "n1", "n2", "elsewhere"]
    rows = np.array([[0.9, 0.5, 0.6, 0.2, 1.0], [0.1, 0.3, 0.2, 0.4, 1.0]], np.float32)
    likeness = Likeness(named, rows)
    assert likeness.margins({"p1", "p2"}, {"n1", "n2"}) == pytest.approx([0.7 - 0.4, 0.2 - 0.3])
    assert likeness.margins({"p1"}, set()) == pytest.approx([0.9, 0.1])
    assert likeness.nearest(1, {"p1", "p2"}) == [("p2", pytest.approx(0.3)), ("p1", pytest.approx(0.1))]
    assert dict(likeness.ranked()) == pytest.approx({"p1": 0.9, "p2": 0.5, "n1": 0.6, "n2": 0.4, "elsewhere": 1.0})
    assert likeness.best({"p1", "p2"}) == pytest.approx([0.9, 0.3])
    assert likeness.best(set()).tolist() == [-1.0, -1.0]
    many = [f"p{n}" for n in range(50)]
    rising = np.arange(50, dtype=np.float32)[None] / 100
    assert Likeness(many, rising).margins(set(many), set()) == pytest.approx([np.mean(np.arange(40, 50) / 100)])


def axis(number: int, share: float = 1.0) -> np.ndarray:
    """A unit vector of four dimensions, mostly along one axis."""
    found = np.zeros(4, np.float32)
    found[number], found[3] = share, np.sqrt(1 - share**2)
    return found


def worded(store: Exemplars, bank: str, name: str, vector: np.ndarray, state: str = "active") -> None:
    store.add(bank, "text", {"text": name, "model_id": "m"}, {"vector": vector}, name=name, state=state)


def test_one_passage_is_enough_and_the_decision_says_which(store: Exemplars) -> None:
    worded(store, "abusive-language", "abuse", axis(0))
    worded(store, "acceptable-language", "fine", axis(1))
    abuse = judge(SHIPPED["abusive-language"], "text", store)
    whole = axis(1, 0.9)
    assert abuse.decide("content", Evidence("text", arrays={"vector": whole})) is None
    parts = np.stack([axis(1), axis(0, 0.8), axis(2)])
    spans = np.array([[0, 50], [51, 90], [91, 140]])
    found = abuse.decide("content", Evidence("text", arrays=part_arrays(parts, spans, whole)))
    assert found is not None and found.raw == pytest.approx(0.8, abs=1e-3) and found.action == "review"
    (cited, other) = found.cited
    assert (cited.side, cited.first, cited.last, cited.start_s) == ("positive", 51, 90, None)
    assert (other.side, other.score) == ("negative", pytest.approx(0.0, abs=1e-3))
    assert found.reason == "a passage is like abusive-language/abuse (0.80)"
    again = Decision.from_dict(found.to_dict())
    assert again.same == found.same
    # Of what was heard, also when; a passage of the title was heard nowhere.
    times = np.array([[np.nan, np.nan], [12.5, 15.0], [15.0, 20.0]])
    heard = abuse.decide("content", Evidence("text", arrays=part_arrays(parts, spans, whole, times)))
    assert heard is not None and (heard.cited[0].start_s, heard.cited[0].end_s) == (12.5, 15.0)
    titled = np.roll(times, 1, axis=0)
    heard = abuse.decide("content", Evidence("text", arrays=part_arrays(parts, spans, whole, titled)))
    assert heard is not None and heard.cited[0].first == 51 and heard.cited[0].start_s is None


def test_where_no_passage_is_worse_it_is_the_whole(store: Exemplars) -> None:
    worded(store, "abusive-language", "abuse", axis(0))
    arrays = part_arrays(axis(0, 0.9)[None], np.array([[0, 30]]), axis(0, 0.9))
    arrays["parts"] = arrays["parts"] * np.float16(0.999)
    found = judge(SHIPPED["abusive-language"], "text", store).decide("content", Evidence("text", arrays=arrays))
    assert found is not None and found.cited[0].first is None and found.reason.startswith("it is like")


def test_a_voice_is_told_by_its_own_vectors(store: Exemplars) -> None:
    """Vectors of another model, of another length, compare with nothing."""
    store.add("protected-voices", "audio", {"sha256": "a"}, {"vector": axis(0)}, name="ada", state="active")
    store.add(
        "protected-voices", "audio", {"sha256": "b"}, {"vector": np.ones(7, np.float32)}, name="old", state="active"
    )
    voices = judge(SHIPPED["impersonated-voices"], "audio", store)
    parts, spans = np.stack([axis(1), axis(0, 0.9)]), np.array([[3.0, 10.5], [40.0, 47.5]])
    found = voices.decide("content", Evidence("audio", "x", part_arrays(parts, spans)))
    assert found is not None and [(c.exemplar_id, c.start_s, c.end_s) for c in found.cited] == [
        ("protected-voices/ada", 40.0, 47.5)
    ]
    assert found.action == "review" and found.probability is None
    assert voices.decide("content", Evidence("audio", "x", part_arrays(parts[:1], spans[:1]))) is None
    assert voices.decide("content", Evidence("audio", "x")) is None


def test_a_passage_that_is_worth_a_look_is_not_lost_to_one_that_is_a_little_like_all(store: Exemplars) -> None:
    """The mean of the nearest is larger for the host, who is a little like everybody; the guest is like one."""
    store.add("protected-voices", "audio", {"sha256": "a"}, {"vector": axis(0)}, name="ada", state="active")
    store.add("protected-voices", "audio", {"sha256": "b"}, {"vector": axis(1)}, name="bob", state="active")
    host, guest = np.array([0.7, 0.7, 0, 0.14]), np.array([0.92, 0.3, 0, 0.25])
    parts, spans = np.stack([host, guest]), np.array([[3.0, 10.5], [40.0, 47.5]])
    voices = judge(SHIPPED["impersonated-voices"], "audio", store)
    found = voices.decide("content", Evidence("audio", "x", part_arrays(parts, spans)))
    assert found is not None and found.cited[0].exemplar_id == "protected-voices/ada"
    assert (found.cited[0].start_s, found.raw) == (40.0, pytest.approx(0.61, abs=1e-3))


def test_a_recording_of_a_protected_voice_is_no_impersonation_by_itself(store: Exemplars) -> None:
    """The same bytes are a copy, which is what another policy is for; and a copy acts without labels."""
    store.add("protected-voices", "audio", {"sha256": "same"}, {"vector": axis(0)}, name="ada", state="active")
    voices = judge(replace(SHIPPED["impersonated-voices"], ladder={"restrict": 0.5}), "audio", store)
    spans = np.array([[3.0, 10.5]])
    assert voices.decide("content", Evidence("audio", "same", part_arrays(axis(1)[None], spans))) is None
    found = voices.decide("content", Evidence("audio", "same", part_arrays(axis(0)[None], spans)))
    assert found is not None and (found.action, found.tier) == ("review", "embedding")


def test_a_recording_that_is_allowed_as_it_is_is_no_impersonation(store: Exemplars) -> None:
    store.add("protected-voices", "audio", {"sha256": "a"}, {"vector": axis(0)}, name="ada", state="active")
    store.add("own-recordings", "audio", {"sha256": "hers"}, name="speech", state="active")
    policy = replace(SHIPPED["impersonated-voices"], negative=("own-recordings",))
    spans = np.array([[3.0, 10.5]])
    for sha256, found in (("hers", False), ("else", True)):
        heard = Evidence("audio", sha256, part_arrays(axis(0)[None], spans))
        assert (judge(policy, "audio", store).decide("content", heard) is not None) == found


def test_what_rests_on_an_exemplar_does_not_rest_on_a_shadow(store: Exemplars) -> None:
    worded(store, "abusive-language", "abuse", axis(0))
    abuse = judge(SHIPPED["abusive-language"], "text", store)
    before = abuse.decide("content", Evidence("text", arrays={"vector": axis(0)}))
    worded(store, "abusive-language", "tried", axis(0, 0.9), "shadow")
    after = judge(SHIPPED["abusive-language"], "text", store).decide(
        "content", Evidence("text", arrays={"vector": axis(0)})
    )
    assert before is not None and after is not None
    assert after.same == before.same and after.rests_on == before.cited
    assert [c.exemplar_id for c in after.cited if c.shadow] == ["abusive-language/tried"]


def test_a_shadow_that_a_text_is_like_is_recorded(store: Exemplars) -> None:
    worded(store, "abusive-language", "tried", axis(0), "shadow")
    worded(store, "acceptable-language", "fine", axis(1))
    abuse = judge(SHIPPED["abusive-language"], "text", store)
    found = abuse.decide("content", Evidence("text", arrays={"vector": axis(0, 0.9)}))
    assert found is not None and (found.action, found.raw) == ("none", 0.0)
    assert [(c.exemplar_id, c.shadow) for c in found.cited] == [("abusive-language/tried", True)]
    assert abuse.decide("content", Evidence("text", arrays={"vector": axis(2)})) is None


CALIBRATION = Calibration("logistic", 50, 50, 0.01, slope=20.0, intercept=-10.0)  # .5 → .5
SURE = Threshold(0.9, 0.95, 0.96, 90, 90, 0)


def test_a_calibration_does_not_say_everything_of_everything(store: Exemplars) -> None:
    """What is unlike leaves no decision, or every text would have one."""
    worded(store, "abusive-language", "abuse", axis(0))
    worded(store, "acceptable-language", "fine", axis(1))
    policy = replace(SHIPPED["abusive-language"], ladder={"review": 0.5, "restrict": 0.9}, enforced=1.0)
    abuse = judge(policy, "text", store, Calibrated(CALIBRATION, SURE, "positive negative"))
    assert abuse.decide("content", Evidence("text", arrays={"vector": axis(1)})) is None
    found = abuse.decide("content", Evidence("text", arrays={"vector": axis(0)}))
    assert found is not None and found.probability == pytest.approx(1 / (1 + np.exp(-10)))
    assert (found.action, found.enforced) == ("restrict", True)


def test_a_calibration_holds_for_scores_with_the_plane_or_without(store: Exemplars) -> None:
    rng = np.random.default_rng(3)
    for side, number in (("abusive-language", 0), ("acceptable-language", 1)):
        for k in range(20 if number == 0 else 19):
            worded(store, side, f"{number} {k}", axis(number, float(rng.uniform(0.8, 1))))
    policy = SHIPPED["abusive-language"]
    asked = Evidence("text", arrays={"vector": axis(0)})

    def decided(plane: bool) -> Decision:
        made_of = "positive negative plane" if plane else "positive negative"
        found = judge(policy, "text", store, Calibrated(CALIBRATION, SURE, made_of)).decide("content", asked)
        assert found is not None
        return found

    assert decided(False).made_of == "positive negative" and decided(False).probability is not None
    assert decided(True).probability is None and decided(True).action == "review"
    worded(store, "acceptable-language", "the twentieth", axis(1))
    assert decided(True).made_of == "positive negative plane" and decided(True).probability is not None
    assert decided(False).probability is None and decided(False).action == "review"
    assert decided(True).raw > decided(True).cited[0].score - 0.3 + 0.1  # the plane adds .2 of about 1


def test_a_calibration_without_negative_exemplars_says_nothing_of_scores_with_them(store: Exemplars) -> None:
    worded(store, "abusive-language", "abuse", axis(0))
    policy, asked = SHIPPED["abusive-language"], Evidence("text", arrays={"vector": axis(0, 0.8)})
    calibrated = Calibrated(CALIBRATION, SURE, "positive")
    found = judge(policy, "text", store, calibrated).decide("content", asked)
    assert found is not None and found.probability is not None
    worded(store, "acceptable-language", "fine", axis(1))
    found = judge(policy, "text", store, calibrated).decide("content", asked)
    assert found is not None and (found.action, found.probability) == ("review", None)


def test_vectors_of_two_models_are_not_compared(store: Exemplars) -> None:
    store.add(
        "abusive-language", "text", {"text": "abuse", "model_id": "one"}, {"vector": axis(0)}, name="a", state="active"
    )
    abuse = judge(SHIPPED["abusive-language"], "text", store)
    for model_id, found in (("one", True), ("another", False)):
        asked = Evidence("text", arrays={"vector": axis(0)}, model_id=model_id)
        assert (abuse.decide("content", asked) is not None) == found


def test_the_share_that_is_enforced_is_the_same_contents_and_only_grows(
    store: Exemplars, photographs: dict[str, np.ndarray]
) -> None:
    banned(store, "banned-pictures", photographs["cat"], "cat")
    taken: list[set[str]] = []
    for share in (0.0, 0.1, 0.5, 1.0):
        policy = replace(SHIPPED["banned-pictures"], enforced=share)
        pictures, evidence = judge(policy, "image", store), Evidence("image", "cat")
        made = {f"content {n}": pictures.decide(f"content {n}", evidence) for n in range(400)}
        assert all(d is not None and d.action == "restrict" for d in made.values())
        taken.append({c for c, d in made.items() if d is not None and d.enforced})
    assert [len(t) for t in taken] == [0, pytest.approx(40, abs=20), pytest.approx(200, abs=40), 400]
    assert taken[1] < taken[2] < taken[3]


def test_a_decision_is_json_and_back(store: Exemplars, photographs: dict[str, np.ndarray]) -> None:
    import json

    banned(store, "banned-pictures", photographs["cat"], "cat")
    found = judge(SHIPPED["banned-pictures"], "image", store).decide("content", picture(photographs["cat"]))
    assert found is not None
    again: Any = Decision.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again == found and again.same == found.same
    assert replace(found, raw=0.5).same != found.same


def test_whatever_a_policy_says_is_in_its_version() -> None:
    policy = SHIPPED["banned-pictures"]
    versions = {policy_version(policy), policy_version(replace(policy, enforced=0.5))}
    versions.add(policy_version(replace(policy, ladder={"flag": 0.5, "restrict": 0.8})))
    assert len(versions) == 3 and policy_version(replace(policy)) == policy_version(policy)
