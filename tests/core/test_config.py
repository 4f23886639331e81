from __future__ import annotations

from pathlib import Path

import pytest

from core.config import load_config
from core.errors import ConfigError


def test_file_then_values(tmp_path: Path) -> None:
    path = tmp_path / "earmark.yaml"
    path.write_text("device: cpu\nlimits:\n  max_audio_s: 60\n")
    config = load_config(path, {"workers": 3})
    assert (config.device, config.limits.max_audio_s, config.workers) == ("cpu", 60.0, 3)
    assert config.limits.max_pixels == 50_000_000


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"devise": "cpu"}, "did you mean 'device'"),
        ({"limits": {"max_audio": 1}}, "limits.max_audio"),
        ({"workers": "two"}, "must be of type int"),
        ({"profile": "tiny"}, "bundled or hub"),
        ({"shard_items": 0}, "at least 1"),
        ({"voices": "yes"}, "must be of type bool"),
        ({"workers": True}, "must be of type int"),
        ({"allow_hosts": "x"}, "list of texts"),
    ],
)
def test_what_is_wrong_is_named(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(None, values)


def test_unreadable_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        load_config(tmp_path / "none.yaml")
