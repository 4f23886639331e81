"""The `earmark` command: arguments and dispatch. Heavy imports wait until a command needs them."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from cli.parser import Parser

EPILOG = """\
first steps:
  earmark demo                              build a small catalogue of real media and show everything on it
  earmark run ~/Music                       enrich a folder of media into ./.earmark
  earmark run catalog.csv --store /data/em  enrich a catalogue file (CSV, JSONL or Parquet)
  earmark search --text "calm piano"        what is similar to a text, a content, an audio file or a picture
  earmark skips ~/Podcasts                  what a listener can skip in a folder of podcasts
  earmark moderate match --bank DIR ~/Music what copies the pictures, recordings and texts in DIR
  earmark features ID ...                   fetch features online
  earmark status                            what the store holds

exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 catalogue unreadable, 4 store busy,
            5 storage failed, 6 model files unusable, 7 no usable index, 8 not found, 130 interrupted
"""

# command → (module of cli, help); each module has `add_arguments(parser)` and `run(args) -> int`.
COMMANDS = {
    "run": ("cli.run", "enrich a catalogue: a folder of media, or CSV, JSONL or Parquet"),
    "search": ("cli.search", "find similar contents"),
    "features": ("cli.features", "fetch the features of contents from the online store"),
    "duplicates": ("cli.duplicates", "groups of contents that are nearly the same"),
    "skips": ("cli.skips", "what a listener can skip: intros, outros, ads, jingles, recaps, silence"),
    "moderate": ("cli.moderate", "copies of banned pictures, recordings and texts: banks, decisions, review, audit"),
    "training-set": ("cli.training_set", "point-in-time join: features as they were known at each row's time"),
    "status": ("cli.status", "what the store holds, and who writes to it"),
    "consistency": ("cli.consistency", "compare a sample of the online store with the offline store"),
    "compact": ("cli.compact", "replace many small files of the offline store by few"),
    "quarantine": ("cli.quarantine", "what could not be enriched, and why"),
    "remove": ("cli.remove", "remove contents from every store and index"),
    "restore": ("cli.restore", "let removed contents back in at the next run"),
    "pipeline": ("cli.pipeline", "the Kubeflow pipeline: compile it, or try it locally"),
    "dictionary": ("cli.dictionary", "print the feature dictionary"),
    "demo": ("cli.demo_command", "build a demo catalogue, enrich it and show what came out"),
}
PATHS = ("catalog", "store")  # arguments that are paths and are kept as text, since both may be URIs

MANY_ITEMS = {"run", "skips", "moderate", "demo"}  # commands that stop after the current items


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code. Without `argv` it is the process's own command."""
    from cli.process import discard_output, is_disk_full

    if argv is None:
        from cli.process import prepare

        prepare()
    arguments = list(sys.argv[1:] if argv is None else argv)
    os.environ.setdefault("FEAST_USAGE", "False")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from core.errors import EarmarkError, StorageError
    from core.extras import explain

    try:
        try:
            code = _run(arguments)
        finally:
            sys.stdout.flush()  # now, because a reader that went away is no error, and a full disk is one
        return code
    except EarmarkError as error:
        print(f"earmark: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        from cli.interrupts import AGAIN, EXIT_CODE, leave

        print(AGAIN, file=sys.stderr)
        if argv is None:
            leave(EXIT_CODE)
        return EXIT_CODE
    except BrokenPipeError:
        discard_output()
        return 0
    except Exception as error:
        if isinstance(error, ImportError) and (lacking := explain(error)) is not None:
            print(f"earmark: {lacking}", file=sys.stderr)
            return lacking.exit_code
        if not is_disk_full(error):
            raise
        if isinstance(error, OSError) and error.filename is None:
            discard_output()
        where = f" ({error.filename})" if isinstance(error, OSError) and error.filename else ""
        print(
            f"earmark: the disk is full{where}; what was committed before stays: free some space and run the same "
            "command again",
            file=sys.stderr,
        )
        return StorageError.exit_code


def _run(arguments: Sequence[str]) -> int:
    parser = _parser(arguments)
    args = parser.parse_args(arguments)
    if args.command is None:
        parser.print_help()
        return 2
    _check_unicode(vars(args))
    command = importlib.import_module(COMMANDS[args.command][0])
    if args.command not in MANY_ITEMS:
        return int(command.run(args))
    from cli.interrupts import stopping_gently

    with stopping_gently():
        return int(command.run(args))


def _check_unicode(values: Mapping[str, Any]) -> None:
    """Raises `ConfigError` for text that is not UTF-8: no id, title or word of a store can be. Paths may be."""
    from core.errors import ConfigError

    for name, value in values.items():
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str) and name not in PATHS and text != text.encode("utf-8", "replace").decode("utf-8"):
                shown = text.encode("utf-8", "backslashreplace").decode("utf-8")
                raise ConfigError(f"'{shown}' is not UTF-8, as every id, name and text of a store is")


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(
        prog="earmark",
        description="Enrich a music and podcast catalogue: features into Feast, vectors into FAISS.",
        epilog=EPILOG,
        formatter_class=raw,
    )
    parser.add_argument("--version", action="version", version="earmark 0.1.0")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, (module, text) in COMMANDS.items():
        command = commands.add_parser(
            name, help=text, description=text[0].upper() + text[1:] + ".", formatter_class=raw
        )
        if name in arguments:  # only the command that may run pays for its module
            importlib.import_module(module).add_arguments(command)
    return parser


if __name__ == "__main__":
    sys.exit(main())
