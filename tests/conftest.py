"""Fixtures for all packages: a store, small generated media, and the demo catalogue, which is built once."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("FEAST_USAGE", "False")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

RATE = 16_000
SYSTEM_PROGRAMS = ("chromium", "espeak-ng", "ffmpeg", "flite", "java", "openssl", "redis-server")


def pytest_configure() -> None:
    """In CI, a missing system program fails the run: elsewhere the tests that need it are skipped."""
    missing = [name for name in SYSTEM_PROGRAMS if shutil.which(name) is None]
    if os.environ.get("CI") and missing:
        pytest.exit(f"CI needs {', '.join(missing)} on the path; .ci/packages lists Debian's packages", returncode=3)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, those with most of them before all: a worker that gets one last works alone."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: (-slow[item.path], str(item.path)))


def sine(seconds: float, hz: float = 440.0, rate: int = RATE, level: float = 0.5) -> np.ndarray:
    """A mono sine, float32."""
    return (level * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


@pytest.fixture
def tone() -> Callable[..., np.ndarray]:
    return sine


@pytest.fixture
def wav(tmp_path: Path) -> Callable[..., Path]:
    """Writes a mono WAV of a sine and returns its path."""
    import soundfile

    def write(name: str = "tone.wav", seconds: float = 1.0, hz: float = 440.0, folder: Path = tmp_path) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, sine(seconds, hz), RATE)
        return path

    return write


@pytest.fixture(scope="session")
def small_demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small demo catalogue's folder."""
    from cli.demo.build import build_demo

    folder = tmp_path_factory.mktemp("demo") / "catalog"
    build_demo(folder, small=True)
    return folder


PHOTOGRAPHS = ("astronaut", "cat", "coffee", "rocket", "china.jpg", "flower.jpg")


@pytest.fixture(scope="session")
def photographs() -> dict[str, np.ndarray]:
    """Real photographs of packages, uint8 RGB, some 500 pixels wide."""
    from PIL import Image
    from skimage import data
    from sklearn.datasets import load_sample_image

    found = {}
    for name in PHOTOGRAPHS:
        pixels = load_sample_image(name) if name.endswith(".jpg") else getattr(data, name)()
        picture = Image.fromarray(np.asarray(pixels)[..., :3])
        picture.thumbnail((512, 512))
        found[name] = np.asarray(picture)
    return found
