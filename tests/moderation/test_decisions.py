"""What a policy makes of evidence: tiers, banks of both sides, shadows, ladders, calibration, the share enforced."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core.storage import open_storage
from embedders.fingerprint import patches
from moderation.banks import Bank, margin
from moderation.calibration import Calibration, Threshold
from moderation.decisions import WORTH, Calibrated, Decision, Judge, policy_version
from moderation.evidence import Evidence
from moderation.exemplars import Exemplars
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
    likeness = {"p1": 0.9, "p2": 0.5, "n1": 0.6, "n2": 0.2, "elsewhere": 1.0}
    assert margin(likeness, ["p1", "p2"], ["n1", "n2"]) == pytest.approx(0.7 - 0.4)
    assert margin(likeness, ["p1"], []) == pytest.approx(0.9)
    assert margin({}, ["p1"], ["n1"]) == 0
    many = {f"p{n}": n / 100 for n in range(50)}
    assert margin(many, many, []) == pytest.approx(np.mean(np.arange(40, 50) / 100))


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
