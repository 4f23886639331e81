from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.embedders import tiny


@pytest.fixture(scope="session")
def hub_options(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Options of the hub profile that name tiny seeded models on local paths."""
    folder: Path = tmp_path_factory.mktemp("hub")
    return {
        "text": str(tiny.sentence_model(folder / "text")),
        "image": str(tiny.clip_model(folder / "tiny-clip")),
        "audio": str(tiny.clap_checkpoint(folder / "clap" / "tiny.pt")),
        "audio_tokenizer": str(tiny.roberta_tokenizer(folder / "tokenizer")),
    }
