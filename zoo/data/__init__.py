"""Data sets by name or path, decoded in memory and split into train, validation and test."""

from zoo.data.dataset import Dataset, Split
from zoo.data.sources import load

__all__ = ["Dataset", "Split", "load"]
