"""Language models: texts that they continue, and how probable they find given ones."""

from __future__ import annotations

import dataclasses
import math
import os
import weakref
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from etils import epy

from zoo.errors import ZooError
from zoo.files import written
from zoo.loading import Predictor, Source
from zoo.tasks import LanguageModel

with epy.lazy_imports():
    import matplotlib
    import tensorflow as tf
    from matplotlib import figure, patches

    from zoo.tasks import characters

CHUNK = 16  # characters that are drawn before they are passed on
LINE = 64  # characters of a line in a picture
DARKEST = math.log(1000)  # nats: a character of a probability below 1 in 1,000 has the darkest color


@dataclasses.dataclass(frozen=True)
class Score:
    """How improbable a language model finds a text.

    Attributes:
        nats: minus the logarithm of the text's probability.
        character_nats: that of each character after those before it, float [len(text)]; they add up to `nats`.
    """

    text: str
    nats: float
    character_nats: np.ndarray

    @property
    def bits_per_character(self) -> float:
        """Bits a character; 0 for an empty text."""
        return self.nats / math.log(2) / max(len(self.text), 1)


def generate(
    source: Source,
    prompt: str = "",
    *,
    length: int = 500,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
) -> Iterator[str]:
    """What a language model writes after a prompt, a few characters at a time: the same text as the signature
    `generate` of its export returns for these numbers.

    Args:
        source: `name.tag`, an exported directory, or a run.
        length: characters to write.
        temperature: what the logits are divided by; 0 takes the most probable character each time.
        top_k: how many of the most probable characters may be drawn; 0 for all.
        top_p: the most probable characters, whose probabilities add up to this share, may be drawn; 1 for all.
        seed: seed of the draws.

    Raises:
        ZooError: for a model of another task, and numbers out of range.
    """
    predictor = _language_model(source)
    checks = {
        f"length must be from 1 to {characters.MOST_GENERATED}": 1 <= length <= characters.MOST_GENERATED,
        "temperature must be at least 0 and finite": temperature >= 0 and math.isfinite(temperature),
        "top_k must be at least 0, which allows all characters": top_k >= 0,
        "top_p must be above 0 and at most 1": 0 < top_p <= 1,
        "the seed must be from 0 to 2**31 - 1": 0 <= seed < 2**31,
        f"the prompt must have at most {characters.MOST_CHARACTERS} characters": len(prompt)
        <= characters.MOST_CHARACTERS,
    }
    for message, holds in checks.items():
        if not holds:
            raise ZooError(message)
    numbers = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "seed": seed}
    return _pieces(predictor, prompt, length, numbers)


def _pieces(predictor: Predictor, prompt: str, length: int, numbers: dict[str, Any]) -> Iterator[str]:
    model, advance = _stepping(predictor)
    sampling = {name: tf.constant(numbers[name], dtype) for name, dtype in characters.SAMPLING.items()}
    tokens, lengths = model.encode(tf.constant([prompt]))
    place = tf.constant(0), tokens[:, 0], model.zero_states(tokens)
    *place, _ = advance(tokens, lengths, *place, lengths[0] - 1, sampling)
    for start in range(0, length, CHUNK):
        steps = tf.constant(min(CHUNK, length - start))
        *place, drawn = advance(tokens, lengths, *place, steps, sampling)
        yield "".join(model.vocabulary[number] for number in drawn.numpy()[0])


_TRACED: weakref.WeakKeyDictionary[Predictor, tuple[Any, Any]] = weakref.WeakKeyDictionary()


def _stepping(predictor: Predictor) -> tuple[Any, Any]:
    """A predictor's characters and the function that draws them, which is traced once."""
    if predictor not in _TRACED:
        model = predictor.task.characters(predictor.model)  # type: ignore[attr-defined]
        _TRACED[predictor] = model, tf.function(model.advance, reduce_retracing=True, autograph=False)
    return _TRACED[predictor]


def score(source: Source, texts: str | Iterable[str]) -> list[Score]:
    """How improbable a language model finds each text; the lower of two scores is the likelier text.

    Each text is scored as if it followed the vocabulary's first character, in most texts a line break.

    Args:
        source: `name.tag`, an exported directory, or a run.

    Raises:
        ZooError: for a model of another task, and a text that is too long.
    """
    predictor = _language_model(source)
    texts = [texts] if isinstance(texts, str) else list(texts)
    scores = []
    for text in texts:  # one by one: a batch would need the longest text's memory for each
        if len(text) > characters.MOST_CHARACTERS:
            raise ZooError(f"a text has {len(text)} characters: score at most {characters.MOST_CHARACTERS} at once")
        outputs = predictor(np.array([text]), signature="score")
        scores.append(Score(text, float(outputs["nats"][0]), outputs["character_nats"][0, : len(text)]))
    return scores


def _language_model(source: Source) -> Predictor:
    predictor = source if isinstance(source, Predictor) else Predictor(source)
    if not isinstance(predictor.task, LanguageModel):
        raise ZooError(f"{predictor.task.spec.name} is no language model: choose one, such as lstm_char")
    return predictor


def draw_scores(scores: Sequence[Score], path: str | os.PathLike) -> Path:
    """Write a picture of texts whose characters are the darker the less probable they are, with the nats of each text.

    Args:
        path: a file with the suffix of a format that Matplotlib writes, such as .png or .svg.
    """
    rows: list[tuple[str, Any]] = []
    for one in scores:
        rows.append((f"{one.nats:.2f} nats, {one.bits_per_character:.2f} bits a character", None))
        pairs = list(zip(one.text, one.character_nats, strict=True))
        rows += [("", pairs[start : start + LINE]) for start in range(0, len(pairs), LINE)] + [("", [])]
    drawing = figure.Figure(figsize=(0.12 * LINE + 0.4, 0.25 * len(rows) + 0.2))
    axes = drawing.add_axes((0.02, 0.02, 0.96, 0.96))
    axes.set(xlim=(0, LINE), ylim=(len(rows), 0))
    axes.axis("off")
    for y, (title, pairs) in enumerate(rows):
        axes.text(0, y + 0.5, title, va="center", fontsize=8, color="gray")
        for x, (character, nats) in enumerate(pairs or ()):
            shade = min(float(nats) / DARKEST, 1.0)
            axes.add_patch(patches.Rectangle((x, y), 1, 1, color=matplotlib.colormaps["Reds"](shade), linewidth=0))
            shown = {"\n": "↵", "\t": "→"}.get(character, character)
            color = "white" if shade > 0.7 else "black"
            axes.text(x + 0.5, y + 0.5, shown, ha="center", va="center", family="monospace", fontsize=9, color=color,
                      parse_math=False)  # fmt: skip
    path = Path(path)
    with written(path, ValueError) as temporary:
        drawing.savefig(temporary, dpi=150, format=path.suffix.removeprefix(".") or "png")
    return path
