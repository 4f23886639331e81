"""Vectors → FAISS: choose, build, measure recall, publish, search."""

from index.publish import publish_vectors, remove
from index.search import open_index

__all__ = ["open_index", "publish_vectors", "remove"]
