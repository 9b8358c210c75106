"""Characters in the graph: texts to token numbers, the nats of texts, and texts that a network continues."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import tensorflow as tf

from zoo.tasks.base import Network, checked

MOST_CHARACTERS = 2**17  # of a text that is given
MOST_GENERATED = 10_000  # characters that a call adds to each text
MOST_TOGETHER = 2**18  # characters of all texts of a call, each as long as the longest; also of those that it adds
SAMPLING = {"temperature": tf.float32, "top_k": tf.int32, "top_p": tf.float32, "seed": tf.int32}

States = Mapping[str, tf.Tensor]


class Characters:
    """A recurrent character model as functions of texts.

    Every text follows the vocabulary's first character, which also stands for characters outside the vocabulary. In
    most texts that is the line break: they are scored and continued as if they began a line.

    Args:
        network: takes a dict of `tokens` int [B, T] and the states, returns one of `logits` [B, T, V] and the states.
        widths: units of each state.
        vocabulary: the characters in order of their numbers.
    """

    def __init__(self, network: Network, widths: Mapping[str, int], vocabulary: Sequence[str]) -> None:
        self.network, self.widths, self.vocabulary = network, widths, tuple(vocabulary)
        numbers = tf.range(len(self.vocabulary))
        pairs = tf.lookup.KeyValueTensorInitializer(tf.constant(self.vocabulary), numbers)
        self.table = tf.lookup.StaticHashTable(pairs, default_value=0)

    def encode(self, texts: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Texts, string [B], to token numbers int [B, 1 + T], T at least 1, padded with 0, and the lengths int [B] with
        the character before each text. Bytes that are not UTF-8 count as characters outside the vocabulary."""
        split = tf.strings.unicode_split(texts, "UTF-8")
        lengths = tf.cast(split.row_lengths(), tf.int32)
        characters = checked(
            split.flat_values, lengths <= MOST_CHARACTERS, f"a text has more than {MOST_CHARACTERS} characters"
        )
        characters = checked(characters, *_together(lengths, tf.reduce_max(lengths)))
        tokens = split.with_flat_values(self.table.lookup(characters)).to_tensor(0)
        return tf.pad(tokens, [[0, 0], [1, tf.maximum(1 - tf.shape(tokens)[1], 0)]]), lengths + 1

    def zero_states(self, tokens: tf.Tensor) -> dict[str, tf.Tensor]:
        """The states at the beginning of texts int [B, T]."""
        return {name: tf.zeros([tf.shape(tokens)[0], width]) for name, width in self.widths.items()}

    def next_probabilities(self, texts: tf.Tensor) -> tf.Tensor:
        """The probabilities float [B, V] of the character that follows each text."""
        tokens, lengths = self.encode(texts)
        logits = self.network({"tokens": tokens, **self.zero_states(tokens)})["logits"]
        return tf.nn.softmax(tf.gather(logits, lengths - 1, batch_dims=1))

    def character_nats(self, texts: tf.Tensor) -> tf.Tensor:
        """Minus the logarithm of each character's probability after those before it, float [B, T]; 0 after the end of a
        text."""
        tokens, lengths = self.encode(texts)
        inputs, targets = tokens[:, :-1], tokens[:, 1:]
        logits = self.network({"tokens": inputs, **self.zero_states(inputs)})["logits"]
        nats = -tf.gather(tf.nn.log_softmax(logits), targets, batch_dims=2)
        return tf.where(tf.sequence_mask(lengths - 1, tf.shape(targets)[1]), nats, 0.0)

    def generate(self, texts: tf.Tensor, length: tf.Tensor, sampling: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """Texts, string [B], followed by `length` drawn characters each."""
        self.check(length, sampling)
        tokens, lengths = self.encode(texts)
        length = checked(length, *_together(lengths, length))
        steps = tf.reduce_max(lengths) - 1 + length
        beginning = tf.constant(0), tokens[:, 0], self.zero_states(tokens)
        *_, written = self.advance(tokens, lengths, *beginning, steps, sampling)
        columns = (lengths - 1)[:, None] + tf.range(length)[None]  # what follows a text of n characters begins at n
        drawn = tf.gather(tf.constant(self.vocabulary), tf.gather(written, columns, batch_dims=1))
        return tf.strings.join([texts, tf.strings.reduce_join(drawn, -1)])

    def advance(
        self,
        tokens: tf.Tensor,
        lengths: tf.Tensor,
        position: tf.Tensor,
        last: tf.Tensor,
        states: States,
        steps: tf.Tensor,
        sampling: Mapping[str, tf.Tensor],
    ) -> tuple[tf.Tensor, tf.Tensor, States, tf.Tensor]:
        """Read the given texts and draw what follows, one step of the network a character.

        Args:
            tokens, lengths: the given texts, from `encode`.
            position: the place of `last` int [B], the last character that was read or drawn.
            states: those before `last`.
            steps: characters to read or draw.

        Returns:
            The position, the last character and the states afterwards, and the characters int [B, steps].
        """

        def step(index: tf.Tensor, last: tf.Tensor, states: States, written: tf.TensorArray) -> tuple:
            outputs = self.network({"tokens": last[:, None], **states})
            place = position + index
            drawn = draw(outputs["logits"][:, 0], place, **sampling)
            given = tokens[:, tf.minimum(place + 1, tf.shape(tokens)[1] - 1)]
            last = tf.where(place + 1 < lengths, given, drawn)
            return index + 1, last, {name: outputs[name] for name in states}, written.write(index, last)

        written = tf.TensorArray(tf.int32, steps, element_shape=[None])
        beginning = tf.constant(0), last, dict(states), written
        _, last, states, written = tf.while_loop(lambda index, *_: index < steps, step, beginning)
        return position + steps, last, states, tf.transpose(written.stack())

    def check(self, length: tf.Tensor, sampling: Mapping[str, tf.Tensor]) -> None:
        """Fails the call for numbers out of range."""
        message = f"length must be from 1 to {MOST_GENERATED}"
        _require((length >= 1) & (length <= MOST_GENERATED), message)
        _require(sampling["temperature"] >= 0.0, "temperature must be at least 0")
        _require(sampling["top_k"] >= 0, "top_k must be at least 0, which allows all characters")
        _require((sampling["top_p"] > 0.0) & (sampling["top_p"] <= 1.0), "top_p must be above 0 and at most 1")


def _together(texts: tf.Tensor, characters: tf.Tensor) -> tuple[tf.Tensor, str]:
    """Whether a call may read or write so many characters for each of the texts, and an error where it may not."""
    total = tf.cast(tf.shape(texts)[0], tf.int64) * tf.cast(characters, tf.int64)
    return total <= MOST_TOGETHER, f"a call reads and writes at most {MOST_TOGETHER} characters for all texts together"


def _require(condition: tf.Tensor, message: str) -> None:
    tf.debugging.Assert(tf.reduce_all(condition), [message])


def draw(
    logits: tf.Tensor, place: tf.Tensor, temperature: tf.Tensor, top_k: tf.Tensor, top_p: tf.Tensor, seed: tf.Tensor
) -> tf.Tensor:
    """One character a row, int [B], from logits [B, V].

    The logits are divided by the temperature; 0 takes the most probable character. Of the `top_k` most probable ones,
    or of all for 0, those are allowed that the more probable ones leave below a share of `top_p` (Holtzman et al. 2020,
    "The Curious Case of Neural Text Degeneration", section 3.1).

    Args:
        place: another one for each draw of a seed.
    """
    ordered, characters = tf.math.top_k(logits, logits.shape[-1])
    scaled = (ordered - ordered[:, :1]) / tf.maximum(temperature, 1e-6)
    lowest = logits.dtype.min
    allowed = (top_k == 0) | (tf.range(logits.shape[-1]) < top_k)
    shares = tf.nn.softmax(tf.where(allowed, scaled, lowest))
    allowed &= tf.cumsum(shares, axis=-1, exclusive=True) < top_p
    ranks = tf.random.stateless_categorical(tf.where(allowed, scaled, lowest), 1, tf.stack([seed, place]), tf.int32)
    return tf.gather(characters, tf.where(temperature > 0.0, ranks[:, 0], 0), batch_dims=1)
