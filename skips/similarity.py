"""How closely each moment of a recording is heard elsewhere: the curve under an episode's picture."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import uniform_filter1d

from skips.detect import Detector
from skips.frames import FRAME_S, agreement

HOP = 16  # frames a value, 0.5 s
HOP_S = HOP * FRAME_S


def similarity(detector: Detector, number: int) -> np.ndarray:
    """float32 (n,), one value in [0, 1] every `HOP_S` seconds: the likeness of a recording to the motifs heard in it,
    half a second smoothed, with some seconds around them to show where it ends; 0 where nothing is known to recur."""
    sound = detector.sounds[number]
    curve = np.zeros(len(sound), np.float32)
    for motif in detector.known.motifs:
        for heard in motif.occurrences:
            if heard.recording != number or len({o.recording for o in motif.occurrences}) < 2:
                continue
            both = agreement(motif.clip, sound, heard.line, 0, len(motif.clip))
            if len(both.at) < HOP:
                continue
            like = uniform_filter1d(both.moved.astype(np.float32), HOP)
            at = np.clip(
                np.rint(np.asarray(heard.line(both.at.astype(np.float64)))).astype(np.int64), 0, len(curve) - 1
            )
            np.maximum.at(curve, at, like)
    padded = np.pad(curve, (0, -len(curve) % HOP))
    return padded.reshape(-1, HOP).max(axis=1)
