"""Vectors added since the last build: compared exactly, those that one-bit codes do not rule out (`index.onebit`)."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from index.onebit import encode, nearest, room, signs

CODED_FROM = 512  # rows; fewer are compared one by one
COMPACTED_FROM = 1024  # rows; from here on they are written anew when most of them are dead
NOBODY = np.empty(0, bool)


@dataclass(frozen=True)
class _Codes:
    """One-bit codes of rows less `centre`; room for as many rows as the matrix has at least."""

    centre: np.ndarray
    signs: np.ndarray
    bits: np.ndarray
    kept: np.ndarray

    @classmethod
    def none(cls) -> _Codes:
        return cls(np.empty(0, np.float32), np.empty((0, 0), np.float32), *room(0, 64))

    @classmethod
    def of(cls, rows: np.ndarray, size: int) -> _Codes:
        """Of the rows, with room for `size`."""
        flips = signs(rows.shape[1])
        codes = cls(rows.mean(axis=0, dtype=np.float32), flips, *room(size, flips.shape[1]))
        encode(rows, 0, codes.centre, flips, codes.bits, codes.kept)
        return codes

    def with_room(self, size: int) -> _Codes:
        if not len(self.bits) or size <= self.kept.shape[1]:
            return self
        bits, kept = room(size, self.signs.shape[1])
        bits[: len(self.bits)], kept[:, : self.kept.shape[1]] = self.bits, self.kept
        return replace(self, bits=bits, kept=kept)


@dataclass(frozen=True)
class Tail:
    """Rows in the order in which they came; a snapshot, which later changes leave alone. `content_of` numbers contents
    by row, `names` are their ids; rows of a content that was changed or deleted since are `dead`. Arrays may be longer
    than `count`."""

    dim: int
    count: int = 0
    matrix: np.ndarray = field(default_factory=lambda: np.empty((0, 0), np.float32))
    content_of: np.ndarray = field(default_factory=lambda: np.empty(0, np.int32))
    dead: np.ndarray = field(default_factory=lambda: np.empty(0, bool))
    contents: tuple[str, ...] | list[str] = ()
    codes: _Codes = field(default_factory=_Codes.none)

    def put(self, number: int, vectors: np.ndarray) -> Tail:
        """With the rows of the content of that number; its earlier rows are dead."""
        dead = self.without(number).dead if (self.content_of[: self.count] == number).any() else self.dead
        total = self.count + len(vectors)
        matrix, content_of, codes = self.matrix, self.content_of, self.codes
        if total > len(matrix):
            size = max(1024, 2 * total)
            matrix, content_of = np.empty((size, self.dim), np.float32), np.empty(size, np.int32)
            if self.count:
                matrix[: self.count] = self.matrix[: self.count]
                content_of[: self.count] = self.content_of[: self.count]
            codes = codes.with_room(size)
        # Rows behind those of a snapshot are nobody's, so they may be written in place.
        matrix[self.count : total], content_of[self.count : total] = vectors, number
        if len(codes.bits):
            encode(matrix[self.count : total], self.count, codes.centre, codes.signs, codes.bits, codes.kept)
        elif total >= CODED_FROM:
            codes = _Codes.of(matrix[:total], len(matrix))
        dead = np.concatenate([dead[: self.count], np.zeros(len(vectors), bool)])
        return replace(self, count=total, matrix=matrix, content_of=content_of, dead=dead, codes=codes)

    def without(self, number: int) -> Tail:
        dead = self.dead[: self.count] | (self.content_of[: self.count] == number)
        return replace(self, dead=dead)

    def compacted(self) -> Tail:
        """The same without its dead rows, where these are many; itself otherwise."""
        if self.count <= COMPACTED_FROM or 2 * np.count_nonzero(self.dead) <= self.count:
            return self
        alive = np.flatnonzero(~self.dead)
        matrix, content_of = self.matrix[alive], self.content_of[alive]
        codes = _Codes.of(matrix, len(alive)) if len(alive) >= CODED_FROM else _Codes.none()
        dead = np.zeros(len(alive), bool)
        return replace(self, count=len(alive), matrix=matrix, content_of=content_of, dead=dead, codes=codes)

    def nearest(
        self, query: np.ndarray, k: int, floor: float = -np.inf, hidden: np.ndarray = NOBODY
    ) -> tuple[np.ndarray, np.ndarray]:
        """Numbers (int32) and scores (float32), in no order, of the k contents nearest a vector, float32 (dim), and of
        those whose score equals the k-th; none that is `hidden` (bool by number, or empty) or scores below `floor`."""
        codes = self.codes
        return nearest(  # type: ignore[no-any-return]
            query.copy(),  # what may not be written would be compiled anew
            k,
            np.float32(floor),
            self.matrix,
            self.count,
            self.content_of,
            len(self.contents),
            self.dead,
            hidden,
            codes.centre,
            codes.signs,
            codes.bits,
            codes.kept,
        )


def compile_ahead(dim: int) -> None:
    """Seconds where numba's cache is empty, so that they are none of a query's."""
    rows = np.zeros((CODED_FROM, dim), np.float32)
    replace(Tail(dim).put(0, rows).put(0, rows[:1]), contents=[""]).nearest(rows[0], 1)
