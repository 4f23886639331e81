"""`earmark moderate` in a store: policies, banks, decisions and audit."""

from __future__ import annotations

import argparse
import getpass
import sys
from typing import Any

from cli.common import console, literal, local_store, open_run, print_json, print_unread, table, writing
from cli.moderation import SHORT, cases_of, described, print_cases, store_of
from cli.progress import progress_bar

SHOWN_FAILURES = 5  # of a scan


def policies(args: argparse.Namespace) -> int:
    from core.errors import ConfigError
    from moderation.policies import load_policies
    from pipelines import moderate

    if args.use and args.file is None:
        raise ConfigError("--use needs a file of policies")
    if args.file is not None:
        found = load_policies(args.file)
    else:
        found = moderate.store_policies(store_of(args)) if args.store else _shipped()
    if args.use:
        with writing(args) as run:
            run.storage.write(moderate.POLICIES, args.file.read_bytes())
    if args.json:
        print_json({"policies": [policy.to_dict() for policy in found]})
        return 0
    columns = [("policy", "left"), ("of", "left"), ("seen by", "left"), ("banks", "left"), ("ladder", "left")]
    columns += [("precision", "right"), ("enforced", "right")]
    rows = []
    for policy in found:
        banks = [*policy.positive, *(f"not {name}" for name in policy.negative)]
        ladder = ", ".join(f"{action} {score:g}" for action, score in policy.ladder.items())
        shares = [f"{policy.target_precision:g}", f"{policy.enforced:.0%}"]
        seen_by = [policy.detector, *(f"+ {name}" for name in (policy.feature, policy.known) if name)]
        rows.append([policy.id, ", ".join(policy.modalities), "\n".join(seen_by), ", ".join(banks), ladder, *shares])
    console().print(table(f"{len(found)} policies", columns, rows))
    return 0


def add(args: argparse.Namespace) -> int:
    from core.errors import ConfigError
    from pipelines.exemplars import add_contents, add_files

    if bool(args.paths) == bool(args.content) or (args.content and not args.modality):
        raise ConfigError("give files and folders, or --content with --modality")
    by = args.by or getpass.getuser()
    with writing(args) as run, progress_bar(args.quiet) as (progress, on_step):
        on_step("add exemplars")
        if args.content:
            found = add_contents(run, args.bank, args.modality, args.content, state=args.state, by=by)
        else:
            more = {"state": args.state, "tags": args.tag, "by": by, "text_model": run.models.text}
            found = add_files(run.storage, args.bank, args.paths, **more, told=progress)
    return _told_added(args, [e.exemplar_id for e in found.exemplars], found.failures)


def import_(args: argparse.Namespace) -> int:
    from core.errors import CatalogError
    from moderation.exemplars import Exemplars
    from moderation.hash_lists import read_hash_list

    local_store(args)  # an error about the store comes before one about the list
    try:
        data = args.file.read_bytes()
    except OSError as error:
        raise CatalogError(f"the list {args.file} cannot be read: {error}") from error
    drafts, wrong = read_hash_list(data, args.bank, source=args.file.name, state=args.state)
    with writing(args) as run:
        found = Exemplars(run.storage).add_all(drafts, args.by or getpass.getuser())
    return _told_added(args, [e.exemplar_id for e in found], [(args.file.name, reason) for reason in wrong])


def _told_added(args: argparse.Namespace, ids: list[str], failures: list[tuple[str, str]]) -> int:
    if args.json:
        print_json({"exemplars": ids, "failures": [{"path": p, "reason": r} for p, r in failures]})
    else:
        console().print(
            f"[bold]{len(ids)}[/] exemplars in {literal(args.bank)}; earmark moderate scan matches them with the store"
        )
        print_unread(failures)
    return 1 if failures and not ids else 0


def export(args: argparse.Namespace) -> int:
    from moderation.exemplars import Exemplars
    from moderation.hash_lists import write_hash_list

    sys.stdout.write(write_hash_list(Exemplars(store_of(args)).every({args.bank}), args.form))
    return 0


