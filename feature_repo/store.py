"""The Feast repository that a store carries, and applying definitions to it."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import uuid
import warnings
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import yaml

from core.errors import ConfigError, NotFound, StorageError
from core.extras import require
from core.features import FAMILIES
from core.release import read_release
from core.storage import LocalStorage
from feature_repo.faults import MEND, registry_faults
from feature_repo.spark import spark_settings

PROJECT = "earmark"
FOLDER = "feast"
IDENTITY = "identity.json"  # in FOLDER, of a store whose rows are in Redis
DEFINITIONS_VERSION = 4  # raised when feature_repo.views or repo_yaml define something else than before
PLUGINS = "feature_repo.plugins"
SQLITE_STORE = f"{PLUGINS}.online.sqlite_store.EarmarkSqliteOnlineStore"
PROFILE_VARIABLE = "EARMARK_FEAST_PROFILE"  # embedded, redis, spark
REDIS_VARIABLE = "EARMARK_REDIS"  # Feast's connection string of the redis profile: host:port,ssl=true,password=…
REDIS_TYPE_VARIABLE = "EARMARK_REDIS_TYPE"  # redis, redis_cluster or redis_sentinel

DEFINITIONS = '''"""Definitions of this store, for `feast -c {folder} apply`."""

from pathlib import Path

from feature_repo.store import read_models
from feature_repo.views import build_objects

_root = Path(__file__).resolve().parent.parent
for _object in build_objects(_root, read_models(_root), spark={spark}):
    globals()[f"{{type(_object).__name__}}_{{_object.name}}"] = _object
'''


SQLITE = "sqlite:///"


def registry_url(database: Path) -> str:
    """SQLAlchemy's URL of an SQLite file, with what has a meaning in URLs (`?`, `%`, `#`) escaped."""
    from sqlalchemy import URL

    return URL.create("sqlite", database=str(database)).render_as_string()


def registry_file(url: str) -> Path | None:
    """The SQLite file of a registry's URL; None for another database."""
    from sqlalchemy import make_url

    return Path(make_url(url).database or "") if url.startswith(SQLITE) else None


def require_parts(profile: str, redis: bool = False) -> None:
    """Raises `MissingExtra` where the extras of a Feast profile are not installed; `redis` says whether the profile
    spark keeps its online rows in Redis."""
    extras = ["spark"] if profile == "spark" else []
    extras += ["redis"] if profile == "redis" or (profile == "spark" and redis) else []
    require(extras, f"the Feast profile {profile}")


def profile_name() -> str:
    """The Feast profile that the environment asks for."""
    return os.environ.get(PROFILE_VARIABLE, "embedded")


def repo_yaml(root: Path, profile: str = "embedded", redis_project: str = PROJECT) -> dict[str, Any]:
    """feature_store.yaml of a profile: `embedded` (SQLite online), `redis`, or `spark` (with Redis online where the
    environment names one, else SQLite). `redis_project` is the project's name where its rows are in Redis. Raises
    `ConfigError`."""
    require_parts(profile, REDIS_VARIABLE in os.environ)
    home = root / FOLDER
    online: dict[str, Any] = {"type": SQLITE_STORE}
    if profile == "redis" or (profile == "spark" and os.environ.get(REDIS_VARIABLE)):
        online = {
            "type": f"{PLUGINS}.online.redis_store.EarmarkRedisOnlineStore",
            "connection_string": os.environ.get(REDIS_VARIABLE, "localhost:6379"),
            "redis_type": os.environ.get(REDIS_TYPE_VARIABLE, "redis"),
        }
    elif profile not in ("embedded", "spark"):
        raise ConfigError(f"Feast profile {profile!r} is not known; use embedded, redis or spark")
    else:
        online["path"] = str(home / "online.db")
    settings: dict[str, Any] = {
        "project": redis_project if "connection_string" in online else PROJECT,
        "provider": "local",
        "registry": {"registry_type": "sql", "path": registry_url(home / "registry.db"), "cache_ttl_seconds": 60},
        "offline_store": {"type": f"{PLUGINS}.offline.EarmarkOfflineStore"},
        "online_store": online,
        "batch_engine": {"type": f"{PLUGINS}.engine.EarmarkEngine"},
        "entity_key_serialization_version": 3,
    }
    return settings | (spark_settings(root) if profile == "spark" else {})


