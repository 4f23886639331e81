"""`python -m bench.transcript_language_train`: prints the thresholds of `enrichers.english`.

Each lies halfway between what one in a hundred windows of English prompts stays under and what half of the windows of
Spanish ones do; that of the compression ratio halfway between the highest of English and half of what repeats itself by
Whisper's own bound.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from bench.transcript_language import SET_SEED, half, prompts, recordings
from catalog.media import SAMPLE_RATE, Audio
from enrichers.english import Evidence
from enrichers.speech import SpeechEnricher

RECORDINGS = 60
REPEATED = 2.4  # from here on Whisper's authors take a text for repeated


def windows(enricher: SpeechEnricher, recorded: Iterable[np.ndarray]) -> list[Evidence]:
    """What the decision looks at in every window of some recordings."""
    return [e for x in recorded for e in enricher.evidence(Audio(x, len(x) / SAMPLE_RATE))]


def main() -> None:
    enricher = SpeechEnricher()
    english = windows(enricher, recordings(half(prompts("en"), 0), RECORDINGS, SET_SEED))
    spanish = windows(enricher, recordings(prompts("es"), RECORDINGS, SET_SEED))
    for name in ("avg_log_probability", "word_confidence", "english_probability"):
        ours, theirs = ([v for e in some if (v := getattr(e, name)) is not None] for some in (english, spanish))
        low, middle = float(np.quantile(ours, 0.01)), float(np.median(theirs))
        print(f"{name}: {(low + middle) / 2:.2f} between {low:.2f} and {middle:.2f}")
    highest = max(e.compression_ratio for e in english)
    repeated = float(np.median([e.compression_ratio for e in spanish if e.compression_ratio > REPEATED]))
    print(f"compression_ratio: {(highest + repeated) / 2:.2f} between {highest:.2f} and {repeated:.2f}")
    print(f"windows that pass: English {_passed(english)}, Spanish {_passed(spanish)}")


def _passed(found: list[Evidence]) -> str:
    return f"{sum(e.passes for e in found)} of {len(found)}"


if __name__ == "__main__":
    main()
