"""The pushing half of an online store. Rows in force are written at once. Rows that are dated in the future wait until
they are due; the next read, push or materialisation then writes them."""

from __future__ import annotations

import logging
import threading
import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from core.errors import StorageError
from feature_repo.plugins.online.definition import Definition, Ledger, define
from feature_repo.plugins.online.entity_keys import Keys
from feature_repo.plugins.online.pending import (
    PendingRow,
    merged,
    now_us,
    pending_rows,
    rows_of_pending,
    wait_for_the_nearest,
)
from feature_repo.plugins.online.response import FastReads
from feature_repo.plugins.online.rows import Found, Rows, micros_of, rows_of_protos
from feature_repo.plugins.online.views import ViewPlan, plan_view

LOOK_S = 0.5  # least time between two searches for rows that are due, in each process and for each view
LOOK_A_ROW_S = 1e-4  # added to it for each row that waits, so that searches take a small share of the time
WAIT_S = 0.5  # longest time that a read waits until rows that are due are written
log = logging.getLogger(__name__)


class ReadsAndPushes(FastReads):
    """An online store over `stored_rows` and `write_rows`. To be mixed in before the Feast class."""

    @abstractmethod
    def stored_rows(self, config: Any, plans: Sequence[ViewPlan], keys: Sequence[Keys]) -> list[Found]:
        """The rows of each view's keys as they are stored, in force. Raises `StorageError`."""

    @abstractmethod
    def write_rows(self, config: Any, plan: ViewPlan, rows: Rows, *, pushed: bool = False, again: bool = False) -> int:
        """Writes the rows that are newer than what is online; returns how many. Raises `StorageError`."""

    @abstractmethod
    def hold(self, config: Any, plan: ViewPlan, rows: Sequence[PendingRow]) -> None:
        """Keeps rows whose time has not come. Raises `StorageError`."""

    @abstractmethod
    def held(self, config: Any, plan: ViewPlan) -> list[PendingRow]:
        """All the rows that wait."""

    @abstractmethod
    def release(self, config: Any, plan: ViewPlan, rows: Sequence[PendingRow]) -> None:
        """Stops keeping these rows."""

    @abstractmethod
    def ledger(self, config: Any, plan: ViewPlan) -> Ledger:
        """What is known of the view's rows."""

    @abstractmethod
    def begin(self, config: Any, plan: ViewPlan, definition: Definition, is_whole: bool) -> None:
        """Takes `definition` for the view's, and removes rows that do not compare with those that it has."""

    def read_rows(self, config: Any, plans: Sequence[ViewPlan], keys: Sequence[Keys]) -> list[Found]:
        """The rows of each view's keys that are in force, pushed ones included whose time came meanwhile. Raises
        `StorageError`."""
        looks: dict[tuple[str, str], float] = self.__dict__.setdefault("_looks", {})
        began = time.monotonic()
        for plan in plans:
            if began >= looks.get((plan.project, plan.name), 0.0):
                self._look(config, plan.whole or plan, looks)
        return self.stored_rows(config, plans, keys)

    def _look(self, config: Any, plan: ViewPlan, looks: dict[tuple[str, str], float]) -> None:
        """Writes what waited and is due. Another thread does it, so that a reader is not held up where the store is
        locked or may only be read."""
        # Other threads of this process do not look meanwhile.
        looks[plan.project, plan.name] = time.monotonic() + LOOK_S
        if len(plan.features) < plan.stored:
            return
        waiting, now = [row.event_us for row in self.held(config, plan)], now_us()
        if any(event <= now for event in waiting):
            writing = threading.Thread(target=self._promote_quietly, args=(config, plan), daemon=True)
            writing.start()
            writing.join(WAIT_S)
        nearest_s = min((event - now for event in waiting if event > now), default=0) / 1e6
        pause_s = LOOK_S + len(waiting) * LOOK_A_ROW_S
        looks[plan.project, plan.name] = time.monotonic() + (min(pause_s, nearest_s) if nearest_s else pause_s)

    def _promote_quietly(self, config: Any, plan: ViewPlan) -> None:
        try:
            self.promote(config, plan)
        except StorageError as error:
            log.warning("%s: pushed rows that are due could not be written: %s", plan.name, error)

    def online_write_batch(
        self, config: Any, table: Any, data: list[Any], progress: Callable[[int], Any] | None
    ) -> None:
        """Feast's own way to write rows. A row that is dated in the future is kept and becomes visible with the first
        read, push or materialisation of the view that comes after its time."""
        plan, suffix = plan_view(config, table), self.key_suffix(config)
        if getattr(table, "batch_source", None) is not None:
            self._make_way(config, plan, define(config, table))
        events = [micros_of(event) for _, _, event, _ in data]
        until_us = wait_for_the_nearest(events)
        self.promote(config, plan, until_us)
        present = [row for row, event in zip(data, events, strict=True) if event <= until_us]
        future = [row for row, event in zip(data, events, strict=True) if event > until_us]
        if present:
            self.write_rows(config, plan, rows_of_protos(plan, present, suffix), pushed=True)
        if future:
            new = [p for one in future for p in pending_rows(plan, rows_of_protos(plan, [one], suffix))]
            self.hold(config, plan, merged(self.held(config, plan), new))
        if progress:
            progress(len(data))

    def _make_way(self, config: Any, plan: ViewPlan, definition: Definition) -> None:
        """Removes rows of an earlier definition whose keys or times do not compare with those of a push: else the next
        materialisation would remove what was pushed along with them. A definition is looked up once in a row."""
        known: dict[tuple[str, str], Definition] = self.__dict__.setdefault("_definitions", {})
        if known.get((plan.project, plan.name)) == definition:
            return
        earlier = self.ledger(config, plan).definition
        if earlier and earlier.has_other_keys_or_times_than(definition):
            self.begin(config, plan, definition, False)
        known[plan.project, plan.name] = definition

    def promote(self, config: Any, plan: ViewPlan, until_us: int | None = None) -> int:
        """Writes the kept rows whose time has come; returns how many replaced what was online."""
        until_us = now_us() if until_us is None else until_us
        due = [row for row in self.held(config, plan) if row.event_us <= until_us]
        if not due:
            return 0
        written = self.write_rows(config, plan, rows_of_pending(plan, due), pushed=True)
        self.release(config, plan, due)
        return written

    def has_due(self, config: Any, plan: ViewPlan) -> bool:
        """Whether rows wait whose time has come."""
        now = now_us()
        return any(row.event_us <= now for row in self.held(config, plan))
