"""Walks a folder of media: every file once, also behind links; an entry that cannot be read gets a reason."""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from core.errors import CatalogError

LINK_TO_A_FOLDER = "link"  # stands among the endings of what is left out: a second way to a folder that is read


@dataclass(frozen=True)
class Problem:
    """An entry of a folder that cannot be read. `reason` is one of the quarantine's: `missing_file`, `outside_root` or
    `unreadable`."""

    path: Path
    reason: str
    detail: str


@dataclass
class Tree:
    """The folders under a root with the names of their regular files, both sorted; hidden entries are left out."""

    folders: list[tuple[Path, list[str]]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)


def walk(root: Path, *, outside: bool = False) -> Tree:
    """The files under `root`.

    A link to a folder is followed where no other way leads to that folder, so that links in a circle end and no file is
    read twice. Links that lead outside `root` are followed with `outside` alone, and are problems otherwise. Raises
    `CatalogError` where `root` cannot be read.
    """
    if not os.access(root, os.R_OK | os.X_OK):
        raise CatalogError(f"the folder {root} cannot be read")
    tree, seen, links = Tree(), set[str](), deque[Path]()
    real_root = os.path.realpath(root)
    _visit(root, real_root, outside, tree, seen, links)
    while links:
        link = links.popleft()
        target = os.path.realpath(link)
        if target in seen:
            tree.left_out[LINK_TO_A_FOLDER] += 1
        elif not outside and not _is_inside(target, real_root):
            tree.problems.append(_leads_outside(link, target))
        else:
            _visit(link, real_root, outside, tree, seen, links)
    tree.folders.sort()
    tree.problems.sort(key=lambda problem: problem.path)
    return tree


def _visit(top: Path, real_root: str, outside: bool, tree: Tree, seen: set[str], links: deque[Path]) -> None:
    """Adds `top` and the folders below it that are not in `seen`; adds links to folders to `links`, for later."""
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        real = os.path.realpath(folder)
        if real in seen:
            continue
        seen.add(real)
        try:
            with os.scandir(folder) as entries:
                names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
        except OSError as error:
            tree.problems.append(Problem(folder, "unreadable", why(error)))
            continue
        files = []
        for name in names:
            path = folder / name
            try:
                linked = os.path.islink(path)
                mode = path.stat().st_mode
            except OSError as error:
                tree.problems.append(_unreachable(path, error))
                continue
            if stat.S_ISDIR(mode):
                (links if linked else waiting).append(path)
            elif not stat.S_ISREG(mode):
                tree.problems.append(Problem(path, "missing_file", "not a regular file"))
            elif linked and not outside and not _is_inside(target := os.path.realpath(path), real_root):
                tree.problems.append(_leads_outside(path, target))
            else:
                files.append(name)
        tree.folders.append((folder, files))


def _is_inside(target: str, real_root: str) -> bool:
    return target == real_root or target.startswith(real_root.rstrip(os.sep) + os.sep)


def _leads_outside(path: Path, target: str) -> Problem:
    detail = f"a link to {target}, outside the catalogue's folder; copy it there, or enrich that folder"
    return Problem(path, "outside_root", detail)


def _unreachable(path: Path, error: OSError) -> Problem:
    if not os.path.islink(path):
        return Problem(path, "unreadable", why(error))
    if error.errno == errno.ELOOP:
        return Problem(path, "missing_file", "a link that leads back to itself")
    if error.errno == errno.ENOENT:
        return Problem(path, "missing_file", f"a link to {os.readlink(path)}, which does not exist")
    return Problem(path, "unreadable", f"a link that cannot be followed: {why(error)}")


def why(error: OSError) -> str:
    """The system's description of an error."""
    return error.strerror or str(error) or type(error).__name__


def ending(name: str) -> str:
    """A file name's ending in lower case, with its dot; "" where it has none."""
    return os.path.splitext(name)[1].strip().lower()


def shown_endings(left_out: Mapping[str, int]) -> str:
    """What is left out, for people: `4 files (.xyz)`, `6 files (4 .xyz, 2 without an ending)`."""
    endings = {name: count for name, count in left_out.items() if name != LINK_TO_A_FOLDER}
    parts = []
    if count := sum(endings.values()):
        shown = sorted((name or "without an ending" for name in endings), key=lambda n: (n[0] != ".", n))
        if len(endings) > 1:
            shown = [f"{endings[name if name[0] == '.' else '']} {name}" for name in shown]
        parts.append(f"{count} file{'s' if count != 1 else ''} ({', '.join(shown)})")
    if links := left_out.get(LINK_TO_A_FOLDER, 0):
        parts.append("1 link to a folder that is read" if links == 1 else f"{links} links to folders that are read")
    return ", ".join(parts)
