"""`earmark dictionary`."""

from __future__ import annotations

import argparse

from cli.common import add_output, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.epilog = "docs/feature-dictionary.md is this command's output."
    add_output(parser)


def run(args: argparse.Namespace) -> int:
    from feature_repo.dictionary import feature_dictionary, feature_list

    if args.json:
        print_json(feature_list())
    else:
        print(feature_dictionary(), end="")
    return 0
