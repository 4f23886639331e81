"""A bare folder against a folder of exemplars: copies of pictures and recordings, texts that say the same. No store, no
run before it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.config import MediaLimits
from core.errors import BadItem, CatalogError
from core.items import Pool, is_fatal, pool_of, reason_of
from core.threads import one_algebra_thread
from moderation.matches import Match, best_first
from pipelines.skip_folder import Aside, files_under, instead

if TYPE_CHECKING:
    import numpy as np

    from moderation.evidence import Evidence
    from moderation.pictures import PictureHashes

TEXTS = (".txt", ".md", ".vtt", ".srt")
MAX_TEXT_BYTES = 4 << 20
Told = Callable[[str, int, int], None]  # label, done since the last call, items in all


@dataclass
class FolderMatches:
    """What matched: (file, match), files in order and the surest match of each first; files that could not be read, of
    either folder, with the reason; how many files and exemplars were compared."""

    matches: list[tuple[Path, Match]]
    failures: list[tuple[Path, str]]
    files: int = 0
    exemplars: int = 0
    left_out: dict[str, int] = field(default_factory=dict)  # files of the folder that cannot be compared, by ending


@dataclass(frozen=True)
class _Looked:
    """A file as the banks need it; `held` by its modality."""

    path: Path
    modality: str
    sha256: str
    held: Any


@dataclass
class _Banks:
    """A bank a modality, and exemplars by the hash of their bytes."""

    by_bytes: dict[str, list[tuple[str, str]]] = field(default_factory=dict)  # SHA-256 → (exemplar, modality)
    banks: dict[str, Any] = field(default_factory=dict)


def match_folder(
    bank: Path,
    folder: Path,
    *,
    workers: int | None = None,
    limits: MediaLimits = MediaLimits(),  # noqa: B008
    told: Told = lambda label, done, total: None,
) -> FolderMatches:
    """Compares the files under `folder` with the exemplars under `bank`: pictures, audio, texts and captions, each
    with their like. An exemplar's name is its path in the bank. A file that cannot be read is a failure, the rest goes
    on. Raises `CatalogError` for a folder that is none or holds nothing that can be compared.
    """
    one_algebra_thread()
    bank, folder = bank.expanduser().absolute(), folder.expanduser().absolute()
    beside = {place: Aside() for place in (bank, folder)}
    exemplars, files = files_under(bank, kind_of, beside[bank]), files_under(folder, kind_of, beside[folder])
    for place, found in ((bank, exemplars), (folder, files)):
        if not found:
            raise CatalogError(f"the folder {place} holds no pictures, audio or texts{instead(beside[place])}")
    closed = [failure for aside in beside.values() for failure in aside.unreadable]
    kinds = {kind_of(path) for path in exemplars}
    result = FolderMatches([], closed, len(files), len(exemplars), dict(sorted(beside[folder].left_out.items())))
    look = Looker(limits)
    with pool_of(workers or os.cpu_count() or 1) as pool:
        banks = _banked(bank, _looked(pool, look, exemplars, result, told, "read the bank"), look, result)
        asked = [path for path in files if kind_of(path) in kinds]
        for one in _looked(pool, look, asked, result, told, "compare"):
            with _alone(one.path, result):
                result.matches += [(one.path, match) for match in _matches(banks, one, look)]
    return result


def kind_of(path: Path) -> str | None:
    """The modality of a file by its name."""
    from catalog.folder import AUDIO, IMAGES
    from catalog.walk import ending

    suffix = ending(path.name)
    if suffix in AUDIO:
        return "audio"
    return "image" if suffix in IMAGES else "text" if suffix in TEXTS else None


def picture_hashes(pixels: np.ndarray) -> PictureHashes:
    """What a picture, uint8 RGB (height, width, 3), is found by."""
    from embedders.keypoints import keypoints
    from embedders.pdq import pdq
    from moderation.pictures import PictureHashes

    hashes, quality = pdq(pixels)
    return PictureHashes(hashes, quality, keypoints(pixels))


def picture_evidence(hashes: PictureHashes) -> dict[str, np.ndarray]:
    """The arrays of a picture's evidence."""
    import numpy as np

    shape = hashes.shape
    return {
        "pdq": hashes.pdq,
        "quality": np.array(hashes.quality),
        "points": shape.points,
        "descriptors": shape.descriptors,
        "size": np.array([shape.width, shape.height]),
    }


