"""The picture of the demo in README shows what the demo prints today."""

from __future__ import annotations

import html
import re
from pathlib import Path

from core.config import Config
from core.storage import LocalStorage
from pipelines.context import Run
from pipelines.stages import content_stage, media_stages, text_stages

PICTURE = Path(__file__).parent.parent.parent / "docs" / "demo.svg"


def test_the_picture_names_every_stage(tmp_path: Path) -> None:
    """`make demo-svg` generates it again."""
    texts = {html.unescape(text).replace("\xa0", " ").strip() for text in re.findall(r">([^<]+)<", PICTURE.read_text())}
    run = Run(LocalStorage(tmp_path), "none", ".", Config(device="cpu"))
    stages = [content_stage(), *media_stages(run), *text_stages(run)]
    assert {stage.name for stage in stages} - texts == set()
    assert {"decode audio", "decode image"} <= texts
