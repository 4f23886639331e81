"""The key of work: a hash of exactly what shapes a result, so that what changed is computed and nothing else."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

KEY_BYTES = 16
REMOVED = "removed"  # work key of a tombstone row


def digest(value: object) -> str:
    """Hex hash of a JSON value; equal values give equal digests whatever the order of their keys."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).hexdigest()


def work_key(stage: str, version: int, model_id: str, inputs: Mapping[str, object]) -> str:
    """Key of one content in one stage.

    `inputs` holds the declared inputs only: a title that a stage does not read must not be in it. `model_id` names
    weights and parameters; `version` is raised with the code.
    """
    return digest([stage, version, model_id, dict(inputs)])
