"""Which recordings get a transcript when nobody declares their language: English should, other languages should not.

Recordings are telephone prompts of one speaker a language, joined with pauses. The thresholds of `enrichers.english`
were set on half of the English prompts and on the Spanish ones (`bench.transcript_language_train`); what is reported
here is the other half of the English prompts, and French, Italian and Russian. The peer is the same enricher without
the decision, which transcribes whatever is mostly speech.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import shutil
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bench.frame import Benchmark, Row, alternate
from bench.sources import MUSIC, SOUNDS, files_of
from catalog.media import SAMPLE_RATE, Audio
from evaluation.intervals import wilson

SPEAKERS = {
    "en": "en_US_f_Allison",
    "es": "es_MX_f_Allison",
    "fr": "fr_CA_f_June",
    "it": "it_IT_m_Carlo",
    "ru": "ru_RU_f_IvrvoiceRU",
}
NOT_SPEECH = re.compile(r"beep|tone|silence|monkeys|weasels|music")
MIN_PROMPT_S = 1.0
RECORDING_S, PAUSE_S = (20.0, 60.0), (0.3, 1.0)
SET_SEED, REPORT_SEED = 1, 2
ENGLISH, OTHER, SMALL = 150, 80, 30  # recordings of a kind
QUICK = 8
FALSE_GOAL, LOST_GOAL, COST_GOAL = 0.01, 0.03, 2.0
LONG_S = 1200.0

# One text in two languages, for synthetic voices; written for this benchmark.
SENTENCES = {
    "en": (
        "Good evening, and welcome back to the programme.",
        "Today we talk about the old bridge in the middle of our town.",
        "It was built more than two hundred years ago, and it has seen many floods.",
        "The engineers want to close it for a whole year.",
        "Many shopkeepers are worried about their customers.",
        "My guest has studied the history of the river since she was a student.",
        "She brought a few photographs that nobody has seen before.",
        "First the news, then a short break, and then our conversation.",
        "If you have a question, please write to us before the end of the week.",
        "We will read the best letters next Sunday at the same time.",
    ),
    "de": (
        "Guten Abend und willkommen zurück in unserer Sendung.",
        "Heute sprechen wir über die alte Brücke mitten in unserer Stadt.",
        "Sie wurde vor mehr als zweihundert Jahren gebaut und hat viele Hochwasser gesehen.",
        "Die Ingenieure wollen sie für ein ganzes Jahr sperren.",
        "Viele Ladenbesitzer machen sich Sorgen um ihre Kunden.",
        "Mein Gast erforscht die Geschichte des Flusses, seit sie studiert hat.",
        "Sie hat einige Bilder mitgebracht, die noch niemand gesehen hat.",
        "Zuerst die Nachrichten, dann eine kurze Pause, und dann unser Gespräch.",
        "Wenn Sie eine Frage haben, schreiben Sie uns bitte bis zum Ende der Woche.",
        "Die besten Briefe lesen wir am nächsten Sonntag um die gleiche Zeit vor.",
    ),
}
VARIANTS = ("m1", "m3", "m5", "f1", "f2", "f4")
FLITE = ("slt", "rms", "awb", "kal16")


def prompts(language: str) -> list[Path]:
    """The spoken prompts of a language that last a second at least. Raises `SystemExit` naming what to install."""
    import soundfile

    root = Path(SOUNDS) / SPEAKERS[language]
    found = [p for p in sorted(root.glob("**/*.wav")) if not NOT_SPEECH.search(str(p.relative_to(root)))]
    if not found:
        packages = " ".join(f"asterisk-core-sounds-{name}-wav" for name in SPEAKERS)
        raise SystemExit(f"recorded prompts are needed: apt-get install -y {packages} flite espeak-ng")
    return [p for p in found if soundfile.info(p).duration >= MIN_PROMPT_S]


def half(paths: list[Path], which: int) -> list[Path]:
    """One of two halves of some prompts, by a hash of their names."""
    return sorted(paths, key=lambda p: hashlib.sha256(p.name.encode()).digest())[which::2]


def recordings(paths: list[Path], count: int, seed: int) -> Iterator[np.ndarray]:
    """Recordings of 20 to 60 s, each of prompts in random order; every prompt is used before one is used again."""
    rng = np.random.default_rng(seed)
    order: list[int] = []
    for _ in range(count):
        wanted = int(rng.uniform(*RECORDING_S) * SAMPLE_RATE)
        parts: list[np.ndarray] = []
        while sum(map(len, parts)) < wanted:
            order = order or list(rng.permutation(len(paths)))
            parts += [read(paths[order.pop()]), np.zeros(int(rng.uniform(*PAUSE_S) * SAMPLE_RATE), np.float32)]
        yield np.concatenate(parts)[: int(RECORDING_S[1] * SAMPLE_RATE)]


def read(path: Path) -> np.ndarray:
    """A file as mono float32 at `SAMPLE_RATE`, at most a minute of it."""
    import soundfile
    import soxr

    with soundfile.SoundFile(path) as file:
        samples = file.read(60 * file.samplerate, dtype="float32", always_2d=True).mean(axis=1)
        return np.asarray(soxr.resample(samples, file.samplerate, SAMPLE_RATE), np.float32)


def _synthetic(engine: str, voices: Iterable[str], language: str, count: int) -> Iterator[np.ndarray]:
    """`SENTENCES` in another order each, by synthetic voices in turn."""
    rng = np.random.default_rng(REPORT_SEED)
    names = list(voices)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "speech.wav")
        for number in range(count):
            voice = names[number % len(names)]
            text = " ".join(SENTENCES[language][i] for i in rng.permutation(len(SENTENCES[language]))[:7])
            flite = ["flite", "-voice", voice, "-t", text, "-o", path]
            espeak = ["espeak-ng", "-v", voice, "-s", str(int(rng.uniform(135, 175))), "-w", path, text]
            subprocess.run(flite if engine == "flite" else espeak, check=True, capture_output=True, timeout=120)
            yield read(Path(path))


def _noisy(samples: Iterable[np.ndarray], snr_db: float) -> Iterator[np.ndarray]:
    """With white noise at a ratio to the speech's power."""
    rng = np.random.default_rng(REPORT_SEED)
    for x in samples:
        power = float(np.mean(np.square(x))) * 10 ** (-snr_db / 10)
        yield (x + rng.normal(0.0, np.sqrt(power), len(x))).astype(np.float32)


