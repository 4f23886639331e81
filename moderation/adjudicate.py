"""A language model's opinion on what is neither clear nor cleared: the policy's clauses and the nearest exemplars on
either side in a versioned prompt, a structured verdict that is checked against the input, any OpenAI-compatible
endpoint.

A verdict counts only where its clause is the policy's, its quote is in the content and its exemplars were shown;
otherwise it failed, which is as good as an abstention. What the model says is an opinion for reviewers.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

from core.errors import ConfigError, EarmarkError
from core.storage import Storage
from moderation.policies import Policy

CACHE = "moderation/adjudications"
LABELS = ("violates", "allowed", "abstain")
FAILED = "failed"
NEWEST_PROMPT = "1"
MAX_CHARS = 6_000  # of a content that are shown: around the passage in question, or its beginning
MAX_EXAMPLE, MAX_EXAMPLES = 300, 3
MAX_TOKENS = 300
RETRIED = (408, 409, 425, 429, 500, 502, 503, 504)


class EndpointError(EarmarkError):
    """The endpoint cannot be reached, or does not answer as an OpenAI-compatible one does."""


@dataclass(frozen=True)
class Endpoint:
    """Where the model answers: `url` up to and without `/v1`; the key is in the environment variable `key_env`."""

    url: str
    model: str
    key_env: str = ""
    timeout_s: float = 60.0
    tries: int = 3


@dataclass(frozen=True)
class Example:
    """An exemplar's text under its id."""

    exemplar_id: str
    text: str


@dataclass(frozen=True)
class Question:
    """A content under a policy, with the nearest exemplars on either side."""

    policy: Policy
    content: str
    positive: tuple[Example, ...] = ()
    negative: tuple[Example, ...] = ()

    @property
    def shown(self) -> str:
        return self.content[:MAX_CHARS]


@dataclass(frozen=True)
class Verdict:
    """What the model said. `label` is "failed" where the check found `problem`. `reply` is the answer as it came,
    kept under `key`; `tokens` is what it cost, 0 from the cache."""

    label: str
    clause: str = ""
    quote: str = ""
    exemplars: tuple[str, ...] = ()
    reason: str = ""
    problem: str = ""
    key: str = ""
    tokens: int = 0


@dataclass
class Budget:
    """What may be spent; when it is, what is left waits for people."""

    calls: int
    tokens: int
    spent_calls: int = 0
    spent_tokens: int = 0

    @property
    def left(self) -> bool:
        return self.spent_calls < self.calls and self.spent_tokens < self.tokens


@dataclass
class Adjudicator:
    """Asks a model. Replies are kept by content, prompt and model, so that a question is asked once and a decision that
    rests on it replays."""

    endpoint: Endpoint
    storage: Storage
    prompt: str = NEWEST_PROMPT
    budget: Budget = field(default_factory=lambda: Budget(1_000, 1_000_000))

    def __post_init__(self) -> None:
        self.template = load_prompt(self.prompt)

    @property
    def version(self) -> str:
        """Names everything that shapes a reply but the question."""
        said = json.dumps([self.template, _schema(("",), ("",)), self.endpoint.model, MAX_CHARS, MAX_TOKENS])
        return f"{self.prompt}-{hashlib.sha256(said.encode()).hexdigest()[:12]}"

    def ask(self, question: Question) -> Verdict | None:
        """The checked verdict; None where the budget is spent. Raises `EndpointError`."""
        messages, key = self.messages(question), self.key(question)
        reply, tokens = self.cached(key), 0
        if reply is None:
            if not self.budget.left:
                return None
            reply, tokens = self._answer(question, messages)
            self.budget.spent_calls += 1
            self.budget.spent_tokens += tokens
            self.storage.write(f"{CACHE}/{key}.json", json.dumps({"reply": reply, "version": self.version}).encode())
        return checked(question, reply, key, tokens)

    def key(self, question: Question) -> str:
        """Names a question as it is put to the model."""
        said = json.dumps([self.version, self.messages(question)], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()

    def cached(self, key: str) -> str | None:
        try:
            found: str = json.loads(self.storage.read(f"{CACHE}/{key}.json"))["reply"]
        except FileNotFoundError:
            return None
        return found

    def messages(self, question: Question) -> list[dict[str, str]]:
        """The fence is made of the content, so that a content cannot contain it."""
        fence = f"=== {hashlib.sha256(question.shown.encode()).hexdigest()[:16]} ==="
        told = self.template.format(
            title=question.policy.title,
            clauses="\n".join(f"{c.id}: {c.text}" for c in question.policy.clauses),
            positive=_told(question.positive),
            negative=_told(question.negative),
            fence=fence,
        )
        return [
            {"role": "system", "content": told},
            {"role": "user", "content": f"{fence}\n{question.shown}\n{fence}"},
        ]

    def _answer(self, question: Question, messages: Sequence[Mapping[str, str]]) -> tuple[str, int]:
        clauses = ("", *(c.id for c in question.policy.clauses))
        shown = tuple(e.exemplar_id for e in (*question.positive[:MAX_EXAMPLES], *question.negative[:MAX_EXAMPLES]))
        body = {
            "model": self.endpoint.model,
            "messages": list(messages),
            "temperature": 0,
            "seed": 0,
            "max_tokens": MAX_TOKENS,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "verdict", "strict": True, "schema": _schema(clauses, shown)},
            },
        }
        answer = _post(self.endpoint, body)
        try:
            reply = answer["choices"][0]["message"]["content"]
            return str(reply or ""), int((answer.get("usage") or {}).get("total_tokens") or 0)
        except (KeyError, IndexError, TypeError) as error:
            raise EndpointError(f"{self.endpoint.url} answered with something else than a completion") from error