def write_repo(root: Path, profile: str = "embedded") -> str:
    """Writes `<root>/feast/` so that both the feast command and `FeatureStore(repo_path=…)` work; returns the name of
    the project."""
    storage = LocalStorage(root)
    settings = repo_yaml(root, profile)
    if "connection_string" in settings["online_store"]:
        settings = repo_yaml(root, profile, own_project(root))
    files = {
        "feature_store.yaml": settings_text(settings),
        "definitions.py": DEFINITIONS.format(folder=FOLDER, spark=profile == "spark"),
    }
    for name, text in files.items():
        path = root / FOLDER / name
        if not path.is_file() or path.read_text() != text:
            storage.write(f"{FOLDER}/{name}", text.encode())
    return str(settings["project"])


def own_project(root: Path) -> str:
    """The name of the store's project in Redis, which other stores may share: no two stores have the same, or they
    would overwrite and remove each other's rows. It is made of an id, which is kept beside the settings, and of the
    store's path, so that a copy has another. A store that is in Redis under the name of earlier versions, `earmark`,
    keeps it."""
    storage, path = LocalStorage(root), os.path.abspath(root)
    try:
        known = json.loads((root / FOLDER / IDENTITY).read_text())
        name, earlier = str(known["id"]), known["earlier_path"]
    except FileNotFoundError:
        name, earlier = uuid.uuid4().hex, path if _is_in_shared_redis(root) else None
        storage.write(f"{FOLDER}/{IDENTITY}", json.dumps({"id": name, "earlier_path": earlier}).encode())
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StorageError(f"{root / FOLDER / IDENTITY} is damaged ({error}); delete it and {MEND}") from error
    if earlier == path:
        return PROJECT
    return f"{PROJECT}_{hashlib.sha256(f'{name} {path}'.encode()).hexdigest()[:12]}"


def _is_in_shared_redis(root: Path) -> bool:
    """Whether an earlier version wrote the settings of this very store, with rows in Redis."""
    try:
        settings = yaml.safe_load((root / FOLDER / "feature_store.yaml").read_text(encoding="utf-8"))
        registry = registry_file(str(settings["registry"]["path"]))
        is_own = registry is not None and registry.parent.resolve() == (root / FOLDER).resolve()
        return is_own and "connection_string" in settings["online_store"] and settings["project"] == PROJECT
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError):
        return False


def settings_text(settings: Mapping[str, Any]) -> str:
    """The settings as YAML. Feast replaces `$NAME` in the text by environment variables before it reads it, so a `$`
    of a path is written as an escape."""
    text: str = yaml.safe_dump(dict(settings), sort_keys=False)
    if "$" in text:
        text = yaml.safe_dump(dict(settings), sort_keys=False, default_style='"', width=10_000).replace("$", "\\x24")
    return text


def check_online(root: Path) -> None:
    """Raises `ConfigError` for an unknown profile, and `StorageError` if the Redis that the environment names cannot be
    reached or refuses access. A run calls it before any work. A store that is a file is not checked, since importing
    Feast takes seconds."""
    settings = repo_yaml(root, profile_name())
    if "connection_string" not in settings["online_store"]:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from feast import RepoConfig
        from feast.infra.online_stores.helpers import get_online_store_from_config

        config = RepoConfig(**settings)
        get_online_store_from_config(config.online_store).check(config)


def read_models(root: Path) -> dict[str, Any]:
    """The released models of a store; none before its first release. Raises `StorageError` for a damaged release."""
    return dict((read_release(LocalStorage(root)) or {"models": {}})["models"])


