"""Language modeling by characters: the probabilities of the next one, and texts sampled from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

import numpy as np
from etils import epy

from zoo.data import Dataset, Split
from zoo.errors import ZooError
from zoo.metrics import ACCURACY, BITS_PER_CHARACTER, CARRIED_LOSS, LOSS, PERPLEXITY
from zoo.recipe import Recipe, TaskOptions
from zoo.spec import ModelSpec
from zoo.tasks.base import Batches, Network, Signatures, TextTask, graph_function

with epy.lazy_imports():
    import keras
    import tensorflow as tf

    from zoo.tasks import losses, streams

EVALUATED_LENGTH = 256  # characters of a window from a zero state, as nanoGPT measures its loss

LOSSES: dict[str, Callable] = {
    "cross_entropy": lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True),
}


@dataclasses.dataclass(frozen=True)
class LanguageModel(TextTask):
    """Texts to the next character. Characters outside the vocabulary count as its first one.

    The network takes a dict of `tokens` [B, T] and its recurrent states, and returns a dict of `logits` [B, T, V] and
    the new states under the same names.
    """

    metrics = (LOSS, PERPLEXITY, BITS_PER_CHARACTER, CARRIED_LOSS)

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
        if data.splits["train"].targets is not None:
            raise ZooError("a language model needs one plain text (a .txt file) as its data")
        vocabulary = vocabulary or tuple(sorted(set("".join(data.splits["train"].inputs))))
        return cls(spec, tuple(input_shape or spec.input_shape), vocabulary, vocabulary, arguments=arguments)

    def examples(self, split: Split, options: TaskOptions | None = None) -> tuple[np.ndarray, ...]:
        """Windows of the text in its order, int32 [N, T], the same windows one character later, and their numbers,
        int32 [N]. T is the network's input length for training, and `EVALUATED_LENGTH` for evaluation."""
        length = EVALUATED_LENGTH if options is None else self.input_shape[0]
        assert length is not None, "a language model trains on windows of a known length"
        numbers = {character: number for number, character in enumerate(self.vocabulary)}
        text = np.array([numbers.get(character, 0) for character in "".join(split.inputs)], dtype=np.int32)
        count = (len(text) - 1) // length
        if count < 1:
            raise ZooError(f"a text of {len(text)} characters is too short: each window takes {length + 1}")
        inputs, targets = (text[start : start + count * length].reshape(count, length) for start in (0, 1))
        return inputs, targets, np.arange(count, dtype=np.int32)

    def order(self, examples: int, batch_size: int, seed: tf.Tensor) -> tf.Tensor:
        """As many streams as a batch has rows: row b of the batches is the b-th part of the text, in its order."""
        steps = examples // batch_size
        return tf.transpose(tf.reshape(tf.range(steps * batch_size), [batch_size, steps]))

    def network_batch(self, *batch: tf.Tensor) -> tuple[Any, Any]:
        tokens, targets, window = batch
        return {"tokens": tokens, "window": window}, targets

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
        trainer = streams.StreamTrainer(model, recipe.batch_size)
        loss = loss or losses.named(LOSSES, recipe.loss, self.spec.task)()
        accuracy = keras.metrics.SparseCategoricalAccuracy(name=ACCURACY.name)
        metrics = [accuracy, streams.Perplexity(PERPLEXITY.name), streams.Bits(BITS_PER_CHARACTER.name), *metrics]
        trainer.compile(make_optimizer(), loss=loss, metrics=metrics, jit_compile=False, **options)
        trainer.optimizer.build(trainer.trainable_variables)
        return trainer

    def dataset_metrics(self, model: keras.Model, batches: Batches, options: Any) -> dict[str, float]:
        """The loss with the state carried through the split."""
        parts = [(inputs["tokens"], targets) for inputs, targets in batches()]
        tokens, targets = (np.concatenate([part[index] for part in parts]).ravel() for index in (0, 1))
        return {CARRIED_LOSS.name: streams.carried_loss(model, tokens, targets)}

    def signatures(self, model: keras.Model, network: Network | None = None) -> Signatures:
        network = network or self.network(model)
        widths = streams.state_widths(model)
        pairs = tf.lookup.KeyValueTensorInitializer(
            list(self.vocabulary), list(range(len(self.vocabulary))), tf.string, tf.int32
        )
        numbers = tf.lookup.StaticHashTable(pairs, default_value=0)
        characters = tf.constant(self.vocabulary)

        def encode(texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            """Token numbers [B, T], padded with 0, and lengths [B]; an empty text counts as the first character."""
            split = tf.strings.unicode_split(texts, "UTF-8")
            tokens = tf.ragged.map_flat_values(numbers.lookup, split).to_tensor(0)
            lengths = tf.maximum(tf.cast(split.row_lengths(), tf.int32), 1)
            return tf.pad(tokens, [[0, 0], [0, tf.maximum(1 - tf.shape(tokens)[1], 0)]]), lengths

        def zero_states(batch: tf.Tensor) -> dict[str, tf.Tensor]:
            return {name: tf.zeros([batch, width]) for name, width in widths.items()}

        def next_character(texts: tf.Tensor) -> dict[str, tf.Tensor]:
            tokens, lengths = encode(texts)
            logits = network({"tokens": tokens, **zero_states(tf.shape(tokens)[0])})["logits"]
            return {"probabilities": tf.nn.softmax(tf.gather(logits, lengths - 1, batch_dims=1))}

        def draw(logits: tf.Tensor, temperature: tf.Tensor, top_k: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
            """One character a row, int32 [B], from logits [B, V]; temperature 0 takes the most probable one, top_k 0
            allows all."""
            allowed = tf.where(top_k > 0, tf.minimum(top_k, len(self.vocabulary)), len(self.vocabulary))
            threshold = tf.math.top_k(logits, allowed).values[:, -1:]
            scaled = tf.where(logits >= threshold, logits, logits.dtype.min) / tf.maximum(temperature, 1e-6)
            drawn = tf.random.stateless_categorical(scaled, 1, seed, dtype=tf.int32)[:, 0]
            return tf.where(temperature > 0, drawn, tf.argmax(logits, -1, output_type=tf.int32))

        def generate(
            texts: tf.Tensor, length: tf.Tensor, temperature: tf.Tensor, top_k: tf.Tensor, seed: tf.Tensor
        ) -> dict[str, tf.Tensor]:
            tokens, lengths = encode(texts)
            batch, longest = tf.shape(tokens)[0], tf.shape(tokens)[1]
            steps = longest + length - 1
            tokens = tf.pad(tokens, [[0, 0], [0, length]])

            def step(position: tf.Tensor, last: tf.Tensor, states: dict, drawn: tf.TensorArray) -> tuple:
                outputs = network({"tokens": last[:, None], **states})
                character = draw(outputs["logits"][:, 0], temperature, top_k, tf.stack([seed, position]))
                given = tokens[:, position + 1]
                last = tf.where(position + 1 < lengths, given, character)
                states = {name: outputs[name] for name in states}
                return position + 1, last, states, drawn.write(position, last)

            start = (0, tokens[:, 0], zero_states(batch), tf.TensorArray(tf.int32, steps, element_shape=[None]))
            *_, drawn = tf.while_loop(lambda position, *_: position < steps, step, start)
            written = tf.transpose(drawn.stack())  # [B, steps]; what follows a text begins at its length - 1
            columns = (lengths - 1)[:, None] + tf.range(length)[None]
            new = tf.gather(characters, tf.gather(written, columns, batch_dims=1))
            return {"texts": tf.strings.join([texts, tf.strings.reduce_join(new, -1)])}

        texts = tf.TensorSpec([None], tf.string, "texts")
        length, top_k, seed = (tf.TensorSpec([], tf.int32, name) for name in ("length", "top_k", "seed"))
        temperature = tf.TensorSpec([], tf.float32, "temperature")
        functions = {
            "serving_default": graph_function(next_character, texts),
            "generate": graph_function(generate, texts, length, temperature, top_k, seed),
        }
        return Signatures(functions, resources=(numbers,))

    def summary(self, outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        most_probable = np.argsort(outputs["probabilities"][0])[::-1][:5]
        return {"next": {self.vocabulary[index]: float(outputs["probabilities"][0][index]) for index in most_probable}}

    def golden_inputs(self, count: int) -> dict[str, dict[str, Any]]:
        random = np.random.default_rng(0)
        texts = ["".join(random.choice(list(self.vocabulary), size=random.integers(0, 20))) for _ in range(count)]
        settings = {"length": np.int32(8), "temperature": np.float32(0.8), "top_k": np.int32(5), "seed": np.int32(0)}
        return {"serving_default": {"texts": np.array(texts)}, "generate": {"texts": np.array(texts), **settings}}