def load_prompt(name: str) -> str:
    """A prompt that ships. Raises `ConfigError`."""
    folder = resources.files("moderation").joinpath("data/prompts")
    known = sorted(p.name.removesuffix(".txt") for p in folder.iterdir())
    if name not in known:
        raise ConfigError(f"there is no prompt {name!r}; there is {', '.join(known)}")
    return folder.joinpath(f"{name}.txt").read_text(encoding="utf-8")


def checked(question: Question, reply: str, key: str = "", tokens: int = 0) -> Verdict:
    """The verdict in a reply, failed where it does not hold against the question."""
    try:
        said = json.loads(reply)
        made = Verdict(
            str(said["label"]),
            str(said["clause"]),
            str(said["quote"]),
            tuple(map(str, said["exemplars"])),
            str(said["reason"]),
            key=key,
            tokens=tokens,
        )
    except (ValueError, KeyError, TypeError):
        return Verdict(FAILED, problem="the reply is no verdict", key=key, tokens=tokens)
    problem = _problem(question, made)
    if not problem:
        return made
    return Verdict(FAILED, made.clause, made.quote, made.exemplars, made.reason, problem, key, tokens)


def _problem(question: Question, said: Verdict) -> str:
    if said.label not in LABELS:
        return f"{said.label!r} is no label"
    shown = {e.exemplar_id for e in (*question.positive[:MAX_EXAMPLES], *question.negative[:MAX_EXAMPLES])}
    if invented := set(said.exemplars) - shown:
        return f"it cites {sorted(invented)[0]!r}, which was not shown"
    if said.label != "violates":
        return ""
    if said.clause not in {c.id for c in question.policy.clauses}:
        return f"{said.clause!r} is no clause of the policy"
    if not _plain(said.quote):
        return "it quotes nothing"
    if _plain(said.quote) not in _plain(question.shown):
        return "its quote is not in the content"
    return ""


def _plain(text: str) -> str:
    """Without case and spacing, in which models are careless."""
    return " ".join(text.casefold().split())


def _told(examples: Sequence[Example]) -> str:
    # An example is data, too: on one line, in quotes.
    lines = [
        f"{e.exemplar_id}: {json.dumps(e.text[:MAX_EXAMPLE], ensure_ascii=False)}" for e in examples[:MAX_EXAMPLES]
    ]
    return "\n".join(lines) or "(none)"


def _schema(clauses: Sequence[str], exemplars: Sequence[str]) -> dict[str, Any]:
    """What the reply must look like; an endpoint that decodes under constraints cannot answer otherwise."""
    cited: dict[str, Any] = {"type": "array", "maxItems": 3, "items": {"type": "string", "enum": list(exemplars)}}
    if not exemplars:
        cited = {"type": "array", "maxItems": 0, "items": {"type": "string"}}
    return {
        "type": "object",
        "properties": {
            "label": {"type": "string", "enum": list(LABELS)},
            "clause": {"type": "string", "enum": list(clauses)},
            "quote": {"type": "string", "maxLength": 300},
            "exemplars": cited,
            "reason": {"type": "string", "maxLength": 300},
        },
        "required": ["label", "clause", "quote", "exemplars", "reason"],
        "additionalProperties": False,
    }


def _post(endpoint: Endpoint, body: Mapping[str, Any]) -> dict[str, Any]:
    import httpx

    headers = {}
    if endpoint.key_env:
        key = os.environ.get(endpoint.key_env)
        if not key:
            raise ConfigError(f"the environment variable {endpoint.key_env} has no key for {endpoint.url}")
        headers["Authorization"] = f"Bearer {key}"
    url, said = f"{endpoint.url.rstrip('/')}/v1/chat/completions", ""
    for number in range(endpoint.tries):
        if number:
            time.sleep(min(0.5 * 2 ** (number - 1), 8.0))
        try:
            answer = httpx.post(url, json=dict(body), headers=headers, timeout=endpoint.timeout_s)
        except httpx.HTTPError as error:
            said = f"{type(error).__name__}: {error}"
            continue
        if answer.status_code in RETRIED:
            said = f"status {answer.status_code}"
            continue
        if answer.status_code != 200:
            raise EndpointError(f"{url} answered with status {answer.status_code}: {answer.text[:200]}")
        try:
            found: dict[str, Any] = answer.json()
        except ValueError as error:
            raise EndpointError(f"{url} answered with something that is no JSON") from error
        return found
    raise EndpointError(f"{url} did not answer in {endpoint.tries} tries ({said})")


@dataclass(frozen=True)
class PromptScore:
    """How a prompt does on a golden set: of `questions`, `right` were answered as people did, `wrong` otherwise; on the
    rest it abstained or failed. `low` and `high` bound the share that is right (95 %, Wilson)."""

    version: str
    questions: int
    right: int
    wrong: int
    abstained: int
    failed: int
    low: float
    high: float


def score_prompt(adjudicator: Adjudicator, golden: Sequence[tuple[Question, str]]) -> PromptScore:
    """Asks every question of a golden set of (question, "violates" or "allowed"). Raises `EndpointError`, and
    `ConfigError` where the budget does not suffice."""
    from evaluation.intervals import wilson

    said: list[tuple[str, str]] = []
    for question, truth in golden:
        verdict = adjudicator.ask(question)
        if verdict is None:
            raise ConfigError(f"the budget is spent after {len(said)} of {len(golden)} questions")
        said.append((verdict.label, truth))
    right = sum(a == b for a, b in said)
    abstained, failed = (sum(a == name for a, _ in said) for name in ("abstain", FAILED))
    wrong = len(said) - right - abstained - failed
    return PromptScore(adjudicator.version, len(said), right, wrong, abstained, failed, *wilson(right, len(said)))
