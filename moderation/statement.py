"""The statement of reasons that the EU's Digital Services Act asks for with a decision (Regulation (EU) 2022/2065,
Article 17), in the fields of the Commission's transparency database."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moderation.decisions import Decision
    from moderation.policies import Policy

VISIBILITY = {
    "remove": "DECISION_VISIBILITY_CONTENT_REMOVED",
    "restrict": "DECISION_VISIBILITY_CONTENT_DISABLED",
    "flag": "DECISION_VISIBILITY_CONTENT_LABELLED",
}
CONTENT = {"audio": "CONTENT_TYPE_AUDIO", "image": "CONTENT_TYPE_IMAGE", "text": "CONTENT_TYPE_TEXT"}


def statement_of_reasons(policy: Policy, decision: Decision, by: str) -> dict[str, Any] | None:
    """None where nothing restricts the content. What only the platform knows (territory, duration, redress) is for it
    to fill in, and is null."""
    if decision.action not in VISIBILITY or not decision.enforced:
        return None
    machine = by == "machine"
    clauses = " ".join(clause.text for clause in policy.clauses)
    return {
        "decision_visibility": [VISIBILITY[decision.action]],
        "decision_ground": "DECISION_GROUND_INCOMPATIBLE_CONTENT",
        "incompatible_content_ground": f"{policy.title} ({', '.join(c.id for c in policy.clauses)})",
        "incompatible_content_explanation": clauses,
        "decision_facts": decision.reason,
        "content_type": [CONTENT[decision.modality]],
        "source_type": "SOURCE_VOLUNTARY",
        "automated_detection": "Yes",
        "automated_decision": "AUTOMATED_DECISION_FULLY" if machine else "AUTOMATED_DECISION_PARTIALLY",
        "territorial_scope": None,
        "end_date_visibility_restriction": None,
        "redress": None,
    }
