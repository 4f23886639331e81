from __future__ import annotations

import numpy as np
import pytest

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
