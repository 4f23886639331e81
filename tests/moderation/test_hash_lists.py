"""Lists of hashes: the forms in which they are exchanged, what is wrong in them, and there and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from core.errors import ConfigError
from core.storage import open_storage
from moderation.exemplars import Exemplars
from moderation.hash_lists import read_hash_list, write_hash_list

ONE, TWO = "0f" * 32, "3c" * 32

THREAT_EXCHANGE = {
    "data": [
        {
            "id": "123",
            "indicator": {"id": "9", "indicator": ONE.upper(), "type": "HASH_PDQ"},
            "status": "MALICIOUS",
            "owner": {"id": "1", "name": "A trust and safety team"},
            "tags": {"data": [{"id": "5", "text": "violence"}]},
            "added_on": "2026-01-02T03:04:05+0000",
        },
        {"raw_indicator": TWO, "type": "HASH_PDQ", "status": "UNKNOWN", "tags": ["a", "b"]},
        {"raw_indicator": "you are scum", "type": "TEXT_STRING"},
        {"raw_indicator": "zz", "type": "HASH_PDQ"},
        {"raw_indicator": TWO, "type": "HASH_MD4"},
        "nonsense",
    ]
}


def test_threat_exchange_as_json() -> None:
    found, wrong = read_hash_list(json.dumps(THREAT_EXCHANGE).encode(), "banned", source="te.json")
    assert [(e.modality, e.state, dict(e.evidence), e.tags) for e in found] == [
        ("image", "active", {"pdq": ONE, "pdq_quality": 100}, ("violence",)),
        ("image", "shadow", {"pdq": TWO, "pdq_quality": 100}, ("a", "b")),
        ("text", "shadow", {"text": "you are scum"}, ()),
    ]
    assert found[0].provenance == {
        "source": "te.json",
        "status": "MALICIOUS",
        "added_on": "2026-01-02T03:04:05+0000",
        "owner": "A trust and safety team",
    }
    assert len(wrong) == 3
    assert wrong[0].startswith("row 4: 'zz' is no HASH_PDQ")
    assert wrong[1].startswith("row 5: the type 'HASH_MD4' is not known")
    assert wrong[2].startswith("row 6: 'nonsense' is no descriptor")


@pytest.mark.parametrize(
    "data",
    [
        json.dumps(THREAT_EXCHANGE["data"][:2]),
        "\n".join(json.dumps(row) for row in THREAT_EXCHANGE["data"][:2]),
        f"type,indicator,tags\nHASH_PDQ,{ONE},violence\nhash_pdq,{TWO},a;b\n",
        f'\ufeffTags,Hash,Type\r\nviolence,{ONE},HASH_PDQ\r\n"a,b",{TWO},HASH_PDQ\r\n',
    ],
    ids=["a list", "a line each", "CSV", "CSV of Excel"],
)
def test_other_forms_say_the_same(data: str) -> None:
    found, wrong = read_hash_list(data.encode(), "banned")
    assert not wrong
    assert [(e.evidence["pdq"], e.tags) for e in found] == [(ONE, ("violence",)), (TWO, ("a", "b"))]


def test_a_state_may_be_given_for_all() -> None:
    found, _ = read_hash_list(json.dumps(THREAT_EXCHANGE).encode(), "banned", state="quarantined")
    assert {e.state for e in found} == {"quarantined"}


@pytest.mark.parametrize("form", ["json", "csv"])
def test_there_and_back(form: str, tmp_path: Path) -> None:
    exemplars = Exemplars(open_storage(tmp_path))
    drafts, _ = read_hash_list(json.dumps(THREAT_EXCHANGE).encode(), "banned")
    kept = exemplars.add_all(drafts, by="import")
    assert exemplars.add_all(drafts, by="import") == kept  # again is no news
    assert exemplars.audit.head().number == 3
    again, wrong = read_hash_list(write_hash_list(kept, form).encode(), "banned")
    assert not wrong
    assert [(e.exemplar_id, e.modality, e.state, e.tags) for e in again] == [
        (e.exemplar_id, e.modality, e.state, e.tags) for e in kept
    ]


def test_a_text_with_lines_and_commas_goes_there_and_back() -> None:
    text = 'one, "two"\nthree; 😀'
    drafts, _ = read_hash_list(json.dumps([{"type": "TEXT_STRING", "raw_indicator": text}]).encode(), "b")
    for form in ("json", "csv"):
        (again,), _ = read_hash_list(write_hash_list(drafts, form).encode(), "b")
        assert again.evidence["text"] == text


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\xff\xfe\x00", "is not UTF-8"),
        (b"", "neither JSON nor CSV"),
        (b"a,b\n1,2\n", "neither JSON nor CSV"),
        (b"{broken", "is no JSON"),
        (b'{"data": 3}', "must hold a list"),
    ],
)
def test_what_is_no_list_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        read_hash_list(data, "banned", source="x")
    with pytest.raises(ConfigError, match="is no form of a list"):
        write_hash_list([], "xml")
