"""How the cost of each step of a run grows with the catalogue, as the exponent of its CPU seconds.

Whole runs enrich contents with text alone by models that are stubs, so that what is measured is the work of the steps
themselves; one content in fifty cannot be read, and one in ten matches an exemplar. Beside them stand a scan that
looks at everything again, the state of moderation as it is read from the audit, and skip detection over the
fingerprints of a store that has one part an episode.

The exponent of a step is the slope of the logarithm of its CPU seconds between the two largest catalogues, after its
cost for a store with one content is taken off. Steps that cost little at the largest size are reported in seconds.
"""

from __future__ import annotations

import hashlib
import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from bench.frame import Benchmark, Row, adopt_orphans, cpu_seconds

CONTENTS, QUICK_CONTENTS = (1_000, 4_000, 16_000), (1_000, 4_000, 8_000)
EPISODES, QUICK_EPISODES = (100, 400, 1_600), (50, 100, 200)
ROUNDS = 3
LEAST_S = 0.5  # CPU seconds at the largest size from which a step has an exponent
BAR = 1.1
MATCHING, UNREADABLE = 10, 50  # one content of so many
EXEMPLARS = 10
DECISIONS_A_BLOCK = 1_000
WORDS_A_TEXT = 120
EPISODE_FRAMES, INTRO_FRAMES = 3_750, 600  # two minutes, nineteen seconds
DIM = 384
START = datetime(2026, 1, 1, tzinfo=UTC)
Meter = Callable[[], float]
Costs = dict[str, float]  # step → CPU seconds
# Runs what is measured over a catalogue of that size; calls its argument with the name of each step that begins.
Workload = Callable[[int, Callable[[str], None]], None]


def step_costs(workload: Workload, size: int, meter: Meter = cpu_seconds) -> Costs:
    """The cost of each step of a workload at a size, by name. Work before the first step is not counted."""
    marks: list[tuple[str, float]] = []
    workload(size, lambda name: marks.append((name, meter())))
    ends = [at for _, at in marks[1:]] + [meter()]
    costs: Costs = {}
    for (name, begun), ended in zip(marks, ends, strict=True):
        costs[name] = costs.get(name, 0.0) + ended - begun
    return costs


def growth_rows(rounds: Sequence[Mapping[int, Costs]], what: str, least_s: float = LEAST_S) -> list[Row]:
    """A row for each step: its exponent between the two largest sizes, the median of the rounds, or its seconds where
    it costs less than `least_s` at the largest. A round has the costs of the steps by size; the smallest size is the
    empty store, whose costs are taken off."""
    empty, *sizes = sorted(rounds[0])
    rows = []
    for step in rounds[0][sizes[-1]]:
        fixed = statistics.median(costs[empty][step] for costs in rounds)
        net = {size: [costs[size][step] - fixed for costs in rounds] for size in sizes}
        medians = {size: statistics.median(values) for size, values in net.items()}
        by_size = ", ".join(f"{size} {what}: {seconds:.2f} CPU s" for size, seconds in medians.items())
        if medians[sizes[-1]] < least_s:
            rows.append(Row(f"seconds-{step}", medians[sizes[-1]], None, None, "CPU s", note=by_size))
            continue
        found = [exponent(sizes[-2:], [net[size][number] for size in sizes[-2:]]) for number in range(len(rounds))]
        spread = f"{min(found):.2f} to {max(found):.2f}; the bar is {BAR}; {by_size}"
        rows.append(
            Row(f"exponent-{step}", statistics.median(found), None, 1.0, f"of {what}", "", "linear", note=spread)
        )
    return rows


