"""The pushing half of an online store: what is in force is written at once, what is dated in the future waits."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from feature_repo.plugins.online.pending import (
    PendingRow,
    now_us,
    pending_rows,
    rows_of_pending,
    wait_for_the_nearest,
)
from feature_repo.plugins.online.response import FastReads
from feature_repo.plugins.online.rows import Rows, micros_of, rows_of_protos
from feature_repo.plugins.online.views import ViewPlan, plan_view


class ReadsAndPushes(FastReads):
    """An online store over `read_rows` and `write_rows`. To be mixed in before the Feast class."""

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

    def online_write_batch(
        self, config: Any, table: Any, data: list[Any], progress: Callable[[int], Any] | None
    ) -> None:
        """Feast's own way to write rows. A row that is dated in the future is kept and becomes visible with the first
        push to the view or materialisation of it that comes after its time."""
        plan, suffix = plan_view(config, table), self.key_suffix(config)
        events = [micros_of(event) for _, _, event, _ in data]
        until_us = wait_for_the_nearest(events)
        self.promote(config, plan, until_us)
        present = [row for row, event in zip(data, events, strict=True) if event <= until_us]
        future = [row for row, event in zip(data, events, strict=True) if event > until_us]
        if present:
            self.write_rows(config, plan, rows_of_protos(plan, present, suffix), pushed=True)
        if future:
            self.hold(
                config, plan, [p for one in future for p in pending_rows(plan, rows_of_protos(plan, [one], suffix))]
            )
        if progress:
            progress(len(data))

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
