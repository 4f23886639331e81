"""What one item may cost at most. A catalogue is untrusted: a small file can unfold into hours of sound or gigapixels."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Ceilings on one item, checked before decoding where a header tells, and again while decoding.

    Beyond a ceiling the item is a `BadItem` (reason in parentheses), never an exception that ends a batch.
    """

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

    max_text_chars: int = 1_000_000
    """Most characters of a description, lyrics or transcript (`too_much_text`); about a 16-hour audiobook's words."""
