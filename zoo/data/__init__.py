"""Data sets by name or path, decoded in memory and split into train, validation and test."""

from zoo.data.sources import Dataset, Split, load

__all__ = ["Dataset", "Split", "load"]
