"""What the commands share: the store's argument, output as JSON or a table."""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

PIPE_WIDTH = 120  # characters, where the output is not a terminal's
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # what a terminal obeys, apart from tab and line feed


def add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", help="folder of the store (default: $EARMARK_STORE, else ./.earmark)")
    add_output(parser)


def add_output(parser: argparse.ArgumentParser) -> None:
    """How a command answers: `--json` on standard output, `--quiet` on standard error."""
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text for people")
    parser.add_argument("--quiet", action="store_true", help="print no progress on standard error")


def local_store(args: argparse.Namespace, *, released: bool = True) -> Path:
    """The store's folder. Raises `NotFound` where there is none, or where no run has ended yet and the command needs
    what a run makes (`released`), and `ConfigError` for what cannot be a store's folder."""
    from core.config import store_uri
    from core.errors import NotFound
    from core.location import is_released, is_store, other_files, store_folder

    root = store_folder(store_uri(args.store))
    if is_released(root) or (not released and is_store(root)):
        return root
    if is_store(root):
        raise NotFound(_never_ended(root))
    for close in (root / "store", root / ".earmark", root.parent):
        if is_store(close):
            raise NotFound(f"there is no store in {root}; did you mean --store {near(str(close))}?")
    others = other_files(root)
    if others:
        raise NotFound(f"{root} is not a store ({others}); name the folder of one with --store")
    raise NotFound(f"there is no store in {root}; make one with: earmark run CATALOG --store {root}")


def _never_ended(root: Path) -> str:
    from core.storage import LocalStorage
    from pipelines.unfinished import unfinished

    found = unfinished(LocalStorage(root))
    if found is None or found.running:
        return f"the first run on the store {root} has not ended; look with: earmark status --store {root}"
    return f"the first run on the store {root} was interrupted; resume it with: {found.resume}"


def open_run(store: Path | str, source: str = ".") -> Any:
    """A run context for commands that look at a store or change it outside a run."""
    from core.config import Config
    from core.storage import open_storage
    from pipelines.context import Run

    storage = open_storage(store)
    return Run(storage, "command", source, stored_config(storage, Config()))


@contextlib.contextmanager
def writing(args: argparse.Namespace) -> Iterator[Any]:
    """The run context of the store that the arguments name, with the writer's lease. Raises `StoreBusy`."""
    from core import lease
    from pipelines.inprocess import new_run_id

    run = open_run(local_store(args))
    with lease.hold(run.storage, new_run_id()):
        yield run


def stored_config(storage: Any, default: Any) -> Any:
    """The configuration of the run that made the active release: a search must use its models."""
    from core.config import Config, build
    from core.errors import StorageError
    from core.release import read_release
    from core.storage import read_json

    release = read_release(storage)
    if release is None or "run_id" not in release:
        return default
    try:
        return build(Config, read_json(storage, f"runs/{release['run_id']}/run.json")["config"])
    except (FileNotFoundError, KeyError, StorageError):
        return default  # a model that the release does not name is refused where it is used


def print_json(value: Any) -> None:
    text = json.dumps(value, indent=2, default=str, ensure_ascii=False)
    # JSON has escapes of its own for what the output's encoding lacks; those of Python would not be JSON.
    print(text if _can_print(text) else json.dumps(value, indent=2, default=str))


def _can_print(text: str) -> bool:
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def literal(value: object) -> str:
    """Text that is not ours (a path, an id, a title, a query) for a console or a table: shown as it is. Without this, a
    folder named `[/x]` is markup that never opened, and a title may steer the terminal."""
    from rich.markup import escape

    text = str(value).encode("utf-8", "backslashreplace").decode("utf-8")
    return escape(CONTROLS.sub(lambda found: repr(found[0])[1:-1], text))


def console(**options: Any) -> Any:
    """A rich console that keeps the width of pipes readable."""
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            """Leaves it to `main`, which ends without an error: `earmark … | head` is usual."""
            raise BrokenPipeError

    options |= {"highlight": False, "emoji": False}  # `:cd:` in an id is no picture of a disc
    made = Plain(**options)
    return made if made.is_terminal else Plain(width=PIPE_WIDTH, **options)


def table(title: str, columns: list[tuple[str, str]], rows: list[list[Any]]) -> Any:
    """A rich table under its title; `columns` are (header, justification). No title or cell is read as markup."""
    from rich import box
    from rich.console import Group
    from rich.table import Table

    made = Table(
        header_style="cyan",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for header, justify in columns:
        made.add_column(header, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        made.add_row(*["" if cell is None else literal(cell) for cell in row])
    # Not the table's own title, which would be broken into lines as narrow as the table.
    return Group(f"[bold green]{literal(title)}[/]", made)


def print_quarantined(count: int) -> None:
    """Says how many contents in quarantine an answer leaves out."""
    if count:
        contents = "1 content" if count == 1 else f"{count} contents"
        console().print(f"{contents} in quarantine left out (--quarantined shows them, earmark quarantine says why)")


def print_unread(failures: Iterable[tuple[str, str]]) -> None:
    """A line a file that could not be read, with the reason."""
    for path, reason in failures:
        console().print(f"[red]could not read[/] {literal(f'{path}: {reason}')}")


def print_left_out(left_out: Mapping[str, int]) -> None:
    """A line on the files of a folder that are not read."""
    from catalog.walk import shown_endings

    if left_out:
        console().print(f"[bold]Left out[/] {literal(shown_endings(left_out))}")


def near(path: str) -> str:
    """A path as seen from here where it lies below, else as it is."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path


def save_picture(out: Any, path: Path, title: str) -> None:
    """Saves what a recording console printed as SVG, with the fonts of whoever looks at it."""
    import re

    from rich._export_format import CONSOLE_SVG_FORMAT

    plain = re.sub(r"@font-face \{\{.*?\}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    out.save_svg(str(path), title=title, code_format=plain.replace("Fira Code", "monospace"))


def seconds(value: float) -> str:
    """Seconds as people read them."""
    if value < 10:
        return f"{value:.1f} s"
    if value < 120:
        return f"{value:.0f} s"
    return f"{int(value // 60)} min {int(value % 60):02d} s"
