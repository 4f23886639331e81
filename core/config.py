"""The configuration: typed, built once, passed down.

It comes from a YAML file (`earmark.yaml` beside the store or named by `--config`), then from the command line.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from core.errors import ConfigError

DEFAULT_STORE = ".earmark"
STORE_VARIABLE = "EARMARK_STORE"


@dataclass(frozen=True)
class MediaLimits:
    """Ceilings on one item, checked before decoding where a header tells, and again while decoding. A catalogue is
    untrusted: a small file can unfold into hours of sound or gigapixels. The quarantine's reason is in parentheses."""

    max_audio_s: float = 6 * 3600.0
    """Longest audio in seconds (`too_long`). Six hours of 16 kHz mono float32 are 1.4 GB of memory."""

    max_channels: int = 8
    """Most audio channels (`too_many_channels`); 8 is 7.1 surround."""

    max_file_bytes: int = 2 << 30
    """Largest file that is opened or downloaded (`too_large`)."""

    max_pixels: int = 50_000_000
    """Most pixels of a picture, width times height (`too_many_pixels`); 50 Mpx decode to 150 MB of RGB."""

    max_picture_side: int = 2048
    """Longest side of decoded pixels; larger pictures are reduced while decoding, not refused."""

    max_decode_bytes: int = 2 << 30
    """Most memory of a process that decodes, beyond the samples themselves (`decoder_crashed`)."""

    max_stall_s: float = 120.0
    """Longest time in seconds in which a decoder makes no progress before it counts as hung (`decoder_crashed`)."""

    max_text_chars: int = 1_000_000
    """Most characters of title, description and lyrics or transcript together (`too_long`)."""


@dataclass(frozen=True)
class Config:
    """Everything that a run can be told, with the defaults of the embedded profile."""

    profile: str = "bundled"  # bundled or hub
    device: str = "auto"  # auto, cpu, cuda, mps
    workers: int = 0  # threads over items; 0: one a core
    shard_items: int = 32  # contents with media a commit
    text_shard_items: int = 512  # contents with text alone a commit
    allow_hosts: tuple[str, ...] = ()  # hosts that http(s) media may come from
    timezone: str | None = None  # zone of naive timestamps; None refuses them
    index_recall: float = 0.95  # recall@10 that an index must reach to be published
    accept_truncated: bool = False  # whether audio whose bytes end early is enriched as far as it goes, and flagged
    voices: bool = False  # whether vectors of voices are made of what is spoken, for policies on voices
    limits: MediaLimits = field(default_factory=MediaLimits)
    models: Mapping[str, Any] = field(default_factory=dict)  # options of the profile's models

    def __post_init__(self) -> None:
        if self.workers < 0:
            raise ConfigError(f"workers must be 0 (one a core) or more, not {self.workers}")
        for name in ("shard_items", "text_shard_items"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1")
        if not 0 < self.index_recall <= 1:
            raise ConfigError(f"index_recall must be above 0 and at most 1, not {self.index_recall}")

    @property
    def threads(self) -> int:
        return self.workers or os.cpu_count() or 1

    def replace(self, **changes: Any) -> Config:
        """A copy with the changes that are not None."""
        return dataclasses.replace(self, **{k: v for k, v in changes.items() if v is not None})

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)


def load_config(path: Path | None = None, values: Mapping[str, Any] | None = None) -> Config:
    """The configuration of a YAML file and of `values` over it. Raises `ConfigError` for what is not known."""
    merged: dict[str, Any] = {}
    if path is not None:
        import yaml

        try:
            merged = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise ConfigError(f"cannot read the configuration {path}: {error}") from error
        if not isinstance(merged, dict):
            raise ConfigError(f"the configuration {path} must be a mapping of settings")
    config: Config = build(Config, {**merged, **(values or {})})
    if config.profile not in ("bundled", "hub"):
        raise ConfigError(f"profile {config.profile!r} is not known; use bundled or hub")
    return config


def build(kind: type, values: Mapping[str, Any], where: str = "") -> Any:
    """A dataclass from plain values, recursively, with checked names and types."""
    hints = get_type_hints(kind)
    arguments = {}
    for name, value in values.items():
        label = f"{where}{name}"
        if name not in hints:
            near = difflib.get_close_matches(name, hints, 1)
            raise ConfigError(f"setting {label!r} is not known" + (f"; did you mean {near[0]!r}?" if near else ""))
        arguments[name] = _checked(hints[name], value, label)
    return kind(**arguments)


def _checked(hint: Any, value: Any, label: str) -> Any:
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(f"setting {label!r} must be a mapping")
        return build(hint, value, f"{label}.")  # type: ignore[arg-type]
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if hint == tuple[str, ...] and isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value):
        return tuple(value)
    plain = {int: int, float: float, str: str, bool: bool}.get(hint)
    if plain and (not isinstance(value, plain) or isinstance(value, bool) != (plain is bool)):
        raise ConfigError(f"setting {label!r} must be of type {plain.__name__}, not {value!r}")
    if hint == str | None and value is not None and not isinstance(value, str):
        raise ConfigError(f"setting {label!r} must be text")
    if hint == tuple[str, ...]:
        raise ConfigError(f"setting {label!r} must be a list of texts")
    if hint == Mapping[str, Any] and not isinstance(value, Mapping):
        raise ConfigError(f"setting {label!r} must be a mapping")
    return value


def store_uri(given: str | None) -> str:
    """The store to work on: as given, else `$EARMARK_STORE`, else `.earmark` here. Raises `ConfigError` for an empty
    name, which a script's unset variable gives: the default would be another store than the one that was meant."""
    if given is not None and not given.strip():
        raise ConfigError("--store is empty; name a folder")
    return given or os.environ.get(STORE_VARIABLE) or DEFAULT_STORE
