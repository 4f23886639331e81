"""Vectors → FAISS: choose, build, measure, publish, search, change while serving."""

from index.groups import duplicate_groups
from index.live import LiveIndex
from index.publish import publish_vectors
from index.removal import remove
from index.search import open_index
from index.serve import Server
from index.shards import Sharding

__all__ = ["LiveIndex", "Server", "Sharding", "duplicate_groups", "open_index", "publish_vectors", "remove"]
