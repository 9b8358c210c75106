"""The space of a search: values that builder arguments and recipe keys may take, as plain data."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from typing import Any

from zoo.errors import ZooError


@dataclasses.dataclass(frozen=True)
class Choice:
    """One of several values."""

    values: tuple[Any, ...]

    def __post_init__(self) -> None:
        if not self.values:
            raise ZooError("a choice needs at least one value")

    def ends(self) -> tuple[Any, ...]:
        """The values that a network must be able to have: all of them."""
        return self.values

    def is_ordered(self) -> bool:
        """Whether the values ascend, as numbers or as lists of numbers: only then has a choice limits."""
        lists = [value if isinstance(value, tuple) else (value,) for value in self.values]
        numbers = all(type(number) in (int, float) for each in lists for number in each)
        return len(lists) > 1 and numbers and all(below < above for below, above in itertools.pairwise(lists))

    def place(self, value: Any) -> float:
        """The place of a value on an axis from 0 to 1."""
        return self.values.index(value) / max(len(self.values) - 1, 1)


@dataclasses.dataclass(frozen=True)
class IntRange:
    """A whole number from `low` to `high`, both included."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ZooError(f"a range from {self.low} to {self.high} is empty")

    def ends(self) -> tuple[Any, ...]:
        """The smallest and the largest value."""
        return self.low, self.high

    def is_ordered(self) -> bool:
        """Whether it has a lower and an upper limit."""
        return self.low < self.high

    def place(self, value: Any) -> float:
        """The place of a value on an axis from 0 to 1."""
        return (value - self.low) / max(self.high - self.low, 1)


@dataclasses.dataclass(frozen=True)
class LogRange:
    """A number above 0 from `low` to `high`, drawn evenly on a logarithmic scale."""

    low: float
    high: float

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high < math.inf:
            raise ZooError(f"a range on a logarithmic scale from {self.low} to {self.high} is empty or not above 0")

    def ends(self) -> tuple[Any, ...]:
        """The smallest and the largest value."""
        return self.low, self.high

    def is_ordered(self) -> bool:
        """Whether it has a lower and an upper limit."""
        return self.low < self.high

    def place(self, value: Any) -> float:
        """The place of a value on an axis from 0 to 1."""
        return math.log(value / self.low) / math.log(self.high / self.low) if self.high > self.low else 0.0


Range = Choice | IntRange | LogRange


def read_range(text: str) -> Range:
    """A range from text: `8..64` for whole numbers, `1e-4..1e-2` for numbers on a logarithmic scale, or JSON values and
    words with commas between, such as `[20,40],[32,64]` or `adam,sgd`.

    Raises:
        ZooError: for a range that is empty or not of numbers.
    """
    low, dots, high = text.partition("..")
    if not dots:
        try:
            return Choice(tuple(_hashable(value) for value in json.loads(f"[{text}]")))
        except json.JSONDecodeError:
            return Choice(tuple(word.strip() for word in text.split(",") if word.strip()))
    try:
        ends = json.loads(f"[{low}, {high}]")
    except json.JSONDecodeError:
        ends = [low, high]
    if not all(isinstance(end, int | float) for end in ends):
        raise ZooError(f"a range needs two numbers, such as 8..64 or 1e-4..1e-2, not {text!r}")
    return IntRange(*ends) if all(isinstance(end, int) for end in ends) else LogRange(*ends)


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list) else value
