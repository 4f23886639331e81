"""The model profiles: which embedder does which modality. Names are known without loading a weight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.errors import ConfigError
from core.extras import EXTRAS, require
from embedders.device import resolve_device

__all__ = ["AudioModel", "Profile", "load_profile", "resolve_device"]


@dataclass(frozen=True)
class AudioModel:
    """Audio in two steps: `raw` vectors an item, then `finish(statistics)` for the final ones.

    A model that needs no statistics finishes by leaving its vectors as they are.
    """

    raw: Any
    needs_statistics: bool

    def finish(self, statistics: Any) -> Any:
        """The embedder of final vectors: `model_id`, `dim`, `apply(raw matrix)`, `embed(batch)`."""
        from embedders.standardise import Final, Standardised

        return Standardised(self.raw, statistics) if self.needs_statistics else Final(self.raw)


@dataclass(frozen=True)
class Profile:
    """The embedders of the three modalities."""

    text: Any
    audio: AudioModel
    image: Any


def load_profile(profile: str, *, device: str = "auto", options: Mapping[str, Any] | None = None) -> Profile:
    """The profile `bundled` or `hub`; weights load when a model is first used.

    `options` of the hub profile name the models: `text`, `image` (hub names or local paths) and `audio` (path of a
    laion-clap checkpoint); those of the bundled profile may name another `text`. Raises `ConfigError`.
    """
    if profile in EXTRAS:
        require([profile], f"the model profile {profile}")
    if profile == "bundled":
        from embedders.image import EfficientNetLite0
        from embedders.musicnn import MusicnnRaw
        from embedders.text import MiniLM

        unknown = sorted(set(options or {}) - {"text"})
        if unknown:
            raise ConfigError(
                f"models.{unknown[0]} is not of the bundled profile, which takes models.text alone: remove it, or use "
                "profile hub"
            )
        text: Any = MiniLM(device)
        if options and options.get("text"):
            from embedders.hub import hub_text

            text = hub_text(str(options["text"]), device)
        return Profile(text, AudioModel(MusicnnRaw(device), True), EfficientNetLite0(device))
    if profile == "hub":
        from embedders.hub import load_hub

        return load_hub(resolve_device(device), dict(options or {}))
    raise ConfigError(f"profile {profile!r} is not known; use bundled or hub")
