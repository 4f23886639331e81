"""Searching a published index: nearest contents, all above a score, among some only, like these and unlike those."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import ConfigError, IndexUnavailable, NotFound
from core.ids import Ids, id_list, one_id
from index.changes import column
from index.collapse import collapse
from index.load import BLOCK_ROWS, NUMBER, Loaded, align, completed, load, load_metadata
from index.measure import LEAST_DEPTH, exact_top
from index.parameters import part, search_index, search_parameters, takes_selector
from index.process import Process
from index.queries import Queries, checked_count, unit_queries
from index.versions import current_version, load_manifest

SPARE = 8  # rows asked for beyond k, for windows, ties and contents that are left out
FEW_HIDDEN = 0.1  # share of the contents left out up to which looking deeper is cheaper than telling FAISS
EXACT_ROWS = 20_000  # rows that are compared one by one when a filter leaves no more
EXACT_SHARE = 0.1  # of a graph's rows: where a filter leaves less, its walk meets too few of them


FOUND = pa.schema([("query", pa.int32()), ("content_id", pa.string()), ("score", pa.float32())])
Ranked = tuple[np.ndarray, np.ndarray]  # numbers of contents (int32) and their scores (float32), best first


class Hidden(NamedTuple):
    """What may not be found: `contents` by number (bool, empty where all may), and of those the `rows` that may (bool),
    None where so few may not that looking a little deeper is cheaper."""

    contents: np.ndarray
    rows: np.ndarray | None


NOTHING_HIDDEN = Hidden(np.empty(0, bool), None)


class Searcher(Queries):
    """A loaded version, read-only; safe to search from several threads. Columns of its metadata may be filtered by."""

    def __init__(self, loaded: Loaded, metadata: pa.Table | None = None) -> None:
        self.manifest = loaded.manifest
        self.process = Process(loaded.manifest.name)
        self._loaded, self._members = loaded, loaded.members
        self._metadata = None if metadata is None else completed(metadata, loaded.members.contents)
        self.contents, self._content_of = loaded.members.contents, loaded.members.content_of
        ivf = part(loaded.faiss_index, "IndexIVF")
        self._lists = 1 if ivf is None else ivf.nlist
        self._is_graph = part(loaded.faiss_index, "IndexHNSW") is not None
        self._takes_selector = takes_selector(loaded.faiss_index)
        self._usual = search_parameters(loaded.faiss_index, self.manifest.parameters)

    @property
    def columns(self) -> list[str]:
        """What may be filtered by."""
        return [] if self._metadata is None else [name for name in self._metadata.column_names if name != NUMBER]

    def search(self, vectors: np.ndarray, k: int, exclude: Ids = (), where: pc.Expression | None = None) -> pa.Table:
        """The k contents nearest each vector by cosine, among those that `where` holds for.

        `vectors`: numbers (queries, dim) or (dim,), of any length: they are divided by their norm; `k`: of any integer
        type; `exclude`: contents left out, one as a string or several; `where`: an expression over the metadata, such
        as `pc.field("kind") == "track"`, in which a content without metadata has null in every column. Windows of one
        content count once, by their best. Returns columns `query` (row of `vectors`), `content_id` and `score`, best
        first, equal scores by content id; fewer than k where there are no more. Raises `EarmarkError` for another
        shape, for a vector that is zero or not finite and in a process that was forked since; `ConfigError` for a
        filter that does not fit the metadata, and for values of a wrong type.
        """
        vectors, k = self.checked(vectors), checked_count(k)
        return self.table(self.ranked(vectors, k, self.hidden(exclude, where)))

    def ranked(self, vectors: np.ndarray, k: int, hidden: Hidden) -> list[Ranked]:
        """`search` for vectors that are `checked`, as (numbers of contents, scores) of each."""
        k = min(k, len(self.contents))
        results: list[Any] = [None] * len(vectors)
        todo, depth, wider = np.arange(len(vectors)), max(k + SPARE, LEAST_DEPTH), 1
        while todo.size:
            scores, labels, last = self._nearest(vectors[todo], depth, hidden.rows, wider)
            shape = (len(todo), k)
            contents, best = np.empty(shape, np.int32), np.empty(shape, np.float32)
            counts, settled = np.empty(len(todo), np.int64), np.empty(len(todo), bool)
            total = len(self.contents)
            collapse(scores, labels, self._content_of, total, hidden.contents, k, contents, best, counts, settled)
            # What was not found among the lists that were looked at may lie in others.
            done = np.full(len(todo), True) if last else settled & (counts == k)
            for n in np.flatnonzero(done):
                results[todo[n]] = contents[n, : counts[n]], best[n, : counts[n]]
            todo, depth, wider = todo[~done], depth * 4, wider * 4
        return results

    def vectors(self, content_id: str) -> np.ndarray:
        """What the index holds of a content, float32 (windows, dim). Raises `NotFound`."""
        self.process.check()
        number = self.number_of(one_id(content_id))
        if number is None:
            raise NotFound(f"{content_id!r} is not in the index {self.manifest.name}")
        return self._loaded.take(self._members.rows_of(number))

    def checked(self, vectors: np.ndarray) -> np.ndarray:
        """As `index.queries.unit_queries`. Raises `StorageError` in a process that was forked since."""
        self.process.check()
        return unit_queries(vectors, self.manifest.dim)

    def compared(self, vectors: np.ndarray, score: float, hidden: Hidden) -> list[Ranked]:
        """The contents that are not hidden and whose stored vectors score at least `score`, of each of the `checked`
        vectors; all stored vectors are looked at."""
        places: list[np.ndarray] = []
        scores: list[np.ndarray] = []
        asked: list[np.ndarray] = []
        for first in range(0, self.manifest.count, BLOCK_ROWS):
            rows = np.arange(first, min(first + BLOCK_ROWS, self.manifest.count))
            if hidden.contents.size:
                rows = rows[~hidden.contents[self._content_of[rows]]]
            found = vectors @ self._loaded.take(rows).T
            query, place = np.nonzero(found >= score)
            asked.append(query)
            places.append(self._content_of[rows[place]])
            scores.append(found[query, place])
        queries, contents = np.concatenate(asked), np.concatenate(places)
        best_of = np.concatenate(scores)
        return [best_of_each(contents[queries == n], best_of[queries == n]) for n in range(len(vectors))]

    def _compared(self, vectors: np.ndarray, score: float, where: pc.Expression | None) -> pa.Table:
        return self.table(self.compared(vectors, score, self.hidden((), where)))

    @property
    def metadata(self) -> pa.Table | None:
        """What may be filtered by: content_id, and a row a content."""
        return None if self._metadata is None else self._metadata.drop_columns([NUMBER])

    def rows(self) -> pa.Table:
        """All that the index holds: content_id, window and embedding (fixed-size list of float32), decoded."""
        blocks = range(0, self.manifest.count, BLOCK_ROWS)
        parts = [self.vectors_of(np.arange(at, min(at + BLOCK_ROWS, self.manifest.count))) for at in blocks]
        values = np.concatenate([np.empty((0, self.manifest.dim), np.float32), *parts])
        embedding = pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), self.manifest.dim)
        return self._members.table().select(["content_id", "window"]).append_column("embedding", embedding)

    def content_of(self, rows: np.ndarray) -> np.ndarray:
        """Numbers of the contents that rows belong to."""
        return self._content_of[rows]

    def vectors_of(self, rows: np.ndarray) -> np.ndarray:
        """What the index holds of rows, float32 (rows, dim), of unit norm again."""
        self.process.check()
        found = self._loaded.take(rows)
        return found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)

    def number_of(self, content_id: str) -> int | None:
        """The content's number, None where it is not in the index."""
        return self._members.number_of(content_id)

    def id_of(self, content_id: str, window: int) -> int | None:
        """The index's own id of a window of a content, None where there is none."""
        number = self.number_of(content_id)
        rows = self._members.rows_of(number) if number is not None else np.empty(0, np.int64)
        found = rows[self._members.windows[rows] == window]
        return int(self._members.ids[found[0]]) if len(found) else None

    def holds_for(
        self, where: pc.Expression, contents: Sequence[str], about: Sequence[Mapping[str, Any] | None]
    ) -> np.ndarray:
        """Whether `where` holds for contents that are not in the index, given what is known of them; bool. Columns are
        those of the index's metadata, null where nothing is known. Raises `ConfigError` as `search` does."""
        if self._metadata is None:
            raise ConfigError(f"the index {self.manifest.name} has no metadata to filter by; publish it with some")
        columns: dict[str, pa.Array] = {}
        for field in self._metadata.schema:
            if field.name == "content_id":
                columns[field.name] = pa.array(list(contents), pa.string())
            elif field.name == NUMBER:
                columns[field.name] = pa.array(range(len(contents)), field.type)
            else:
                columns[field.name] = column([(one or {}).get(field.name) for one in about], field)
        holds = np.zeros(len(contents), bool)
        holds[np.asarray(self._fitting(pa.table(columns), where))] = True
        return holds

    def hidden(self, exclude: Ids, where: pc.Expression | None, gone: Hidden | None = None) -> Hidden:
        """What may not be found: what is excluded, what `where` does not hold for, and what is `gone` already."""
        out = [number for number in map(self.number_of, set(id_list(exclude))) if number is not None]
        if where is None and not out:
            return gone or NOTHING_HIDDEN
        hidden = np.zeros(len(self.contents), bool) if gone is None or not gone.contents.size else gone.contents.copy()
        hidden[out] = True
        if where is not None:
            hidden |= ~self._holds(where)
        return self.hide(hidden)

    def hide(self, contents: np.ndarray) -> Hidden:
        """Contents that may not be found, bool by their number."""
        if contents.sum() <= max(SPARE, FEW_HIDDEN * contents.size):
            return Hidden(contents, None)
        return Hidden(contents, np.asarray(~contents[self._content_of]))

    def _holds(self, where: pc.Expression) -> np.ndarray:
        if self._metadata is None:
            raise ConfigError(f"the index {self.manifest.name} has no metadata to filter by; publish it with some")
        holds = np.zeros(len(self.contents), bool)
        holds[np.asarray(self._fitting(self._metadata, where))] = True
        return holds

    def _fitting(self, metadata: pa.Table, where: pc.Expression) -> pa.ChunkedArray:
        """Numbers of the rows that `where` holds for."""
        try:
            return metadata.filter(where)[NUMBER]
        except (pa.ArrowException, KeyError, TypeError) as error:
            told = ", ".join(self.columns)
            raise ConfigError(f"the filter does not fit the metadata ({told}): {error}") from error

    def _nearest(
        self, vectors: np.ndarray, depth: int, rows: np.ndarray | None, wider: int
    ) -> tuple[np.ndarray, np.ndarray, bool]:
        """(scores, labels, whether looking further finds no more) of the `depth` nearest rows among those that may be
        found; `wider` is how many times as many lists are looked at as usual."""
        import faiss

        index, count = self._loaded.faiss_index, self.manifest.count
        if rows is not None:
            chosen = np.flatnonzero(rows)
            is_few = chosen.size <= EXACT_ROWS or (self._is_graph and chosen.size < EXACT_SHARE * count)
            if is_few or not self._takes_selector:
                scores, places = self._exact(vectors, chosen, depth)
                return scores, chosen[places] if chosen.size else places, depth >= chosen.size
            count = chosen.size
        depth = min(depth, count)
        if rows is None and wider == 1 and depth <= self.manifest.parameters.get("efSearch", depth):
            scores, labels = search_index(index, vectors, depth, self._usual)
            return scores, labels, depth >= count and self._lists <= self.manifest.parameters.get("nprobe", 1)
        selector, share = None, count / max(1, self.manifest.count)
        if rows is not None:
            bits: Any = np.packbits(rows, bitorder="little")
            selector = faiss.IDSelectorBitmap(bits)  # type: ignore[call-arg]  # takes an array, unlike what its stub says
        parameters = dict(self.manifest.parameters)
        if "nprobe" in parameters:
            parameters["nprobe"] = min(self._lists, int(np.ceil(parameters["nprobe"] * wider / share)))
        if "efSearch" in parameters:
            effort = max(depth, int(np.ceil(parameters["efSearch"] * wider / share)))
            parameters["efSearch"] = min(effort, max(depth, self.manifest.count))
        found = search_parameters(index, parameters, selector)
        scores, labels = search_index(index, vectors, depth, found)
        return scores, labels, depth >= count and parameters.get("nprobe", 1) >= self._lists

    def _exact(self, vectors: np.ndarray, rows: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray]:
        """The nearest of some rows, compared one by one: (scores, places in `rows`)."""
        scores = np.empty((len(vectors), 0), np.float32)
        places = np.empty((len(vectors), 0), np.int64)
        for first in range(0, len(rows), BLOCK_ROWS):
            found, at = exact_top(self._loaded.take(rows[first : first + BLOCK_ROWS]), vectors, depth)
            scores, places = np.concatenate([scores, found], 1), np.concatenate([places, at + first], 1)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :depth]
        return np.take_along_axis(scores, order, 1), np.take_along_axis(places, order, 1)

    def table(self, results: Sequence[Ranked]) -> pa.Table:
        """What `ranked` found, as `search` returns it."""
        if len(results) == 1:  # as is usual: nothing to join
            (numbers, scores), queries = results[0], np.zeros(len(results[0][0]), np.int32)
        else:
            counts = [len(contents) for contents, _ in results]
            queries = np.repeat(np.arange(len(results), dtype=np.int32), counts)
            numbers = np.concatenate([np.empty(0, np.int32), *(contents for contents, _ in results)])
            scores = np.concatenate([np.empty(0, np.float32), *(best for _, best in results)])
        contents = self.contents.take(pa.array(numbers))
        if contents.type != pa.string():
            contents = contents.cast(pa.string())
        return pa.Table.from_arrays([pa.array(queries), contents, pa.array(scores)], schema=FOUND)


