"""Moderation of a store from run to run: exemplars come and go, contents change, decisions replay."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cli.main import main
from core.config import Config
from core.storage import open_storage
from embedders.fingerprint import patches
from feature_repo.reads import online_features
from feature_repo.store import open_store
from moderation.audit import Audit
from moderation.cases import Case, Cases
from moderation.exemplars import Exemplars
from moderation.policies import shipped_policies
from moderation.review import Review
from pipelines import moderate, removal
from pipelines.context import Run
from pipelines.exemplars import add_contents, add_files
from pipelines.inprocess import run_catalog
from pipelines.media import StoreMedia, _heard
from tests.pipelines.conftest import Shelf
from tests.skips.audio import laid_out, music, talk, write

CONFIG = Config(device="cpu")
pytestmark = pytest.mark.slow
FRIENDLY = "The committee met on Tuesday and agreed that the old bridge has to be repaired before the winter comes."
ABUSE = "You people are vermin and should be driven out of this country."


@dataclass
class House:
    """A catalogue with a song inside an episode, an edited cover and an abusive text; and its store."""

    root: Path
    shelf: Shelf = field(init=False)

    def __post_init__(self) -> None:
        self.shelf = Shelf(self.root / "catalog", [])

    @property
    def store(self) -> Path:
        return self.root / "store"

    def add(self, content_id: str, **more: Any) -> None:
        row = {"content_id": content_id, "kind": "episode", "title": content_id, "updated_at": "2026-01-01T00:00:00Z"}
        self.shelf.rows = [r for r in self.shelf.rows if r["content_id"] != content_id] + [{**row, **more}]
        self.shelf.save()

    def enrich(self) -> dict[str, Any]:
        summary = run_catalog(self.shelf.source, str(self.store), CONFIG)
        return dict(json.loads((self.store / "runs" / summary["run_id"] / "moderation.json").read_text()))

    def run(self) -> Run:
        """As after the last run, whose catalogue it reads."""
        run_id = json.loads((self.store / "release.json").read_text())["run_id"]
        return Run.load(str(self.store), run_id)

    def scan(self) -> dict[str, Any]:
        return moderate.step(self.run())

    def cases(self) -> Cases:
        return Cases(Audit(open_storage(str(self.store))))

    def exemplars(self) -> Exemplars:
        return Exemplars(open_storage(str(self.store)))

    def standing(self) -> dict[tuple[str, str], Case]:
        """What stands: (content, policy) → the decision."""
        return {(c, p): case for (c, p, _), case in self.cases().current.items() if case.decision.tier}

    def online(self, content_id: str) -> dict[str, Any]:
        row = online_features(open_store(self.store), [content_id], "moderation").to_pylist()[0]
        return {k.removeprefix("moderation__"): v for k, v in row.items() if k.startswith("moderation__")}


def assert_all_replay(cases: Cases) -> None:
    for case in cases.every.values():
        assert cases.replay(case, patches).differences == ()


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory, photographs: dict[str, np.ndarray]) -> House:
    house = House(tmp_path_factory.mktemp("house"))
    folder, banned = house.shelf.folder, house.root / "banned"
    banned.mkdir()
    write(banned / "song.wav", music(3, 0.0, 28.0))
    Image.fromarray(photographs["cat"]).save(banned / "cat.png")
    (banned / "words.txt").write_text(ABUSE)
    folder.mkdir()
    with_song, _ = laid_out(5, 8.0, music(3, 9.0, 12.0), 8.0)
    write(folder / "with.wav", with_song)
    write(folder / "plain.wav", talk(20.0, 8))
    cropped = Image.fromarray(photographs["cat"]).crop((40, 30, 400, 300)).rotate(5, expand=True)
    cropped.save(folder / "cat.jpg", quality=60)
    Image.fromarray(photographs["coffee"]).save(folder / "coffee.jpg")
    house.add("with song", audio_uri="with.wav", image_uri="coffee.jpg")
    house.add("plain", audio_uri="plain.wav", image_uri="cat.jpg")
    house.add("abusive", text=ABUSE)
    house.add("friendly", text="We planted tomatoes and beans in the garden behind the house.")
    summary = house.enrich()
    assert summary["decided"] == 0 and summary["exemplars"] == 0
    return house


@pytest.fixture
def house(first_run: House, tmp_path: Path) -> House:
    shutil.copytree(first_run.root, tmp_path / "house")
    copy = House(tmp_path / "house")
    copy.shelf.rows = list(first_run.shelf.rows)
    copy.enrich()  # a copied store is mended by a run
    return copy


def ban(house: House, **more: Any) -> None:
    for bank, name in (
        ("banned-recordings", "song.wav"),
        ("banned-pictures", "cat.png"),
        ("abusive-language", "words.txt"),
    ):
        add_files(open_storage(str(house.store)), bank, [house.root / "banned" / name], **{"state": "active", **more})


def test_what_is_added_is_matched_with_the_past_and_withdrawing_it_undoes_that(house: House) -> None:
    ban(house)
    summary = house.scan()
    standing = house.standing()
    assert set(standing) == {
        ("with song", "banned-recordings"),
        ("plain", "banned-pictures"),
        ("abusive", "abusive-language"),
    }
    song = standing["with song", "banned-recordings"].decision
    assert (song.action, song.enforced, song.tier) == ("restrict", True, "fingerprint")
    assert song.cited[0].start_s == pytest.approx(8.0, abs=0.2)
    assert song.cited[0].end_s == pytest.approx(20.0, abs=0.3)
    assert song.cited[0].exemplar_start_s == pytest.approx(9.0, abs=0.2)
    statement = standing["with song", "banned-recordings"].record.body["statement"]
    assert statement["decision_visibility"] == ["DECISION_VISIBILITY_CONTENT_DISABLED"]
    assert statement["automated_decision"] == "AUTOMATED_DECISION_FULLY"
    assert standing["plain", "banned-pictures"].decision.action == "restrict"
    # The same words are a copy, so it is sure; what the policy does at most is ask a person.
    words = standing["abusive", "abusive-language"].decision
    assert (words.action, words.tier) == ("review", "hash")
    assert summary["decided"] == 3 and summary["changed"] == 3
    assert_all_replay(house.cases())
    # Nothing is due, so nothing is looked at or written again.
    again = house.scan()
    assert (again["looked_at"], again["decided"], again["changed"]) == (0, 0, 0)

    house.exemplars().set_state("banned-pictures/cat.png", "retired", by="ada", reason="the picture is free now")
    gone = house.scan()
    assert gone["decided"] == 1 and gone["looked_at"] == 1  # only what rested on it
    assert ("plain", "banned-pictures") not in house.standing()
    cases = house.cases()
    last = cases.current["plain", "banned-pictures", "image"]
    assert last.decision.action == "none" and last.supersedes == standing["plain", "banned-pictures"].case_id
    assert_all_replay(cases)
    assert Audit(open_storage(str(house.store))).verify().whole


def test_decisions_are_features_of_a_content(house: House) -> None:
    ban(house)
    house.enrich()
    row = house.online("with song")
    assert (row["action"], row["policy"], row["policy_tier"]) == ("restrict", ["banned-recordings"], ["fingerprint"])
    assert row["policy_exemplar"] == ["banned-recordings/song.wav"]
    assert row["policy_start_s"][0] == pytest.approx(8.0, abs=0.2)
    assert row["decision_id"] == [house.standing()["with song", "banned-recordings"].case_id]
    assert house.online("abusive")["action"] == "review"
    assert house.online("friendly")["policy"] is None


def test_shadows_are_recorded_and_nothing_follows(house: House) -> None:
    ban(house, state="shadow")
    house.scan()
    standing = house.standing()
    assert {case.decision.action for case in standing.values()} == {"none"}
    assert all(c.shadow for case in standing.values() for c in case.decision.cited)
    house.exemplars().set_state("banned-recordings/song.wav", "active", by="ada")
    house.scan()
    assert house.standing()["with song", "banned-recordings"].decision.action == "restrict"
    assert_all_replay(house.cases())


def test_only_what_is_new_is_looked_at(house: House) -> None:
    ban(house)
    house.scan()
    samples, _ = laid_out(6, 5.0, music(3, 4.0, 10.0), 5.0)
    write(house.shelf.folder / "new.wav", samples)
    house.add("new", audio_uri="new.wav")
    summary = house.enrich()
    assert summary["looked_at"] == 2  # its audio and its title
    assert house.standing()["new", "banned-recordings"].decision.action == "restrict"


def test_an_unexpected_error_is_one_contents_and_it_is_looked_at_again(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    from moderation.judge import Judge

    ban(house)
    decide = Judge.decide

    def odd(self: Judge, content_id: str, evidence: Any) -> Any:
        if content_id == "abusive":
            raise KeyError("odd")
        return decide(self, content_id, evidence)

    with monkeypatch.context() as patch:
        patch.setattr(Judge, "decide", odd)
        summary = house.scan()
    assert summary["failed"] == [{"content_id": "abusive", "modality": "text", "why": "failed: KeyError: 'odd'"}]
    assert set(house.standing()) == {("with song", "banned-recordings"), ("plain", "banned-pictures")}
    summary = house.scan()
    assert summary["looked_at"] == 1 and summary["failed"] == []
    assert ("abusive", "abusive-language") in house.standing()


def test_a_content_can_become_an_exemplar_and_matches_itself(house: House) -> None:
    add_contents(house.run(), "banned-recordings", "audio", ["with song"], state="active", by="ada")
    house.scan()
    decision = house.standing()["with song", "banned-recordings"].decision
    assert (decision.tier, decision.cited[0].score) == ("exact", 1.0)


def test_a_removed_content_is_not_decided_of_again(house: House) -> None:
    ban(house)
    house.scan()
    removal.remove(house.run(), ["with song"])
    house.exemplars().set_state("banned-recordings/song.wav", "retired", by="ada")
    summary = house.scan()
    assert summary["decided"] == 0
    assert house.online("with song")["action"] is None


def test_what_a_decision_was_made_from_goes_when_its_content_is_erased(house: House) -> None:
    ban(house)
    house.scan()
    cases = house.cases()
    case = cases.current["with song", "banned-recordings", "audio"]
    other = cases.current["plain", "banned-pictures", "image"]
    removal.remove(house.run(), ["with song"], erase=True)
    payloads = {p.stem for p in (house.store / "moderation/payloads").iterdir()}
    assert case.record.body["evidence"]["payload"] not in payloads
    assert other.record.body["evidence"]["payload"] in payloads
    assert house.exemplars().get("banned-recordings/song.wav").payload in payloads
    cases = house.cases()
    assert Audit(open_storage(str(house.store))).verify().whole
    assert "are gone" in " ".join(cases.replay(cases.every[case.case_id], patches).differences)
    assert cases.replay(cases.every[other.case_id], patches).same


def test_what_was_read_is_known_when_the_catalogue_is_gone(house: House) -> None:
    """Erasing takes the runs' catalogues, whose rows are personal, along."""
    ban(house)
    house.scan()
    removal.remove(house.run(), ["with song"], erase=True)
    (house.root / "banned/more.txt").write_text("What a fool you are, and how you stink.")
    add_files(open_storage(str(house.store)), "abusive-language", [house.root / "banned/more.txt"], state="active")
    house.scan()
    assert house.standing()["abusive", "abusive-language"].decision.tier == "hash"
    assert len([c for c in house.cases().every.values() if c.content_id == "abusive"]) == 1


