"""Meta's perceptual hash of a picture, 256 bits that recompression and resizing change little."""

from __future__ import annotations

import numpy as np


def pdq(pixels: np.ndarray) -> tuple[np.ndarray, int]:
    """The hashes of a picture, uint8 RGB (height, width, 3), and of its turns by 90° and their mirror images, uint8
    (8, 32), its own first; and the quality, 0 to 100: below 50, a hash says little."""
    import pdqhash

    bits, quality = pdqhash.compute_dihedral(np.ascontiguousarray(pixels))
    return np.packbits(np.asarray(bits, np.uint8), axis=1), int(quality)
