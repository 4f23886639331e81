"""The manifest of a published index: what it holds, how it was made, what it measured."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

from core.errors import IndexUnavailable

FORMAT = 3


@dataclass(frozen=True)
class Manifest:
    """One version of one index. `files` are names and SHA-256 of what must be there, unchanged, before it is loaded."""

    name: str
    version: str
    model_id: str
    metric: str  # inner_product: vectors are unit-norm, so it is the cosine
    dim: int
    count: int
    factory: str  # FAISS factory string
    why: str  # the choice, for people
    parameters: dict[str, int]  # search parameters, such as efSearch
    recall: dict[str, float]  # recall@k against exact search on queries that were held out, by k
    source: str  # hash of the ids and work keys that went in: an unchanged input is not built again
    next_id: int  # the first id never given
    created: str
    files: dict[str, str] = field(default_factory=dict)
    recall_error: float = 0.0  # standard error of recall@10
    latency_ms: dict[str, float] = field(default_factory=dict)  # of single queries on one thread: p50, p95
    bytes_per_vector: float = 0.0
    refused: list[str] = field(default_factory=list)  # choices that were tried before, and what they reached
    merged: int = 0  # number of the last record of the live log that the version holds
    format: int = FORMAT
    # 1: the FAISS file maps labels to ids itself; from 2 on a label is a row of the ids; 3: ids and metadata are mapped

    def to_bytes(self) -> bytes:
        return json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True).encode()

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Manifest:
        """Parses strictly. Raises `IndexUnavailable` naming what is wrong."""
        try:
            record: dict[str, Any] = json.loads(data)
            version = record["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise IndexUnavailable(f"the manifest of {where} is damaged: {error!r}") from error
        if version > FORMAT:
            raise IndexUnavailable(f"{where} has format {version}; this Earmark reads up to {FORMAT}: update it")
        try:
            return cls(**record)  # what an earlier format did not say has its default
        except TypeError as error:
            raise IndexUnavailable(f"the manifest of {where} is damaged: {error}") from error
