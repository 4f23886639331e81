"""Exemplars: their states, opinions and revisions, and floods against a slower reckoning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from core.errors import ConfigError, NotFound, StorageError
from core.storage import open_storage
from moderation.evidence import PAYLOADS
from moderation.exemplars import Exemplar, Exemplars, flooded

PDQ = {"pdq": "0f" * 32, "pdq_quality": 90}


@pytest.fixture
def exemplars(tmp_path: Path) -> Exemplars:
    return Exemplars(open_storage(tmp_path))


def added(exemplars: Exemplars, name: str = "one", **options: object) -> Exemplar:
    return exemplars.add("banned", "image", PDQ, name=name, by="ann", **options)  # type: ignore[arg-type]


def test_a_new_exemplar_is_a_shadow_and_is_matched(exemplars: Exemplars) -> None:
    found = added(exemplars, provenance={"source": "a list"}, tags=["b", "a", " a "])
    assert (found.exemplar_id, found.state, found.revision) == ("banned/one", "shadow", 1)
    assert found.tags == ("a", "b")
    assert exemplars.every() == [found] == exemplars.every(["banned"])
    assert exemplars.every(["other"]) == []
    assert exemplars.get("banned/one").provenance == {"source": "a list"}


def test_the_same_again_is_the_same_and_another_by_that_name_is_refused(exemplars: Exemplars) -> None:
    assert added(exemplars) == added(exemplars)
    assert exemplars.audit.head().number == 1
    with pytest.raises(ConfigError, match="there is another exemplar 'banned/one'"):
        exemplars.add("banned", "image", {"pdq": "1e" * 32}, name="one")
    unnamed = exemplars.add("banned", "image", PDQ)
    assert unnamed == exemplars.add("banned", "image", dict(reversed(PDQ.items())))
    assert unnamed.exemplar_id.startswith("banned/") and unnamed.exemplar_id != "banned/one"


def test_what_was_not_known_of_one_is_learnt_when_it_is_added_again(exemplars: Exemplars) -> None:
    """A recording that was added before a policy asked whose voice it is."""
    frames, vector = np.zeros((4, 32), np.uint8), np.ones(3, np.float32)
    said = {"sha256": "a"}
    exemplars.add("voices", "audio", said, {"frames": frames}, name="ada", state="active")
    assert exemplars.add("voices", "audio", said, {"frames": frames + 1}, name="ada").revision == 1  # nothing is new
    again = exemplars.add("voices", "audio", said, {"frames": frames, "vector": vector}, name="ada")
    assert (again.revision, again.state) == (2, "active") and set(exemplars.arrays(again)) == {"frames", "vector"}


def test_what_is_added_again_may_say_more_and_a_retired_name_is_free(exemplars: Exemplars) -> None:
    """As contents that were added before their words were kept, and what another model compares."""
    exemplars.add("bad", "text", {"model_id": "m"}, name="x", state="active")
    again = exemplars.add("bad", "text", {"model_id": "m", "sha256": "a", "text_hash": "b"}, name="x")
    assert (again.revision, again.state, again.evidence["sha256"]) == (2, "active", "a")
    assert exemplars.add("bad", "text", {"model_id": "n", "sha256": "a", "text_hash": "b"}, name="x").revision == 3
    other = {"model_id": "n", "sha256": "c", "text_hash": "d"}
    with pytest.raises(ConfigError, match="retire it"):
        exemplars.add("bad", "text", other, name="x")
    exemplars.set_state("bad/x", "retired", by="ada")
    assert exemplars.add("bad", "text", other, name="x").evidence["sha256"] == "c"
    assert exemplars.get("bad/x").state == "shadow"


def test_only_shadows_and_active_ones_are_in_use(exemplars: Exemplars) -> None:
    added(exemplars)
    for state, used in (("active", 1), ("quarantined", 0), ("active", 1), ("retired", 0), ("shadow", 1)):
        assert exemplars.set_state("banned/one", state, by="bob", reason="because").state == state
        assert len(exemplars.every()) == used
    assert [r.body["by"] for r in exemplars.audit.records()] == ["ann", *["bob"] * 5]
    assert {r.body["reason"] for r in exemplars.audit.records()} == {"added", "because"}


def test_every_revision_can_be_read_again(exemplars: Exemplars) -> None:
    first = added(exemplars, state="active")
    tagged = exemplars.tag("banned/one", ["music"], by="ann")
    retired = exemplars.set_state("banned/one", "retired", by="ann")
    assert [exemplars.get("banned/one", e.revision) for e in (first, tagged, retired)] == [first, tagged, retired]
    assert exemplars.get("banned/one") == retired
    assert exemplars.audit.verify().whole


def test_one_that_more_doubt_than_confirm_is_quarantined(exemplars: Exemplars) -> None:
    added(exemplars, state="active")
    assert exemplars.opine("banned/one", "confirm", by="ann").state == "active"
    assert exemplars.opine("banned/one", "deconfirm", by="bob").state == "active"  # one each
    assert exemplars.opine("banned/one", "deconfirm", by="cy").state == "quarantined"
    # Opinions that change do not activate it by themselves.
    assert exemplars.opine("banned/one", "confirm", by="bob").state == "quarantined"
    back = exemplars.set_state("banned/one", "active", by="dee")
    assert (back.state, dict(back.opinions)) == ("active", {"ann": "confirm", "bob": "confirm", "cy": "deconfirm"})


def test_arrays_are_kept_and_a_change_is_seen(exemplars: Exemplars, tmp_path: Path) -> None:
    arrays = {"frames": np.arange(640, dtype=np.uint8).reshape(-1, 32), "vector": np.ones(3, np.float32)}
    found = exemplars.add("songs", "audio", {"sha256": "ab" * 32}, arrays)
    held = exemplars.arrays(found)
    assert {name: value.dtype for name, value in held.items()} == {"frames": np.uint8, "vector": np.float32}
    assert (held["frames"] == arrays["frames"]).all()
    assert exemplars.arrays(added(exemplars)) == {}
    (path,) = (tmp_path / PAYLOADS).iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + b"x")
    with pytest.raises(StorageError, match="were changed"):
        exemplars.arrays(found)
    path.unlink()
    with pytest.raises(StorageError, match="are gone"):
        exemplars.arrays(found)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("", "image", PDQ), "cannot be the bank"),
        (("a\nb", "image", PDQ), "cannot be the bank"),
        (("banned", "smell", PDQ), "'smell' is no modality"),
        (("banned", "image", {}), "needs something that it is matched by"),
    ],
)
def test_what_is_no_exemplar_is_refused(exemplars: Exemplars, arguments: tuple, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        exemplars.add(*arguments)
    assert exemplars.audit.head().number == 0


def test_what_is_not_there_or_not_possible_is_said(exemplars: Exemplars) -> None:
    added(exemplars)
    with pytest.raises(NotFound, match="no exemplar 'banned/two'"):
        exemplars.get("banned/two")
    with pytest.raises(NotFound, match="of revision 7"):
        exemplars.get("banned/one", 7)
    with pytest.raises(ConfigError, match="'asleep' is no state"):
        exemplars.set_state("banned/one", "asleep", by="ann")
    with pytest.raises(ConfigError, match="'maybe' is no opinion"):
        exemplars.opine("banned/one", "maybe", by="ann")
    with pytest.raises(ConfigError, match="say whose"):
        exemplars.opine("banned/one", "confirm", by="")


def test_a_flood_is_far_more_than_there_used_to_be() -> None:
    quiet = [2, 0, 1, 3, 1, 0, 2]
    assert not flooded(4, quiet)
    assert not flooded(19, quiet)  # too few to be a flood
    assert flooded(20, quiet) and flooded(500, quiet)
    busy = [100, 110, 95, 105, 98]
    assert not flooded(130, busy)
    assert flooded(170, busy)
    assert not flooded(1_000, [])  # nothing is known of it


def test_a_quiet_rate_is_seldom_called_a_flood() -> None:
    """Against drawn days: of days with one rate, about one in ten thousand is called so."""
    rng = np.random.default_rng(2)
    days = rng.poisson(rng.uniform(5, 60, (20_000, 1)), (20_000, 15))
    called = sum(flooded(int(day[-1]), day[:-1].tolist()) for day in days[:6_000])
    assert called <= 5