def open_store(root: Path) -> Any:
    """Feast's `FeatureStore` of the store in the folder `root`. Raises `NotFound`, and `ConfigError` for a copy whose
    settings still point at the store that it was copied from: what is done to it would be done to that one."""
    settings = root / FOLDER / "feature_store.yaml"
    if not settings.is_file():
        raise NotFound(f"there is no Feast repository in {root}; run earmark on a catalogue first")
    database = registry_file(_registry_path(settings))
    if database is not None and database.parent.resolve() != settings.parent.resolve():
        raise ConfigError(
            f"the store {root} was moved or copied: its Feast repository still points at "
            f"{database.parent}; run earmark on its catalogue once, which mends that"
        )
    _require_parts_of(settings)
    os.environ.setdefault("FEAST_USAGE", "False")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from feast import FeatureStore

        with registry_faults(root):
            store = FeatureStore(repo_path=str(root / FOLDER))
    return with_registry_of_its_own(store)


def _registry_path(settings: Path) -> str:
    """Where the registry lies that `feature_store.yaml` names. Raises `StorageError` for settings that are not ours."""
    try:
        found = yaml.safe_load(settings.read_text(encoding="utf-8"))
        return str(found["registry"]["path"])
    except (OSError, UnicodeDecodeError, yaml.YAMLError, KeyError, TypeError) as error:
        raise StorageError(f"{settings} is damaged or not Earmark's ({type(error).__name__}); {MEND}") from error


def _require_parts_of(settings: Path) -> None:
    """Raises `MissingExtra` where a repository's stores need an extra that is not installed."""
    loaded = yaml.safe_load(settings.read_text())
    kinds = " ".join(str(part.get("type")) for part in loaded.values() if isinstance(part, dict))
    extras = [extra for extra in ("redis", "spark") if extra in kinds.lower()]
    require(extras, f"the store {settings.parent.parent}")


def with_registry_of_its_own(store: Any) -> Any:
    """The Feast store, whose definitions are not mistaken for those of another store of this process."""
    create = store._create_registry
    store._create_registry = lambda: _told_apart(create())
    return store


def _told_apart(registry: Any) -> Any:
    """The registry, with an id of its own for every state of the definitions that Feast reads from it.

    Feast remembers what it listed by the definitions' address in memory, their `version_id` and the project. A registry
    in SQL leaves the second empty and ours all have one project, so that a store that is opened where another one lay
    in memory would be taken for that one, and rows that are pushed would go there.
    """
    read = registry.proto

    def proto() -> Any:
        found = read()
        found.version_id = found.version_id or str(uuid.uuid4())
        return found

    registry.proto = proto
    registry.cached_registry_proto.version_id = str(uuid.uuid4())
    return registry


def _forget_torn_down(registry: Path) -> bool:
    """Removes the registry where `feast teardown` has left no view in it, and says whether it did. Feast leaves the
    versions of the views behind, over which its own next apply stumbles."""
    if not registry.is_file():
        return False
    try:
        with closing(sqlite3.connect(f"{registry.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            if connection.execute("SELECT EXISTS (SELECT 1 FROM feature_views)").fetchone()[0]:
                return False
    except sqlite3.Error:  # never applied, in use, or damaged: the next step says which
        return False
    registry.unlink()
    return True


def apply(root: Path, release: Mapping[str, Any], extra_models: Mapping[str, Any] | None = None) -> bool:
    """Applies the definitions of a release to the store's registry; returns whether anything had to be done.

    `extra_models` get views beside the released ones. Repeatable: what was applied is remembered after it is done.
    """
    profile = profile_name()
    project = write_repo(root, profile)
    others = {**read_models(root), **(extra_models or {})}
    families = [[view.name, [[f.name, str(f.type)] for f in view.features]] for view in FAMILIES]
    about = [DEFINITIONS_VERSION, profile, str(root), release["models"], others, families, project]
    wanted = json.dumps(about, sort_keys=True)
    mark = hashlib.sha256(wanted.encode()).hexdigest()
    storage = LocalStorage(root)
    done = root / FOLDER / "applied"
    torn_down = _forget_torn_down(root / FOLDER / "registry.db")
    if done.is_file() and done.read_text() == mark and not torn_down:
        return False
    store = open_store(root)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from feature_repo.served import save_services
        from feature_repo.views import build_objects

        with registry_faults(root):
            store.apply(build_objects(root, release["models"], others, spark=profile == "spark"))
            save_services(store, root)
    storage.write(f"{FOLDER}/applied", mark.encode())
    return True