def exponent(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """The slope of the logarithm of costs between two sizes; infinite from a cost of nothing."""
    if costs[0] <= 0:
        return math.inf
    return math.log(costs[1] / costs[0]) / math.log(sizes[1] / sizes[0])


class StubText:
    """A stub of a text model: its unit vectors are functions of the words."""

    modality, model_id, dim = "text", "stub-text-v1", DIM

    def embed(self, batch: Sequence[Any]) -> np.ndarray:
        return np.stack([unit(text.full) for text in batch])

    def passages(self, batch: Sequence[Any]) -> list[tuple[np.ndarray, np.ndarray]]:
        from embedders.text import passages

        spans = [passages(text.full) for text in batch]
        return [
            (np.stack([unit(text.full[a:b]) for a, b in own]), np.array(own, np.int64))
            for text, own in zip(batch, spans, strict=True)
        ]


class StubSignals:
    """The counts of a text without the models of language and offence."""

    modality, model_id, version = "text", "stub-signals", 1

    def __init__(self) -> None:
        from core.features import TEXT_SIGNALS

        self.view = TEXT_SIGNALS

    def listeners(self) -> list[Any]:
        return []

    def enrich(self, batch: Sequence[Any]) -> list[dict[str, Any]]:
        from enrichers.text import statistics as counts

        fixed = {"language": "en", "language_confidence": 1.0, "profanity_score": 0.01}
        return [{**fixed, **counts(text.full)} for text in batch]


def unit(text: str) -> np.ndarray:
    """A unit vector, float32 (DIM,), that a text always has and no other text is near."""
    seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
    vector = np.random.default_rng(seed).standard_normal(DIM, np.float32)
    found: np.ndarray = vector / np.linalg.norm(vector)
    return found


@contextmanager
def stub_models() -> Iterator[None]:
    """Runs use the stubs for text, and the bundled models, which are never loaded, for the rest."""
    from embedders import registry
    from enrichers import registry as enrichers

    load, load_enrichers = registry.load_profile, enrichers.load_enrichers
    signals = StubSignals()
    with (
        mock.patch.object(registry, "load_profile", lambda *a, **k: replace(load(*a, **k), text=StubText())),
        mock.patch.object(
            enrichers, "load_enrichers", lambda *a, **k: {**load_enrichers(*a, **k), signals.view.name: signals}
        ),
    ):
        yield


def write_catalog(path: Path, count: int) -> None:
    """`count` contents with text: every `MATCHING`th says what an exemplar says; the cover of every `UNREADABLE`th is
    missing."""
    rng = np.random.default_rng(0)
    with open(path, "w") as file:
        for number in range(count):
            matching = number % MATCHING == 0
            words = " ".join(f"word{n}" for n in rng.integers(0, 2_000, WORDS_A_TEXT))
            row = {
                "content_id": f"content-{number:06d}",
                "kind": "chapter",
                "title": "Banned" if matching else f"Number {number}",
                "text": banned(number // MATCHING) if matching else words,
                "show_id": f"show-{number // 20}",
                "updated_at": (START + timedelta(minutes=number)).isoformat(),
            }
            if number % UNREADABLE == 1:
                row["image_uri"] = "missing.png"
            file.write(json.dumps(row) + "\n")


def banned(number: int) -> str:
    return f"The words of exemplar number {number % EXEMPLARS}"


def new_store(folder: Path, source: Path) -> Any:
    """The storage of a store in which a run has begun, so that exemplars can be added before anything is enriched."""
    from core.config import Config
    from core.storage import open_storage
    from pipelines.context import Run

    storage = open_storage(folder)
    Run(storage, "begun", str(source), Config(device="cpu")).save()
    return storage


def ban(storage: Any, number: int) -> None:
    """Adds an exemplar of what some contents say."""
    from moderation.exemplars import Exemplars

    evidence = {"text": f"exemplar {number}", "model_id": StubText.model_id}
    vector = {"vector": unit(f"Banned\n{banned(number)}")}
    Exemplars(storage).add("abusive-language", "text", evidence, vector, name=str(number), state="active")


def enrich(size: int, on_step: Callable[[str], None]) -> None:
    """A run into an empty store, the same run again, and a scan in which an exemplar that is new is compared with
    everything."""
    from core.config import Config
    from pipelines import moderate
    from pipelines.context import Run
    from pipelines.graph import STEPS
    from pipelines.inprocess import run_catalog

    names = {step.title: step.name for step in STEPS}
    with stub_models(), tempfile.TemporaryDirectory() as scratch:
        source, store = Path(scratch) / "catalog.jsonl", Path(scratch) / "store"
        write_catalog(source, size)
        storage = new_store(store, source)
        for number in range(EXEMPLARS - 1):
            ban(storage, number)
        config = Config(device="cpu")
        summary = run_catalog(str(source), str(store), config, on_step=lambda title: on_step(names[title]))
        on_step("rerun")
        run_catalog(str(source), str(store), config)
        on_step("")
        ban(storage, EXEMPLARS - 1)
        on_step("rescan")
        found = moderate.scan(Run.load(str(store), summary["run_id"]))
        assert found["looked_at"] == size, found
        on_step("")


class Episodes:
    """Made-up episodes in fingerprint frames: noise of their own that moves as speech does, with the intro of their
    show, which has twenty, somewhere in it. Nothing else repeats, however many there are."""

    def frames(self, number: int) -> np.ndarray:
        """uint8 (EPISODE_FRAMES, 32)."""
        made = _moving(EPISODE_FRAMES, (1, number))
        intro = _moving(INTRO_FRAMES, (2, number // 20))
        at = int(np.random.default_rng((3, number)).integers(100, EPISODE_FRAMES - INTRO_FRAMES - 100))
        made[at : at + INTRO_FRAMES] = intro
        return made

    def store(self, root: Path, count: int) -> Any:
        """A run on a store that has the fingerprints of `count` episodes, each in a part of its own."""
        from core.config import Config
        from core.contracts import CREATED, EVENT, WORK_KEY
        from core.features import CONTENT, FINGERPRINT, MODERATION, SEGMENTS, SKIPS, SPEECH
        from core.storage import open_storage
        from core.tables import rows_to_table
        from pipelines.context import Run

        run = Run(open_storage(root), "growth", str(root), Config(device="cpu"))
        for view in (SPEECH, SEGMENTS, SKIPS, MODERATION):
            run.tables.ensure(view)
        for number in range(count):
            created = START + timedelta(seconds=number)
            stamp = {EVENT: START, CREATED: created, WORK_KEY: f"key {number}"}
            content = f"episode {number}"
            row = {"content_id": content, "kind": "episode", "show_id": f"show {number // 20}", "has_audio": True}
            sound = {"content_id": content, **fingerprint(self.frames(number), number)}
            for view, own in ((CONTENT, row), (FINGERPRINT, sound)):
                run.tables.commit(view, rows_to_table(view, [{**own, **stamp}]), created, f"{number:06d}")
        return run


def _moving(count: int, seed: tuple[int, int]) -> np.ndarray:
    """Frames whose bands rise and fall, uint8 (count, 32), always the same of a seed."""
    rng = np.random.default_rng(seed)
    walk = np.cumsum(rng.normal(0, 6, (count, 32)), axis=0)
    found: np.ndarray = (100 + 50 * np.sin(walk / 25) + rng.normal(0, 4, walk.shape)).clip(0, 255).astype(np.uint8)
    return found


def fingerprint(frames: np.ndarray, number: int) -> dict[str, Any]:
    """The features of a row of the view `fingerprint`."""
    import zlib

    from skips.frames import FRAME_S

    return {
        "audio_sha256": f"{number:064x}",
        "duration_s": len(frames) * FRAME_S,
        "frames": zlib.compress(frames.tobytes(), 1),
        "frame_count": len(frames),
        "silence_start_s": [],
        "silence_end_s": [],
        "silence_steady": [],
    }


def mark(size: int, on_step: Callable[[str], None]) -> None:
    """Skip detection over a store's episodes; then their frames alone are read once more, episode by episode."""
    from pipelines import skip_state, skips
    from pipelines.skip_catalog import Frames

    with stub_models(), tempfile.TemporaryDirectory() as scratch:
        run = Episodes().store(Path(scratch), size)
        on_step("skips-store")
        found = skips.step(run)
        assert found["new"] == size, found
        on_step("")
        known = skip_state.load(run.storage)
        on_step("skips-reads")
        frames = Frames(run.tables, known)
        for number in known.recordings:
            frames(number)
        on_step("")


def decide(size: int, on_step: Callable[[str], None]) -> None:
    """The state of moderation from an audit of so many decisions: read whole, and from a snapshot that ten records
    follow."""
    from core.storage import open_storage
    from moderation.audit import Audit
    from moderation.cases import Cases
    from moderation.decisions import Cited, Decision, policy_version
    from moderation.evidence import Evidence
    from moderation.policies import shipped_policies

    (policy,) = (p for p in shipped_policies() if p.id == "abusive-language")
    cited = tuple(Cited(f"abusive-language/{n}", n, "positive", "embedding", 0.8, first=0, last=90) for n in range(5))
    made = Decision(policy.id, policy_version(policy), "text", "review", True, 0.7, None, "embedding", cited)
    with tempfile.TemporaryDirectory() as scratch:
        storage = open_storage(scratch)
        cases = Cases(Audit(storage))
        contents = [(f"content-{n:06d}", made, Evidence("text", f"{n:064x}")) for n in range(size + 10)]
        for first in range(0, size, DECISIONS_A_BLOCK):
            cases.record([policy], contents[first : min(first + DECISIONS_A_BLOCK, size)], bank_at=0)
        cases.audit.history.keep(least=1)
        cases.record([policy], contents[size:], bank_at=0)
        for name, whole in (("audit-whole", True), ("audit-snapshot", False)):
            on_step(name)
            found = Cases(Audit(storage, whole))
            assert len(found.current) == size + 10, found.at
        on_step("")


WORKLOADS: dict[str, Workload] = {"contents": enrich, "decisions": decide, "episodes": mark}


def one_round(what: str, sizes: Iterable[int]) -> dict[int, Costs]:
    """Costs of the steps by size, in this process. A first call, whose costs are dropped, pays for imports; those of
    the empty store are medians of three."""
    workload = WORKLOADS[what]
    smallest = 2 if what == "episodes" else 1
    step_costs(workload, smallest)
    found = {}
    for size in (smallest, *sizes):
        times = [step_costs(workload, size) for _ in range(3 if size == smallest else 1)]
        costs = {step: statistics.median(each[step] for each in times) for step in times[0] if step}
        print(f"{size} {what}: {costs}", file=sys.stderr, flush=True)
        found[size] = costs
    return found


def run(quick: bool) -> list[Row]:
    sizes = {
        "contents": QUICK_CONTENTS if quick else CONTENTS,
        "decisions": QUICK_CONTENTS if quick else CONTENTS,
        "episodes": QUICK_EPISODES if quick else EPISODES,
    }
    rows = []
    for what, own in sizes.items():
        rounds = []
        for _ in range(ROUNDS):
            command = [sys.executable, "-m", "bench.growth", what, *map(str, own)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            by_size = json.loads(done.stdout.strip().splitlines()[-1])
            rounds.append({int(size): costs for size, costs in by_size.items()})
        rows += growth_rows(rounds, what)
    return rows


BENCHMARK = Benchmark("growth", "how the cost of each step grows with the catalogue: exponents of CPU seconds", run)

if __name__ == "__main__":
    adopt_orphans()
    print(json.dumps(one_round(sys.argv[1], map(int, sys.argv[2:]))))
