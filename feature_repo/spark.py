"""The Spark profile: what `feature_store.yaml` says in it, and the sources of its views."""

from __future__ import annotations

import glob
import os
import warnings
from pathlib import Path
from typing import Any

from core.contracts import CREATED, EVENT, WORK_KEY, WORK_KEY_TAG
from core.features import View

MASTER_VARIABLE = "EARMARK_SPARK_MASTER"  # local[2], spark://host:7077, k8s://…, yarn
MEMORY_VARIABLE = "EARMARK_SPARK_MEMORY"  # of the driver, which in local mode is everything: 2g
PLUGINS = "feature_repo.plugins.spark"


def spark_settings(root: Path) -> dict[str, Any]:
    """`offline_store` and `batch_engine` of the Spark profile of the store in the folder `root`.

    In local mode Spark is kept small. A cluster has its own defaults, which are left alone.
    """
    master = os.environ.get(MASTER_VARIABLE, "local[2]")
    conf = {
        "spark.master": master,
        "spark.app.name": "earmark",
        "spark.driver.memory": os.environ.get(MEMORY_VARIABLE, "2g"),
        "spark.sql.session.timeZone": "UTC",
    }
    if master.startswith("local"):
        conf |= {
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            "spark.driver.host": "127.0.0.1",  # a laptop's name need not resolve
            "spark.driver.bindAddress": "127.0.0.1",
            "spark.sql.shuffle.partitions": "2",
            "spark.default.parallelism": "2",
            "spark.sql.warehouse.dir": str(root / "feast" / "warehouse"),  # else a folder wherever one stands
        }
    return {
        "offline_store": {
            "type": f"{PLUGINS}.store.EarmarkSparkOfflineStore",
            "spark_conf": conf,
            "staging_location": str(root / "feast" / "staging"),
        },
        "batch_engine": {"type": f"{PLUGINS}.engine.EarmarkSparkEngine"},
    }


def spark_source(view: View, root: Path) -> Any:
    """Feast's `SparkSource` over a view's part files. Its name is not the `FileSource`'s: Feast cannot give a name in a
    registry to a source of another type, and a store may change its profile."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Feast calls its Spark source experimental at every definition
        from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource

        return SparkSource(
            name=f"{view.name}_spark_parts",
            path=parts_glob(root, view),
            file_format="parquet",
            timestamp_field=EVENT,
            created_timestamp_column=CREATED,
            description=view.description,
            tags={WORK_KEY_TAG: WORK_KEY},
        )


def parts_glob(root: Path, view: View) -> str:
    """A glob of a view's part files. Nothing in the store's own path is a pattern."""
    return str(Path(glob.escape(str(root))) / view.folder / "*" / "part-*.parquet")
