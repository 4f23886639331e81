"""Policies as data: what is not allowed, in words, by which exemplars, how sure one must be, and what is done then."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from core.errors import ConfigError
from moderation import known
from moderation.matches import MODALITIES

ACTIONS = ("none", "flag", "review", "restrict", "remove")  # from the mildest
AUTOMATIC = ("restrict", "remove")  # taken without a person: only where precision is proven
DETECTORS = ("copy", "similarity", "classifier")
VECTORS = ("", "voice")  # what similarity is of: the modality's own vectors, or those of whose voice it is
MAX_POLICIES, MAX_TEXT = 1_000, 20_000
MOST_BITS = 31  # of 256 between the PDQ hashes of a picture and its copy


@dataclass(frozen=True)
class Clause:
    """A numbered sentence of a policy, which verdicts cite."""

    id: str
    text: str


@dataclass(frozen=True)
class Policy:
    """One rule. `detector` is how it is seen: `copy` (hashes and fingerprints), `similarity` (nearest exemplars by
    `vectors`), `classifier` (the score in `feature`, `view.column`, which may also add to similarity). `known` names a
    classifier of text that ships (`moderation.known`) and adds to similarity, or speaks alone where no exemplar does.
    `positive` and `negative` are banks of exemplars of what breaks it and of what only looks like that. `ladder` gives
    the least calibrated score of each action, which rises with the action; `target_precision` is what an automatic
    action must be proven to reach. `enforced` is the share of contents whose actions are taken; the rest is only
    recorded. `distance` is how many bits PDQ hashes of copies may differ in.
    """

    id: str
    title: str
    clauses: tuple[Clause, ...]
    modalities: tuple[str, ...]
    detector: str
    positive: tuple[str, ...]
    negative: tuple[str, ...] = ()
    target_precision: float = 0.95
    ladder: Mapping[str, float] = field(default_factory=dict)
    enforced: float = 1.0
    vectors: str = ""
    feature: str = ""
    distance: int = MOST_BITS
    known: str = ""

    def action(self, score: float) -> str:
        """The severest action whose least score is reached."""
        reached = [name for name in ACTIONS if name in self.ladder and score >= self.ladder[name]]
        return reached[-1] if reached else "none"

    @property
    def automatic(self) -> bool:
        return any(name in self.ladder for name in AUTOMATIC)

    def to_dict(self) -> dict[str, Any]:
        """As in a file of policies."""
        found: dict[str, Any] = {"id": self.id, "title": self.title}
        found["clauses"] = [{"id": clause.id, "text": clause.text} for clause in self.clauses]
        found |= {"modalities": list(self.modalities), "detector": self.detector}
        found["banks"] = {"positive": list(self.positive), "negative": list(self.negative)}
        found |= {"target_precision": self.target_precision, "ladder": dict(self.ladder), "enforced": self.enforced}
        found |= {name: value for name in ("vectors", "feature", "known") if (value := getattr(self, name))}
        return found if self.distance == MOST_BITS else {**found, "distance": self.distance}


def shipped_policies() -> list[Policy]:
    text = resources.files("moderation").joinpath("data/policies.yaml").read_text(encoding="utf-8")
    return parse_policies(text, "the policies that ship")


def load_policies(path: Path) -> list[Policy]:
    """The policies of a YAML file. Raises `ConfigError` that names the file, the policy and the setting."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the policies {path}: {error}") from error
    return parse_policies(text, str(path))


def policy_from_dict(values: Mapping[str, Any]) -> Policy:
    """The policy that `Policy.to_dict` wrote. Raises `ConfigError`."""
    return _policy(values, f"the policy {values.get('id')}")


def parse_policies(text: str, source: str) -> list[Policy]:
    """The policies in YAML; `source` is what an error calls it."""
    try:
        held = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not YAML: {error}") from error
    if not isinstance(held, Mapping) or not isinstance(held.get("policies"), list):
        raise ConfigError(f"{source} must hold a list under `policies`")
    _only(held, ("policies",), source)
    if len(held["policies"]) > MAX_POLICIES:
        raise ConfigError(f"{source} holds {len(held['policies']):,} policies; {MAX_POLICIES:,} are allowed")
    found: list[Policy] = []
    for number, values in enumerate(held["policies"], 1):
        where = f"{source}: policy {number}"
        if not isinstance(values, Mapping):
            raise ConfigError(f"{where} must be a mapping of settings")
        if isinstance(values.get("id"), str):
            where = f"{where} ({values['id']})"
        policy = _policy(values, where)
        if policy.known:
            _ships(policy.known, f"{where}: known")
        if policy.id in {p.id for p in found}:
            raise ConfigError(f"{where}: the id stands twice")
        found.append(policy)
    return found


SETTINGS = (
    "id", "title", "clauses", "modalities", "detector", "banks", "target_precision", "ladder", "enforced", "vectors",
    "feature", "distance", "known",
)  # fmt: skip


