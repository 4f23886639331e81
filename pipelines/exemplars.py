"""Exemplars from files, lists of hashes and contents of a store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from core.config import MediaLimits
from core.errors import BadItem, CatalogError, NotFound
from core.ids import Ids, id_list, path_list
from core.items import is_fatal, reason_of
from core.storage import Storage
from moderation.evidence import Evidence, store_arrays
from moderation.exemplars import Exemplar, Exemplars, draft_of
from moderation.matches import Match, best_first
from moderation.texts import LEAST_LIKENESS
from pipelines.context import Run
from pipelines.match import Looker, kind_of
from pipelines.moderate import store_policies
from pipelines.skip_folder import files_under

Told = Callable[[str, int, int], None]


@dataclass
class Added:
    """Exemplars that are in the bank now, and what could not be added, with the reason."""

    exemplars: list[Exemplar] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)


def add_files(
    storage: Storage,
    bank: str,
    paths: Sequence[Path],
    *,
    state: str = "shadow",
    tags: Ids = (),
    by: str = "",
    limits: MediaLimits = MediaLimits(),  # noqa: B008
    text_model: Any = None,
    told: Told = lambda label, done, total: None,
) -> Added:
    """Adds pictures, audio and texts, each file or whatever lies under a folder, to a bank; an exemplar's name is its
    path in the folder. The same file again adds nothing but what was not asked of it before, such as whose voice it
    is. Texts are compared by `text_model`, the bundled one unless given. Raises `CatalogError` where there is nothing
    to add."""
    paths = path_list(paths)
    files = [(path.parent, path) if path.is_file() else (path, file) for path in paths for file in _files(path)]
    if not files:
        raise CatalogError(f"there are no pictures, audio or texts in {', '.join(map(str, paths))}")
    look, result, drafts = Looker(limits, bank in _voiced(storage), text_model), Added(), []
    told("exemplars", 0, len(files))
    for root, path in files:
        try:
            found, said = look.evidence(path)
            drafts.append(_draft(storage, bank, found, said, path.relative_to(root).as_posix(), state, tags))
        except Exception as error:
            if is_fatal(error):
                raise
            result.failures.append((str(path), ": ".join(reason_of(error))))
        told("exemplars", 1, 0)
    result.exemplars = Exemplars(storage).add_all(drafts, by)
    return result


def look_up(
    storage: Storage,
    path: Path,
    *,
    banks: Ids = (),
    tags: Ids = (),
    limits: MediaLimits = MediaLimits(),  # noqa: B008
    text_model: Any = None,
) -> list[tuple[Match, Exemplar]]:
    """What of a store's exemplars, in some banks and with all of some tags, a file is a copy of or like: the surest
    first, the shadows as well. Raises `CatalogError` and `BadItem`."""
    from embedders.fingerprint import patches
    from moderation.banks import Bank
    from moderation.judge import LIKE

    if kind_of(path) is None or not path.is_file():
        raise CatalogError(f"{path} is no picture, audio or text")
    held, wanted = Exemplars(storage), set(id_list(tags, "tags"))
    chosen = [e for e in held.every(id_list(banks, "banks") or None) if wanted <= set(e.tags)]
    found = _evidence(path, limits, bool(_voiced(storage) & {e.bank for e in chosen}), text_model)
    bank = Bank(found.modality, chosen, held.arrays, patches)
    matches = bank.copies(found)
    known = {m.exemplar for m in matches}
    likeness = bank.likeness(found, set(bank.exemplars) - known)
    best = likeness.ranked() if likeness else []
    least = LIKE["voice"] if found.modality == "audio" else LEAST_LIKENESS
    alike = [Match(name, found.modality, "embedding", min(1.0, v)) for name, v in best if v >= least]
    return [(m, bank.exemplars[m.exemplar]) for m in best_first([*matches, *alike])]


def add_contents(run: Run, bank: str, modality: str, content_ids: Ids, *, state: str = "shadow", by: str = "") -> Added:
    """Adds contents of a store as exemplars, by one of their media. Raises `NotFound`."""
    from pipelines.media import StoreMedia

    content_ids = id_list(content_ids)
    media = StoreMedia(run, [])
    for content_id in content_ids:
        if content_id not in media.keys.get(modality, {}):
            raise NotFound(f"{content_id!r} has no {modality} in the store {run.storage.uri}")
    result, drafts, voiced = Added(), [], modality == "audio" and bank in _voiced(run.storage)
    for content_id, found in media.evidence(modality, content_ids):
        if voiced and "vector" not in found.arrays:
            result.failures.append(
                (content_id, "no_speech: the store has no voice of it; a run with `voices` finds some")
            )
        else:
            drafts.append(_draft(run.storage, bank, found, "", content_id, state, (), {"content_id": content_id}))
    place = {content_id: number for number, content_id in enumerate(content_ids)}
    drafts.sort(key=lambda draft: place[draft.provenance["content_id"]])
    known = {draft.provenance["content_id"] for draft in drafts} | {content_id for content_id, _ in result.failures}
    for content_id in (c for c in content_ids if c not in known):
        result.failures.append(
            (content_id, "not_ready: the store was made by an earlier version; a run makes it ready")
        )
    result.exemplars = Exemplars(run.storage).add_all(drafts, by)
    return result


def _voiced(storage: Storage) -> set[str]:
    """The banks of policies on voices."""
    return {b for p in store_policies(storage) if p.vectors == "voice" for b in (*p.positive, *p.negative)}


def _evidence(path: Path, limits: MediaLimits, voices: bool, text_model: Any) -> Evidence:
    """Of a recording in which nobody speaks, without voices."""
    try:
        return Looker(limits, voices, text_model).evidence(path)[0]
    except BadItem as error:
        if error.reason != "no_speech":
            raise
        return Looker(limits).evidence(path)[0]


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if kind_of(path) else []
    return files_under(path.expanduser().absolute(), kind_of)


def _draft(
    storage: Storage,
    bank: str,
    found: Evidence,
    said: str,
    name: str,
    state: str,
    tags: Ids,
    provenance: dict[str, Any] | None = None,
) -> Exemplar:
    evidence: dict[str, Any] = {"sha256": found.sha256} if found.sha256 else {}
    if said:
        evidence["text"] = said
    elif found.text_hash:
        evidence["text_hash"] = found.text_hash
    if found.modality == "image":
        evidence |= {"pdq": found.arrays["pdq"][0].tobytes().hex(), "pdq_quality": int(found.arrays["quality"])}
    if found.model_id:
        evidence["model_id"] = found.model_id
    # An exemplar is one vector; its passages are of no use to others.
    payload = store_arrays(storage, {n: v for n, v in found.arrays.items() if n not in ("parts", "spans", "times")})
    return draft_of(bank, found.modality, evidence, payload, name, state, tags, provenance or {"file": name})
