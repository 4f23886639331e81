"""Where models run."""

from __future__ import annotations

from core.errors import ConfigError


def resolve_device(device: str) -> str:
    """`auto` → cuda, mps or cpu, whichever is there; other names as they are, checked. Raises `ConfigError`.

    Imports torch unless the answer is plain, so embedders ask when they load, not when they are named.
    """
    if device == "cpu":
        return "cpu"
    import torch

    if device == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device cuda was asked for, but torch finds no CUDA device here")
    if device == "mps" and not torch.backends.mps.is_available():
        raise ConfigError("device mps was asked for, but torch finds none here")
    return device
