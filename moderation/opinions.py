"""What a language model said of a case, as a record of the audit that replays from the reply that was kept."""

from __future__ import annotations

from typing import Any

from moderation.adjudicate import Adjudicator, Endpoint, Example, Question, Verdict
from moderation.audit import Audit, Entry, Record
from moderation.policies import Policy


def opinion_entry(kind: str, case_id: str, adjudicator: Adjudicator, question: Question, said: Verdict) -> Entry:
    """The record. The content's words stand beside the chain, where they can be erased."""
    body: dict[str, Any] = {
        "case_id": case_id,
        "prompt": adjudicator.prompt,
        "version": adjudicator.version,
        "model": adjudicator.endpoint.model,
        "key": said.key,
        "label": said.label,
        "clause": said.clause,
        "exemplars": list(said.exemplars),
        "problem": said.problem,
        "positive": [[e.exemplar_id, e.text] for e in question.positive],
        "negative": [[e.exemplar_id, e.text] for e in question.negative],
    }
    return Entry(kind, body, {"content": question.content, "quote": said.quote, "reason": said.reason})


def replayed(audit: Audit, policy: Policy, record: Record) -> str:
    """What is wrong with an opinion when its reply is read again; "" where nothing is, and where the content's words
    were erased, so that nobody can tell."""
    from moderation.adjudicate import checked

    body, words = record.body, audit.personal(record)
    content = words.get("content")
    if content is None:
        return ""
    positive, negative = (tuple(Example(*e) for e in body[side]) for side in ("positive", "negative"))
    question = Question(policy, content, positive, negative)
    asked = Adjudicator(Endpoint("", body["model"]), audit.storage, body["prompt"])
    if asked.version != body["version"]:
        return f"the prompt {body['prompt']}, or the code that asks, is another by now"
    if asked.key(question) != body["key"]:
        return "the model was asked something else"
    reply = asked.cached(body["key"])
    if reply is None:
        return "the model's reply is gone"
    again = checked(question, reply)
    if (again.label, again.clause, list(again.exemplars)) != (body["label"], body["clause"], body["exemplars"]):
        return f"the model's reply says {again.label}, not {body['label']}"
    return ""
