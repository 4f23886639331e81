"""Learns the fingerprint's projection from the tuning episodes: `python -m bench.fingerprint_train`.

Fisher's discriminant (Fukunaga, Introduction to Statistical Pattern Recognition, 10.2): of the patches' cosine
transforms, the directions whose variance over different moments is largest against their variance between copies of
the same moment, scaled so that different moments spread evenly. Copies are the occurrences of a spot after whatever
happened to them, their clocks off by up to half a hop.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import scipy.linalg

from bench.episodes import Episode, Segment, shows
from catalog.audio import decode_audio
from embedders import fingerprint as fp

SEED = 0  # of the episodes, of the tuning split
REGULARISED = 0.003  # share of the mean variance that is added to the variance between copies
TARGET = Path(__file__).parent.parent / "embedders" / "data" / "fingerprint.npy"


def transformed(flat: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Cosine transforms, float32 (n, 220), of the patches around frames `at` of levelled frames."""
    at = np.clip(at, fp.PATCH // 2, len(flat) - fp.PATCH // 2)
    windows = np.lib.stride_tricks.sliding_window_view(flat, fp.PATCH, axis=0)[at - fp.PATCH // 2]
    return windows.transpose(0, 2, 1).reshape(len(at), -1) @ fp.transform()


def moments(segment: Segment, share: np.ndarray) -> np.ndarray:
    """Frames at which an occurrence plays these shares of its spot."""
    first, last = segment.part
    seconds = segment.start_s + (share - first) / (last - first) * (segment.end_s - segment.start_s)
    return np.rint(seconds / fp.FRAME_S).astype(int)


def copies(episodes: list[Episode], flats: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Transforms of the same moments of two occurrences of a spot, for every two."""
    rng = np.random.default_rng(0)
    heard: dict[str, list[tuple[int, Segment]]] = {}
    for number, episode in enumerate(episodes):
        for segment in episode.truth:
            if segment.motif:
                heard.setdefault(segment.motif, []).append((number, segment))
    one, other = [], []
    for places in heard.values():
        for k, (i, a) in enumerate(places):
            for j, b in places[k + 1 :]:
                low, high = max(a.part[0], b.part[0]), min(a.part[1], b.part[1])
                seconds = (a.end_s - a.start_s) / (a.part[1] - a.part[0])
                if (high - low) * seconds < 4:
                    continue
                share = np.arange(low + 1 / seconds, high - 1 / seconds, 0.7 / seconds)
                jitter = rng.integers(-fp.PATCH_HOP // 2, fp.PATCH_HOP // 2 + 1, len(share))
                one.append(transformed(flats[i], moments(a, share)))
                other.append(transformed(flats[j], moments(b, share) + jitter))
    return np.concatenate(one), np.concatenate(other)


def elsewhere(episodes: list[Episode], flats: list[np.ndarray]) -> np.ndarray:
    """Transforms of moments that recur nowhere."""
    rng = np.random.default_rng(1)
    found = []
    for episode, flat in zip(episodes, flats, strict=True):
        at = rng.integers(50, len(flat) - 50, 600)
        free = np.ones(len(at), bool)
        for s in (*episode.truth, *episode.negatives):
            free &= (at * fp.FRAME_S < s.start_s - 1.5) | (at * fp.FRAME_S > s.end_s + 1.5)
        found.append(transformed(flat, at[free]))
    every = np.concatenate(found)
    return every[np.linalg.norm(every, axis=1) > 1]


def discriminant(one: np.ndarray, other: np.ndarray, others: np.ndarray, dim: int) -> np.ndarray:
    """float32 (220, dim). `one` and `other` are copies, row by row; `others` are different moments."""
    size = (np.linalg.norm(one, axis=1) + np.linalg.norm(other, axis=1))[:, None] / 2
    within = np.cov(((one - other) / size).T) / 2
    within += REGULARISED * np.trace(within) / len(within) * np.eye(len(within))
    every = np.concatenate([others, one])
    total = np.cov((every / np.linalg.norm(every, axis=1, keepdims=True)).T)
    ratio, directions = scipy.linalg.eigh(total, within)
    best = np.argsort(ratio)[::-1][:dim]
    chosen = directions[:, best] / np.sqrt(ratio[best])
    # The sign of a direction is arbitrary: its largest component is made positive, so that a rerun writes the same.
    signs = np.sign(chosen[np.argmax(abs(chosen), axis=0), np.arange(dim)])
    return np.asarray(chosen * signs / abs(chosen).max(), np.float32)


def main() -> None:
    episodes = [e for show in shows("tune", SEED) for e in show.episodes]
    flats = [fp.levelled(fp.frames(decode_audio(e.path).samples)) for e in episodes]
    one, other = copies(episodes, flats)
    learnt = discriminant(one, other, elsewhere(episodes, flats), fp.DIM)
    np.save(TARGET, learnt.astype(np.float16), allow_pickle=False)
    print(f"{TARGET.name}: {learnt.shape}, from {len(one)} pairs of copies")


if __name__ == "__main__":
    main()
