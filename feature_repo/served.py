"""Online features without Feast: the definitions of services are saved beside the registry, rows are read by SQLite.

`import feast` costs seconds, more than everything else that a command for one content does. When definitions are
applied, what each service reads (views, keys, features, types, in the order of the answer) is saved in `served.json`
with a hash of the registry's rows. A reader uses it only while the registry has that hash, so that definitions which
a user applied are read through Feast.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import yaml

from core.errors import ConfigError
from core.storage import LocalStorage
from feature_repo.ledger import PENDING
from feature_repo.plugins.online.reader import OnlineFeatures, OnlineReader, Request, Step
from feature_repo.plugins.online.sqlite_reads import read_views
from feature_repo.plugins.online.sqlite_tables import table_name
from feature_repo.plugins.online.values import KINDS
from feature_repo.plugins.online.views import ViewPlan
from feature_repo.store import FOLDER, PROJECT, SQLITE, SQLITE_STORE

FILE = "served.json"
FORMAT = 1
TABLES = ("projects", "entities", "feature_views", "feature_services")  # of the registry; what services are made of


def save_services(store: Any, root: Path) -> None:
    """Writes what the services for contents of an open Feast store read. A service that cannot be written down (with
    on-demand views, or of types without a column of their own) is left to Feast."""
    from feature_repo.views import SERVICES

    found: dict[str, Any] = {}
    for name in SERVICES:
        with contextlib.suppress(ConfigError, LookupError):
            found[name] = _described(OnlineReader(store, store.get_feature_service(name)).request())
    mark = _registry_hash(root)
    if mark is not None and found:
        value = {"format": FORMAT, "registry": mark, "services": found}
        LocalStorage(root).write(f"{FOLDER}/{FILE}", json.dumps(value, indent=1).encode())


def read_online(root: Path, content_ids: Sequence[str | None], service: str) -> pa.Table | None:
    """The service's features of these contents as `feature_repo.reads.online_features` gives them, or None where they
    must be read through Feast: another online store than SQLite, other definitions, a file that is not as expected."""
    path = _database(root)
    request = None if path is None else _request(root, service)
    if path is None or request is None:
        return None
    given = {"content_id": list(content_ids)}
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=30.0)) as connection:
            if any(_has_due(connection, plan) for plan in request.plans):
                return None  # a reader that may write makes pushed rows visible whose time has come
            keys = [step.plan.key_layout.keys([given[key] for key in step.asked_keys], b"") for step in request.steps]
            return OnlineFeatures(given, request, read_views(connection, request.plans, keys)).table
    except (sqlite3.Error, KeyError):
        return None  # Feast's way names what is wrong


def _has_due(connection: sqlite3.Connection, plan: ViewPlan) -> bool:
    query = f"SELECT EXISTS (SELECT 1 FROM {PENDING} WHERE view = ? AND event_us <= ?)"
    return bool(connection.execute(query, (table_name(plan), time.time_ns() // 1000)).fetchone()[0])


def _database(root: Path) -> Path | None:
    """The online store's file; None where another store serves, or where the settings are not this store's own."""
    try:
        settings = yaml.safe_load((root / FOLDER / "feature_store.yaml").read_text(encoding="utf-8"))
        registry = Path(unquote(settings["registry"]["path"].removeprefix(SQLITE)))
        online = settings["online_store"]
        path = Path(online["path"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, yaml.YAMLError):
        return None
    own = registry.parent == root / FOLDER and online["type"] == SQLITE_STORE
    return path if own and path.is_absolute() and path.is_file() else None


def _request(root: Path, service: str) -> Request | None:
    try:
        saved = json.loads((root / FOLDER / FILE).read_bytes())
        if saved["format"] != FORMAT or saved["registry"] != _registry_hash(root):
            return None
        described = saved["services"][service]
        return Request([_step(step) for step in described["steps"]], described["order"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _registry_hash(root: Path) -> str | None:
    """A hash of the definitions in the registry; None for a registry that is not SQLite's or cannot be read."""
    path = root / FOLDER / "registry.db"
    if not path.is_file():
        return None
    found = hashlib.blake2b(digest_size=16)
    try:
        with contextlib.closing(sqlite3.connect(path, timeout=30.0)) as connection:
            for table in TABLES:
                rows = connection.execute(f"SELECT * FROM {table} WHERE project_id = ?", (PROJECT,)).fetchall()
                for row in sorted(repr(row) for row in rows):
                    found.update(row.encode())
    except sqlite3.Error:
        return None
    return found.hexdigest()


def _described(request: Request) -> dict[str, Any]:
    names = {id(kind): name for name, kind in KINDS.items()}
    steps = [
        {
            "view": step.view,
            "asked_keys": step.asked_keys,
            "columns": step.columns,
            "name": step.plan.name,
            "join_keys": step.plan.join_keys,
            "key_types": step.plan.key_types,
            "features": step.plan.features,
            "kinds": [names[id(kind)] for kind in step.plan.kinds],  # LookupError: not a kind with a name
            "ttl_us": step.plan.ttl_us,
            "stored": step.plan.stored,
        }
        for step in request.steps
    ]
    return {"steps": steps, "order": list(request.places)}


def _step(described: dict[str, Any]) -> Step:
    plan = ViewPlan(
        name=described["name"],
        project=PROJECT,
        join_keys=tuple(described["join_keys"]),
        key_types=tuple(described["key_types"]),
        features=tuple(described["features"]),
        kinds=tuple(KINDS[name] for name in described["kinds"]),
        ttl_us=described["ttl_us"],
        stored=described["stored"],
    )
    return Step(plan, tuple(described["asked_keys"]), tuple(described["columns"]), described["view"])
