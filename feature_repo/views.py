"""The definitions that Feast is given: what a user reads as *the* feature repository.

Views come from `core.features`, one for each family and one for each model's embeddings. Feature services project the
released model's view under a stable name, so that readers of `text`, `audio` and `image` never name a model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from feast import (
    Entity,
    FeatureService,
    FeatureView,
    Field,
    FileSource,
    OnDemandFeatureView,
    PushSource,
    RequestSource,
    ValueType,
)
from feast.data_format import ParquetFormat
from feast.transformation.pandas_transformation import PandasTransformation
from feast.types import Array, Bool, Float32, Int64, String, UnixTimestamp

from core.contracts import CREATED, EVENT, WORK_KEY, WORK_KEY_TAG
from core.features import (
    ACOUSTIC,
    CONTENT,
    CONTENT_ENTITY,
    FAMILIES,
    MODERATION,
    SHOW,
    SHOW_ENTITY,
    SKIPS,
    SPEECH,
    TEXT_SIGNALS,
    VISUAL,
    View,
    embedding_view,
)
from feature_repo.spark import parts_glob, spark_source

Models = Mapping[str, Mapping[str, Any]]  # modality → model_id, dim, view

FEAST_TYPES: list[tuple[Any, Any]] = [
    (pa.types.is_float32, Float32),
    (pa.types.is_int64, Int64),
    (pa.types.is_boolean, Bool),
    (pa.types.is_string, String),
    (pa.types.is_timestamp, UnixTimestamp),
]

ENTITIES = {
    CONTENT_ENTITY: Entity(
        name=CONTENT_ENTITY,
        join_keys=[CONTENT_ENTITY],
        value_type=ValueType.STRING,
        description="A track, an episode or an audiobook chapter",
    ),
    SHOW_ENTITY: Entity(
        name=SHOW_ENTITY, join_keys=[SHOW_ENTITY], value_type=ValueType.STRING, description="A show, album or book"
    ),
}

# What each consumer reads: families, and modalities by their stable names.
SERVICES: dict[str, tuple[tuple[View, ...], tuple[str, ...], str]] = {
    "recommender": (
        (CONTENT, ACOUSTIC, SPEECH, TEXT_SIGNALS),
        ("text", "audio", "image"),
        "What a recommender learns from and ranks with",
    ),
    "moderation": (
        (CONTENT, SPEECH, TEXT_SIGNALS, VISUAL, MODERATION),
        ("text", "audio", "image"),
        "What a policy decision looks at, and what was decided",
    ),
    "playback": ((CONTENT, ACOUSTIC, SKIPS), (), "What a player needs: duration, loudness, tempo, what can be skipped"),
}
SHOW_SERVICE = "show"
SIMILARITY_SERVICE = "similarity"


def feast_type(kind: pa.DataType) -> Any:
    """Feast's type for an Arrow type of `core.features`. Raises `TypeError` for one that no view uses."""
    if pa.types.is_list(kind):
        return Array(feast_type(kind.value_type))
    for is_type, found in FEAST_TYPES:
        if is_type(kind):
            return found
    raise TypeError(f"no Feast type for {kind}")


def file_source(view: View, root: Path) -> FileSource:
    """Feast's `FileSource` over a view's part files."""
    return FileSource(
        name=f"{view.name}_parts",
        path=parts_glob(root, view),
        file_format=ParquetFormat(),
        timestamp_field=EVENT,
        created_timestamp_column=CREATED,
        description=view.description,
        tags={WORK_KEY_TAG: WORK_KEY},
    )


def feature_view(view: View, root: Path, spark: bool = False) -> FeatureView:
    """The Feast view over a view's part files, as `SparkSource` or as `FileSource`. The schema is declared: with a
    glob, inference fails."""
    source = spark_source(view, root) if spark else file_source(view, root)
    batch: Any = source
    if view.name == CONTENT.name:
        batch = PushSource(
            name="content_push",
            batch_source=source,
            description="Catalogue changes as they happen, to the online store",
        )
    entity = ENTITIES[view.entity]
    return FeatureView(
        name=view.name,
        entities=[entity],
        ttl=timedelta(0),  # functions of the content do not age
        schema=[
            Field(name=view.entity, dtype=String),
            *(Field(name=f.name, dtype=feast_type(f.type), description=f.description) for f in view.features),
        ],
        source=batch,
        online=True,
        description=view.description,
        tags={"stable_name": view.stable_name} if view.stable_name else {},
    )


