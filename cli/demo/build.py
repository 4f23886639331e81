"""Building the demo catalogue: real tracks, real voices, synthesised episodes with the truth about them, and a few
items that are broken on purpose."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from cli.demo import pictures, sound, words
from core.extras import require

VERSION = 1  # raised when the catalogue comes out otherwise than before
START = datetime(2026, 1, 5, 6, 0, tzinfo=UTC)
STAMP = ".complete"
ENDINGS = (".mp3", ".m4a", ".ogg", ".opus", ".flac", ".wav")
VOICES = Path("/usr/share/asterisk/sounds/en_US_f_Allison")
PROMPTS = (
    "demo-instruct",
    "demo-congrats",
    "basic-pbx-ivr-main",
    "demo-echotest",
    "conf-adminmenu",
    "priv-callee-options",
)

README = """\
Earmark's demo catalogue, built by `earmark demo`.
music/    tracks of the package immich-memories-music (MIT)
voices/   Debian's asterisk-core-sounds-en-wav (CC BY-SA 3.0, Digium / Allison Smith)
episodes/ and books/  texts by Earmark (Apache-2.0), spoken by flite or espeak-ng, over beds from the tracks above
covers/   photographs of scikit-image and scikit-learn (see their data/README.txt and datasets/images/README.txt)
truth/    what is true about it: recurring segments, near-duplicates, items that are broken on purpose
"""


@dataclass
class DemoReport:
    """What was built, and what had to be left out and why."""

    folder: str
    kinds: dict[str, int] = field(default_factory=dict)
    audio_s: float = 0.0
    left_out: list[str] = field(default_factory=list)


class _Builder:
    def __init__(self, folder: Path, small: bool) -> None:
        self.folder, self.small = folder, small
        self.rows: list[dict[str, Any]] = []
        self.segments: list[dict[str, Any]] = []
        self.duplicates: list[dict[str, str]] = []
        self.bad: list[dict[str, str]] = []
        self.report = DemoReport(str(folder))
        self.speak = sound.synthesiser()
        self.covers: list[str] = []

    def add(self, content_id: str, kind: str, title: str, **more: Any) -> None:
        when = START + timedelta(days=len(self.rows))
        row = {"content_id": content_id, "kind": kind, "title": title, "updated_at": when.isoformat(), **more}
        self.rows.append({**row, "published_at": when.isoformat()})

    def file(self, relative: str) -> Path:
        path = self.folder / relative
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def build(self) -> DemoReport:
        require(["bundled", "demo"], "the demo")
        self.make_covers()
        self.tracks()
        self.episodes()
        self.chapters()
        self.voices()
        for content_id, language, title, text in words.TEXTS[: 2 if self.small else None]:
            explicit = "explicit" in title
            self.add(content_id, "track", title, text=text, language=language, explicit=explicit)
        self.broken()
        lines = [json.dumps(row, ensure_ascii=False) for row in self.rows]
        self.file("catalog.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
        truth = {"segments": self.segments, "near_duplicates": self.duplicates, "bad_items": self.bad}
        for name, value in truth.items():
            self.file(f"truth/{name}.json").write_text(json.dumps(value, indent=1, ensure_ascii=False))
        self.file("README.txt").write_text(README)
        self.report.kinds = dict(Counter(row["kind"] for row in self.rows))
        return self.report

    def make_covers(self) -> None:
        found = pictures.photographs()
        if not found:
            self.report.left_out.append("covers: scikit-image and scikit-learn are not installed (earmark[demo])")
        for number, (name, picture) in enumerate(sorted(found.items())):
            if self.small and number >= 4:
                break
            relative = f"covers/{name}{('.jpg', '.png', '.webp')[number % 3]}"
            picture.save(self.file(relative))
            self.covers.append(relative)
            if number % 3 == 0:
                copy = f"covers/{name}-edited.jpg"
                pictures.edited(picture, number // 3 % 3).save(self.file(copy), quality=90)
                self.covers.append(copy)
                self.duplicates.append({"kind": "image", "original": relative, "edited": copy})

    def cover(self, number: int) -> str | None:
        return self.covers[number % len(self.covers)] if self.covers else None

    def tracks(self) -> None:
        from immich_memories_music import tracks_dir

        found = sorted(tracks_dir().rglob("*.opus"))
        for number, path in enumerate(found[:: 14 if self.small else 1]):
            mood, style = path.stem.split("_")[:2]
            relative = f"music/{path.name}"
            shutil.copyfile(path, self.file(relative))
            self.add(
                f"track:{path.stem}",
                "track",
                f"{mood.title()} {style} no. {path.stem.split('_')[2].lstrip('s')}",
                show_id=f"album:{mood}",
                description=f"An instrumental piece, {words.MOODS[mood]}; {words.STYLES[style]}.",
                audio_uri=relative,
                image_uri=self.cover(number) if number % 2 == 0 else None,
            )
            self.report.audio_s += 30
        import soundfile

        samples, rate = soundfile.read(found[0], dtype="float32")
        copy = "music/again.mp3"
        sound.encode(sound.resample(samples, rate) * 0.7, self.file(copy))
        self.add("track:again", "track", "A familiar tune, quieter and as MP3", audio_uri=copy, show_id="album:copies")
        self.duplicates.append({"kind": "audio", "original": f"track:{found[0].stem}", "edited": "track:again"})

    def episodes(self) -> None:
        if self.speak is None:
            self.report.left_out.append(
                "episodes and chapters: neither flite nor espeak-ng is installed (apt-get install flite)"
            )
            return
        from immich_memories_music import tracks_dir

        rng = np.random.default_rng(7)
        ads = {name: self.speak(text, "awb") for name, text in words.ADS.items()}
        frames = {}
        for show, about in words.SHOWS.items():
            bed = sound.music(tracks_dir() / about["theme"], 9.0)
            intro = sound.over(bed, self.speak(about["intro"], about["voice"]), 2.0)
            outro = sound.over(bed[::-1].copy(), self.speak(about["outro"], about["voice"]), 1.5)
            frames[show] = (intro, outro)
        counts: Counter[str] = Counter()
        for number, (show, title, text) in enumerate(words.EPISODES[:: 8 if self.small else 1]):
            counts[show] += 1
            about = words.SHOWS[show]
            first, second, *_ = (sorted(ads)[(number + k) % len(ads)] for k in range(2))
            halves = _halves(text)
            intro, outro = frames[show]
            pieces = [
                (intro, "intro", f"{show}:intro"),
                (self.speak(halves[0], about["voice"]), None, None),
                (ads[first], "ad", first),
                (self.speak(halves[1], about["voice"]), None, None),
                (ads[second], "ad", second),
                (outro, "outro", f"{show}:outro"),
            ]
            samples, segments = sound.join(pieces)
            samples *= 10 ** (rng.uniform(-4, 0) / 20)
            content_id = f"{show.replace('show:', 'episode:')}-{counts[show]}"
            relative = f"episodes/{content_id.replace(':', '-')}{ENDINGS[number % len(ENDINGS)]}"
            sound.encode(samples, self.file(relative))
            self.segments += [{"content_id": content_id, **asdict(s)} for s in segments]
            self.add(
                content_id,
                "episode",
                title,
                show_id=show,
                description=f"An episode of {about['name']}.",
                language="en",
                explicit=False,
                audio_uri=relative,
                image_uri=self._title_cover(number, title),
            )
            self.report.audio_s += len(samples) / sound.RATE

    def _title_cover(self, number: int, title: str) -> str | None:
        plain = [c for c in self.covers if "-edited" not in c]
        if not plain:
            return None
        from PIL import Image

        with Image.open(self.folder / plain[number % len(plain)]) as picture:
            made = pictures.titled(picture.convert("RGB"), title)
        relative = f"covers/title-{number}.png"
        made.save(self.file(relative))
        return relative

    def chapters(self) -> None:
        if self.speak is None:
            return
        for number, (title, text) in enumerate(words.CHAPTERS[: 1 if self.small else None], 1):
            relative = f"books/chapter-{number}.m4a"
            samples = self.speak(text, "awb")
            sound.encode(samples, self.file(relative))
            self.add(
                f"chapter:ledger-{number}", "chapter", title, show_id="book:ledger", language="en", audio_uri=relative
            )
            self.report.audio_s += len(samples) / sound.RATE

    def voices(self) -> None:
        found = [VOICES / f"{name}.wav" for name in PROMPTS if (VOICES / f"{name}.wav").is_file()]
        if not found:
            why = "real voices: Debian's asterisk-core-sounds-en-wav is not installed"
            self.report.left_out.append(f"{why} (apt-get install asterisk-core-sounds-en-wav)")
        for path in found[: 1 if self.small else None]:
            relative = f"voices/{path.name}"
            shutil.copyfile(path, self.file(relative))
            title = path.stem.replace("-", " ").capitalize()
            self.add(
                f"voice:{path.stem}", "episode", title, show_id="show:switchboard", language="en", audio_uri=relative
            )
            self.report.audio_s += path.stat().st_size / 16_000

    def broken(self) -> None:
        """Items that must end in quarantine, each with its reason."""
        whole = self.folder / "music/again.mp3"
        data = whole.read_bytes()
        self.file("broken/truncated.mp3").write_bytes(data[: len(data) * 6 // 10])
        self.file("broken/letter.wav").write_text("Dear listener, this is a letter and no sound.\n" * 40)
        self.file("broken/empty.flac").write_bytes(b"")
        self.file("broken/bomb.png").write_bytes(pictures.bomb())
        for name, reason in (("truncated.mp3", "truncated"), ("letter.wav", "not_audio"), ("empty.flac", "empty_file")):
            content_id = f"broken:{Path(name).stem}"
            self.add(content_id, "track", f"Broken: {Path(name).stem}", audio_uri=f"broken/{name}")
            self.bad.append({"content_id": content_id, "stage": "audio", "reason": reason})
        self.add("broken:missing", "track", "Broken: missing", audio_uri="broken/nowhere.ogg")
        self.bad.append({"content_id": "broken:missing", "stage": "audio", "reason": "missing_file"})
        self.add(
            "broken:bomb",
            "track",
            "Broken: bomb",
            description="A cover too large to open.",
            image_uri="broken/bomb.png",
        )
        self.bad.append({"content_id": "broken:bomb", "stage": "image", "reason": "too_many_pixels"})
        for title in ("One of two", "Two of two"):
            self.add("broken:twice", "track", title, description="An id that stands twice.")
        self.bad.append({"content_id": "broken:twice", "stage": "catalogue", "reason": "duplicate_id"})
        self.add("broken:bell\x07", "track", "Broken: control character", description="An id that rings.")
        self.bad.append({"content_id": "broken:bell\\x07", "stage": "catalogue", "reason": "bad_id"})


def build_demo(folder: Path, *, small: bool = False) -> DemoReport:
    """Builds the demo catalogue in `folder` (`catalog.jsonl`, media, `truth/`), or returns the report of the one that
    is there already and whole. `small` makes a few contents of every kind, for tests."""
    import soundfile  # noqa: F401  (a missing codec library is said before anything is written)

    speaker = next((name for name in ("flite", "espeak-ng") if shutil.which(name)), "none")
    key = hashlib.sha256(json.dumps([VERSION, small, speaker, VOICES.is_dir()]).encode()).hexdigest()
    stamp = folder / STAMP
    if stamp.is_file():
        known = json.loads(stamp.read_text())
        if known["key"] == key:
            return DemoReport(**known["report"])
    folder.mkdir(parents=True, exist_ok=True)
    report = _Builder(folder, small).build()
    stamp.write_text(json.dumps({"key": key, "report": asdict(report)}))
    return report


def _halves(text: str) -> tuple[str, str]:
    sentences = text.split(". ")
    middle = (len(sentences) + 1) // 2
    return ". ".join(sentences[:middle]) + ".", ". ".join(sentences[middle:])
