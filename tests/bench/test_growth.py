"""Exponents of growth: a step that is quadratic is seen to be, whatever its fixed cost, and a linear one is not."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from bench.growth import Costs, Workload, enrich, exponent, growth_rows, step_costs
from pipelines import inprocess
from pipelines.graph import STEPS, Step

GROWTH: dict[str, Callable[[int], float]] = {
    "linear": lambda n: 3.0 + 0.002 * n,
    "sorted": lambda n: 0.5 + 1e-4 * n * len(f"{n:b}"),
    "quadratic": lambda n: 3.0 + 2e-6 * n**2,
    "scan": lambda n: 0.001 * n + 3e-6 * n * n,  # quadratic in the end
    "small": lambda n: 1e-5 * n,
}


class Clock:
    """A meter that steps wind on."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def planted(clock: Clock, noise: Iterable[float] = ()) -> Workload:
    """A workload whose steps cost what `GROWTH` says, times the noise of the round."""
    more = iter(noise)

    def workload(size: int, on_step: Callable[[str], None]) -> None:
        clock.seconds += 100.0  # before the first step
        factor = next(more, 1.0)
        for name, cost in GROWTH.items():
            on_step(name)
            clock.seconds += cost(size) * factor

    return workload


def measured(workload: Workload, clock: Clock, sizes: Iterable[int] = (1, 1_000, 4_000, 16_000)) -> dict[int, Costs]:
    return {size: step_costs(workload, size, clock) for size in sizes}


def test_a_planted_quadratic_step_exceeds_the_bar_and_a_linear_one_holds_it() -> None:
    clock = Clock()
    rows = {row.name: row for row in growth_rows([measured(planted(clock), clock)], "contents")}
    assert set(rows) == {"exponent-linear", "exponent-sorted", "exponent-quadratic", "exponent-scan", "seconds-small"}
    assert rows["exponent-linear"].ours == pytest.approx(1.0, abs=1e-3)
    assert rows["exponent-sorted"].ours < 1.2
    assert rows["exponent-quadratic"].ours == pytest.approx(2.0, abs=1e-3)
    assert 1.5 < rows["exponent-scan"].ours < 2.0
    assert rows["seconds-small"].ours == pytest.approx(0.16, abs=1e-3)
    assert "16000 contents: 32.00 CPU s" in rows["exponent-linear"].note


def test_the_median_of_the_rounds_counts() -> None:
    rounds = []
    for factor in (1.0, 3.0, 1.0):
        clock = Clock()
        rounds.append(measured(planted(clock, [1.0, 1.0, 1.0, factor]), clock))
    rows = {row.name: row for row in growth_rows(rounds, "contents")}
    assert rows["exponent-linear"].ours == pytest.approx(1.0, abs=1e-3)
    assert "1.00 to 1.8" in rows["exponent-linear"].note


def test_an_exponent_is_the_slope_of_logarithms() -> None:
    assert exponent([10, 40], [2.0, 8.0]) == pytest.approx(1.0)
    assert exponent([10, 40], [2.0, 32.0]) == pytest.approx(2.0)
    assert exponent([10, 40], [0.0, 1.0]) == float("inf")


@pytest.mark.exhaustive
def test_a_quadratic_step_planted_in_real_runs_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()

    def scan(run: object) -> None:
        clock.seconds += 1e-3 * size**2

    def pass_(run: object) -> None:
        clock.seconds += 0.1 * size

    steps = (Step("scan", scan, title="a planted scan"), Step("pass", pass_, title="a planted pass"))
    monkeypatch.setattr("pipelines.graph.STEPS", (*STEPS, *steps))
    monkeypatch.setattr(inprocess, "STEPS", (*STEPS, *steps))
    found = {}
    for size in (2, 50, 100):
        found[size] = step_costs(enrich, size, clock)
    rows = {row.name: row.ours for row in growth_rows([found], "contents")}
    assert rows["exponent-scan"] > 1.5 and rows["exponent-pass"] < 1.1