def _mixed(count: int) -> Iterator[np.ndarray]:
    """English for one half, Russian for the other."""
    english = recordings(half(prompts("en"), 1), count, REPORT_SEED + 1)
    for a, b in zip(english, recordings(prompts("ru"), count, REPORT_SEED + 1), strict=True):
        length = min(len(a), len(b), 25 * SAMPLE_RATE)
        yield np.concatenate([a[:length], b[:length]])


def _music() -> Iterator[np.ndarray]:
    for path in files_of(MUSIC[0]):
        yield read(path)


def _outcomes(enricher: Any, recorded: Iterable[np.ndarray]) -> Counter[str]:
    """How many recordings got a transcript, and why the others did not."""
    audios = (Audio(samples, len(samples) / SAMPLE_RATE) for samples in recorded)
    return Counter(enricher.enrich([a])[0].get("transcript_reason") or "transcript" for a in audios)


def _row(name: str, found: Counter[str], english: bool, goal: float | None = None) -> Row:
    """The share of English without a transcript, or of other recordings with one. The peer transcribes everything but
    what has little speech, which no decision is asked about."""
    asked = found.total() - found["little_speech"]
    transcripts = found["transcript"]
    wrong = asked - transcripts if english else transcripts
    low, high = wilson(wrong, asked)
    reasons = ", ".join(f"{count} {reason}" for reason, count in found.most_common())
    note = f"{wrong} of {asked}, 95 % [{low:.3f}, {high:.3f}]; {reasons}"
    peer = (0.0 if english else 1.0) if asked else None
    limit_name = "goal" if goal is not None else ""
    return Row(name, wrong / max(asked, 1), peer, goal, "share", "no decision", limit_name, note=note)


def run(quick: bool) -> list[Row]:
    from enrichers.speech import SpeechEnricher

    enricher = SpeechEnricher()
    english, other, small = (QUICK, QUICK, QUICK) if quick else (ENGLISH, OTHER, SMALL)
    held_out = half(prompts("en"), 1)

    def lost(name: str, recorded: Iterable[np.ndarray], goal: float | None = None) -> Row:
        return _row(f"english-lost{name}", _outcomes(enricher, recorded), english=True, goal=goal)

    def false(name: str, recorded: Iterable[np.ndarray]) -> Row:
        return _row(f"false-transcripts{name}", _outcomes(enricher, recorded), english=False)

    foreign = {name: _outcomes(enricher, recordings(prompts(name), other, REPORT_SEED)) for name in ("fr", "it", "ru")}
    rows = [
        lost("", recordings(held_out, english, REPORT_SEED), LOST_GOAL),
        _row("false-transcripts", sum(foreign.values(), Counter()), english=False, goal=FALSE_GOAL),
        *(_row(f"false-transcripts: {name}", found, english=False) for name, found in foreign.items()),
    ]
    if shutil.which("flite") and shutil.which("espeak-ng"):
        accents = [
            f"{accent}+{v}" for accent, v in zip(("en-us", "en-gb", "en-gb-scotland") * 2, VARIANTS, strict=True)
        ]
        rows += [
            lost(": flite", _synthetic("flite", FLITE, "en", small)),
            lost(": espeak-ng", _synthetic("espeak-ng", accents, "en", small)),
            false(": espeak-ng German", _synthetic("espeak-ng", [f"de+{v}" for v in VARIANTS], "de", small)),
        ]
    rows += [
        lost(": noise at 10 dB", _noisy(recordings(held_out, small, REPORT_SEED), 10.0)),
        false(": half Russian", _mixed(small)),
        false(": music", itertools.islice(_music(), small)),
        *_cost(enricher, held_out, rounds=1 if quick else 3),
    ]
    return rows


def _cost(enricher: Any, paths: list[Path], rounds: int) -> Iterator[Row]:
    """CPU of the whole enrichment of undeclared English to that of declared English, which is not decided on."""
    long = np.concatenate(list(recordings(paths, round(LONG_S / 40), REPORT_SEED)))[: int(LONG_S * SAMPLE_RATE)]
    for name, samples in (("cost", long[: 60 * SAMPLE_RATE]), ("cost: 20 minutes", long)):
        audio = Audio(samples, len(samples) / SAMPLE_RATE)
        declared = replace(audio, language="en")
        sides = {"ours": lambda a=audio: enricher.enrich([a]), "peer": lambda a=declared: enricher.enrich([a])}
        seconds = alternate(sides, rounds)  # type: ignore[arg-type]
        note = f"to {seconds['peer']:.2f} CPU s of {len(samples) / SAMPLE_RATE:.0f} s of declared English"
        yield Row(name, seconds["ours"] / seconds["peer"], 1.0, COST_GOAL, "×", "no decision", "goal", note=note)


BENCHMARK = Benchmark(
    "transcript-language", "transcripts of undeclared speech: English kept, invented text refused", run
)
