"""What one item may cost at most: `core.config.MediaLimits`, under the name that the decoders use."""

from core.config import MediaLimits as Limits

__all__ = ["Limits"]
