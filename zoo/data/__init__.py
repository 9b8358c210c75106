"""Data sets by name, by path or as Python objects, in memory and split into train, validation and test."""

from zoo.data.dataset import Dataset, Split
from zoo.data.sources import load

__all__ = ["Dataset", "Split", "load"]
