"""laion-clap (Wu et al., "Large-scale contrastive language-audio pretraining", 2023): audio and text → one space.

The package's own front door loads tokenizers from a hub at import, unpickles checkpoints and crops long files at
random. Here its network is built from the package's files, a checkpoint is read as tensors alone, and a file is heard
in windows at fixed places, so two runs give the same vectors.
"""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from catalog.media import Audio, Listener
from core.errors import BadItem, ModelError
from core.extras import hint
from embedders.device import resolve_device

RATE = 48_000  # Hz
WINDOW = 480_000  # samples: the 10 s that the network was trained on
MIN_TAIL = 48_000  # samples; a shorter rest beside whole windows says nothing more
MAX_WINDOWS = 32  # of a content; beyond it every second window is left out, and so on
BATCH_WINDOWS = 8
TOKENS = 77
DIM = 512
HEAD_WIDTH = 64  # of RoBERTa, at every size
FULL_SCALE = 32767.0


class WindowListener:
    """Hears the audio at its native rate and keeps windows of 10 s of 48 kHz mono, 16-bit as laion-clap quantises.

    Windows lie side by side. Where there would be more than `MAX_WINDOWS`, every second one is dropped and the stride
    doubles, so an hour needs no more memory than five minutes.
    """

    name = "clap"

    def __init__(self) -> None:
        self.windows: list[np.ndarray] = []
        self._stride, self._number = 1, 0
        self._rest: list[np.ndarray] = []
        self._held = 0
        self._resampler: Any = None

    def start(self, sample_rate: int, channels: int) -> None:
        import soxr

        self._resampler = soxr.ResampleStream(sample_rate, RATE, 1, dtype="float32")

    def hear(self, block: np.ndarray) -> None:
        self._take(self._resampler.resample_chunk(np.ascontiguousarray(block.mean(axis=1, dtype=np.float32))))

    def _take(self, samples: np.ndarray) -> None:
        self._rest.append(np.round(np.clip(samples, -1, 1) * FULL_SCALE).astype(np.int16))
        self._held += len(samples)
        if self._held < WINDOW:
            return
        joined = np.concatenate(self._rest)
        whole = len(joined) // WINDOW
        for at in range(whole):
            self._keep(joined[at * WINDOW : (at + 1) * WINDOW])
        self._rest = [joined[whole * WINDOW :]]
        self._held = len(self._rest[0])

    def _keep(self, window: np.ndarray) -> None:
        if self._number % self._stride == 0:
            if len(self.windows) == MAX_WINDOWS:
                self.windows, self._stride = self.windows[::2], self._stride * 2
            if self._number % self._stride == 0:
                self.windows.append(window.copy())
        self._number += 1

    def __getstate__(self) -> dict[str, Any]:
        """State for pickle, after the last block: the resampler is flushed and left out."""
        self._end()
        return {name: value for name, value in vars(self).items() if name != "_resampler"} | {"_resampler": None}

    def _end(self) -> None:
        if self._resampler is not None:
            self._take(self._resampler.resample_chunk(np.zeros(0, np.float32), last=True))
            self._resampler = None

    def finish(self) -> np.ndarray:
        """float32 (windows, WINDOW), none for silence of no length. A file shorter than a window is repeated to fill
        it, as in training."""
        self._end()
        rest = np.concatenate(self._rest) if self._rest else np.zeros(0, np.int16)
        self._rest, self._held = [np.zeros(0, np.int16)], 0
        if len(rest) and (len(rest) >= MIN_TAIL or not self.windows):
            filled = np.zeros(WINDOW, np.int16)
            tiled = np.tile(rest, WINDOW // len(rest))
            filled[: len(tiled)] = tiled
            self._keep(filled)
        return np.stack(self.windows).astype(np.float32) / FULL_SCALE if self.windows else np.zeros((0, WINDOW))


class ClapEmbedder:
    """A laion-clap checkpoint (without fusion) on a local path: the mean of its vectors of a file's windows.

    Audio must be decoded with this embedder's `listeners`. `tokenizer` is the folder or hub name of RoBERTa's
    tokenizer, which only `embed_text` needs.
    """

    modality = "audio"
    dim = DIM

    def __init__(
        self, checkpoint: Path, weights: str, architecture: str, tokenizer: str | None, device: str = "cpu"
    ) -> None:
        self._checkpoint, self._architecture, self._tokenizer_path = checkpoint, architecture, tokenizer
        self.model_id = f"clap-{architecture.lower()}-{weights}-w10s-max{MAX_WINDOWS}-v1"
        self._device = device
        self._network: Any = None
        self._tokenizer: Any = None
        self._lock = threading.Lock()

    def listeners(self) -> list[Listener]:
        return [WindowListener()]

    def embed(self, batch: Sequence[Audio]) -> np.ndarray:
        """float32 unit-norm (len(batch), 512). Raises `BadItem` for audio without samples, `ModelError` for audio that
        was decoded without `listeners`."""
        out = np.empty((len(batch), DIM), np.float32)
        for row, audio in enumerate(batch):
            listener = audio.heard.get(WindowListener.name)
            if not isinstance(listener, WindowListener):
                raise ModelError("CLAP hears audio at its native rate: decode it with the embedder's listeners")
            windows = listener.finish()
            if not len(windows):
                raise BadItem("empty_audio", "there are no samples to embed")
            out[row] = _unit(self._windows(windows).mean(axis=0, dtype=np.float64))
        return out

    def _windows(self, windows: np.ndarray) -> np.ndarray:
        import torch

        network = self._load()
        found = []
        with torch.inference_mode():
            for at in range(0, len(windows), BATCH_WINDOWS):
                wave = torch.from_numpy(np.ascontiguousarray(windows[at : at + BATCH_WINDOWS], np.float32))
                heard = network.encode_audio({"waveform": wave.to(self._device)}, device=self._device)["embedding"]
                found.append(torch.nn.functional.normalize(network.audio_projection(heard), dim=-1).cpu().numpy())
        return np.concatenate(found)

    def embed_text(self, texts: Sequence[str]) -> np.ndarray:
        """float32 unit-norm (len(texts), 512) in the space of the audio: words find sounds."""
        import torch

        network = self._load()
        tokens = self._tokens(list(texts))
        with torch.inference_mode():
            vectors = network.encode_text({k: v.to(self._device) for k, v in tokens.items()}, device=self._device)
        return _unit(vectors.cpu().numpy())

    def _tokens(self, texts: list[str]) -> Mapping[str, Any]:
        with self._lock:
            if self._tokenizer is None:
                from transformers import AutoTokenizer

                try:
                    self._tokenizer = AutoTokenizer.from_pretrained(self._tokenizer_path or "roberta-base")
                except (OSError, ValueError) as error:
                    raise ModelError(
                        "CLAP's text tower needs RoBERTa's tokenizer: set models.audio_tokenizer to its local folder"
                    ) from error
        found = self._tokenizer(texts, padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt")
        return {name: found[name] for name in ("input_ids", "attention_mask")}

    def _load(self) -> Any:
        with self._lock:
            if self._network is None:
                self._device = resolve_device(self._device)
                self._network = build_network(read_checkpoint(self._checkpoint), self._architecture).to(self._device)
            return self._network


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The tensors of a checkpoint by name, as laion-clap saves them. Nothing but tensors is unpickled. Raises
    `ModelError`."""
    import pickle

    import torch

    try:
        try:
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # files of the format before torch 1.6 cannot be mapped
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ModelError(f"{path} holds more than tensors, which could run code: it is not loaded ({error})") from error
    except Exception as error:  # rubbish makes the unpickler raise whatever it stumbles over
        raise ModelError(f"{path} is not a checkpoint that torch can read: {error}") from error
    state = found.get("state_dict", found) if isinstance(found, dict) else None
    if not state or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise ModelError(f"{path} is not a checkpoint of laion-clap: it holds no table of tensors")
    bare = {name.removeprefix("module."): tensor for name, tensor in state.items()}
    # Written by transformers before 4.31; the positions are counted, not learnt.
    bare.pop("text_branch.embeddings.position_ids", None)
    return bare


def build_network(state: Mapping[str, Any], architecture: str) -> Any:
    """The network of a checkpoint, in evaluation mode; sizes of the text tower are those of its tensors. Raises
    `ModelError` where the tensors do not fit strictly."""
    package = _clap_module()
    if architecture not in package.list_models():
        names = ", ".join(name for name in package.list_models() if name.startswith("HTSAT"))
        raise ModelError(f"laion-clap has no audio architecture {architecture!r}; it has {names}")
    if any("mel_conv2d" in name for name in state):
        raise ModelError("this is a fusion checkpoint of laion-clap; Earmark hears long audio in windows: use another")
    network, _ = package.create_model(architecture, "transformer")
    if "text_branch.embeddings.word_embeddings.weight" in state:
        _take_roberta(network, state)
    try:
        network.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        told = " ".join(str(error).split())[:400]
        raise ModelError(f"the checkpoint does not fit laion-clap's {architecture}: {told}") from error
    return network.eval()


def _take_roberta(network: Any, state: Mapping[str, Any]) -> None:
    """Puts RoBERTa in the place of the text tower that needs no hub to be built."""
    import torch
    from transformers import RobertaConfig, RobertaModel

    embeddings = "text_branch.embeddings"
    vocabulary, width = state[f"{embeddings}.word_embeddings.weight"].shape
    layers = {int(name.split(".")[3]) for name in state if name.startswith("text_branch.encoder.layer.")}
    network.text_branch = RobertaModel(
        RobertaConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            num_hidden_layers=len(layers),
            num_attention_heads=max(1, width // HEAD_WIDTH),
            intermediate_size=state["text_branch.encoder.layer.0.intermediate.dense.weight"].shape[0],
            max_position_embeddings=state[f"{embeddings}.position_embeddings.weight"].shape[0],
            type_vocab_size=1,
            layer_norm_eps=1e-5,
            pad_token_id=1,
        )
    )
    network.text_branch_type = "roberta"
    for name in ("token_embedding", "positional_embedding", "ln_final"):
        delattr(network, name)
    network.text_projection = torch.nn.Sequential(
        torch.nn.Linear(width, DIM), torch.nn.ReLU(), torch.nn.Linear(DIM, DIM)
    )


@cache
def _clap_module() -> Any:
    """laion-clap's `clap_module`, without running the package around it, which asks a hub for tokenizers."""
    around = importlib.util.find_spec("laion_clap")
    if around is None or not around.submodule_search_locations:
        raise ModelError(f"the hub profile's audio model needs laion-clap: {hint(['hub'])}")
    folder = Path(around.submodule_search_locations[0]) / "clap_module"
    spec = importlib.util.spec_from_file_location(
        "clap_module", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["clap_module"] = module
    try:
        spec.loader.exec_module(module)
    except ImportError as error:
        del sys.modules["clap_module"]
        raise ModelError(f"laion-clap cannot be imported: {error}") from error
    return module


def _unit(vectors: np.ndarray) -> np.ndarray:
    norms = np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)
    return np.ascontiguousarray(vectors / norms, np.float32)
