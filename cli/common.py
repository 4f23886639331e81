"""What the commands share: the store's argument, output as JSON or a table, progress on a terminal."""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

PIPE_WIDTH = 120  # characters, where the output is not a terminal's


def add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--store", help="folder of the store (default: $EARMARK_STORE, else ./.earmark)")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of text for people")


def local_store(args: argparse.Namespace) -> Path:
    """The store's folder. Raises `NotFound` where no run has made one."""
    from core.config import store_uri
    from core.errors import NotFound

    root = Path(store_uri(args.store)).expanduser().absolute()
    if not _is_store(root):
        for close in (root / "store", root.parent):
            if _is_store(close):
                raise NotFound(f"there is no enriched store in {root}; did you mean --store {near(str(close))}?")
        raise NotFound(f"there is no enriched store in {root}; make one with: earmark run CATALOG --store {root}")
    return root


def _is_store(folder: Path) -> bool:
    return (folder / "release.json").is_file()


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

    try:
        release = json.loads(storage.read("release.json"))
        return build(Config, json.loads(storage.read(f"runs/{release['run_id']}/run.json"))["config"])
    except (FileNotFoundError, KeyError, ValueError):
        return default


def print_json(value: Any) -> None:
    text = json.dumps(value, indent=2, default=str, ensure_ascii=False)
    # A file's name that is no UTF-8 has halves of characters, which only an escape can say.
    print(text if printable(text) == text else json.dumps(value, indent=2, default=str))


def printable(text: str) -> str:
    """The text with what no encoding can say as an escape."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def console(**options: Any) -> Any:
    """A rich console that keeps the width of pipes readable."""
    from rich.console import Console

    console = Console(highlight=False, **options)
    if not console.is_terminal:
        console = Console(highlight=False, width=PIPE_WIDTH, **options)
    return console


def table(title: str, columns: list[tuple[str, str]], rows: list[list[Any]]) -> Any:
    """A rich table; `columns` are (header, justification)."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    made = Table(
        title=title,
        title_justify="left",
        title_style="bold green",
        header_style="cyan",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    for header, justify in columns:
        made.add_column(header, justify=justify, overflow="fold")  # type: ignore[arg-type]
    for row in rows:
        made.add_row(*["" if cell is None else escape(printable(str(cell))) for cell in row])
    return made


def print_unread(failures: Iterable[tuple[str, str]]) -> None:
    """A line a file that could not be read, with the reason."""
    from rich.markup import escape

    for path, reason in failures:
        console().print(f"[red]could not read[/] {escape(printable(f'{path}: {reason}'))}")


@contextlib.contextmanager
def progress_bar(quiet: bool = False) -> Iterator[tuple[Callable[[str, int, int], None], Callable[[str], None]]]:
    """(progress, on_step) callbacks: bars on a terminal, silence elsewhere."""
    if quiet or not sys.stderr.isatty():
        yield (lambda label, done, total: None), (lambda title: None)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console(stderr=True),
        transient=True,
    ) as bars:
        step = bars.add_task("starting", total=None)
        tasks: dict[str, Any] = {}

        def on_step(title: str) -> None:
            bars.update(step, description=title)

        def progress(label: str, done: int, total: int) -> None:
            if label not in tasks:
                tasks[label] = bars.add_task(label, total=total or None)
            bars.update(tasks[label], advance=done, total=total or None)

        yield progress, on_step


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
