"""The hub profile: laion-clap, CLIP and sentence-transformers, from a hub or from a local path."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from catalog.media import Picture
from core.errors import ConfigError, ModelError
from embedders.clap import ClapEmbedder
from embedders.registry import AudioModel, Profile
from embedders.text import SentenceEmbedder, load_sentence_transformer

DEFAULTS: dict[str, str | None] = {
    "text": "sentence-transformers/all-mpnet-base-v2",
    "image": "sentence-transformers/clip-ViT-B-32",
    "audio": None,  # path of a laion-clap checkpoint
    "audio_architecture": "HTSAT-tiny",  # HTSAT-base for laion-clap's music checkpoints
    "audio_tokenizer": None,
}
WEIGHTS = (".safetensors", ".bin", ".pt", ".model", ".json", ".txt")  # what shapes a vector, in a model's folder
IMAGE_BATCH = 64


def load_hub(device: str, options: Mapping[str, Any]) -> Profile:
    """The profile's models. A model is named by the bytes of its files, so its folder is read once; sizes of the text
    and image vectors are known when it has been loaded. Raises `ConfigError` and `ModelError`."""
    unknown = sorted(set(options) - set(DEFAULTS))
    if unknown:
        raise ConfigError(f"models.{unknown[0]} is not known; the hub profile has {', '.join(DEFAULTS)}")
    chosen = {**DEFAULTS, **options}
    if not chosen["audio"]:
        raise ConfigError(
            "the hub profile needs models.audio: the path of a laion-clap checkpoint, such as 630k-audioset-best.pt"
        )
    checkpoint = Path(str(chosen["audio"])).expanduser()
    if not checkpoint.is_file():
        raise ModelError(f"models.audio: there is no checkpoint {checkpoint}")
    clap = ClapEmbedder(
        checkpoint, _file_hash(checkpoint), str(chosen["audio_architecture"]), chosen["audio_tokenizer"], device
    )
    image = model_folder(str(chosen["image"]), "image")
    return Profile(
        hub_text(str(chosen["text"]), device),
        AudioModel(clap, needs_statistics=False),
        ClipEmbedder(image[1], f"{_slug(image[0])}-{folder_hash(image[1])}", device),
    )


def hub_text(name: str, device: str) -> SentenceEmbedder:
    """The sentence-transformers model of a hub's name or in a folder. Raises `ModelError`."""
    called, folder = model_folder(name, "text")
    return SentenceEmbedder(folder, f"{_slug(called)}-{folder_hash(folder)}", device)


class ClipEmbedder:
    """CLIP or another picture model with a text tower, through sentence-transformers."""

    modality = "image"

    def __init__(self, folder: Path, model_id: str, device: str = "cpu") -> None:
        self._folder = folder
        self.model_id = f"{model_id}-v1"
        self._device = device
        self._model: Any = None
        self._lock = threading.Lock()

    @property
    def dim(self) -> int:
        """Length of a vector, asked of the loaded model."""
        return int(len(self.embed_text(["a"])[0]))

    def embed(self, batch: Sequence[Picture]) -> np.ndarray:
        """float32 unit-norm (len(batch), dim)."""
        from PIL import Image

        if not batch:
            return np.empty((0, self.dim), np.float32)
        return self._encode([Image.fromarray(picture.pixels) for picture in batch])

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """float32 unit-norm (len(texts), dim) in the space of the pictures: words find covers."""
        return self._encode(list(texts))

    def _encode(self, inputs: list[Any]) -> np.ndarray:
        vectors = self._load().encode(
            inputs, batch_size=IMAGE_BATCH, convert_to_numpy=True, normalize_embeddings=True, show_progress_bar=False
        )
        return np.ascontiguousarray(vectors, np.float32)

    def _load(self) -> Any:
        with self._lock:
            if self._model is None:
                self._model = load_sentence_transformer(self._folder, self._device)
            return self._model


def model_folder(name: str, what: str) -> tuple[str, Path]:
    """A model's name and the folder of its files: a local one as it is, another from the hub's cache or the hub.
    Raises `ModelError`."""
    local = Path(name).expanduser()
    if local.is_dir():
        return local.name, local
    if local.is_absolute() or name.startswith((".", "~")):
        raise ModelError(f"models.{what}: there is no folder {local}")
    from huggingface_hub import snapshot_download

    try:
        return name, Path(snapshot_download(name, allow_patterns=[f"*{ending}" for ending in WEIGHTS]))
    except Exception as error:
        raise ModelError(
            f"models.{what}: {name} is neither a folder nor to be had from the hub ({type(error).__name__}); "
            "give a local path"
        ) from error


@cache
def folder_hash(folder: Path) -> str:
    """Eight hexadecimal digits of every file in a model's folder that shapes its vectors."""
    found = hashlib.sha256()
    files = sorted(p for p in folder.rglob("*") if p.suffix in WEIGHTS and p.is_file())
    if not files:
        raise ModelError(f"{folder} holds no model")
    for path in files:
        found.update(f"{path.relative_to(folder).as_posix()} {_file_hash(path, 64)}\n".encode())
    return found.hexdigest()[:8]


@cache
def _file_hash(path: Path, digits: int = 8) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:digits]
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror or error}") from error


def _slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.rsplit("/", 1)[-1].lower()).strip("-")
