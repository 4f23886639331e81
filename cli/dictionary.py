"""`earmark dictionary`."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "docs/feature-dictionary.md is this command's output."


def run(args: argparse.Namespace) -> int:
    from feature_repo.dictionary import feature_dictionary

    print(feature_dictionary(), end="")
    return 0
