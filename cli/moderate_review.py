"""`earmark moderate` in a store: what people and language models say."""

from __future__ import annotations

import argparse
from typing import Any

from cli.common import console, literal, print_json, writing
from cli.moderation import SHORT, cases_of, described, print_cases, store_of
from cli.progress import progress_bar


def queue(args: argparse.Namespace) -> int:
    found = _desk(args).queue(args.by, args.limit)
    if args.json:
        print_json(
            {"queue": [{**described(w.case), "stage": w.stage, "priority": round(w.priority, 4)} for w in found]}
        )
        return 0
    print_cases(f"{len(found)} cases wait", [w.case for w in found], [w.stage for w in found])
    return 0


def verdict(args: argparse.Namespace) -> int:
    with writing(args) as run:
        case = _desk(args).verdict(
            args.id, args.verdict, by=args.by, reason=args.reason, clause=args.clause, action=args.take
        )
        if case is not None:
            _published(run)
    if args.json:
        print_json({"decision": None if case is None else described(case)})
    elif case is None:
        console().print("recorded; another reviewer decides with you")
    else:
        console().print(
            f"decided: [bold]{case.decision.action}[/] ({literal(case.decision.reason)}), {case.case_id[:SHORT]}"
        )
    return 0


def appeal(args: argparse.Namespace) -> int:
    with writing(args):
        record = _desk(args).appeal(args.id, by=args.by, text=args.text)
    if args.json:
        print_json({"appeal": record.record_id, "decision": record.body["case_id"]})
    else:
        console().print("the appeal waits for a reviewer who had no part in the decision")
    return 0


def adjudicate(args: argparse.Namespace) -> int:
    from moderation.adjudicate import Adjudicator, Budget, Endpoint
    from pipelines.adjudicate import adjudicate as ask

    endpoint = Endpoint(args.url, args.model, args.key_env, args.timeout)
    with writing(args) as run, progress_bar(args.quiet) as (progress, on_step):
        on_step("ask the model")
        run.progress = progress
        calls = args.limit if args.limit is not None else 1_000_000
        found = ask(run, Adjudicator(endpoint, run.storage, args.prompt, Budget(calls, args.tokens)), args.limit)
    if args.json:
        print_json(found)
    else:
        told = ", ".join(f"{count} {label}" for label, count in sorted(found["said"].items())) or "nothing was asked"
        console().print(f"{told} (prompt {found['version']}, {found['tokens']} tokens); opinions are for reviewers")
    return 0


def agreement(args: argparse.Namespace) -> int:
    found = _desk(args).agreement()
    if args.json:
        print_json({"kappa": found.kappa, "cases": found.cases, "same": found.same})
    else:
        told = "is not defined" if found.kappa is None else f"is {found.kappa:.2f}"
        console().print(f"of {found.cases} cases seen by two, {found.same} were decided alike; Cohen's kappa {told}")
    return 0


def sample(args: argparse.Namespace) -> int:
    from core.features import CONTENT

    with writing(args) as run:
        contents = run.tables.latest(CONTENT, [])["content_id"].to_pylist()
        found = _desk(args).sample(args.policy, contents, args.count, by=args.by, seed=args.seed)
    if args.json:
        print_json({"policy": args.policy, "contents": found})
    else:
        print("\n".join(found))
    return 0


def sampled(args: argparse.Namespace) -> int:
    with writing(args):
        desk = _desk(args)
        desk.sampled(args.policy, args.content, args.verdict, by=args.by)
    return missed(args)


def missed(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    found = _desk(args).missed(args.policy)
    if args.json:
        print_json(asdict(found))
    else:
        console().print(
            f"{found.wrong} of {found.seen} sampled contents break {literal(found.policy_id)}: {found.low:.1%} to "
            f"{found.high:.1%} of what nothing speaks against (95 %); {found.sampled - found.seen} wait"
        )
    return 0


def calibrate(args: argparse.Namespace) -> int:
    with writing(args):
        body, proven = _desk(args).calibrate(args.policy, args.modality, by=args.by)
    made = body["calibration"]
    if args.json:
        print_json({"calibration": made, "threshold": proven.to_dict()})
        return 0
    out = console()
    out.print(
        f"{made['method']} on {made['positives']} positive and {made['negatives']} negative labels; expected "
        f"calibration error {made['error']:.3f}"
    )
    if proven.value is None:
        out.print(f"no threshold proves a precision of {proven.target:g} yet; {proven.lacking} labels are missing")
    else:
        out.print(f"from a probability of {proven.value:.3f} it may act: precision {proven.bound:.3f} or better (95 %)")
    return 0


def _desk(args: argparse.Namespace) -> Any:
    from moderation.review import Review
    from pipelines.moderate import store_policies

    return Review(cases_of(args), store_policies(store_of(args)))


def _published(run: Any) -> None:
    """Puts decisions into the offline and the online store."""
    from moderation.audit import Audit
    from moderation.cases import Cases
    from pipelines import moderate

    moderate.publish(run, Cases(Audit(run.storage)))
