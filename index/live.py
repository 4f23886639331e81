"""An index that changes while it serves: the published base, what was added since, and what is gone.

Adds, updates and deletes go to a log (`index.log`) and are visible to the next query. The base is never touched: what
was deleted or changed is hidden in it, what was added is compared beside it. The next build holds all of it
(`LiveIndex.merge`, `publish_vectors`), and changes that come while it is built are replayed over the new base.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from core.errors import EarmarkError, IndexUnavailable, NotFound
from core.ids import Ids, id_list, one_id, some_of
from index.given import checked_about, checked_content, checked_rows, checked_windows
from index.log import DELETE, PUT, Reader, Record, Rewound, Writer, unless_rewound
from index.manifest import Manifest
from index.places import index_home
from index.process import Process
from index.publish import TARGET_RECALL, publish_vectors
from index.queries import Queries, checked_count
from index.search import NOTHING_HIDDEN, best_of_each, open_index
from index.state import State, holds, merged
from index.tail import NOBODY, Tail, compile_ahead
from index.versions import current_version, manifests, merged_range, publishing, removals

log = logging.getLogger(__name__)


class LiveIndex(Queries):
    """A published index and the changes since. Any number of processes may read one; one of them may write.

    Safe to use from several threads. Readers see another process's changes after `refresh`. Raises `IndexUnavailable`
    as `open_index` does, `StorageError` where another process writes already.
    """

    def __init__(
        self, folder: Path, name: str, *, write: bool = False, expect_model: str | None = None, device: str = "cpu"
    ) -> None:
        """`device`: where the base is searched, as of `open_index`."""
        self._folder, self._name, self._expect, self._device = folder, name, expect_model, device
        self._changing, self._process = threading.RLock(), Process(name)
        self._writer: Writer | None = None
        self._next_id = self._applied = 0
        self._state: State
        self._stale = True
        if write:
            if not index_home(folder, name).is_dir():
                raise IndexUnavailable(f"the index {name} has not been published")
            self._writer = Writer(index_home(folder, name), merged_range(folder, name)[1])
        try:
            self._load()
            self._tidy()
            compile_ahead(self.manifest.dim)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def __enter__(self) -> LiveIndex:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def manifest(self) -> Manifest:
        """Of the base."""
        return self._state.base.manifest

    @property
    def pending(self) -> int:
        """Contents that were added or changed since the base was built."""
        return sum(map(bool, self._state.ids))

    def put(
        self, content_id: str, vectors: np.ndarray, *, about: Mapping[str, Any] | None = None,
        windows: Sequence[int] | None = None,
    ) -> None:  # fmt: skip
        """Adds a content, or replaces all that is held of it. `vectors`: float32 (windows, dim) of unit norm; `about`:
        what it may be filtered by. Raises `EarmarkError` for vectors that cannot be indexed, `StorageError` where the
        log cannot be written; nothing is changed then."""
        self.put_many([(content_id, vectors, about, windows)])

    def put_many(
        self, contents: Iterable[tuple[str, np.ndarray, Mapping[str, Any] | None, Sequence[int] | None]]
    ) -> None:
        """`put` for many (content id, vectors, about, windows), written at once."""
        self._process.check()
        with self._changing:
            writer = self._caught_up()
            base = self._state.base
            dim, schema = base.manifest.dim, base.metadata.schema if base.metadata is not None else None
            # Copied before anything is counted: whoever makes them may use their memory again, or put others meanwhile.
            each = map(checked_content, contents)
            given = [(one, checked_rows(one, rows, dim), about, chosen) for one, rows, about, chosen in each]
            number, next_id = writer.number, self._next_id
            records = []
            known: dict[tuple[str, int], int] = {}
            for content_id, vectors, about, windows in given:
                chosen = checked_windows(content_id, len(vectors), windows)
                numbers = []
                for window in chosen:
                    found = known.get((content_id, window), self._id_of(content_id, window))
                    if found is None:
                        found, next_id = next_id, next_id + 1
                    known[content_id, window] = found
                    numbers.append(found)
                number += 1
                told = checked_about(content_id, about, schema)
                model = self.manifest.model_id
                records.append(Record(number, PUT, content_id, tuple(numbers), chosen, told, vectors, model))
            if records:
                self._next_id = next_id  # also where it fails: a reader may have seen them
                writer.append(records)
                self._apply(records)

    def delete(self, content_ids: Ids) -> list[str]:
        """Takes contents away, one as a string or several; returns the ids that were not there, and logs them as a
        warning. Raises `WrongType` for what are no ids, `StorageError`; nothing is deleted then."""
        wanted = list(dict.fromkeys(id_list(content_ids)))
        self._process.check()
        with self._changing:
            writer = self._caught_up()
            gone = [one for one in wanted if holds(self._state, one)]
            missing = sorted(set(wanted) - set(gone))
            records = [Record(writer.number + n, DELETE, one) for n, one in enumerate(gone, 1)]
            if records:
                writer.append(records)
                self._apply(records)
        if missing:
            log.warning("not in the index %s, so not deleted: %s", self._name, some_of(missing))
        return missing

    def refresh(self) -> bool:
        """Takes in what others published and logged since; returns whether there was anything."""
        self._process.check()
        with self._changing:
            version = current_version(self._folder, self._name)
            if version is None:
                raise IndexUnavailable(f"the index {self._name} was removed")
            try:
                fresh = [] if self._stale else self._read()
            except Rewound:
                self._stale = True
            except BaseException:
                self._stale = True
                raise
            if (
                self._stale
                or version != current_version(self._folder, self._name)
                or version != self._state.base.manifest.version
            ):
                self._load()
                self._tidy()
                return True
            fresh = [one for one in fresh if one.number > self._applied]
            self._apply(fresh)
            return bool(fresh)

    def merge(self, **options: Any) -> Manifest:
        """Builds and publishes a version that holds the changes, and serves it; `options` as of `publish_vectors`. What
        the base holds is taken from its codes: a build from the vectors themselves (a pipeline's) is finer. Changes may
        go on meanwhile. Raises `EarmarkError` where everything was deleted."""
        with publishing(index_home(self._folder, self._name)):
            self.refresh()
            base = self._state.base
            if self._state.gone.all() and not self.pending:
                raise EarmarkError(
                    f"the index {self._name} holds nothing any more, and a version of nothing cannot be built: put "
                    f"something first, or take what it held away for good with `index.remove`"
                )
            options = {"target_recall": TARGET_RECALL, "metadata": base.metadata, **options}
            publish_vectors(
                self._folder,
                self._name,
                base.rows(),
                model_id=base.manifest.model_id,
                dim=base.manifest.dim,
                source=base.manifest.source,
                windows="window",
                **options,
            )
            self.refresh()
        return self.manifest

    def search(self, vectors: np.ndarray, k: int, exclude: Ids = (), where: pc.Expression | None = None) -> pa.Table:
        """As `Searcher.search`, over the base and the changes. A content has null in the columns that
        nothing was said about. The base's scores and those of changes are equal to rounding only: of twins
        that differ by that, either may come first."""
        state, left_out = self._state, set(id_list(exclude))
        vectors, k = state.base.checked(vectors), min(checked_count(k), len(state.base.contents) + len(state.ids))
        base = state.base.ranked(vectors, k, state.base.hidden(left_out, where, state.hidden))
        if not state.tail.count:
            return state.base.table(base)
        hidden = self._hidden_tail(state, left_out, where) if left_out or where is not None else NOBODY
        # What scores less than the last of a full answer of the base is none of the best.
        tail = [
            state.tail.nearest(query, k, best[-1] if len(best) == k else -np.inf, hidden)
            for query, (_, best) in zip(vectors, base, strict=True)
        ]
        if not any(len(numbers) for numbers, _ in tail):
            return state.base.table(base)
        return merged(state, base, tail, k)

    def checked(self, vectors: np.ndarray) -> np.ndarray:
        """As `Searcher.checked`."""
        return self._state.base.checked(vectors)

    def _compared(self, vectors: np.ndarray, score: float, where: pc.Expression | None) -> pa.Table:
        state = self._state
        base = state.base.compared(vectors, score, state.base.hidden((), where, state.hidden))
        tail = state.tail
        alive = np.flatnonzero(~tail.dead[: tail.count])
        if where is not None:
            alive = alive[~self._hidden_tail(state, set(), where)[tail.content_of[alive]]]
        if not alive.size or not len(vectors):
            return state.base.table(base)
        scores = vectors @ tail.matrix[alive].T
        added = []
        for own in scores:
            near = own >= score
            added.append(best_of_each(tail.content_of[alive[near]], own[near]))
        return merged(state, base, added, len(state.base.contents) + len(state.ids))

    def vectors(self, content_id: str) -> np.ndarray:
        """What is held of a content, float32 (windows, dim), by window. Raises `NotFound`."""
        state, content_id = self._state, one_id(content_id)
        state.base.process.check()
        number = state.numbers.get(content_id)
        if number is not None and state.ids[number]:
            tail = state.tail
            rows = (tail.content_of[: tail.count] == number) & ~tail.dead[: tail.count]
            return np.asarray(tail.matrix[: tail.count][rows][np.argsort(list(state.ids[number]))])
        if not holds(state, content_id):
            raise NotFound(f"{content_id!r} is not in the index {self._name}")
        return state.base.vectors(content_id)

    def _writing(self) -> Writer:
        self._process.check()
        if self._writer is None:
            raise EarmarkError(f"the index {self._name} is open for reading; open it with write=True")
        return self._writer

    def _caught_up(self) -> Writer:
        """The writer, after a look for what others published: ids and contents are told from the newest version."""
        writer = self._writing()
        if self._stale or current_version(self._folder, self._name) != self._state.base.manifest.version:
            self.refresh()
        return writer

    def _tidy(self) -> None:
        """Ends a segment whose changes the base holds, and deletes those that every version holds."""
        if self._writer is not None:
            if self._state.base.manifest.merged >= self._writer.number:
                self._writer.rotate()
            self._writer.retire(merged_range(self._folder, self._name)[0])

    def _read(self) -> list[Record]:
        """What came to the log and counts. Ids count whatever became of their record. Raises as `Reader.read` does."""
        found = list(self._reader.read())
        self._next_id = max([self._next_id, *(max(one.ids) + 1 for one in found if one.ids)])
        return [one for one in found if self._counts(one)]

    def _load(self) -> None:
        unless_rewound(self._name, self._load_once)

    def _load_once(self) -> None:
        self._stale = True
        base = open_index(self._folder, self._name, expect_model=self._expect, device=self._device)
        nothing = np.zeros(len(base.contents), bool)
        self._applied = base.manifest.merged
        self._next_id = max(found.next_id for found in [base.manifest, *manifests(self._folder, self._name)])
        self._reader = Reader(index_home(self._folder, self._name), base.manifest.merged)
        self._removed, self._model = removals(self._folder, base.manifest), base.manifest.model_id
        state = State(base, nothing, NOTHING_HIDDEN, Tail(base.manifest.dim), {}, (), ())
        records = self._read()
        if current_version(self._folder, self._name) != base.manifest.version:
            raise Rewound(self._name)
        self._state = self._changed(state, records)
        self._stale = False

    def _counts(self, record: Record) -> bool:
        """Whether the content was not removed from the published index since, and its vectors are of this model."""
        ours = record.op == DELETE or record.model_id == self._model
        return ours and record.number > self._removed.get(record.content_id, -1)

    def _apply(self, records: Sequence[Record]) -> None:
        if not records:
            return
        try:
            self._state = self._changed(self._state, records)
        except BaseException:
            self._stale = True  # the log holds what the state does not: read it again
            raise

    def _changed(self, state: State, records: Sequence[Record]) -> State:
        """The state after some records; the one before is left alone."""
        if not records:
            return state
        gone, tail, numbers = state.gone.copy(), state.tail, dict(state.numbers)
        about, ids = list(state.about), list(state.ids)
        names = list(tail.contents)
        for record in records:
            if (place := state.base.number_of(record.content_id)) is not None:
                gone[place] = True
            number = numbers.get(record.content_id)
            if record.op == DELETE:
                if number is not None:
                    tail, ids[number] = tail.without(number), {}
            else:
                if number is None:
                    number = numbers[record.content_id] = len(names)
                    names.append(record.content_id)
                    about.append(None)
                    ids.append({})
                about[number] = record.about
                ids[number] = dict(zip(record.windows, record.ids, strict=True))
                assert record.vectors is not None
                tail = tail.put(number, record.vectors)
                self._next_id = max(self._next_id, max(record.ids, default=-1) + 1)
            self._applied = record.number
        tail = replace(tail.compacted(), contents=names)
        return State(state.base, gone, state.base.hide(gone), tail, numbers, tuple(about), tuple(ids))

    def _id_of(self, content_id: str, window: int) -> int | None:
        """The id that the window of a content has; None where it has none, or was deleted."""
        state = self._state
        number = state.numbers.get(content_id)
        if number is not None and state.ids[number]:
            return state.ids[number].get(window)
        return state.base.id_of(content_id, window) if holds(state, content_id) else None

    def _hidden_tail(self, state: State, left_out: set[str], where: pc.Expression | None) -> np.ndarray:
        """Contents of the tail that may not be found, bool by number."""
        hidden = np.zeros(len(state.tail.contents), bool)
        for name in left_out:
            number = state.numbers.get(name)
            if number is not None:
                hidden[number] = True
        if where is not None:
            hidden |= ~state.base.holds_for(where, state.tail.contents, state.about)
        return hidden
