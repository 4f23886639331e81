"""The argument parser of the `earmark` command: no abbreviations, and the nearest name where one is misspelt."""

from __future__ import annotations

import argparse
import difflib
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

OF_COMMANDS = ("--json", "--quiet", "--store")  # options of the commands that people also give before their names


def filled(text: str) -> str:
    """An argument that may not be empty: a script whose variable is unset must not work on the folder that it is in."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty")
    return text


def filled_path(text: str) -> Path:
    """A path that is not empty; `Path("")` is the folder that the command runs in."""
    return Path(filled(text))


def duration_s(text: str) -> float:
    """Seconds, 0 or more."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds, 0 or more")
    return value


class Parser(argparse.ArgumentParser):
    """Accepts options only by their full names, and suggests the nearest name for an option, command or choice that
    does not exist. After the next release, an abbreviation could mean another option, and `--prun` must not remove
    contents."""

    def __init__(self, *args: Any, **options: Any) -> None:
        options.setdefault("allow_abbrev", False)
        super().__init__(*args, **options)

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        # Before argparse looks: it reports a missing argument first, and that is often the misspelt option.
        if args is not None:
            self._check_options(args)
        found, rest = super().parse_known_args(args, namespace)
        return found, rest

    def _check_options(self, arguments: Sequence[str]) -> None:
        known = [name for action in self._actions for name in action.option_strings]
        has_commands = any(isinstance(action, argparse._SubParsersAction) for action in self._actions)
        for argument in arguments:
            if argument == "--" or (has_commands and not argument.startswith("-")):
                return  # what follows are positional arguments, or a subcommand's own options
            name = argument.split("=", 1)[0]
            if " " in name or name in known or len(name) < 3 or not name.startswith("-"):
                continue
            if has_commands and name in OF_COMMANDS:
                self.error(f"{name} is an option of each command: give it after the command's name")
            if name.startswith("--"):
                self.error(f"there is no option {name}{suggestion(name, known)}")
            # One dash: a short option with its value (-k5), a negative number, or a long option written short.
            if f"-{name}" in known or (name[:2] not in known and not name[1:2].isdigit()):
                self.error(f"there is no option {name}{suggestion(f'-{name}', known)}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            if "did you mean" not in error.message:  # argparse says it itself from Python 3.14 on
                error.message += suggestion(str(value), (str(choice) for choice in action.choices or ()))
            raise


def suggestion(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the known name that is nearest to `name`, or nothing."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f"; did you mean {near[0]!r}?" if near else ""
