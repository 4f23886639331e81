"""Policies: what ships is valid, what is wrong is named."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from core.errors import ConfigError
from moderation.policies import load_policies, parse_policies, shipped_policies

PLAIN: dict[str, Any] = {
    "id": "noise",
    "title": "Noise",
    "clauses": [{"id": "1", "text": "No noise."}],
    "modalities": ["audio"],
    "detector": "copy",
    "banks": {"positive": ["noise"]},
    "ladder": {"flag": 0.2, "review": 0.5, "remove": 0.9},
}


def parsed(**changes: Any) -> Any:
    values = {k: v for k, v in {**PLAIN, **changes}.items() if v is not Ellipsis}
    return parse_policies(yaml.safe_dump({"policies": [values]}), "here")[0]


def test_what_ships_is_as_agreed() -> None:
    policies = {policy.id: policy for policy in shipped_policies()}
    assert list(policies) == [
        "banned-recordings",
        "banned-pictures",
        "abusive-language",
        "sexual-imagery",
        "impersonated-voices",
    ]
    # Only copies may be acted upon without a person.
    assert [name for name, policy in policies.items() if policy.automatic] == ["banned-recordings", "banned-pictures"]


def test_policies_are_what_they_are_written_as() -> None:
    for policy in shipped_policies():
        assert parse_policies(yaml.safe_dump({"policies": [policy.to_dict()]}), "again") == [policy]


@pytest.mark.parametrize(
    ("score", "action"),
    [(0.0, "none"), (0.19, "none"), (0.2, "flag"), (0.5, "review"), (0.89, "review"), (0.9, "remove"), (1.0, "remove")],
)
def test_the_severest_action_that_is_reached(score: float, action: str) -> None:
    assert parsed().action(score) == action


def test_what_is_left_out_has_a_default() -> None:
    policy = parsed()
    assert (policy.target_precision, policy.enforced, policy.negative) == (0.95, 1.0, ())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id": ...}, "policy 1: id is missing"),
        ({"id": ""}, "id must be text"),
        ({"id": "../up"}, "letters, digits"),
        ({"id": "naïve"}, "letters, digits"),
        ({"titel": "x"}, "'titel' is not known; did you mean 'title'"),
        ({"title": 3}, "title must be text, not 3"),
        ({"clauses": []}, "clauses must be a list with something in it"),
        ({"clauses": ["No noise."]}, "clause 1 must be a mapping"),
        ({"clauses": [{"id": "1"}]}, "clause 1: text must be text, not None"),
        ({"clauses": [{"id": "1", "text": "a"}, {"id": "1", "text": "b"}]}, "two clauses have one id"),
        ({"modalities": ["sound"]}, "'sound' is none of image, audio, text"),
        ({"modalities": ["audio", "audio"]}, "one stands twice"),
        ({"detector": "magic"}, "'magic' is none of copy, similarity, classifier"),
        ({"detector": "classifier"}, "needs its feature, as view.column"),
        ({"banks": {}}, "banks.positive is empty"),
        ({"banks": {"positiv": ["a"]}}, "did you mean 'positive'"),
        ({"banks": {"positive": ["a"], "negative": ["a"]}}, "both positive and negative"),
        ({"modalities": ["text"]}, "text is compared by similarity"),
        ({"detector": "similarity"}, "similarity of audio is that of voices"),
        ({"vectors": "voice"}, "needs `vectors: voice`, and that only"),
        ({"vectors": "face"}, "'face' is none of"),
        (
            {"detector": "similarity", "vectors": "voice", "modalities": ["audio", "text"]},
            "voices are in audio alone",
        ),
        ({"target_precision": 1.0}, "no number of labels proves a precision of 1"),
        ({"target_precision": "high"}, "target_precision must be a number from 0 to 1"),
        ({"enforced": 1.5}, "enforced must be a number from 0 to 1, not 1.5"),
        ({"enforced": True}, "enforced must be a number"),
        ({"distance": 32}, "distance must be a whole number of bits from 0 to 31, not 32"),
        ({"ladder": {}}, "one at least"),
        ({"ladder": {"none": 0.1}}, "'none' is not known"),
        ({"ladder": {"flag": 0.5, "review": 0.5}}, "must rise from flag to review"),
        ({"ladder": {"review": 0.9, "remove": 0.5}}, "must rise"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match="here: policy 1") as error:
        parsed(**changes)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("policies: [", "is not YAML"),
        ("", "must hold a list"),
        ("policies: {}", "must hold a list"),
        ("policies: []\nrules: []", "'rules' is not known"),
        ("policies: [3]", "policy 1 must be a mapping"),
        (yaml.safe_dump({"policies": [PLAIN, PLAIN]}), r"policy 2 \(noise\): the id stands twice"),
    ],
)
def test_a_file_that_is_none_is_refused(text: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "policies.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=said):
        load_policies(path)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the policies"):
        load_policies(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ConfigError, match="cannot read the policies"):
        load_policies(tmp_path / "bytes.yaml")
