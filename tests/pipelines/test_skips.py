"""Markers of a catalogue from run to run: what is added, replaced, removed, erased, killed, and told by listeners."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from core.config import Config
from core.features import SKIPS, SPEECH, WORDS
from core.storage import LocalStorage, open_storage
from core.tables import now_us, rows_to_table
from feature_repo.reads import online_features
from feature_repo.store import open_store
from pipelines import graph, removal, skip_events, skip_state, skip_words, skips
from pipelines.context import Run
from pipelines.inprocess import run_catalog
from pipelines.skip_folder import skip_folder
from skips.detect import Recording
from skips.markers import Marker
from skips.words import Sentence
from tests.pipelines.conftest import Shelf, visible
from tests.skips.audio import assert_marked, laid_out, spots, write

CONFIG = Config(device="cpu")
Spans = dict[str, list[tuple[float, float]]]

pytestmark = pytest.mark.slow


class Show:
    """A show on disk and its store."""

    def __init__(self, root: Path) -> None:
        self.root, self.store = root, root / "store"
        self.shelf = Shelf(root / "catalog", [])
        self.spans: Spans = {}

    def episode(self, number: int, *, plain: bool = False) -> None:
        """Adds an episode of some half a minute: talk, the intro, talk, the ad, talk; or talk alone."""
        spot = spots()
        pieces = (30.0,) if plain else (6.0 + number, spot.intro, 8.0 + 2 * number, spot.ad, 7.0)
        samples, spans = laid_out(200 + number, *pieces)
        name = f"episode {number}"
        write(self.shelf.folder / f"{number}.wav", samples)
        self.spans[name] = spans
        row = {"content_id": name, "kind": "episode", "title": f"The {number}th", "show_id": "show"}
        row |= {"updated_at": "2026-01-01T00:00:00Z", "audio_uri": f"{number}.wav"}
        self.shelf.rows = [r for r in self.shelf.rows if r["content_id"] != name] + [row]
        self.shelf.save()

    def enrich(self) -> dict[str, Any]:
        summary = run_catalog(self.shelf.source, str(self.store), CONFIG)
        return dict(json.loads((self.store / "runs" / summary["run_id"] / "skips.json").read_text()))

    def run(self) -> Run:
        return Run(open_storage(str(self.store)), "test", self.shelf.source, CONFIG)

    def markers(self) -> dict[str, tuple[Marker, ...]]:
        """As the offline store has them."""
        return {e.content_id: e.markers for e in skips.stored_skips(self.run()).episodes}

    def online(self, content_id: str) -> dict[str, Any]:
        row = online_features(open_store(self.store), [content_id], "playback").to_pylist()[0]
        return {name.removeprefix("skips__"): value for name, value in row.items()}

    def assert_right(self) -> None:
        found = self.markers()
        assert set(found) == set(self.spans)
        for name, spans in self.spans.items():
            assert_marked(found[name], spans)

    def ids(self) -> list[str]:
        """The motifs of the intro and of the ad."""
        (both,) = {tuple(m.motif_id for m in markers) for markers in self.markers().values() if markers}
        return list(both)


@pytest.fixture(scope="module")
def first_run(tmp_path_factory: pytest.TempPathFactory) -> Show:
    show = Show(tmp_path_factory.mktemp("show"))
    for number in range(3):
        show.episode(number)
    show.enrich()
    return show


@pytest.fixture
def show(first_run: Show, tmp_path: Path) -> Show:
    """The show after its first run, to do with as one likes."""
    shutil.copytree(first_run.root, tmp_path / "show")
    copy = Show(tmp_path / "show")
    copy.shelf.rows, copy.spans = [dict(row) for row in first_run.shelf.rows], dict(first_run.spans)
    copy.enrich()  # a copied store is mended by a run
    return copy


def test_markers_are_served_online_with_the_audio_they_hold_for(first_run: Show) -> None:
    first_run.assert_right()
    for number in range(3):
        row = first_run.online(f"episode {number}")
        audio = (first_run.shelf.folder / f"{number}.wav").read_bytes()
        assert row["audio_sha256"] == hashlib.sha256(audio).hexdigest()
        served = [Marker(*values) for values in zip(*(row[f"marker_{n}"] for n in skips.MARKER_FIELDS), strict=True)]
        assert_marked(served, first_run.spans[f"episode {number}"])
        assert [m.action for m in served] == ["auto", "auto"]
        assert [m.occurrences for m in served] == [3, 3]


def test_a_run_without_news_writes_nothing(show: Show) -> None:
    before = show.run().tables.parts(SKIPS)
    state = sorted(path.name for path in (show.store / "skips").iterdir())
    summary = show.enrich()
    assert (summary["new"], summary["withdrawn"], summary["changed"]) == (0, 0, 0)
    assert show.run().tables.parts(SKIPS) == before
    assert sorted(path.name for path in (show.store / "skips").iterdir()) == state


def test_one_episode_more_is_what_a_run_over_all_finds(show: Show) -> None:
    ids = show.ids()
    show.episode(3)
    assert show.enrich()["new"] == 1
    show.assert_right()
    assert show.ids() == ids
    assert {m.occurrences for markers in show.markers().values() for m in markers} == {4}
    together = {Path(e.path).stem: e.markers for e in skip_folder(show.shelf.folder).episodes}
    for name, markers in show.markers().items():
        whole = together[name.removeprefix("episode ")]
        assert_marked(markers, [(m.start_s, m.end_s) for m in whole], within_s=0.1)
        assert [(m.kind, m.action) for m in markers] == [(m.kind, m.action) for m in whole]


def test_replaced_audio_takes_its_markers_and_its_support_along(show: Show) -> None:
    show.episode(1, plain=True)
    summary = show.enrich()
    assert (summary["new"], summary["withdrawn"]) == (1, 1)
    show.assert_right()
    assert {(m.action, m.occurrences) for markers in show.markers().values() for m in markers} == {("ask", 2)}
    assert show.online("episode 1")["marker_kind"] == []
    # And back: the names stay what they were.
    ids = show.ids()
    show.episode(1)
    show.enrich()
    show.assert_right()
    assert show.ids() == ids


def test_audio_that_cannot_be_read_leaves_the_markers_of_the_old_bound_to_the_old(show: Show) -> None:
    """As all features of a content in quarantine; a player that compares the audio does not skip by them."""
    before = show.online("episode 1")
    rubbish = b"RIFF" + bytes(5_000)
    (show.shelf.folder / "1.wav").write_bytes(rubbish)
    show.enrich()
    row = show.online("episode 1")
    assert row["marker_start_s"] == before["marker_start_s"]
    assert row["audio_sha256"] == before["audio_sha256"] != hashlib.sha256(rubbish).hexdigest()


def test_two_shows_of_one_run_do_not_mix_their_kinds(show: Show) -> None:
    """An ad heard in two shows is an ad in both."""
    for number in range(4, 7):
        samples, spans = laid_out(300 + number, 9.0 + number, spots().ad, 11.0)
        write(show.shelf.folder / f"other {number}.wav", samples)
        name = f"other {number}"
        show.spans[name] = spans
        row = {"content_id": name, "kind": "episode", "title": name, "show_id": "other"}
        show.shelf.rows.append(row | {"updated_at": "2026-01-02T00:00:00Z", "audio_uri": f"{name}.wav"})
    show.shelf.save()
    show.enrich()
    show.assert_right()
    found = show.markers()
    assert [m.kind for m in found["other 5"]] == ["ad"]
    assert [m.kind for m in found["episode 1"]][-1] == "ad"
    assert found["other 5"][0].motif_id == found["episode 1"][-1].motif_id
    assert found["other 5"][0].occurrences == 6


@pytest.mark.parametrize("erase", [False, True])
def test_removed_episodes_withdraw_their_support(show: Show, erase: bool) -> None:
    ids = show.ids()
    sources = {m.source for m in skip_state.load(show.run().storage).motifs}
    recordings = skip_state.load(show.run().storage).recordings
    gone = recordings[min(sources)].content_id  # whose sound the motifs' clips are
    removal.remove(show.run(), [gone], erase=erase)
    del show.spans[gone]
    show.shelf.rows = [row for row in show.shelf.rows if row["content_id"] != gone]
    show.shelf.save()
    show.assert_right()
    assert {(m.action, m.occurrences) for markers in show.markers().values() for m in markers} == {("ask", 2)}
    assert show.ids() == ids
    assert not show.online(gone)["marker_kind"]
    if erase:
        known = skip_state.load(show.run().storage)
        alive = set(known.recordings)
        assert {m.source for m in known.motifs} <= alive
        assert all(set(part.recording.tolist()) <= alive for part in known.parts)
    show.episode(4)
    show.enrich()
    show.assert_right()
    assert show.ids() == ids
    assert {m.occurrences for markers in show.markers().values() for m in markers} == {3}
    for name in show.spans:
        assert len(show.online(name)["marker_kind"]) == 2


def test_killed_at_any_write_of_its_step_a_run_is_finished_by_the_next(
    show: Show, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    show.episode(3)
    shutil.copytree(show.root, tmp_path / "calm")
    calm = Show(tmp_path / "calm")
    calm.shelf.rows, calm.spans = show.shelf.rows, show.spans
    calm.enrich()
    expected = of_skips(calm)
    real, step = LocalStorage.write, skips.step
    left = {"writes": 0, "inside": 0}

    def dying(self: LocalStorage, path: str, data: bytes) -> None:
        if left["inside"]:
            if left["writes"] == 0:
                raise KeyboardInterrupt
            left["writes"] -= 1
        real(self, path, data)

    def watched(run: Run) -> dict[str, Any]:
        left["inside"] = 1
        try:
            return step(run)
        finally:
            left["inside"] = 0

    with monkeypatch.context() as patch:
        patch.setattr(LocalStorage, "write", dying)
        steps = tuple(replace(s, call=watched) if s.name == "skips" else s for s in graph.STEPS)
        patch.setattr("pipelines.inprocess.STEPS", steps)
        for writes in range(40):
            left["writes"] = writes
            try:
                show.enrich()
            except KeyboardInterrupt:
                continue
            break
    assert 4 <= writes < 39, "each write was the last of some run"
    assert of_skips(show) == expected
    show.assert_right()
    assert {m.occurrences for markers in show.markers().values() for m in markers} == {4}


def of_skips(show: Show) -> list[dict[str, Any]]:
    """The rows of markers but for the time at which they were written."""
    rows = visible(show.store)["skips"]
    return [{k: v for k, v in row.items() if k != "event_timestamp"} for row in rows]


def test_state_of_another_version_is_found_anew(show: Show) -> None:
    before = of_skips(show)
    pointer = json.loads((show.store / skip_state.CURRENT).read_text())
    (show.store / skip_state.CURRENT).write_text(json.dumps({**pointer, "version": -1}))
    assert show.enrich()["new"] == 3
    assert of_skips(show) == before


def test_listeners_take_the_auto_off_a_marker_and_give_it_back_none(show: Show) -> None:
    (intro, ad) = show.markers()["episode 0"]
    played = [("episode 0", "play", 0.0, ad.start_s - 2.0)] * 30  # heard the intro through
    skipped = [("episode 0", "skip", ad.start_s, ad.end_s)] * 30
    columns = list(zip(*played, *skipped, strict=True))
    listeners = [f"listener {n}" for n in range(60)]
    names = ("content_id", "event", "from_s", "to_s")
    events = pa.table({**dict(zip(names, columns, strict=True)), "listener": listeners})
    found = skips.add_events(show.run(), events)
    assert found["evidence"]["events"] > 10
    heard, jumped = show.markers()["episode 0"]
    assert (heard.action, jumped.action) == ("ask", "auto")
    assert heard.confidence < 0.5 < intro.confidence
    assert jumped.confidence >= ad.confidence
    # The next run keeps what listeners said.
    show.enrich()
    assert show.markers()["episode 0"][0].action == "ask"


def test_music_repeats_in_a_store_are_told(show: Show) -> None:
    sung, spans = laid_out(400, 8.0, spots().intro, 9.0, spots().intro, 7.0)
    write(show.shelf.folder / "song.wav", sung)
    row = {"content_id": "song", "kind": "track", "title": "A song", "audio_uri": "song.wav"}
    show.shelf.rows.append(row | {"updated_at": "2026-01-02T00:00:00Z"})
    show.shelf.save()
    show.enrich()
    found = skips.stored_skips(show.run(), music=True)
    assert "song" not in {e.content_id for e in found.episodes if e.markers}
    (repeat,) = found.repeats
    assert [p["content_id"] for p in repeat["places"]] == ["song", "song"]
    assert [p["start_s"] for p in repeat["places"]] == pytest.approx([s for s, _ in spans], abs=0.15)
    # What a track plays of the intro is no occurrence of it: it is heard in three episodes.
    assert {m.occurrences for m in found.episodes[0].markers} == {3}


def test_the_same_file_under_another_name_is_no_witness_and_has_the_markers_too(show: Show) -> None:
    ids = show.ids()
    row = {**show.shelf.row("episode 1"), "content_id": "again", "title": "Again"}
    show.shelf.rows.append(row)
    show.shelf.save()
    assert show.enrich()["new"] == 0
    show.spans["again"] = show.spans["episode 1"]
    show.assert_right()
    assert {(m.action, m.occurrences) for markers in show.markers().values() for m in markers} == {("auto", 3)}
    assert show.online("again")["marker_start_s"] == show.online("episode 1")["marker_start_s"]
    # The one that stood for both goes: the other takes its place, at once and in the next run.
    removal.remove(show.run(), ["episode 1"], erase=True)
    del show.spans["episode 1"]
    show.shelf.rows = [r for r in show.shelf.rows if r["content_id"] != "episode 1"]
    show.shelf.save()
    for _ in range(2):
        show.assert_right()
        assert show.ids() == ids
        assert {m.occurrences for markers in show.markers().values() for m in markers} == {3}
        assert show.enrich()["new"] == 0


def test_audio_that_the_catalogue_no_longer_names_takes_its_markers_along(show: Show) -> None:
    show.shelf.row("episode 1").update(
        {"audio_uri": None, "text": "Words instead.", "updated_at": "2026-02-01T00:00:00Z"}
    )
    show.shelf.save()
    assert show.enrich()["withdrawn"] == 1
    del show.spans["episode 1"]
    show.assert_right()
    assert {(m.action, m.occurrences) for markers in show.markers().values() for m in markers} == {("ask", 2)}
    assert not show.online("episode 1")["marker_kind"]


def test_episodes_are_listed_as_people_count(show: Show) -> None:
    first = [e.content_id for e in skips.stored_skips(show.run()).episodes]
    assert first == ["episode 0", "episode 1", "episode 2"]
    show.episode(10)
    show.enrich()
    assert [e.content_id for e in skips.stored_skips(show.run()).episodes] == [*first, "episode 10"]


def events_of(*rows: tuple[str, str, float, float, str]) -> pa.Table:
    names = ("content_id", "event", "from_s", "to_s", "listener")
    return pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))


def test_events_count_once_and_are_erased_with_their_content(show: Show) -> None:
    rows = [(f"episode {n % 2}", "play", 0.0, 60.0, f"secret listener {n}") for n in range(40)]
    skips.add_events(show.run(), events_of(*rows[:30]))
    once = show.markers()
    skips.add_events(show.run(), events_of(*rows[10:30]))
    assert show.markers() == once
    skips.add_events(show.run(), events_of(*rows[20:]))
    held = skip_events.stored_events(show.run().storage)
    assert held is not None and sorted(held["listener"].to_pylist()) == sorted(r[-1] for r in rows)
    removal.remove(show.run(), ["episode 0"], erase=True)
    held = skip_events.stored_events(show.run().storage)
    assert held is not None and sorted(held["listener"].to_pylist()) == sorted(r[-1] for r in rows[1::2])
    removal.remove(show.run(), ["episode 1"], erase=True)
    assert skip_events.stored_events(show.run().storage) is None


def test_state_that_is_written_anew_while_it_is_read_is_read_anew(show: Show, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = show.run().storage
    known, real = skip_state.load(storage), LocalStorage.read
    waiting = ["once"]

    def late(self: LocalStorage, path: str) -> bytes:
        if path.endswith("motifs.parquet") and waiting:
            waiting.pop()
            skip_state.save(storage, known)  # another process, which deletes what the pointer named
        return real(self, path)

    monkeypatch.setattr(LocalStorage, "read", late)
    found = skip_state.load(storage)
    assert [m.motif_id for m in found.motifs] == [m.motif_id for m in known.motifs] and not waiting
    # What is lost is told.
    next(show.store.glob("skips/*-motifs.parquet")).unlink()
    with pytest.raises(FileNotFoundError):
        skip_state.load(storage)


def test_state_of_another_fingerprint_is_found_anew(show: Show) -> None:
    pointer = json.loads((show.store / skip_state.CURRENT).read_text())
    (show.store / skip_state.CURRENT).write_text(json.dumps({**pointer, "fingerprint": "another"}))
    assert show.enrich()["new"] == 3
    show.assert_right()


def test_tracks_that_become_episodes_keep_their_markers_when_events_come(show: Show) -> None:
    for row in show.shelf.rows:
        row.update({"kind": "track", "updated_at": "2026-02-01T00:00:00Z"})
    show.shelf.save()
    show.enrich()
    assert show.markers() == {}
    for row in show.shelf.rows:
        row.update({"kind": "episode", "updated_at": "2026-03-01T00:00:00Z"})
    show.shelf.save()
    show.enrich()
    show.assert_right()
    skips.add_events(show.run(), events_of(("episode 0", "skip", 0.0, 1.0, "ann")))
    show.assert_right()


def test_events_before_everything_is_found_anew_take_no_markers(show: Show) -> None:
    before = show.markers()
    pointer = json.loads((show.store / skip_state.CURRENT).read_text())
    (show.store / skip_state.CURRENT).write_text(json.dumps({**pointer, "version": 1}))
    played = events_of(*[("episode 0", "play", 0.0, 60.0, f"{n}") for n in range(30)])
    assert skips.add_events(show.run(), played)["changed"] == 0
    assert show.markers() == before
    # The same event once more than it is held is one more.
    skips.add_events(show.run(), played.slice(0, 1))
    skips.add_events(show.run(), pa.concat_tables([played.slice(0, 1)] * 2))
    held = skip_events.stored_events(show.run().storage)
    assert held is not None and len(held) == 31
    show.enrich()
    assert {m.action for m in show.markers()["episode 0"]} == {"ask"}


AD = (
    "This episode is sponsored by Acme rivers. Go to acme.com slash river and use promo code RIVER for twenty percent "
    "off your first order. That is acme.com slash river, promo code RIVER."
)
TALK = (
    "The first mill was built where the bridge stands now. Nobody remembers who built it. The river was high that year."
)


def heard(show: Show, content_id: str, text: str, key: str) -> None:
    """A transcript, three words a second, as the speech stage writes it."""
    said = text.split()
    stamp = {"event_timestamp": now_us(), "created_timestamp": now_us(), "work_key": key}
    words = [
        {"content_id": content_id, "start_s": n / 3, "end_s": (n + 1) / 3, "word": w, "probability": 1.0, **stamp}
        for n, w in enumerate(said)
    ]
    row = {"content_id": content_id, "transcript": text, "transcript_word_count": len(said), **stamp}
    tables = show.run().tables
    tables.commit(WORDS, rows_to_table(WORDS, words), now_us(), key)
    tables.commit(SPEECH, rows_to_table(SPEECH, [row]), now_us(), key)


def test_ads_that_a_transcript_shows_are_marked_and_go_with_it(show: Show) -> None:
    talk = " ".join([TALK] * 2)
    heard(show, "episode 0", f"{talk} {AD} {talk}", "first")
    said = skip_words.said(show.run())
    (ad,) = said.ads["episode 0"]
    first, behind = len(talk.split()) / 3, len(f"{talk} {AD}".split()) / 3
    assert (ad.start_s, ad.end_s) == (pytest.approx(first, abs=0.5), pytest.approx(behind, abs=0.5))
    assert (ad.kind, ad.action, ad.source) == ("ad", "ask", "transcript")
    assert said.cues(Recording(0, "episode 0", "", 99.0), first, behind)["ad"] > 0.9
    assert said.cues(Recording(0, "episode 0", "", 99.0), 0.0, first).get("ad", 0.0) < 0.5
    # It is worked on once; a transcript that was made anew is another.
    held = (show.store / skip_state.SAID).stat().st_mtime_ns
    assert skip_words.said(show.run()) == said
    assert (show.store / skip_state.SAID).stat().st_mtime_ns == held
    heard(show, "episode 0", f"{talk} {talk}", "second")
    assert skip_words.said(show.run()).ads["episode 0"] == []


def test_words_that_cannot_be_judged_cost_their_episode_alone(
    show: Show, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (0, 1):
        heard(show, f"episode {number}", f"{TALK} {TALK} {number}", f"words {number}")
    judge = skip_words.sentences

    def odd(words: pa.Table) -> list[Sentence]:
        if words["word"].to_pylist()[-1] == "0":
            raise IndexError("odd")
        return judge(words)

    with monkeypatch.context() as patch:
        patch.setattr(skip_words, "sentences", odd)
        assert set(skip_words.said(show.run()).sentences) == {"episode 1"}
    assert "episode 0" in caplog.text and "IndexError: odd" in caplog.text
    assert set(skip_words.said(show.run()).sentences) == {"episode 0", "episode 1"}  # the next run looks again