class Looker:
    """Reads files; models load when the first file needs them. `text_model` is the store's, the bundled one without."""

    def __init__(self, limits: MediaLimits, voices: bool = False, text_model: Any = None) -> None:
        self.limits, self.voices = limits, voices
        self._model = text_model
        self._hearing: Any = None

    def __call__(self, path: Path) -> _Looked:
        from catalog.identity import sha256_of

        kind = kind_of(path) or ""
        return _Looked(path, kind, sha256_of(path), getattr(self, f"_{kind}")(path))

    def evidence(self, path: Path) -> tuple[Evidence, str]:
        """What a file is recognised by, and its text. Raises `BadItem`."""
        from catalog.identity import sha256_of
        from moderation.evidence import Evidence, part_arrays
        from moderation.texts import text_hash

        kind = kind_of(path) or ""
        held, sha256 = getattr(self, f"_{kind}")(path), sha256_of(path)
        if kind == "audio":
            return Evidence(kind, sha256, {"frames": held, **self._voices(path)}), ""
        if kind == "text":
            whole, spans, parts = self._parts(held)
            arrays = part_arrays(parts, spans, whole)
            return Evidence(kind, sha256, arrays, text_hash(held), model_id=self._model.model_id), held
        return Evidence(kind, sha256, picture_evidence(held)), ""

    def _image(self, path: Path) -> Any:
        from catalog.isolated import decode_picture

        return picture_hashes(decode_picture(path, self.limits).pixels)

    def _audio(self, path: Path) -> Any:
        from catalog.isolated import decode_audio
        from embedders.fingerprint import frames

        return frames(decode_audio(path, limits=self.limits).samples)

    def _text(self, path: Path) -> str:
        from catalog.encoding import decode_text
        from skips.words import captions

        if path.stat().st_size > MAX_TEXT_BYTES:
            raise BadItem("too_large", f"{path.name} has over {MAX_TEXT_BYTES >> 20} MiB of text")
        said = decode_text(path.read_bytes())
        if path.suffix.lower() in (".vtt", ".srt"):
            said = " ".join(sentence.text for sentence in captions(said))
        if not said.strip():
            raise BadItem("empty_text", f"{path.name} has no words")
        return said

    def vectors(self, text: str) -> np.ndarray:
        """Of a text as a whole, and then of its passages, unit float32 (1 + n, dim)."""
        import numpy as np

        whole, _, parts = self._parts(text)
        return np.concatenate([whole[None], parts])

    def _parts(self, text: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The vector of the whole, and the spans and vectors of its passages."""
        from catalog.media import Text
        from embedders.registry import load_profile

        if self._model is None:
            self._model = load_profile("bundled", device="cpu").text
        (whole,) = self._model.embed([Text("", "", text)])
        ((parts, spans),) = self._model.passages([Text("", "", text)])
        return whole, spans, parts

    def _voices(self, path: Path) -> dict[str, np.ndarray]:
        """The arrays of the voices in a recording, where they are asked for. Raises `BadItem` where nobody speaks."""
        from catalog.isolated import decode_audio
        from embedders.voice import VoiceEncoder
        from enrichers.speech import SpeechEnricher
        from moderation.evidence import part_arrays

        if not self.voices:
            return {}
        if self._hearing is None:
            self._hearing = SpeechEnricher("cpu"), VoiceEncoder("cpu")
        speech, encoder = self._hearing
        audio = decode_audio(path, limits=self.limits)
        found = part_arrays(*encoder.passages(audio.samples, speech.spoken(audio)))
        if not found:
            raise BadItem("no_speech", f"nobody speaks in {path.name}, alone and for a second and a half")
        return found


def _looked(
    pool: Pool, look: Looker, paths: Sequence[Path], result: FolderMatches, told: Told, label: str
) -> Iterator[_Looked]:
    """The files that can be read, in order, read side by side; the others become failures."""
    told(label, 0, len(paths))
    for path, one in pool.each(look, paths):
        if isinstance(one, _Looked):
            yield one
        else:
            result.failures.append((path, ": ".join(reason_of(one))))
        told(label, 1, 0)


@contextmanager
def _alone(path: Path, result: FolderMatches) -> Iterator[None]:
    """An unexpected error is that file's, unless it would meet all of them."""
    try:
        yield
    except Exception as error:
        if is_fatal(error):
            raise
        result.failures.append((path, ": ".join(reason_of(error))))


def _banked(root: Path, exemplars: Iterator[_Looked], look: Looker, result: FolderMatches) -> _Banks:
    from embedders.fingerprint import patches
    from moderation.pictures import PictureBank
    from moderation.sounds import SoundBank
    from moderation.texts import TextBank

    made = _Banks()
    makers: dict[str, Callable[[], Any]] = {
        "image": PictureBank,
        "audio": lambda: SoundBank(patches),
        "text": TextBank,
    }
    for one in exemplars:
        name = one.path.relative_to(root).as_posix()
        bank = made.banks.setdefault(one.modality, makers[one.modality]())
        with _alone(one.path, result):
            bank.add(name, *_given(one, look, whole=True))
            made.by_bytes.setdefault(one.sha256, []).append((name, one.modality))
    return made


def _given(one: _Looked, look: Looker, whole: bool = False) -> tuple[Any, ...]:
    """What a bank is asked with; `whole`, what it is given, which of a text is one vector."""
    if one.modality != "text":
        return (one.held,)
    vectors = look.vectors(one.held)
    return one.held, vectors[0] if whole else vectors


def _matches(banks: _Banks, one: _Looked, look: Looker) -> list[Match]:
    exact = {name for name, modality in banks.by_bytes.get(one.sha256, ()) if modality == one.modality}
    bank = banks.banks.get(one.modality)
    found = bank.match(*_given(one, look)) if bank is not None else []
    if one.modality == "audio":
        # The same bytes are the whole recording; where it begins and ends in it is known already.
        return [_exact(m) if m.exemplar in exact else m for m in found]
    same = [Match(name, one.modality, "exact", 1.0) for name in sorted(exact)]
    return best_first([*same, *(m for m in found if m.exemplar not in exact)])


def _exact(match: Match) -> Match:
    return Match(match.exemplar, match.modality, "exact", 1.0, match.start_s, match.end_s, match.exemplar_start_s)
