"""Language modeling by characters: the probabilities of the next one, and texts sampled from them."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self

import numpy as np
from etils import epy

from zoo.data import Dataset, Split
from zoo.errors import ZooError, listed, note
from zoo.metrics import ACCURACY, BITS_PER_CHARACTER, CARRIED_LOSS, LOSS, PERPLEXITY
from zoo.options import TaskOptions
from zoo.recipe import Recipe
from zoo.spec import ModelSpec
from zoo.tasks.base import Batches, Network, Signatures, graph_function, named
from zoo.tasks.classification import class_summary
from zoo.tasks.text_task import TextTask

with epy.lazy_imports():
    import keras
    import tensorflow as tf

    from zoo.tasks import characters, losses, streams

EVALUATED_LENGTH = 256  # characters of a window from a zero state, as nanoGPT measures its loss

LOSSES: dict[str, Callable] = {
    "cross_entropy": lambda: keras.losses.SparseCategoricalCrossentropy(from_logits=True),
}


@dataclasses.dataclass(frozen=True)
class LanguageModel(TextTask):
    """Texts to the next character. Characters outside the vocabulary count as its first one, which is also taken to
    precede each text; see `zoo.tasks.characters.Characters`.

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
        written = "".join(split.inputs)
        if unknown := {one: count for one, count in Counter(written).items() if one not in numbers}:
            note(
                f"{sum(unknown.values()):,} of {len(written):,} characters are not in the vocabulary and count as "
                f"{self.vocabulary[0]!r}: {listed(map(repr, sorted(unknown)))}"
            )
        text = np.array([numbers.get(character, 0) for character in written], dtype=np.int32)
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

    def characters(self, model: keras.Model, network: Network | None = None) -> characters.Characters:
        """The network as functions of texts."""
        return characters.Characters(network or self.network(model), streams.state_widths(model), self.vocabulary)

    def signatures(self, model: keras.Model, network: Network | None = None) -> Signatures:
        texts_to = self.characters(model, network)

        def next_character(texts: tf.Tensor) -> dict[str, tf.Tensor]:
            return {"probabilities": texts_to.next_probabilities(texts)}

        def score(texts: tf.Tensor) -> dict[str, tf.Tensor]:
            nats = texts_to.character_nats(texts)
            return {"nats": tf.reduce_sum(nats, -1), "character_nats": nats}

        def generate(
            texts: tf.Tensor,
            length: tf.Tensor,
            temperature: tf.Tensor,
            top_k: tf.Tensor,
            top_p: tf.Tensor,
            seed: tf.Tensor,
        ) -> dict[str, tf.Tensor]:
            sampling = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
            return {"texts": texts_to.generate(texts, length, sampling)}

        texts, length = tf.TensorSpec([None], tf.string, "texts"), tf.TensorSpec([], tf.int32, "length")
        sampling = [tf.TensorSpec([], dtype, name) for name, dtype in characters.SAMPLING.items()]
        functions = {
            "serving_default": graph_function(next_character, texts),
            "generate": graph_function(generate, texts, length, *sampling),
            "score": graph_function(score, texts),
        }
        return Signatures(functions, resources=(texts_to.table,))

    def portable(self, model: keras.Model) -> keras.Model:
        step = self.spec.build((1,), len(self.classes), **self.arguments)
        step.set_weights(model.get_weights())
        return step

    def portable_function(self, model: keras.Model, network: Network | None = None) -> Any:
        """One step: `tokens` int32 [B, 1] and the states float32 [B, width] to `logits` float32 [B, 1, V] and the new
        states, whose names begin with `next_`: in ONNX no input may share its name with an output."""
        network = network or self.network(model)
        states = streams.state_widths(model)

        def step(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
            outputs = network(inputs)
            return {"logits": outputs["logits"], **{f"next_{name}": outputs[name] for name in states}}

        specs = [tf.TensorSpec([None, width], tf.float32, name) for name, width in states.items()]
        return graph_function(named(step, "tokens", *states), tf.TensorSpec([None, 1], tf.int32, "tokens"), *specs)

    def portable_inputs(self, count: int) -> dict[str, Any]:
        random = np.random.default_rng(0)
        tokens = random.integers(0, len(self.vocabulary), (count, 1), dtype=np.int32)
        widths = streams.state_widths(self.build())
        return {"tokens": tokens} | {
            name: random.uniform(-1, 1, (count, width)).astype(np.float32) for name, width in widths.items()
        }

    def summary(self, outputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        most_probable = self.vocabulary[int(np.argmax(outputs["probabilities"][0]))]
        return class_summary(self, {**outputs, "class_names": np.array([most_probable.encode()])})

    def golden_inputs(self, count: int, seed: int = 0) -> dict[str, dict[str, Any]]:
        random = np.random.default_rng(seed)
        texts = ["".join(random.choice(list(self.vocabulary), size=random.integers(0, 20))) for _ in range(count)]
        sampling = {
            "temperature": np.float32(0.8),
            "top_k": np.int32(5),
            "top_p": np.float32(0.9),
            "seed": np.int32(seed),
        }
        inputs = {"texts": np.array(texts)}
        generate = {**inputs, "length": np.int32(8), **sampling}
        return {"serving_default": inputs, "generate": generate, "score": inputs}
