"""The enrichers by the view they fill. Names are known without loading a weight."""

from __future__ import annotations

from typing import Any

from core.extras import require
from core.features import ACOUSTIC, SPEECH, TEXT_SIGNALS, VISUAL
from enrichers.acoustic import AcousticEnricher
from enrichers.speech import SpeechEnricher
from enrichers.text import TextEnricher
from enrichers.visual import VisualEnricher


def load_enrichers(device: str = "auto") -> dict[str, Any]:
    """One enricher a content family; models load when they are first used.

    On a GPU only the transcriber moves there: the others cost less than the copy.
    """
    require(["bundled"], "enriching media")
    return {
        ACOUSTIC.name: AcousticEnricher(),
        SPEECH.name: SpeechEnricher(device if device in ("auto", "cuda") else "cpu"),
        TEXT_SIGNALS.name: TextEnricher(),
        VISUAL.name: VisualEnricher(),
    }
