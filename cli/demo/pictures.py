"""The demo's covers: photographs from scikit-image and scikit-learn, some edited, some with their title written on."""

from __future__ import annotations

import io
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PHOTOGRAPHS = (
    "astronaut.png",
    "coffee.png",
    "chelsea.png",
    "rocket.jpg",
    "hubble_deep_field.jpg",
    "moon.png",
    "coins.png",
    "brick.png",
    "motorcycle_left.png",
    "retina.jpg",
    "horse.png",
    "grass.png",
)
SIDE = 640  # pixels


def photographs() -> dict[str, Any]:
    """Pictures by name, square; those of the packages that are installed."""
    from PIL import Image

    found = {}
    for package, folder, names in (
        ("skimage", "data", PHOTOGRAPHS),
        ("sklearn", "datasets/images", ("china.jpg", "flower.jpg")),
    ):
        spec = find_spec(package)
        if spec is None or not spec.submodule_search_locations:
            continue
        for name in names:
            path = Path(spec.submodule_search_locations[0]) / folder / name
            if path.is_file():
                with Image.open(path) as picture:
                    rgb = picture.convert("RGB")
                side = min(rgb.size)
                left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
                found[path.stem] = rgb.crop((left, top, left + side, top + side)).resize((SIDE, SIDE))
    return found


def edited(picture: Any, how: int) -> Any:
    """A near-duplicate: cropped, brightened, or through a hard JPEG."""
    from PIL import Image, ImageEnhance

    if how == 0:
        edge = picture.width // 20
        return picture.crop((edge, edge, picture.width - edge, picture.height - edge)).resize(picture.size)
    if how == 1:
        return ImageEnhance.Brightness(picture).enhance(1.25)
    packed = io.BytesIO()
    picture.save(packed, "JPEG", quality=25)
    with Image.open(packed) as again:
        return again.convert("RGB")


def titled(picture: Any, title: str) -> Any:
    """A copy with the title in white on a dark band."""
    from PIL import ImageDraw, ImageFont

    copy = picture.copy()
    draw = ImageDraw.Draw(copy)
    draw.rectangle((0, SIDE - 130, SIDE, SIDE - 30), fill=(20, 20, 30))
    draw.text((30, SIDE - 115), title, font=ImageFont.load_default(52), fill=(255, 255, 255))
    return copy


def bomb() -> bytes:
    """A PNG of a few kilobytes that would unfold into 30,000 × 30,000 pixels."""
    import struct
    import zlib

    side = 30_000

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    rows = zlib.compress(b"\0" * 100_000, 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