# Feast keeps an on-demand function as source text and runs that, so a closure over the model's view is no use to it:
# the names are written into the text.
SIMILARITY = '''\
def {modality}_similarity(inputs):
    """Cosine of the request's vector and the content's; null where either is missing."""
    import numpy
    import pandas

    found = []
    for own, asked in zip(inputs["{view}__embedding"], inputs["query_{modality}"]):
        if not hasattr(own, "__len__") or not hasattr(asked, "__len__") or len(own) == 0:
            found.append(None)
            continue
        if len(own) != len(asked):
            raise ValueError(f"query_{modality} has {{len(asked)}} values, the {modality} embedding has {{len(own)}}")
        one, other = numpy.asarray(own, dtype=float), numpy.asarray(asked, dtype=float)
        norms = float(numpy.linalg.norm(one) * numpy.linalg.norm(other))
        found.append(float(one @ other) / norms if norms else None)
    return pandas.DataFrame({{"{modality}_similarity": pandas.Series(found, dtype="float32")}})
'''


def similarity_function(modality: str, view_name: str) -> tuple[Callable[..., Any], str]:
    """The function of an on-demand view and its source. It raises `ValueError` for a query of another length."""
    text = SIMILARITY.format(modality=modality, view=view_name)
    names: dict[str, Any] = {}
    exec(text, names)
    return names[f"{modality}_similarity"], text


def similarity_view(modality: str, embeddings: FeatureView) -> OnDemandFeatureView:
    """On-demand view: the similarity of a request's vector (`query_<modality>`) to the content's."""
    function, text = similarity_function(modality, embeddings.name)
    return OnDemandFeatureView(
        name=f"{modality}_query",
        sources=[
            embeddings,
            RequestSource(
                name=f"{modality}_query_request",
                schema=[Field(name=f"query_{modality}", dtype=Array(Float32))],
            ),
        ],
        schema=[Field(name=f"{modality}_similarity", dtype=Float32)],
        feature_transformation=PandasTransformation(udf=function, udf_string=text),
        mode="pandas",
        description=f"Cosine of a request's vector and the content's {modality} embedding",
    )


def build_objects(root: Path, models: Models, others: Models | None = None, spark: bool = False) -> list[Any]:
    """Everything to apply for a store in the folder `root`, with the sources of the Spark profile or of the others.

    `models` are the released ones: the services and the on-demand views read them. `others` are models whose views
    exist beside them, before a switch or after it.
    """
    families = {view.name: feature_view(view, root, spark) for view in FAMILIES}
    vectors = {
        modality: feature_view(embedding_view(modality, m["model_id"], m["dim"]), root, spark)
        for modality, m in models.items()
    }
    named = {view.name for view in vectors.values()}
    beside = [
        feature_view(view, root, spark)
        for view in (embedding_view(k, m["model_id"], m["dim"]) for k, m in (others or {}).items())
        if view.name not in named
    ]
    on_demand = [similarity_view(m, vectors[m]) for m in ("text", "audio") if m in vectors]
    services = [
        FeatureService(
            name=name,
            features=[families[view.name] for view in wanted]
            + [vectors[modality].with_name(modality) for modality in modalities if modality in vectors],
            description=description,
        )
        for name, (wanted, modalities, description) in SERVICES.items()
    ]
    services.append(FeatureService(name=SHOW_SERVICE, features=[families[SHOW.name]], description="Profiles of shows"))
    if on_demand:
        services.append(
            FeatureService(
                name=SIMILARITY_SERVICE,
                features=list(on_demand),
                description="Similarity of a request's vectors to the contents",
            )
        )
    return [*ENTITIES.values(), *families.values(), *vectors.values(), *beside, *on_demand, *services]
