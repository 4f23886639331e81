from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from catalog.limits import Limits
from catalog.picture import decode_picture
from cli.demo.pictures import bomb
from core.errors import BadItem


def packed(picture: Image.Image, kind: str, **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "JPEG"])
def test_formats(kind: str) -> None:
    picture = decode_picture(packed(Image.new("RGB", (30, 20), (200, 100, 50)), kind, quality=100))
    assert (picture.width_px, picture.height_px, picture.pixels.shape) == (30, 20, (20, 30, 3))
    assert np.abs(picture.pixels.astype(int) - (200, 100, 50)).max() <= 3


def test_orientation_and_transparency() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to view
    picture = decode_picture(packed(Image.new("RGB", (30, 20)), "JPEG", exif=exif))
    assert (picture.width_px, picture.height_px, picture.pixels.shape) == (20, 30, (30, 20, 3))
    clear = decode_picture(packed(Image.new("RGBA", (2, 2), (0, 0, 0, 0)), "PNG"))
    assert (clear.pixels == 255).all()


def test_sixteen_bit_grey_and_cmyk() -> None:
    grey = Image.fromarray(np.full((4, 4), 0x8000, np.uint16))
    assert (decode_picture(packed(grey, "PNG")).pixels == 0x80).all()
    assert decode_picture(packed(Image.new("CMYK", (4, 4)), "JPEG")).pixels.shape == (4, 4, 3)


def test_large_pictures_are_reduced_and_their_size_is_told() -> None:
    picture = decode_picture(packed(Image.new("RGB", (4100, 100)), "JPEG"))
    assert (picture.width_px, picture.height_px) == (4100, 100)
    assert max(picture.pixels.shape) <= 2048


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty_file"),
        (b"GIF89a" + b"x" * 50, "not_picture"),
        (bomb(), "too_many_pixels"),
        (packed(Image.effect_noise((64, 64), 50), "PNG")[:-900], "truncated"),
        (packed(Image.effect_noise((64, 64), 50), "JPEG")[:-900], "truncated"),
    ],
)
def test_bad_pictures(data: bytes, reason: str) -> None:
    with pytest.raises(BadItem) as caught:
        decode_picture(data)
    assert caught.value.reason == reason


def test_pixel_limit_and_missing_file(tmp_path: Path) -> None:
    with pytest.raises(BadItem) as caught:
        decode_picture(packed(Image.new("RGB", (11, 10)), "PNG"), Limits(max_pixels=100))
    assert caught.value.reason == "too_many_pixels"
    with pytest.raises(BadItem) as caught:
        decode_picture(tmp_path / "none.png")
    assert caught.value.reason == "missing_file"


def test_many_threads_at_once() -> None:
    data = [packed(Image.new("RGB", (8, 8)), kind) for kind in ("PNG", "WEBP", "JPEG")] * 20
    with ThreadPoolExecutor(8) as pool:
        assert all(p.pixels.shape == (8, 8, 3) for p in pool.map(decode_picture, data))
