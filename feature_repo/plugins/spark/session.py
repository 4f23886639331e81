"""The Spark session of a repository, and Spark's errors in words."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyspark.errors import PySparkException
from pyspark.sql import SparkSession

from core.errors import ConfigError, StorageError

# Spark reads times without a zone, and prints those with one, in the session's zone; what it writes as Parquet would
# have times in a form (INT96) that is long deprecated.
SETTINGS = {"spark.sql.session.timeZone": "UTC", "spark.sql.parquet.outputTimestampType": "TIMESTAMP_MICROS"}


def session_of(store: Any) -> SparkSession:
    """The running session, else a new one with `store.spark_conf` (`store`: the offline store's configuration).

    `SETTINGS` are set in either. Raises `ConfigError` where Spark cannot start.
    """
    session = SparkSession.getActiveSession() or _start(dict(store.spark_conf or {}))
    for name, value in SETTINGS.items():
        if session.conf.get(name) != value:
            session.conf.set(name, value)
    return session


def _start(conf: dict[str, str]) -> SparkSession:
    builder = SparkSession.builder
    for name, value in conf.items():
        builder = builder.config(name, value)
    if conf.get("spark.master", "local").startswith("local"):
        # Spark would run `python3`, which need not be the interpreter of this environment.
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    try:
        return builder.getOrCreate()
    except (PySparkException, RuntimeError, OSError) as error:
        raise ConfigError(
            f"Spark does not start: {first_line(error)}; it needs Java 17 or later (JAVA_HOME, or "
            "java on the path) and a master that answers"
        ) from error


def is_local(session: SparkSession) -> bool:
    """Whether drivers and workers are this machine."""
    return str(session.sparkContext.master).startswith("local")


@contextmanager
def spark_errors(doing: str, kind: type[ConfigError] | type[StorageError] = StorageError) -> Iterator[None]:
    """Spark's errors in a line. `doing` completes “Spark failed …”."""
    from py4j.protocol import Py4JError

    try:
        yield
    except (PySparkException, Py4JError) as error:
        raise kind(f"Spark failed {doing}: {first_line(error)}") from error


def first_line(error: BaseException) -> str:
    """What went wrong, without the stacks of two languages: of an error and its causes the one that Spark names (its
    names stand in brackets), else the first."""
    texts, java = [str(error)], getattr(error, "java_exception", None)
    if java is not None:
        texts = []
        while java is not None:
            texts.append(str(java.getMessage() or java.toString()))
            java = java.getCause()
    lines = [text.strip().splitlines()[0] for text in texts if text.strip()] or [type(error).__name__]
    return next((line for line in lines if "[" in line), lines[0])
