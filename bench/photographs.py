"""Distinct photographs from packages, and edits of the kind that people make to get past a filter."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter, ImageFont, ImageOps

SIDE = 768  # pixels of the longer side of what is edited
LEAST_SIDE = 200
NEBULAE = Path("/usr/share/stellarium/nebulae/default")
WALLPAPERS = "/usr/share/backgrounds"
# Package, folder, licence as its copyright file states it, and what its pictures are.
COLLECTIONS = (
    ("lomiri-wallpapers-16.04", WALLPAPERS, "CC BY-SA", "photographs"),
    ("mate-backgrounds", f"{WALLPAPERS}/mate/nature", "GPL-2+, CC BY-SA", "photographs"),
    *(
        ("tuxpaint-stamps-default", f"/usr/share/tuxpaint/stamps/{what}", "GPL-2+, public domain", kind)
        for kind, whats in (
            ("photographs", ("animals", "food", "household", "plants", "vehicles", "people", "clothes", "sports")),
            ("designs", ("symbols", "cartoon", "space", "seasonal", "hobbies")),
        )
        for what in whats
    ),
    ("stellarium-data", str(NEBULAE), "GPL-2+, CC BY", "photographs"),
    ("mate-backgrounds", f"{WALLPAPERS}/mate/abstract", "GPL-2+, CC BY-SA", "designs"),
    ("mate-backgrounds", f"{WALLPAPERS}/mate/desktop", "GPL-2+, CC BY-SA", "designs"),
    ("ukui-wallpapers", WALLPAPERS, "GPL-3+", "designs"),
    ("gnome-backgrounds", f"{WALLPAPERS}/gnome", "CC BY-SA 3.0", "designs"),
    ("plasma-workspace-wallpapers", "/usr/share/wallpapers", "CC BY-SA 4.0 and others", "designs"),
)
SERIES = ("tuxpaint-stamps-default", "mate-backgrounds")  # packages that have several pictures of one subject
NAMES = (".jpg", ".jpeg", ".png", ".webp")


@dataclass(frozen=True)
class Photograph:
    """A picture of a package. `kind` is photographs, or designs: what was drawn or rendered, often little more than a
    few lines. `place` is where on the sky a nebula is: (right ascension, declination, radius) in degrees, since two
    photographs may show the same one."""

    path: Path
    package: str
    kind: str
    place: tuple[float, float, float] | None = None


def missing() -> list[str]:
    packages = dict.fromkeys(package for package, *_ in COLLECTIONS)
    return [package for package in packages if not Path(f"/var/lib/dpkg/info/{package}.list").exists()]


def photographs() -> list[Photograph]:
    """Every photograph, one of each: of several sizes and crops of one motif, the largest. Raises `SystemExit` naming
    what to install."""
    if lacking := missing():
        raise SystemExit(f"the photographs need: apt-get install -y {' '.join(lacking)}")
    found: list[Photograph] = []
    places = _places()
    for package, folder, _, kind in COLLECTIONS:
        listed = Path(f"/var/lib/dpkg/info/{package}.list").read_text().splitlines()
        paths = [Path(p) for p in listed if p.startswith(f"{folder}/") and Path(p).suffix.lower() in NAMES]
        best: dict[str, Path] = {}
        for path in sorted(path for path in paths if path.is_file() and not path.is_symlink()):
            name = _motif(package, path)
            if name and (name not in best or path.stat().st_size > best[name].stat().st_size):
                best[name] = path
        found += [
            Photograph(p, package, "designs" if "cartoon" in p.parts else kind, places.get(p.name))
            for p in sorted(best.values())
        ]
    return found


def _motif(package: str, path: Path) -> str | None:
    """What a file shows, as far as names tell; None for what is no photograph of its own."""
    if package == "plasma-workspace-wallpapers":
        return (
            path.parts[4] if "images" in path.parts else None
        )  # one folder a wallpaper; dark forms lie in images_dark
    if package == "tuxpaint-stamps-default" and path.stem.endswith(("_mirror", "_flip")):
        return None
    return re.sub(r"([-_]\d{3,5}x\d{3,5}|-dark|-[ld])$", "", path.stem.lower())


def _subject(path: Path) -> str:
    """The word that a name begins with; the name where that is but a letter or two."""
    found = re.match(r"[a-z]{3,}", path.stem.lower())
    return found[0] if found else path.stem


def _places() -> dict[str, tuple[float, float, float]]:
    """Where the nebulae are, of a file that is nearly JSON."""
    text = (NEBULAE / "textures.json").read_text()
    found = {}
    number = r"-?[0-9.]+(?:e-?[0-9]+)?"
    corner = rf"\[\s*({number})\s*,\s*({number})\s*\]"
    for piece in re.split(r"(?=\"imageUrl\")", text)[1:]:
        name = re.match(r'"imageUrl"\s*:\s*"([^"]+)"', piece)
        world = re.search(r'"worldCoords"\s*:\s*\[\s*\[(.*?)\]\s*\]', piece, re.DOTALL)
        if name and world:
            corners = np.array(re.findall(corner, world[1] + "]"), float)
            centre = corners.mean(axis=0)
            found[name[1]] = float(centre[0]), float(centre[1]), float(np.abs(corners[:, 1] - centre[1]).max() * 1.5)
    return found


def apart(one: Photograph, other: Photograph) -> bool:
    """Whether two photographs show different things. Stamps and wallpapers whose names begin with one word are a series
    (`gnu-baby` and `gnu-baby-stand`, two moments of one calf; a wallpaper in other colours); nebulae whose place is not
    known may be one."""
    if one.package == other.package and one.package in SERIES and _subject(one.path) == _subject(other.path):
        return False
    if NEBULAE not in one.path.parents or NEBULAE not in other.path.parents:
        return True
    if one.place is None or other.place is None:
        return False
    a, b = np.radians(one.place[:2]), np.radians(other.place[:2])
    cosine = np.sin(a[1]) * np.sin(b[1]) + np.cos(a[1]) * np.cos(b[1]) * np.cos(a[0] - b[0])
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1)))) > one.place[2] + other.place[2]


def pixels(photograph: Photograph) -> np.ndarray | None:
    """uint8 RGB of at most `SIDE`; None for what is too small to be edited."""
    from catalog.picture import decode_picture

    found = Image.fromarray(decode_picture(photograph.path).pixels)
    if min(found.size) < LEAST_SIDE:
        return None
    found.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(found)


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


WORDS = ("when", "you", "see", "it", "wait", "for", "the", "end", "they", "never", "told", "us", "this", "is", "monday")


def _words(rng: np.random.Generator, count: int) -> str:
    return " ".join(rng.choice(WORDS, count)).upper()


def jpeg(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    held = io.BytesIO()
    picture.save(held, "JPEG", quality=int(rng.integers(10, 91)))
    return Image.open(held).convert("RGB")


def crop(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """70 to 90 % of each side."""
    width, height = (int(side * rng.uniform(0.7, 0.9)) for side in picture.size)
    left, top = (
        int(rng.integers(0, whole - part + 1)) for whole, part in zip(picture.size, (width, height), strict=True)
    )
    return picture.crop((left, top, left + width, top + height))


def border(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    width = int(min(picture.size) * rng.uniform(0.05, 0.15))
    return ImageOps.expand(picture, width, tuple(int(v) for v in rng.integers(0, 256, 3)))


def resize(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A quarter to one and a half, sides apart by up to a quarter."""
    scale = rng.uniform(0.25, 1.5)
    width, height = (max(64, int(side * scale * rng.uniform(0.88, 1.12))) for side in picture.size)
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def flip(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageOps.mirror(picture) if rng.random() < 0.7 else ImageOps.flip(picture)


def rotation(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    return picture.rotate(float(rng.choice([-1, 1]) * rng.uniform(3, 15)), Image.Resampling.BICUBIC, expand=True)


def blur(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    return picture.filter(ImageFilter.GaussianBlur(rng.uniform(1, 3)))


def gray(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    return picture.convert("L").convert("RGB")


def brightness(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    return ImageEnhance.Brightness(picture).enhance(float(rng.choice([rng.uniform(0.5, 0.8), rng.uniform(1.2, 1.6)])))


def caption(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A white bar with words over the picture, a sixth to a third of its height."""
    bar = int(picture.height * rng.uniform(0.16, 0.33))
    made = Image.new("RGB", (picture.width, picture.height + bar), "white")
    made.paste(picture, (0, bar))
    ImageDraw.Draw(made).text((10, bar // 6), _words(rng, 6), "black", _font(max(12, bar // 3)))
    return made


def screenshot(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """In a window of a page with a bar, lines of text and a margin."""
    width, height = int(picture.width * 1.25), int(picture.height * 1.45)
    made = Image.new("RGB", (width, height), tuple(int(v) for v in rng.integers(225, 256, 3)))
    draw = ImageDraw.Draw(made)
    draw.rectangle((0, 0, width, height // 12), fill=tuple(int(v) for v in rng.integers(20, 120, 3)))
    draw.text((12, height // 40), "photos  ‹ back", "white", _font(max(12, height // 30)))
    left, top = int(rng.uniform(0.02, 0.18) * width), height // 9
    made.paste(picture, (left, top))
    for line in range(3):
        at = top + picture.height + 8 + line * height // 26
        draw.text((left, at), _words(rng, 7).lower(), "black", _font(max(11, height // 36)))
    return jpeg(made, rng)


def mirrored_with_text(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    made = ImageOps.mirror(picture)
    draw = ImageDraw.Draw(made)
    at = (int(made.width * rng.uniform(0, 0.3)), int(made.height * rng.uniform(0.1, 0.8)))
    draw.text(at, _words(rng, 4), "white", _font(made.height // 10), stroke_width=3, stroke_fill="black")
    return made


EDITS: dict[str, Callable[[Image.Image, np.random.Generator], Image.Image]] = {
    "jpeg 10-90": jpeg,
    "crop to 70 %": crop,
    "border": border,
    "resize": resize,
    "flip": flip,
    "rotation to 15°": rotation,
    "blur": blur,
    "gray": gray,
    "brightness": brightness,
    "caption bar": caption,
    "screenshot": screenshot,
    "mirror with text": mirrored_with_text,
}


def edited(original: np.ndarray, seed: tuple[int, ...]) -> Iterator[tuple[str, np.ndarray]]:
    """Every edit of a picture, by name."""
    for number, (name, edit) in enumerate(EDITS.items()):
        rng = np.random.default_rng((*seed, number))
        yield name, np.ascontiguousarray(np.asarray(edit(Image.fromarray(original), rng).convert("RGB")))
