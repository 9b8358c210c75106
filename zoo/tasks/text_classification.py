"""Classification of texts: raw strings in, words counted into numbers in the graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from etils import epy

from zoo.data import Dataset, Split
from zoo.recipe import Recipe
from zoo.spec import ModelSpec
from zoo.tasks.base import Network, Signatures, Task
from zoo.tasks.classification import class_outputs, class_summary, compile_classifier, require_labels

with epy.lazy_imports():
    import keras
    import tensorflow as tf


@dataclasses.dataclass(frozen=True)
class TextClassification(Task):
    """Texts, string [B], to one of K classes. The network takes token numbers [B, length]: 0 pads, 1 is unknown."""

    metric = "accuracy"
    takes_text = True

    @classmethod
    def from_data(
        cls,
        spec: ModelSpec,
        data: Dataset,
        input_shape: tuple | None = None,
        vocabulary: tuple[str, ...] = (),
        **arguments: Any,
    ) -> TextClassification:
        train = data.splits["train"]
        require_labels(train, 1, "a label for each text")
        size = {**spec.arguments, **arguments}["vocabulary_size"]
        if not vocabulary:
            counter = keras.layers.TextVectorization(max_tokens=size)
            counter.adapt(tf.data.Dataset.from_tensor_slices(train.inputs.astype(str)).batch(1024))
            vocabulary = tuple(counter.get_vocabulary(include_special_tokens=False))
        return cls(spec, tuple(input_shape or spec.input_shape), data.classes, vocabulary, arguments=arguments)

    def tokenizer(self) -> keras.layers.TextVectorization:
        """Texts [B] to token numbers [B, length]: lower case, no punctuation, split at spaces."""
        return keras.layers.TextVectorization(
            output_sequence_length=self.input_shape[0], vocabulary=list(self.vocabulary), name="tokenizer"
        )

    def examples(self, split: Split) -> tuple[np.ndarray, ...]:
        labels = require_labels(split, 1, "a label for each text")
        return numbered(self.tokenizer(), tf.constant(split.inputs.astype(str))).numpy(), labels

    def network_batch(self, tokens: tf.Tensor, labels: tf.Tensor) -> tuple[Any, Any]:
        return tokens, tf.one_hot(labels, len(self.classes))

    def compile(self, model: keras.Model, recipe: Recipe, make_optimizer: Callable, **options: Any) -> Any:
        return compile_classifier(self, model, recipe, make_optimizer, **options)

    def signatures(self, model: keras.Model, network: Network | None = None) -> Signatures:
        network = network or self.network(model)
        tokenizer = self.tokenizer()

        def classify(texts: tf.Tensor) -> dict[str, tf.Tensor]:
            return class_outputs(self, network(numbered(tokenizer, texts)))

        function = self._function(classify, tf.TensorSpec([None], tf.string, "texts"))
        function.tracked = tokenizer  # its lookup table must live as long as the function
        return {"serving_default": function}

    def summary(self, outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        return class_summary(outputs)

    def golden_inputs(self, count: int) -> dict[str, dict[str, np.ndarray]]:
        words = [*self.vocabulary[: 40 - 3], "unseenword", "AND,", "12"]
        random = np.random.default_rng(0)
        texts = [" ".join(random.choice(words, size=random.integers(0, 12))) for _ in range(count)]
        return {"serving_default": {"texts": np.array(texts)}}


def numbered(tokenizer: keras.layers.TextVectorization, texts: tf.Tensor) -> tf.Tensor:
    """Token numbers int32 [B, length]; a text without a word counts as one unknown word, for a mean over none would
    be no number."""
    tokens = tf.cast(tokenizer(texts), tf.int32)
    return tf.concat([tf.maximum(tokens[:, :1], 1), tokens[:, 1:]], axis=1)