def _policy(values: Mapping[str, Any], where: str) -> Policy:
    _only(values, SETTINGS, where)
    for name in ("id", "title", "clauses", "modalities", "detector", "banks", "ladder"):
        if name not in values:
            raise ConfigError(f"{where}: {name} is missing")
    policy = Policy(
        id=_text(values["id"], f"{where}: id"),
        title=_text(values["title"], f"{where}: title"),
        clauses=_clauses(values["clauses"], where),
        modalities=_choices(values["modalities"], MODALITIES, f"{where}: modalities"),
        detector=_choices([values["detector"]], DETECTORS, f"{where}: detector")[0],
        **_banks(values["banks"], where),
        target_precision=_share(values.get("target_precision", 0.95), f"{where}: target_precision"),
        ladder=_ladder(values["ladder"], where),
        enforced=_share(values.get("enforced", 1.0), f"{where}: enforced"),
        vectors=_choices([values.get("vectors", "")], VECTORS, f"{where}: vectors")[0],
        feature=_text(values.get("feature", ""), f"{where}: feature", empty=True),
        distance=_bits(values.get("distance", MOST_BITS), f"{where}: distance"),
        known=_text(values.get("known", ""), f"{where}: known", empty=True),
    )
    if not policy.id.replace("-", "").replace("_", "").replace(".", "").isalnum() or not policy.id.isascii():
        raise ConfigError(f"{where}: an id is made of letters, digits, dots, dashes and underscores")
    if policy.feature.count(".") != 1 and (policy.feature or policy.detector == "classifier"):
        raise ConfigError(f"{where}: a classifier needs its feature, as view.column")
    if policy.detector != "classifier" and not policy.positive and not policy.known:
        raise ConfigError(f"{where}: banks.positive is empty, so that nothing could ever match")
    if policy.detector == "copy" and "text" in policy.modalities:
        raise ConfigError(f"{where}: copies are found of audio and pictures; text is compared by similarity")
    if (policy.vectors == "voice") != (policy.detector == "similarity" and "audio" in policy.modalities):
        raise ConfigError(
            f"{where}: similarity of audio is that of voices, so it needs `vectors: voice`, and that only"
        )
    if policy.known and (policy.detector, policy.modalities) != ("similarity", ("text",)):
        raise ConfigError(f"{where}: known classifiers are of text, and add to its similarity alone")
    if policy.vectors == "voice" and policy.modalities != ("audio",):
        raise ConfigError(f"{where}: voices are in audio alone")
    if policy.target_precision >= 1:
        raise ConfigError(f"{where}: no number of labels proves a precision of 1; ask for less")
    return policy


def _only(values: Mapping[str, Any], names: tuple[str, ...], where: str) -> None:
    for name in values:
        if name not in names:
            near = difflib.get_close_matches(str(name), names, 1)
            raise ConfigError(f"{where}: {name!r} is not known" + (f"; did you mean {near[0]!r}?" if near else ""))


def _text(value: Any, where: str, empty: bool = False) -> str:
    if not isinstance(value, str) or not (value.strip() or empty):
        raise ConfigError(f"{where} must be text, not {value!r}")
    if len(value) > MAX_TEXT:
        raise ConfigError(f"{where} has {len(value):,} characters; {MAX_TEXT:,} are allowed")
    return value.strip()


def _list(value: Any, where: str) -> list[Any]:
    if not isinstance(value, list) or not value:
        raise ConfigError(f"{where} must be a list with something in it, not {value!r}")
    return value


def _clauses(value: Any, where: str) -> tuple[Clause, ...]:
    found = []
    for number, clause in enumerate(_list(value, f"{where}: clauses"), 1):
        here = f"{where}: clause {number}"
        if not isinstance(clause, Mapping):
            raise ConfigError(f"{here} must be a mapping of id and text")
        _only(clause, ("id", "text"), here)
        found.append(Clause(_text(clause.get("id"), f"{here}: id"), _text(clause.get("text"), f"{here}: text")))
    if len({clause.id for clause in found}) < len(found):
        raise ConfigError(f"{where}: two clauses have one id")
    return tuple(found)


def _choices(value: Any, choices: tuple[str, ...], where: str) -> tuple[str, ...]:
    found = _list(value, where)
    for name in found:
        if name not in choices:
            raise ConfigError(f"{where}: {name!r} is none of {', '.join(choices)}")
    if len(set(found)) < len(found):
        raise ConfigError(f"{where}: one stands twice")
    return tuple(found)


def _banks(value: Any, where: str) -> dict[str, tuple[str, ...]]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: banks must be a mapping of positive and negative")
    _only(value, ("positive", "negative"), f"{where}: banks")
    found = {}
    for side in ("positive", "negative"):
        names = value.get(side) or []
        here = f"{where}: banks.{side}"
        found[side] = tuple(_text(name, here) for name in (_list(names, here) if names else []))
    if both := set(found["positive"]) & set(found["negative"]):
        raise ConfigError(f"{where}: the bank {sorted(both)[0]!r} is both positive and negative")
    return found


def _ships(name: str, where: str) -> None:
    try:
        known.shipped(name)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _share(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ConfigError(f"{where} must be a number from 0 to 1, not {value!r}")
    return float(value)


def _bits(value: Any, where: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_BITS:
        raise ConfigError(f"{where} must be a whole number of bits from 0 to {MOST_BITS}, not {value!r}")
    return value


def _ladder(value: Any, where: str) -> dict[str, float]:
    if not isinstance(value, Mapping) or not value:
        raise ConfigError(f"{where}: ladder must give the least score of an action, one at least")
    _only(value, ACTIONS[1:], f"{where}: ladder")
    found = {name: _share(value[name], f"{where}: ladder.{name}") for name in ACTIONS if name in value}
    scores = list(found.values())
    if any(later <= earlier for earlier, later in zip(scores, scores[1:], strict=False)):
        raise ConfigError(f"{where}: ladder must rise from {' to '.join(found)}: a severer action asks for more")
    return found
