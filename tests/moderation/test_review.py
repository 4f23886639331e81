"""Review: who sees what, what verdicts lead to, appeals, agreement, what is missed, and labels that calibrate."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.errors import ConfigError, NotFound
from core.storage import open_storage
from embedders.fingerprint import patches
from moderation import decisions
from moderation.audit import Audit
from moderation.banks import Bank
from moderation.cases import Case, Cases, let_go, withdrawn
from moderation.decisions import policy_version
from moderation.evidence import Evidence
from moderation.exemplars import Exemplars
from moderation.judge import Judge
from moderation.policies import parse_policies
from moderation.review import Review, kappa, seen_twice

POLICIES = parse_policies(
    """
policies:
  - id: abuse
    title: Abuse
    clauses: [{id: a.1, text: No abuse.}, {id: a.2, text: No threats.}]
    modalities: [text]
    detector: similarity
    banks: {positive: [bad], negative: [fine]}
    target_precision: 0.8
    ladder: {review: 0.3, restrict: 0.6}
""",
    "test",
)


def unit(*values: float) -> np.ndarray:
    found = np.zeros(8, np.float32)
    found[: len(values)] = values
    return found / np.float32(np.linalg.norm(found))


class Desk:
    """A store with one exemplar of each side, and cases of texts so and so like it."""

    def __init__(self, root: Path) -> None:
        self.storage = open_storage(str(root))
        self.audit = Audit(self.storage)
        exemplars = Exemplars(self.storage, self.audit)
        exemplars.add("bad", "text", {"text": "bad words"}, {"vector": unit(1)}, name="b", state="active")
        exemplars.add("fine", "text", {"text": "fine words"}, {"vector": unit(0, 1)}, name="f", state="active")
        self.exemplars = exemplars
        self.cases = Cases(self.audit)

    def text(self, content_id: str, like: float) -> Case | None:
        evidence = Evidence("text", arrays={"vector": unit(like, 0, (1 - like**2) ** 0.5)}, text_hash=content_id)
        judge = Judge(POLICIES[0], "text", self.bank, self.cases.calibrated(POLICIES[0], "text"), 10)
        decision = judge.decide(content_id, evidence)
        if decision is None:
            return None
        (case,) = self.cases.record(POLICIES, [(content_id, decision, evidence)], bank_at=self.cases.at)
        return case

    @property
    def bank(self) -> Bank:
        return Bank("text", self.exemplars.every(), self.exemplars.arrays, patches)

    @property
    def review(self) -> Review:
        return Review(Cases(self.audit), POLICIES)


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


def once(desk: Desk, twice: bool = False) -> Case:
    """A case that one reviewer sees, or two."""
    for number in range(500):
        case = desk.text(f"text {number}", 0.9)
        assert case is not None
        if seen_twice(case.case_id) == twice:
            return case
    raise AssertionError


def test_what_nothing_calibrates_is_reviewed_and_the_surest_first(desk: Desk) -> None:
    cases = [desk.text("some", 0.7), desk.text("much", 0.95), desk.text("none", 0.3)]
    assert cases[2] is None
    assert [c.decision.action for c in cases[:2] if c] == ["review", "review"]
    assert cases[0] and "10 labels are missing" in desk.review.queue()[1].case.decision.held_back
    assert [w.case.content_id for w in desk.review.queue()] == ["much", "some"]
    assert desk.review.queue()[0].stage == "first"
    assert [w.case.content_id for w in desk.review.queue(limit=1)] == ["much"]


def test_a_verdict_makes_a_decision_that_supersedes_and_replays(desk: Desk) -> None:
    case = once(desk)
    made = desk.review.verdict(case.case_id[:12], "violates", by="ada", clause="a.2", reason="she says so herself")
    assert made is not None
    assert (made.decision.action, made.decision.tier, made.by) == ("restrict", "people", "ada")
    assert made.supersedes == case.case_id and "a.2" in made.decision.reason
    assert made.record.body["statement"]["automated_decision"] == "AUTOMATED_DECISION_PARTIALLY"
    cases = Cases(desk.audit)
    assert cases.current[case.key].case_id == made.case_id
    assert case.case_id not in [w.case.case_id for w in Review(cases, POLICIES).queue()]
    assert all(cases.replay(c, patches).same for c in cases.every.values())
    # What she wrote can be erased, and the chain stays whole.
    (said,) = cases.verdicts[case.case_id]
    assert desk.audit.personal(said) == {"reason": "she says so herself"}
    desk.audit.erase([said.record_id])
    assert desk.audit.personal(said) == {"reason": None} and desk.audit.verify().whole


def test_two_reviewers_see_a_case_blindly_and_a_third_decides_where_they_differ(desk: Desk) -> None:
    case = once(desk, twice=True)
    assert desk.review.verdict(case.case_id, "violates", by="ada") is None
    assert case.case_id not in [w.case.case_id for w in desk.review.queue("ada")]
    (waiting,) = [w for w in desk.review.queue("bob") if w.case.case_id == case.case_id]
    assert waiting.stage == "second"
    with pytest.raises(ConfigError, match="somebody else"):
        desk.review.verdict(case.case_id, "violates", by="ada")
    assert desk.review.verdict(case.case_id, "allowed", by="bob") is None
    assert desk.review.agreement().cases == 1 and desk.review.agreement().same == 0
    made = desk.review.verdict(case.case_id, "violates", by="cyd", action="flag")
    assert made is not None and made.decision.action == "flag"
    with pytest.raises(ConfigError, match="superseded"):
        desk.review.verdict(case.case_id, "allowed", by="dan")
    with pytest.raises(ConfigError, match="waits for nobody"):
        desk.review.verdict(made.case_id, "allowed", by="dan")


def test_an_appeal_goes_to_somebody_else_once(desk: Desk) -> None:
    case = once(desk)
    with pytest.raises(ConfigError, match="no action"):
        desk.review.appeal(case.case_id, by="author")
    made = desk.review.verdict(case.case_id, "violates", by="ada")
    assert made is not None
    desk.review.appeal(made.case_id, by="author", text="I quoted somebody")
    assert desk.review.queue("ada") == [w for w in desk.review.queue("ada") if w.case.case_id != made.case_id]
    first = desk.review.queue("bob")[0]
    assert (first.case.case_id, first.stage) == (made.case_id, "appeal")
    again = desk.review.verdict(made.case_id, "allowed", by="bob")
    assert again is not None and again.decision.action == "none" and again.supersedes == made.case_id
    cases = Cases(desk.audit)
    assert all(cases.replay(c, patches).same for c in cases.every.values())
    made = desk.review.cases.current[case.key]
    with pytest.raises(ConfigError, match="no action"):
        desk.review.appeal(made.case_id, by="author")


def test_an_appeal_that_is_turned_down_is_the_last(desk: Desk) -> None:
    case = once(desk)
    made = desk.review.verdict(case.case_id, "violates", by="ada")
    assert made is not None
    desk.review.appeal(made.case_id, by="author")
    kept = desk.review.verdict(made.case_id, "violates", by="bob")
    assert kept is not None and kept.decision.action == "restrict"
    with pytest.raises(ConfigError, match="before"):
        desk.review.appeal(kept.case_id, by="author")


def test_kappa() -> None:
    # Cohen's (1960) own form: 20 yes-yes, 15 no-no, 5 yes-no, 10 no-yes: observed .7, chance .5, kappa .4.
    pairs = [("y", "y")] * 20 + [("n", "n")] * 15 + [("y", "n")] * 5 + [("n", "y")] * 10
    assert kappa(pairs) == pytest.approx(0.4)
    assert kappa([]) is None and kappa([("y", "y")] * 3) is None
    assert kappa([("y", "n"), ("n", "y")]) == pytest.approx(-1)


def test_a_sample_tells_what_is_missed(desk: Desk) -> None:
    flagged = once(desk)
    contents = [flagged.content_id, *(f"clean {n}" for n in range(50))]
    chosen = desk.review.sample("abuse", contents, 20, by="ada", seed=7)
    assert len(set(chosen)) == 20 and flagged.content_id not in chosen
    assert chosen == desk.review.sample("abuse", reversed(contents), 20, by="ada", seed=7)
    assert chosen != desk.review.sample("abuse", contents, 20, by="ada", seed=8)
    for number, content_id in enumerate(chosen):
        desk.review.sampled("abuse", content_id, "violates" if number == 0 else "allowed", by="bob")
    desk.review.sampled("abuse", chosen[1], "unsure", by="cyd")
    # What waits is not missed, and what people let go was seen; what the machine lets go by now may be missed.
    let_go, waits, withdrawn_ = once(desk), desk.text("waits", 0.9), desk.text("withdrawn", 0.8)
    assert waits is not None and withdrawn_ is not None
    desk.review.verdict(let_go.case_id, "allowed", by="ada")
    gone = [("withdrawn", withdrawn(withdrawn_.decision), desk.cases.evidence(withdrawn_))]
    desk.cases.record(POLICIES, gone, bank_at=desk.cases.at)
    among = [let_go.content_id, "waits", "withdrawn"]
    assert desk.review.sample("abuse", among, 5, by="ada", seed=7) == ["withdrawn"]
    found = desk.review.missed("abuse")
    assert (found.seen, found.wrong) == (20, 1)
    # Clopper and Pearson's two-sided 95 % interval of 1 of 20.
    assert (found.low, found.high) == (pytest.approx(0.00127, abs=1e-4), pytest.approx(0.2487, abs=1e-3))
    with pytest.raises(ConfigError, match="no sample"):
        desk.review.sampled("abuse", "elsewhere", "allowed", by="bob")


def test_verdicts_become_labels_that_calibrate_and_then_it_may_act(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="0 positive and 0 negative"):
        desk.review.calibrate("abuse", "text", by="ada")
    rng = np.random.default_rng(1)
    waited = desk.text("waited", 0.52)
    assert waited is not None and waited.decision.action == "review"
    for number in range(60):
        bad = number % 2 == 0
        like = float(np.clip(rng.normal(0.9 if bad else 0.6, 0.05), 0.51, 0.99))
        case = desk.text(f"text {number}", like)
        assert case is not None
        said = "violates" if bad else "allowed"
        if desk.review.verdict(case.case_id, said, by="ada") is None:
            desk.review.verdict(case.case_id, said, by="bob")
    _, proven = desk.review.calibrate("abuse", "text", by="ada")
    assert proven.value is not None and proven.bound >= 0.8
    desk.cases.refresh()
    sure, unsure = desk.text("sure", 0.97), desk.text("unsure", 0.7)
    assert sure is not None and (sure.decision.action, sure.decision.held_back) == ("restrict", "")
    assert sure.decision.probability is not None and sure.decision.probability > 0.9
    assert unsure is None or unsure.decision.action in ("review", "none")
    cases = Cases(desk.audit)
    assert cases.replay(cases.every[sure.case_id], patches).same
    # What waited and asks for nothing by the calibration is let go, by that calibration.
    evidence = desk.cases.evidence(waited)
    judge = Judge(POLICIES[0], "text", desk.bank, cases.calibrated(POLICIES[0], "text"), 10)
    assert judge.decide("waited", evidence) is None
    (gone,) = cases.record(
        POLICIES, [("waited", let_go(waited.decision, judge), evidence)], bank_at=waited.record.number
    )
    assert gone.decision.action == "none" and cases.replay(gone, patches).same
    # A text that only a shadow is like has a score of no kind, and says nothing of how scores are made.
    shadows = [replace(waited.decision.cited[0], shadow=True)]
    planar = replace(waited.decision, made_of="positive negative plane")
    cases.record(
        POLICIES,
        [
            ("planar", planar, evidence),
            ("shadowed", replace(gone.decision, tier="embedding", cited=tuple(shadows)), evidence),
        ],
        bank_at=cases.at,
    )
    assert Review(cases, POLICIES)._made_of("abuse", "text") == "positive negative plane"
    cases = Cases(desk.audit)
    cases.record(POLICIES, [("planar", replace(planar, made_of=waited.decision.made_of), evidence)], bank_at=cases.at)
    assert sure.decision.policy_version == policy_version(POLICIES[0])
    # Where scores are made otherwise, by a new version or with a classifier, these labels say nothing of them.
    assert len(Review(cases, POLICIES).labels("abuse", "text")[0]) == 60
    other = [replace(POLICIES[0], feature="text_signals.profanity_score")]
    assert Review(cases, other).labels("abuse", "text") == ([], [], [])
    assert cases.calibrated(POLICIES[0], "text") is not None and cases.calibrated(other[0], "text") is None
    monkeypatch.setattr(decisions, "VERSION", decisions.VERSION + 1)
    assert Review(cases, POLICIES).labels("abuse", "text") == ([], [], [])
    assert cases.calibrated(POLICIES[0], "text") is None


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"verdict": "bad", "by": "ada"}, "no verdict"),
        ({"verdict": "violates", "by": " "}, "say whose"),
        ({"verdict": "violates", "by": "ada", "clause": "z.9"}, "has no clause 'z.9'; there is a.1, a.2"),
        ({"verdict": "violates", "by": "ada", "action": "burn"}, "'burn' is no action"),
    ],
)
def test_what_is_no_verdict_is_refused_and_nothing_is_recorded(desk: Desk, given: dict[str, str], error: str) -> None:
    case = once(desk)
    head = desk.audit.head()
    with pytest.raises(ConfigError, match=error):
        desk.review.verdict(case.case_id, **given)  # type: ignore[arg-type]
    assert desk.audit.head() == head
    with pytest.raises(NotFound):
        desk.review.verdict("ffff", "allowed", by="ada")
