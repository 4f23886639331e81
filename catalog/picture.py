"""Decoding covers: JPEG, PNG and WebP to upright RGB of bounded size."""

from __future__ import annotations

import io
import struct
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from catalog.container import check_file
from catalog.limits import Limits
from catalog.media import Picture
from core.errors import BadItem

FORMATS = ("JPEG", "PNG", "WEBP")
_ORIENTATION = 0x0112  # EXIF tag
_SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height

warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)  # max_pixels is stricter


def decode_picture(source: str | Path | bytes, limits: Limits = Limits()) -> Picture:  # noqa: B008
    """Decode the picture at a path, or in `bytes`, to uint8 RGB, shape (height, width, 3).

    EXIF orientation is applied, transparency is laid on white, palettes, 16-bit grey and CMYK become 8-bit RGB (colour
    profiles are not), and of an animation the first frame is taken. The longest side is at most
    `limits.max_picture_side`; `width_px` and `height_px` are the picture's own, upright.

    Raises `BadItem`: `missing_file`, `empty_file`, `too_large`, `not_picture`, `too_many_pixels` (by the header, before
    anything is decoded), `truncated`.
    """
    if isinstance(source, bytes):
        name, data = "the picture", source
        if not data:
            raise BadItem("empty_file", "the picture has 0 bytes")
        if len(data) > limits.max_file_bytes:
            raise BadItem("too_large", f"{len(data):,} bytes; {limits.max_file_bytes:,} are allowed")
    else:
        path = Path(source)
        check_file(path, limits)
        name, data = path.name, path.read_bytes()
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise BadItem("too_many_pixels", f"{name}: far more than the {limits.max_pixels:,} pixels allowed") from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, struct.error) as error:
        raise _broken(name, data, error) from error
    with image:
        width, height = image.size
        if width * height > limits.max_pixels:
            raise BadItem("too_many_pixels", f"{name}: {width} x {height}; {limits.max_pixels:,} pixels are allowed")
        try:
            rgb, sideways = _upright_rgb(image, limits.max_picture_side)
        except (OSError, ValueError, SyntaxError, struct.error, EOFError, IndexError) as error:
            raise _broken(name, data, error) from error
    if sideways:
        width, height = height, width
    return Picture(np.ascontiguousarray(rgb), width, height)


def _upright_rgb(image: Image.Image, side: int) -> tuple[np.ndarray, bool]:
    scale = side / max(image.size)
    if scale < 1:
        # JPEG alone can decode straight to a half, a quarter or an eighth; elsewhere this does nothing.
        image.draft(image.mode, (max(1, round(image.width * scale)), max(1, round(image.height * scale))))
    image.load()
    sideways = image.getexif().get(_ORIENTATION) in _SIDEWAYS
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith("I;16") or upright.mode == "I":
        # Pillow would clip 16-bit grey at 255; the high byte is the picture.
        grey = np.clip(np.asarray(upright).astype(np.int64), 0, 65_535) >> 8
        upright = Image.fromarray(grey.astype(np.uint8), mode="L")
    if upright.has_transparency_data:
        white = Image.new("RGBA", upright.size, "white")
        upright = Image.alpha_composite(white, upright.convert("RGBA"))
    upright = upright.convert("RGB")
    if scale < 1:
        upright.thumbnail((side, side), Image.Resampling.LANCZOS)
    return np.asarray(upright), sideways


def _broken(name: str, data: bytes, error: Exception) -> BadItem:
    """`truncated` where the container's own marks say that the end is missing, else `not_picture`."""
    if data[:2] == b"\xff\xd8" and b"\xff\xd9" not in data[-4096:]:
        return BadItem("truncated", f"{name}: the JPEG has no end mark ({error})")
    if data[:8] == b"\x89PNG\r\n\x1a\n" and b"IEND" not in data[-4096:]:
        return BadItem("truncated", f"{name}: the PNG has no end chunk ({error})")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP" and struct.unpack("<I", data[4:8])[0] + 8 > len(data):
        return BadItem("truncated", f"{name}: the WebP is {len(data):,} bytes of what its header states")
    if isinstance(error, UnidentifiedImageError):  # whose text is the address of a buffer
        return BadItem("not_picture", f"{name} is none of {', '.join(FORMATS)}")
    return BadItem("not_picture", f"{name}: {error or error.__class__.__name__}")