def exemplars(args: argparse.Namespace) -> int:
    from moderation.exemplars import STATES, Exemplars

    found = Exemplars(store_of(args)).every({args.bank} if args.bank else None, states=STATES)
    if args.json:
        rows = [
            {
                "exemplar_id": e.exemplar_id,
                "bank": e.bank,
                "modality": e.modality,
                "state": e.state,
                "revision": e.revision,
                "tags": list(e.tags),
                "opinions": dict(e.opinions),
                "provenance": dict(e.provenance),
            }
            for e in found
        ]
        print_json({"exemplars": rows})
        return 0
    columns = [("exemplar", "left"), ("of", "left"), ("state", "left"), ("opinions", "left"), ("tags", "left")]
    shown = [
        [e.exemplar_id, e.modality, e.state, ", ".join(f"{w}: {o}" for w, o in e.opinions.items()), ", ".join(e.tags)]
        for e in found
    ]
    console().print(table(f"{len(found)} exemplars", columns, shown) if shown else "[bold]no exemplars[/]")
    return 0


def look(args: argparse.Namespace) -> int:
    from pipelines.exemplars import look_up
    from skips.picture import hms

    text_model = open_run(local_store(args)).models.text
    found = look_up(store_of(args), args.file, banks=args.bank, tags=args.tag, text_model=text_model)
    if args.json:
        rows = [
            {**m.to_dict(), "bank": e.bank, "state": e.state, "tags": list(e.tags), "opinions": dict(e.opinions)}
            for m, e in found
        ]
        print_json({"path": str(args.file), "matches": rows})
        return 0
    columns = [("exemplar", "left"), ("state", "left"), ("found by", "left"), ("score", "right")]
    columns += [("from to", "left"), ("from in exemplar", "right")]
    shown = []
    for m, e in found:
        where = "" if m.start_s is None or m.end_s is None else f"{hms(m.start_s, True)} to {hms(m.end_s, True)}"
        there = "" if m.exemplar_start_s is None else hms(m.exemplar_start_s, True)
        shown.append([m.exemplar, e.state, m.tier, f"{m.score:.2f}", where, there])
    title = f"{args.file.name} matches {len(found)} exemplars"
    console().print(table(title, columns, shown) if shown else f"[bold]{literal(title)}[/]")
    return 0


def state(args: argparse.Namespace) -> int:
    with writing(args) as run:
        found = _banks(run).set_state(args.exemplar, args.state, by=getpass.getuser(), reason=args.reason)
    return _told_exemplar(args, found)


def confirm(args: argparse.Namespace) -> int:
    with writing(args) as run:
        found = _banks(run).opine(args.exemplar, args.action, by=getpass.getuser())
    return _told_exemplar(args, found)


deconfirm = confirm


def _told_exemplar(args: argparse.Namespace, found: Any) -> int:
    if args.json:
        print_json({"exemplar_id": found.exemplar_id, "state": found.state, "revision": found.revision})
    else:
        console().print(f"{literal(found.exemplar_id)} is {found.state}; earmark moderate scan does what follows")
    return 0


def scan(args: argparse.Namespace) -> int:
    from pipelines.moderate import scan_now

    with writing(args) as run, progress_bar(args.quiet) as (progress, on_step):
        on_step("match with the banks")
        run.progress = progress
        summary = scan_now(run)
    if args.json:
        print_json(summary)
        return 0
    out = console()
    actions = ", ".join(f"{count} {name}" for name, count in sorted(summary["actions"].items())) or "none"
    out.print(
        f"[bold]{summary['looked_at']}[/] media looked at under {summary['policies']} policies with "
        f"{summary['exemplars']} exemplars; decided: {actions}"
    )
    for one in summary["failed"][:SHOWN_FAILURES]:
        out.print(
            f"[yellow]nothing was decided[/] of the {one['modality']} of {literal(one['content_id'])}: "
            f"{literal(one['why'])}; the next scan looks at it again"
        )
    if len(summary["failed"]) > SHOWN_FAILURES:
        out.print(f"and of {len(summary['failed']) - SHOWN_FAILURES} more; --json names them")
    for name in summary["unheard"]:
        out.print(
            f"[yellow]{literal(name)}[/] saw nothing: no voice vectors are kept; set `voices: true` in the "
            "configuration and run"
        )
    for name in summary["unread"]:
        out.print(
            f"[yellow]{literal(name)}[/]: what ships was not learnt of this store's text model; only exemplars speak"
        )
    if summary["of_another_model"]:
        out.print(
            f"[yellow]{len(summary['of_another_model'])}[/] exemplars have vectors of another text model, such as "
            f"{literal(summary['of_another_model'][0])}: add them again"
        )
    for name in summary["quarantined"]:
        out.print(f"[yellow]quarantined[/] {literal(name)}: it matched far more than it used to")
    return 0