def test_people_have_not_decided_of_what_is_said_now(house: House) -> None:
    ban(house)
    house.add("titled", description=ABUSE)  # no text is given, and none heard
    house.enrich()
    case = house.standing()["titled", "abusive-language"]
    cases = house.cases()
    made = Review(cases, shipped_policies()).verdict(case.case_id, "allowed", by="ada")
    made = made or Review(cases, shipped_policies()).verdict(case.case_id, "allowed", by="bob")
    assert made is not None and made.decision.action == "none"
    house.add("titled", description=ABUSE, image_uri="coffee.jpg", updated_at="2026-02-01T00:00:00Z")
    house.enrich()
    assert house.standing()["titled", "abusive-language"].by != "machine"  # the words are the same
    said = "All you people are vermin. You should be driven out of the country."
    house.add("titled", description=said, updated_at="2026-03-01T00:00:00Z")
    house.enrich()
    again = house.standing()["titled", "abusive-language"]
    assert (again.by, again.decision.action) == ("machine", "review")
    assert_all_replay(house.cases())


def test_an_exemplar_that_floods_is_quarantined(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    ban(house)
    monkeypatch.setattr("moderation.exemplars.flooded", lambda today, earlier: today > 0)
    summary = house.scan()
    assert set(summary["quarantined"]) == {
        "banned-recordings/song.wav",
        "banned-pictures/cat.png",
        "abusive-language/words.txt",
    }
    assert house.exemplars().get("banned-recordings/song.wav").state == "quarantined"
    assert house.standing() == {}


def test_what_is_only_decided_anew_is_no_flood(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    ban(house)
    house.scan()
    counted: list[int] = []
    monkeypatch.setattr("moderation.exemplars.flooded", lambda today, earlier: bool(counted.append(today)))
    text = (
        resources.files("moderation")
        .joinpath("data/policies.yaml")
        .read_text()
        .replace("restrict: 0.9", "restrict: 0.8")
    )
    open_storage(str(house.store)).write(moderate.POLICIES, text.encode())
    assert house.scan()["decided"] == 2  # both policies of copies are others now
    assert counted == [1, 1, 1]  # and each exemplar has matched once


@pytest.mark.parametrize("what", ["evidence", "exemplar", "record"])
def test_a_replay_sees_whatever_was_changed(house: House, what: str) -> None:
    ban(house)
    house.scan()
    case = house.standing()["plain", "banned-pictures"]
    storage = open_storage(str(house.store))
    if what == "evidence":
        path = f"moderation/payloads/{case.record.body['evidence']['payload']}.npz"
        storage.write(path, storage.read(path)[:-1] + b"x")
    elif what == "exemplar":
        path = f"moderation/payloads/{house.exemplars().get('banned-pictures/cat.png').payload}.npz"
        storage.write(path, storage.read(path)[:-1] + b"x")
    else:
        (path,) = (
            e.path
            for e in storage.entries("moderation/audit/blocks")
            if b'banned-pictures"' in storage.read(e.path) and b'"decision"' in storage.read(e.path)
        )
        storage.write(path, storage.read(path).replace(b'"action":"restrict"', b'"action":"remove"'))
        assert not Audit(storage).verify().whole
    cases = house.cases()
    assert not cases.replay(cases.every[case.case_id], patches).same


def test_a_model_says_what_it_thinks_of_what_waits(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    from moderation.adjudicate import Adjudicator, Budget, Endpoint
    from pipelines.adjudicate import adjudicate
    from tests.moderation.test_adjudicate import Server, completion, reply

    ban(house)
    house.add("also", text="You people are vermin, all of you, and should be thrown out of the country.")
    house.enrich()
    waiting = {c for (c, p), case in house.standing().items() if case.decision.action == "review"}
    assert waiting == {"abusive", "also"}
    server = Server([(200, completion(reply(quote="you people are vermin", exemplars=["abusive-language/words.txt"])))])
    run = house.run()
    with monkeypatch.context() as patch:
        patch.setattr(Adjudicator, "messages", lambda self, question: {}["odd"])
        broken = Adjudicator(Endpoint(server.url, "m"), run.storage)
        assert adjudicate(run, broken)["said"] == {"failed": 2} and not server.bodies
    one = Adjudicator(Endpoint(server.url, "m"), run.storage, budget=Budget(1, 10_000))
    assert adjudicate(run, one)["said"] == {"violates": 1, "unasked": 1}
    rest = Adjudicator(Endpoint(server.url, "m"), run.storage)
    assert adjudicate(run, rest)["said"] == {"violates": 1}
    assert adjudicate(run, rest)["said"] == {} and len(server.bodies) == 2
    assert ABUSE in server.bodies[0]["messages"][0]["content"]  # as an example
    cases = house.cases()
    for content_id in waiting:
        case = cases.current[content_id, "abusive-language", "text"]
        (said,) = cases.opinions[case.case_id]
        assert said.body["label"] == "violates" and cases.audit.personal(said)["quote"] == "you people are vermin"
        assert cases.replay(case, patches).same
        assert case.decision.action == "review"  # people decide
    # A reply that was changed is seen, and so is one that is gone.
    path = f"moderation/adjudications/{said.body['key']}.json"
    kept = run.storage.read(path)
    run.storage.write(path, kept.replace(b"violates", b"allowed"))
    assert "says allowed, not violates" in " ".join(cases.replay(case, patches).differences)
    run.storage.delete(path)
    assert "gone" in " ".join(cases.replay(case, patches).differences)
    # The content's words can be erased: then the rest still replays.
    cases.audit.erase([record.record_id for record in cases.opinions[case.case_id]])
    assert cases.replay(case, patches).same
    server.http.shutdown()


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    """What the command prints as JSON."""
    capsys.readouterr()
    assert main(list(words)) == 0
    return json.loads(capsys.readouterr().out)


def test_one_abusive_sentence_in_a_long_text_is_found_where_it_stands(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    garden = "We planted tomatoes and beans in the garden, and in the evening we watered them with the old can. "
    house.add("long", text=f"{garden * 40}{ABUSE} {garden * 40}")
    house.add("long and friendly", text=garden * 80)
    house.enrich()
    ban(house)
    house.scan()
    standing = house.standing()
    assert ("long and friendly", "abusive-language") not in standing
    decision = standing["long", "abusive-language"].decision
    cited = decision.cited[0]
    said = StoreMedia(house.run(), []).words("long")
    assert said[cited.first : cited.last] == ABUSE and cited.score > 0.98
    assert (decision.action, cited.start_s) == ("review", None)  # nobody spoke it
    shown = printed(
        capsys, "moderate", "show", standing["long", "abusive-language"].case_id, "--store", str(house.store)
    )
    assert shown["passage"] == ABUSE
    assert_all_replay(house.cases())
    # Without the sentence, the decision goes, and what it was about is no longer shown.
    house.add("long", text=garden * 80, updated_at="2026-02-01T00:00:00Z")
    house.enrich()
    assert ("long", "abusive-language") not in house.standing()
    before = standing["long", "abusive-language"].case_id
    assert printed(capsys, "moderate", "show", before, "--store", str(house.store))["passage"] is None


def test_an_insult_waits_for_people_before_there_is_an_exemplar(
    house: House, capsys: pytest.CaptureFixture[str]
) -> None:
    insult = "You are a stupid, worthless piece of trash and everybody hates you."
    garden = "We planted tomatoes and beans in the garden, and in the evening we watered them with the old can. "
    house.add("insulting", text=f"{garden * 40}{insult} {garden * 40}")
    summary = house.enrich()
    assert (summary["exemplars"], summary["decided"]) == (0, 1)
    case = house.standing()["insulting", "abusive-language"]
    assert (case.decision.action, case.decision.tier, case.decision.cited) == ("review", "classifier", ())
    shown = printed(capsys, "moderate", "show", case.case_id, "--store", str(house.store))
    assert shown["passage"] == insult
    assert [w.case.case_id for w in Review(house.cases(), shipped_policies()).queue()] == [case.case_id]
    assert house.online("insulting")["policy_tier"] == ["classifier"]
    assert_all_replay(house.cases())
    # An exemplar of just this makes it one's likeness, and when that leaves, it is as before.
    (house.root / "banned" / "words.txt").write_text(insult)
    ban(house)
    house.scan()
    assert house.standing()["insulting", "abusive-language"].decision.tier == "embedding"
    house.exemplars().set_state("abusive-language/words.txt", "retired", by="ada", reason="a try")
    house.scan()
    assert house.standing()["insulting", "abusive-language"].decision.tier == "classifier"
    assert_all_replay(house.cases())


def test_when_the_passages_of_a_transcript_are_heard() -> None:
    transcript = "one two three four five six"
    words = np.array([[n, n + 0.5] for n in range(6)], float)
    spans = np.array([[0, 7], [8, 21], [22, 35]])  # the title, "one two three", "four five six"
    found = _heard(transcript, spans, words)
    assert np.isnan(found[0]).all() and found[1:].tolist() == [[0.0, 2.5], [3.0, 5.5]]
    # A model that hears "twenty-one" as two words shifts what follows by a share of a word, not off the end.
    more = np.array([[n, n + 0.5] for n in range(7)], float)
    assert _heard(transcript, spans, more)[2].tolist() == [3.0, 6.5]


@pytest.mark.skipif(shutil.which("flite") is None, reason="needs Debian's flite")
def test_a_protected_voice_is_heard_where_vectors_of_voices_are_kept(house: House) -> None:
    said = ("My grandmother kept bees behind the house, and she gave honey to everybody in the street.", FRIENDLY)
    for name, voice, text in (("ada.wav", "slt", said[0]), ("fake.wav", "slt", said[1]), ("else.wav", "kal", said[1])):
        folder = house.root / "banned" if name == "ada.wav" else house.shelf.folder
        subprocess.run(["flite", "-voice", voice, "-t", text, "-o", str(folder / name)], check=True)
    write(house.shelf.folder / "tune.wav", music(11, 0.0, 12.0))
    house.add("tune", audio_uri="tune.wav")  # nobody speaks in it
    house.add("fake", audio_uri="fake.wav")
    house.add("else", audio_uri="else.wav")
    house.enrich()
    storage = open_storage(str(house.store))
    added = add_files(storage, "protected-voices", [house.root / "banned/ada.wav"], state="active")
    assert not added.failures
    assert house.scan()["unheard"] == ["impersonated-voices"] and not house.standing()
    refused = add_files(storage, "protected-voices", [house.root / "banned/song.wav"])
    assert refused.exemplars == [] and "no_speech" in refused.failures[0][1]
    refused = add_contents(house.run(), "protected-voices", "audio", ["fake"])
    assert refused.exemplars == [] and "no_speech" in refused.failures[0][1]
    add_files(storage, "banned-recordings", [house.root / "banned/song.wav"])  # as a shadow: all audio is looked at
    summary = run_catalog(house.shelf.source, str(house.store), CONFIG.replace(voices=True))
    assert json.loads((house.store / "runs" / summary["run_id"] / "moderation.json").read_text())["unheard"] == []
    standing = house.standing()
    assert set(standing) == {("fake", "impersonated-voices"), ("with song", "banned-recordings")}
    cited = standing["fake", "impersonated-voices"].decision.cited[0]
    assert cited.score > 0.9 and cited.start_s is not None and cited.end_s is not None
    assert 0 <= cited.start_s < 1 and 3 < cited.end_s < 9
    assert house.online("fake")["policy_start_s"] == [pytest.approx(cited.start_s, abs=1e-3)]
    assert_all_replay(house.cases())
