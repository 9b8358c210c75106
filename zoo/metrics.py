"""Metrics by name: which direction is better, and what a value is a mean of."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from zoo.errors import unknown


@dataclasses.dataclass(frozen=True)
class Metric:
    """A measured quantity.

    Args:
        name: its key in histories, manifests and tables.
        lower_is_better: as for a loss or an error.
        scope: `batch` where Keras accumulates it over batches, `dataset` where it needs all predictions of a split.
        is_share: whether it is a share of the examples, whose binomial standard deviation is known from one run.
        spread: the assumed standard deviation between runs, as a share of the value; None where it does not grow with
            the value.
    """

    name: str
    lower_is_better: bool = False
    scope: Literal["batch", "dataset"] = "batch"
    is_share: bool = False
    spread: float | None = None

    def rank(self, value: float) -> float:
        """The value as a number that is higher for better."""
        return -value if self.lower_is_better else value

    def reaches(self, value: float, target: float) -> bool:
        """Whether a value is at least as good as the target."""
        return self.rank(value) >= self.rank(target)

    def standard_deviation(self, value: float, examples: int) -> float | None:
        """The binomial standard deviation of a share of so many examples; None for any other metric."""
        return math.sqrt(max(value * (1 - value), 0.0) / examples) if self.is_share else None


ACCURACY = Metric("accuracy", is_share=True)
LOSS = Metric("loss", lower_is_better=True)
PERPLEXITY = Metric("perplexity", lower_is_better=True)
BITS_PER_CHARACTER = Metric("bits_per_character", lower_is_better=True)
CARRIED_LOSS = Metric("carried_loss", lower_is_better=True, scope="dataset")
MEAN_IOU = Metric("mean_iou")
MEAN_DICE = Metric("mean_dice")
PIXEL_ACCURACY = Metric("pixel_accuracy")
ADAPTED_RAND_ERROR = Metric("adapted_rand_error", lower_is_better=True, scope="dataset")
FRECHET_DISTANCE = Metric("frechet_distance", lower_is_better=True, spread=0.1)  # chosen
# of generated images, see zoo/tasks/sample_metrics.py
FRECHET_FLOOR = Metric("frechet_floor", lower_is_better=True, scope="dataset")
PRECISION = Metric("precision", scope="dataset", is_share=True)
RECALL = Metric("recall", scope="dataset", is_share=True)
DENSITY = Metric("density", scope="dataset")
COVERAGE = Metric("coverage", scope="dataset", is_share=True)
CLASS_DIVERGENCE = Metric("class_divergence", lower_is_better=True, scope="dataset")
LABEL_ACCURACY = Metric("label_accuracy", scope="dataset", is_share=True)
CODE_ACCURACY = Metric("code_accuracy", scope="dataset", is_share=True)

METRICS = {
    metric.name: metric
    for metric in (
        *(ACCURACY, LOSS, PERPLEXITY, BITS_PER_CHARACTER, CARRIED_LOSS),
        *(MEAN_IOU, MEAN_DICE, PIXEL_ACCURACY, ADAPTED_RAND_ERROR),
        *(FRECHET_DISTANCE, FRECHET_FLOOR, PRECISION, RECALL, DENSITY, COVERAGE),
        *(CLASS_DIVERGENCE, LABEL_ACCURACY, CODE_ACCURACY),
    )
}


def get_metric(name: str) -> Metric:
    """The metric of that name; raises ZooError for an unknown one."""
    if name not in METRICS:
        raise unknown("metric", name, METRICS)
    return METRICS[name]
