"""Exported directories: found by name, verified, and read as plain data.

`NAME.TAG/VERSION/` holds a SavedModel and, in `assets.extra/`, the manifest and the golden examples. Nothing here
imports TensorFlow before weights are read, and nothing executes what a directory holds except `verification`.
"""

from zoo.artifacts.index import published_index
from zoo.artifacts.lookup import find, open_artifact, read_manifest
from zoo.artifacts.manifest import Artifact

__all__ = ["Artifact", "find", "open_artifact", "published_index", "read_manifest"]
