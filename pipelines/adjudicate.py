"""A language model's opinion on the texts that wait for review in a store."""

from __future__ import annotations

from collections import Counter
from typing import Any

from core.items import is_fatal
from moderation.adjudicate import MAX_CHARS, MAX_EXAMPLES, Adjudicator, EndpointError, Example, Question
from moderation.audit import Audit
from moderation.cases import OPINION, Case, Cases
from moderation.exemplars import Exemplar, Exemplars
from moderation.opinions import opinion_entry
from moderation.policies import Policy
from moderation.review import Review
from moderation.texts import words_sha256
from pipelines.context import Run
from pipelines.media import StoreMedia
from pipelines.moderate import store_policies


def adjudicate(run: Run, adjudicator: Adjudicator, limit: int | None = None) -> dict[str, Any]:
    """Asks for an opinion on the texts in the queue that have none of this version, the most pressing first, until the
    budget is spent. A text that is no longer what was decided of is left out, `gone`; one that meets an
    unexpected error, `failed`. Raises `EndpointError`; what was
    asked before is kept."""
    policies = store_policies(run.storage)
    cases = Cases(Audit(run.storage))
    exemplars = {e.exemplar_id: e for e in Exemplars(run.storage, cases.audit).every()}
    media = StoreMedia(run, policies)
    waiting = [
        w.case
        for w in Review(cases, policies).queue()
        if w.case.decision.modality == "text"
        and not any(r.body["version"] == adjudicator.version for r in cases.opinions.get(w.case.case_id, ()))
    ][:limit]
    by_id = {p.id: p for p in policies}
    said: Counter[str] = Counter()
    run.progress("texts", 0, len(waiting))
    for case in waiting:
        words = media.words(case.content_id)
        if words_sha256(words) != case.sha256:
            said["gone"] += 1  # the next scan decides of what it says now
            run.progress("texts", 1, 0)
            continue
        try:
            question = question_of(case, by_id[case.decision.policy_id], words, exemplars)
            verdict = adjudicator.ask(question)
        except EndpointError:
            raise
        except Exception as error:
            if is_fatal(error):
                raise
            said["failed"] += 1  # that text alone; it is asked about again
            run.progress("texts", 1, 0)
            continue
        if verdict is None:
            said["unasked"] += len(waiting) - sum(said.values())
            break
        cases.take(cases.audit.append([opinion_entry(OPINION, case.case_id, adjudicator, question, verdict)]))
        said[verdict.label] += 1
        run.progress("texts", 1, 0)
    return {"version": adjudicator.version, "said": dict(said), "tokens": adjudicator.budget.spent_tokens}


def around(content: str, first: int, last: int, most: int = MAX_CHARS) -> str:
    """So much of a content around a passage as is shown, from word to word."""
    start = max(0, min((first + last - most) // 2, len(content) - most))
    end = start + most
    if start:
        start = content.find(" ", start, first) + 1 or start
    if end < len(content):
        end = max(content.rfind(" ", last, end), last)
    return content[start:end]


def question_of(case: Case, policy: Policy, content: str, exemplars: dict[str, Exemplar]) -> Question:
    """The content with the nearest exemplars that the decision cites and that have words."""
    sides: dict[str, list[Example]] = {"positive": [], "negative": []}
    for cited in case.decision.rests_on:
        words = exemplars[cited.exemplar_id].evidence.get("text") if cited.exemplar_id in exemplars else None
        if words and len(sides[cited.side]) < MAX_EXAMPLES:
            sides[cited.side].append(Example(cited.exemplar_id, words))
    place = case.decision.place
    if place.first is not None and place.last is not None:
        content = around(content, place.first, place.last)
    return Question(policy, content, tuple(sides["positive"]), tuple(sides["negative"]))