def best_of_each(contents: np.ndarray, scores: np.ndarray) -> Ranked:
    """Every content once, with its best score; best first, equal scores by number."""
    order = np.lexsort((contents, -scores))
    _, first = np.unique(contents[order], return_index=True)
    chosen = order[np.sort(first)]
    return contents[chosen].astype(np.int32), scores[chosen].astype(np.float32)


def open_index(
    folder: Path,
    name: str,
    *,
    version: str | None = None,
    expect_model: str | None = None,
    metadata: pa.Table | None = None,
    device: str = "cpu",
) -> Searcher:
    """Loads a version of `folder/name` (the current one unless named), after its checksums. `metadata` (content_id, and
    a row a content) is filtered by instead of what was published with it. `device`: "cuda", or "auto" for a card where
    there is one.

    Raises `IndexUnavailable` where there is none, a file is damaged, or its model is not `expect_model`.
    """
    chosen = current_version(folder, name) if version is None else version
    if chosen is None:
        raise IndexUnavailable(f"the index {name} has not been published")
    try:
        return _open(folder, name, chosen, expect_model, metadata, device)
    except (IndexUnavailable, FileNotFoundError):
        # It may have been retired since `CURRENT` was read.
        if version is not None or current_version(folder, name) in (None, chosen):
            raise
    return open_index(folder, name, expect_model=expect_model, metadata=metadata, device=device)


def _open(
    folder: Path, name: str, chosen: str, expect_model: str | None, metadata: pa.Table | None, device: str
) -> Searcher:
    manifest = load_manifest(folder, name, chosen)
    if expect_model is not None and manifest.model_id != expect_model:
        raise IndexUnavailable(
            f"the index {name} holds vectors of {manifest.model_id}, the feature view those of {expect_model}"
        )
    loaded = load(folder, manifest, device)
    about = load_metadata(folder, manifest) if metadata is None else align(metadata, loaded.members.contents)
    return Searcher(loaded, about)
