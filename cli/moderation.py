"""What the actions of `earmark moderate` in a store share."""

from __future__ import annotations

import argparse
from typing import Any

from cli.common import console, literal, local_store, table

SHORT = 12  # characters of an id that are shown


def print_cases(title: str, found: list[Any], stages: list[str] | None = None) -> None:
    from skips.picture import hms

    columns = [("id", "left"), ("content", "left"), ("policy", "left"), ("action", "left"), ("score", "right")]
    columns += [("because", "left"), ("from to", "left")]
    rows = []
    for number, case in enumerate(found):
        d = case.decision
        place = d.place
        timed = place.start_s is not None and place.end_s is not None
        where = f"{hms(place.start_s, True)} to {hms(place.end_s, True)}" if timed else ""
        action = d.action if d.enforced or d.action == "none" else f"({d.action})"
        score = f"{d.raw:.2f} raw" if d.probability is None else f"{d.probability:.2f}"
        why = f"{stages[number]}: {d.reason}" if stages else d.reason
        rows.append([case.case_id[:SHORT], case.content_id, d.policy_id, action, score, why, where])
    console().print(table(title, columns, rows) if rows else f"[bold]{literal(title)}[/]")


def described(case: Any) -> dict[str, Any]:
    return {
        "id": case.case_id,
        "at": case.at,
        "content_id": case.content_id,
        "by": case.by,
        "supersedes": case.supersedes or None,
        **case.decision.to_dict(),
    }


def store_of(args: argparse.Namespace) -> Any:
    from core.storage import open_storage

    return open_storage(str(local_store(args)))


def cases_of(args: argparse.Namespace, whole: bool = False) -> Any:
    """Decisions as they stand; with `whole`, from the audit alone, without a snapshot of it."""
    from moderation.audit import Audit
    from moderation.cases import Cases

    return Cases(Audit(store_of(args), whole))
