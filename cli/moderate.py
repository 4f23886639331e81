"""`earmark moderate`."""

from __future__ import annotations

import argparse
from typing import Any

from cli.common import add_output, add_store
from cli.parser import filled_path

HELP = """\
Without a store:
  earmark moderate match --bank banned ~/Music   files that are copies of, or like, those in the folder banned
  earmark moderate policies mine.yaml            check a file of policies and show what it says

In a store:
  earmark moderate policies mine.yaml --use      decide under these policies from now on
  earmark moderate add banned-pictures ~/banned --state active --by ada
  earmark moderate add banned-recordings --content "episode 7" --modality audio
  earmark moderate import banned-pictures list.csv
  earmark moderate exemplars                     the banks;  state, confirm and deconfirm change one
  earmark moderate look picture.jpg --bank banned-pictures
  earmark moderate scan                          decide now what is new or changed (every run does)
  earmark moderate decisions --action review     what stands;  show ID tells everything of one
  earmark moderate queue --by bob                what waits for bob;  verdict and appeal settle it
  earmark moderate adjudicate --url http://localhost:8080 --model NAME
  earmark moderate calibrate abusive-language text --by ada
  earmark moderate replay --all                  make every decision again, and compare
  earmark moderate head > head.txt; earmark moderate verify --head "$(cat head.txt)"

Copies are found whatever was done to them: pictures that were recompressed, cropped, turned, framed, captioned or
photographed from a screen; recordings that were cut, sped up, equalised, recompressed or talked over, with the times.
Texts match when they say the same, or nearly.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = HELP
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, help: str, *, store: bool = True) -> argparse.ArgumentParser:
        made = actions.add_parser(name, help=help, description=help[0].upper() + help[1:] + ".")
        if store:
            add_store(made)
        return made

    match = action("match", "compare a folder with a folder of exemplars; no run is needed before", store=False)
    match.add_argument(
        "folder", type=filled_path, metavar="FOLDER", help="pictures, audio and texts that are looked at"
    )
    match.add_argument("--bank", type=filled_path, metavar="FOLDER", required=True, help="the exemplars, one a file")
    match.add_argument("--workers", type=int, help="files that are read side by side (default: one a core)")
    add_output(match)
    policies = action("policies", "check policies and show what they say")
    policies.add_argument(
        "file", nargs="?", type=filled_path, metavar="FILE", help="YAML; else the store's, or those that ship"
    )
    policies.add_argument("--use", action="store_true", help="decide under the file's policies from now on")
    _exemplars(action)
    _decisions(action)
    _review(action)


def _exemplars(action: Any) -> None:
    add = action("add", "add exemplars to a bank: files, folders, or contents of the store")
    add.add_argument("bank", metavar="BANK", help="the bank, which a policy names")
    add.add_argument("paths", nargs="*", type=filled_path, metavar="PATH", help="files and folders")
    add.add_argument("--content", nargs="+", default=[], metavar="ID", help="contents of the store")
    add.add_argument("--modality", choices=("audio", "image", "text"), help="of contents: which of their media")
    add.add_argument(
        "--state", choices=("shadow", "active"), default="shadow", help="shadow: record, do nothing (default)"
    )
    add.add_argument("--tag", nargs="+", default=[], metavar="TAG")
    add.add_argument("--by", default="", metavar="NAME", help="who adds them")
    exemplars = action("exemplars", "the exemplars and what reviewers think of them")
    exemplars.add_argument("--bank", metavar="BANK")
    look = action("look", "what of the store's exemplars a file is a copy of, or like")
    look.add_argument("file", type=filled_path, metavar="FILE")
    look.add_argument("--bank", nargs="+", default=[], metavar="BANK", help="only in these")
    look.add_argument("--tag", nargs="+", default=[], metavar="TAG", help="only with all of these")
    state = action("state", "put an exemplar into a state: what it led to is undone when it leaves use")
    state.add_argument("exemplar", metavar="EXEMPLAR")
    state.add_argument("state", choices=("shadow", "active", "quarantined", "retired"))
    state.add_argument("--reason", default="")
    for name, text in (("confirm", "say that an exemplar is right"), ("deconfirm", "say that an exemplar is wrong")):
        action(name, text).add_argument("exemplar", metavar="EXEMPLAR")
    reading = action("import", "add a list of hashes as ThreatExchange has them (JSON, CSV)")
    reading.add_argument("bank", metavar="BANK")
    reading.add_argument("file", type=filled_path, metavar="FILE")
    reading.add_argument("--state", choices=("shadow", "active"), help="default: active where the list says MALICIOUS")
    reading.add_argument("--by", default="", metavar="NAME")
    writing = action("export", "write a bank's hashes and texts to standard output")
    writing.add_argument("bank", metavar="BANK")
    writing.add_argument("--form", choices=("csv", "json"), default="json")


def _decisions(action: Any) -> None:
    action("scan", "decide now what is new or changed")
    decisions = action("decisions", "the decisions that stand")
    decisions.add_argument("--content", metavar="ID")
    decisions.add_argument("--policy", metavar="ID")
    decisions.add_argument("--only", choices=("none", "flag", "review", "restrict", "remove"), help="this action")
    action("show", "everything that led to a decision").add_argument("id", metavar="ID")
    replay = action("replay", "make decisions again from what they were made from, and compare")
    replay.add_argument("id", nargs="?", metavar="ID")
    replay.add_argument("--all", action="store_true", help="all of them")
    action("head", "the head of the audit's chain, to be kept elsewhere")
    action("verify", "check every record of the audit").add_argument("--head", metavar="HEAD", help="one that was kept")


def _review(action: Any) -> None:
    queue = action("queue", "what waits for people, the most pressing first")
    queue.add_argument("--by", default="", metavar="NAME", help="what this reviewer may decide")
    queue.add_argument("--limit", type=int, default=20)
    verdict = action("verdict", "decide a case")
    verdict.add_argument("id", metavar="ID")
    verdict.add_argument("verdict", choices=("violates", "allowed", "unsure"))
    verdict.add_argument("--clause", default="", metavar="ID")
    verdict.add_argument("--take", default="", metavar="ACTION", help="what is done (default: the ladder's severest)")
    verdict.add_argument("--reason", default="", help="in words; it can be erased, the verdict cannot")
    appeal = action("appeal", "object to an action that was taken")
    appeal.add_argument("id", metavar="ID")
    appeal.add_argument("--text", default="")
    for made in (verdict, appeal):
        made.add_argument("--by", required=True, metavar="NAME")
    asking = action("adjudicate", "have a language model say what it thinks of the texts in the queue; people decide")
    asking.add_argument("--url", required=True, help="an OpenAI-compatible endpoint, without /v1")
    asking.add_argument("--model", required=True, metavar="NAME")
    asking.add_argument("--key-env", default="", metavar="VARIABLE", help="environment variable that has the key")
    asking.add_argument("--prompt", default="1", metavar="VERSION")
    asking.add_argument("--limit", type=int, metavar="N", help="texts at most")
    asking.add_argument("--tokens", type=int, default=1_000_000, help="tokens at most (%(default)s)")
    asking.add_argument("--timeout", type=float, default=60.0, metavar="SECONDS")
    action("agreement", "how far reviewers agree beyond chance")
    sample = action("sample", "draw contents that nothing speaks against, to see what is missed")
    sample.add_argument("policy", metavar="POLICY")
    sample.add_argument("--count", type=int, default=50)
    sample.add_argument("--seed", type=int, required=True, help="any number; the same draws the same")
    sample.add_argument("--by", required=True, metavar="NAME")
    sampled = action("sampled", "say what a content of a sample is")
    sampled.add_argument("policy", metavar="POLICY")
    sampled.add_argument("content", metavar="CONTENT")
    sampled.add_argument("verdict", choices=("violates", "allowed", "unsure"))
    sampled.add_argument("--by", required=True, metavar="NAME")
    action("missed", "what the samples of a policy show").add_argument("policy", metavar="POLICY")
    calibrate = action("calibrate", "fit a policy's scores on what people said")
    calibrate.add_argument("policy", metavar="POLICY")
    calibrate.add_argument("modality", choices=("audio", "image", "text"))
    calibrate.add_argument("--by", required=True, metavar="NAME")


def run(args: argparse.Namespace) -> int:
    if args.action == "match":
        from cli.moderate_match import match

        return match(args)
    from cli import moderate_review, moderate_store

    name = args.action.replace("import", "import_")
    room = moderate_store if hasattr(moderate_store, name) else moderate_review
    found: int = getattr(room, name)(args)
    return found
