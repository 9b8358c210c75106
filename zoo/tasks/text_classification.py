"""Classification of texts: raw strings in, words converted to numbers in the graph."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

import numpy as np
from etils import epy

from zoo.data import Dataset, Split
from zoo.metrics import ACCURACY
from zoo.options import ClassificationOptions, TaskOptions
from zoo.recipe import Recipe
from zoo.spec import ModelSpec
from zoo.tasks.base import Network, Signatures, checked, graph_function
from zoo.tasks.classification import (
    class_outputs,
    class_summary,
    class_weights,
    compile_classifier,
    require_classes,
    require_labels,
)
from zoo.tasks.text_task import TextTask

with epy.lazy_imports():
    import keras
    import tensorflow as tf

    from zoo import layers as zoo_layers


MOST_BYTES = 2**24  # of the texts of a call, each as long as the longest


@dataclasses.dataclass(frozen=True)
class TextClassification(TextTask):
    """Texts, string [B], to one of K classes. The network takes token numbers [B, length]: 0 pads, 1 is unknown."""

    Options = ClassificationOptions
    metrics = (ACCURACY,)

    @classmethod
    def from_data(
        cls,
        spec: ModelSpec,
        data: Dataset,
        input_shape: tuple | None = None,
        vocabulary: tuple[str, ...] = (),
        **arguments: Any,
    ) -> Self:
        cls.check_inputs(data)
        train = data.splits["train"]
        require_labels(train, "a label for each text")
        require_classes(data)
        size = {**spec.arguments, **arguments}["vocabulary_size"]
        if not vocabulary:
            counter = vectorization(max_tokens=size)
            counter.adapt(tf.data.Dataset.from_tensor_slices(train.inputs.astype(str)).batch(1024))
            vocabulary = tuple(map(str, counter.get_vocabulary(include_special_tokens=False)))
        return cls(spec, tuple(input_shape or spec.input_shape), data.classes, vocabulary, arguments=arguments)

    def tokenizer(self) -> keras.layers.TextVectorization:
        """Texts [B] to token numbers [B, T], T that of the longest."""
        return vectorization(vocabulary=list(self.vocabulary))

    def tokens(self, tokenizer: keras.layers.TextVectorization, texts: tf.Tensor) -> tf.Tensor:
        """Token numbers int32 [B, T] of texts [B], padded with 0 to the longest. Of each text the first words count, as
        many as the network's input length; a text without words counts as one unknown word."""
        tokens = tf.cast(tokenizer(texts), tf.int32)[:, : self.input_shape[0]]
        tokens = tf.pad(tokens, [[0, 0], [0, tf.maximum(1 - tf.shape(tokens)[1], 0)]])
        return tf.concat([tf.maximum(tokens[:, :1], 1), tokens[:, 1:]], axis=1)

    def examples(self, split: Split, options: TaskOptions | None = None) -> tuple[np.ndarray, ...]:
        split = split.labeled()
        labels = require_labels(split, "a label for each text")
        tokens = self.tokens(self.tokenizer(), tf.constant(split.inputs.astype(str))).numpy()
        return tokens, labels, *class_weights(labels, len(self.classes), options)

    def network_batch(self, *batch: tf.Tensor) -> tuple[Any, ...]:
        tokens, labels, *weights = batch
        longest = tf.reduce_max(tf.math.count_nonzero(tokens, axis=1, dtype=tf.int32))
        return tokens[:, :longest], tf.one_hot(labels, len(self.classes)), *weights

    def compile(
        self,
        model: keras.Model,
        recipe: Recipe,
        make_optimizer: Callable[[], Any],
        *,
        loss: Any = None,
        metrics: Iterable[Any] = (),
        **options: Any,
    ) -> Any:
        return compile_classifier(self, model, recipe, make_optimizer, loss, metrics, options)

    def signatures(self, model: keras.Model, network: Network | None = None) -> Signatures:
        network = network or self.network(model)
        tokenizer = self.tokenizer()

        def classify(texts: tf.Tensor) -> dict[str, tf.Tensor]:
            together = tf.cast(tf.size(texts), tf.int64) * tf.cast(tf.reduce_max(tf.strings.length(texts)), tf.int64)
            message = f"a call takes at most {MOST_BYTES} bytes of texts, each as long as the longest"
            scores = network(self.tokens(tokenizer, checked(texts, together <= MOST_BYTES, message)))
            return class_outputs(self, zoo_layers.probabilities(scores, self.spec.outputs))

        function = graph_function(classify, tf.TensorSpec([None], tf.string, "texts"))
        return Signatures({"serving_default": function}, resources=(tokenizer,))

    def summary(self, outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        return class_summary(self, outputs)

    def golden_inputs(self, count: int, seed: int = 0) -> dict[str, dict[str, Any]]:
        words = [*self.vocabulary[: 40 - 3], "unseenword", "AND,", "12"]
        random = np.random.default_rng(seed)
        texts = [" ".join(random.choice(words, size=random.integers(0, 12))) for _ in range(count)]
        return {"serving_default": {"texts": np.array(texts)}}


def vectorization(**options: Any) -> keras.layers.TextVectorization:
    """Texts to token numbers by words: lower case, split at spaces, each punctuation mark a word of its own except for
    apostrophes and hyphens."""
    return keras.layers.TextVectorization(standardize=separated, name="tokenizer", **options)


def separated(texts: tf.Tensor) -> tf.Tensor:
    """Lower-case texts with spaces around punctuation marks."""
    lower = tf.strings.lower(texts, encoding="utf-8")
    return tf.strings.regex_replace(lower, r"[^\pL\pM\pN\s'’-]", r" \0 ")
