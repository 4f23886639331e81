"""What every enricher is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol, TypeVar

from catalog.media import Listener, Media
from core.features import View

M = TypeVar("M", bound=Media, contravariant=True)


class Enricher(Protocol[M]):
    """A batch of media of one modality → the rows of one feature view.

    `model_id` names weights and parameters that shape the result ("none" for pure arithmetic); `version` is raised
    when the code computes something else than before.
    """

    modality: Literal["text", "audio", "image"]
    view: View
    model_id: str
    version: int

    def listeners(self) -> list[Listener]:
        """New listeners that must hear one item's decode; empty for most."""
        ...

    def enrich(self, batch: Sequence[M]) -> list[dict[str, Any]]:
        """One dict an item, with every feature of `view` (None where unknown); extra tables under the key `"_side"`
        (name → list of row dicts) for several rows a content. Raises `BadItem` as embedders do."""
        ...