def decisions(args: argparse.Namespace) -> int:
    cases = cases_of(args)
    found = [
        c
        for c in cases.current.values()
        if c.tier
        and args.content in (None, c.content_id)
        and args.policy in (None, c.policy_id)
        and args.only in (None, c.action)
    ]
    found.sort(key=lambda c: c.key)
    if args.json:
        print_json({"decisions": [described(c) for c in found]})
        return 0
    print_cases(f"{len(found)} decisions stand", found)
    return 0


def show(args: argparse.Namespace) -> int:
    cases = cases_of(args)
    case = cases.find(args.id)
    said = [{**r.body, "at": r.at, "personal": cases.audit.personal(r)} for r in cases.verdicts.get(case.case_id, ())]
    opinions = [{**r.body, "personal": cases.audit.personal(r)} for r in cases.opinions.get(case.case_id, ())]
    statement = case.record.body["statement"]
    told = {"passage": _passage(args, case), "statement_of_reasons": statement, "verdicts": said, "opinions": opinions}
    print_json({**described(case), **told})
    return 0


def _passage(args: argparse.Namespace, case: Any) -> str | None:
    """The words that a decision on a text is about, where the content still has them."""
    from pipelines.media import StoreMedia

    place = case.decision.place
    if place.first is None or place.last is None:
        return None
    media = StoreMedia(open_run(local_store(args)), [])
    return media.passage(case.content_id, place.first, place.last, case.sha256)


def replay(args: argparse.Namespace) -> int:
    from core.errors import ConfigError
    from embedders.fingerprint import patches

    cases = cases_of(args, whole=True)
    if bool(args.id) == args.all:
        raise ConfigError("give a decision's id, or --all")
    chosen = list(cases.every.values()) if args.all else [cases.find(args.id)]
    made = []
    with progress_bar(args.quiet) as (progress, on_step):
        on_step("replay")
        progress("decisions", 0, len(chosen))
        for case in chosen:
            made.append(cases.replay(case, patches))
            progress("decisions", 1, 0)
    differing = [r for r in made if not r.same]
    if args.json:
        told = [{"id": r.case.case_id, "same": r.same, "differences": list(r.differences)} for r in made]
        print_json({"replays": told})
    else:
        console().print(f"[bold]{len(made) - len(differing)} of {len(made)}[/] decisions come out the same")
        for r in differing:
            console().print(
                f"[red]{r.case.case_id[:SHORT]}[/] {literal(r.case.content_id)}: {literal('; '.join(r.differences))}"
            )
    return 1 if differing else 0


def head(args: argparse.Namespace) -> int:
    from moderation.audit import Audit

    found = Audit(store_of(args)).head()
    if args.json:
        print_json({"head": str(found)})
    else:
        print(found)
    return 0


def verify(args: argparse.Namespace) -> int:
    from dataclasses import replace

    from moderation.audit import Audit, Head
    from moderation.history import verify_snapshot

    audit = Audit(store_of(args))
    report = audit.verify(Head.parse(args.head) if args.head else None)
    report = replace(report, problems=(*report.problems, *verify_snapshot(audit)))
    if args.json:
        print_json(
            {
                "whole": report.whole,
                "head": str(report.head),
                "records": report.records,
                "erased": report.erased,
                "problems": list(report.problems),
            }
        )
    else:
        word = "[green]whole[/]" if report.whole else "[red]not whole[/]"
        console().print(f"the audit is {word}: {report.records} records, {report.erased} with personal text erased")
        for problem in report.problems:
            console().print(f"  {literal(problem)}")
        if not args.head:
            console().print("without a head that was kept elsewhere, records cut off its end are not seen")
    return 0 if report.whole else 1


def _shipped() -> Any:
    from moderation.policies import shipped_policies

    return shipped_policies()


def _banks(run: Any) -> Any:
    from moderation.exemplars import Exemplars

    return Exemplars(run.storage)
