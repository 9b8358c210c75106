"""Train classifiers by the recipes of the registry on Keras' JAX backend, where only JAX can use the accelerator.

    python benchmarks/jax_training.py pack airbench94 --data cifar10 --out cifar10.npz
    python benchmarks/jax_classification.py jobs.json --out trained
    python benchmarks/jax_training.py finish trained/airbench94.npz --data cifar10 --out runs/airbench94

`jobs.json` is a list of jobs: `name` and `data` (a file of the first command), and if need be `recipe`, `seed`, `set`
(recipe keys to change), `tag` (the name of the result, by default that of the network), `views` (true: also the
accuracies of averages over mirrored and shifted images) and `keep` (false: scores only). The second command needs JAX
and no TensorFlow; all steps of an epoch run on the device.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # several processes may share the device

import jax
import jax.numpy as jnp
import keras
import numpy as np

import zoo
from zoo import tasks
from zoo.recipe import Augmentation, Recipe
from zoo.spec import ModelSpec, Preprocessing
from zoo.tasks.losses import classification_loss
from zoo.training.optimizers import make_optimizer
from zoo.weights import named_weights

STARTED = time.monotonic()
KNOWN = ("affine", "flip_crop", "color_jitter", "warped", "fill")  # keys of augmentation
PREPARED = 5_000  # training images by which initial weights are computed, as in `zoo.train`

Weights = dict[str, Any]


def say(*words: Any) -> None:
    print(f"[{time.monotonic() - STARTED:.0f}s]", *words, flush=True)


def network_inputs(images: Any, preprocessing: Preprocessing) -> Any:
    """`zoo.preprocessing.apply` of images [B, H, W, C] of the right size, uint8 or float32."""
    images = images.astype(jnp.float32)
    if preprocessing.crop_to is not None:
        top, left = (
            (outer - inner) // 2 for outer, inner in zip(images.shape[1:3], preprocessing.crop_to, strict=True)
        )
        images = images[:, top : top + preprocessing.crop_to[0], left : left + preprocessing.crop_to[1]]
    if preprocessing.mean:
        return (images - np.float32(preprocessing.mean)) / np.float32(preprocessing.std)
    return images * ((preprocessing.high - preprocessing.low) / preprocessing.full_scale) + preprocessing.low


def warp(images: Any, linear: Any, shift: Any, fill: str) -> Any:
    """`zoo.data.augmentation.warp` of images [B, H, W, C] by maps [B, 2, 2] and shifts [B, 2] of (x, y)."""
    batch, height, width, _ = images.shape
    center = np.array([(width - 1) / 2, (height - 1) / 2], np.float32)
    grid = jnp.stack(jnp.meshgrid(jnp.arange(width), jnp.arange(height)), -1) - center  # [H, W, 2]
    points = jnp.einsum("bij,hwj->bhwi", linear, grid, precision="highest") + center + shift[:, None, None]
    first = jnp.floor(points)
    fraction, first = points - first, first.astype(jnp.int32)
    example, total = jnp.arange(batch)[:, None, None], 0.0
    for down in (0, 1):
        for across in (0, 1):
            weight, places = 1.0, []
            for axis, (step, side) in enumerate(((across, width), (down, height))):
                place = first[..., axis] + step
                weight = weight * (fraction[..., axis] if step else 1 - fraction[..., axis])
                if fill == "reflect":
                    place = place % (2 * side)
                    place = jnp.minimum(place, 2 * side - 1 - place)
                else:
                    weight = weight * ((place >= 0) & (place < side))
                places.append(jnp.clip(place, 0, side - 1))
            total = total + weight[..., None] * images[example, places[1], places[0]]
    return total


def augmented(images: Any, key: Any, augmentation: Augmentation, turn: Any) -> Any:
    """`zoo.data.augmentation.augment` with other random numbers: images [B, H, W, C], and for alternating flips
    integers [B] that are odd where an image is flipped."""
    count, (height, width) = len(images), images.shape[1:3]
    keys = jax.random.split(key, 5)
    images = images.astype(jnp.float32)
    if jitter := augmentation.color_jitter:
        contrast, brightness = jax.random.uniform(keys[0], (2, count, 1, 1, 1), minval=-1.0)
        mean, deviation = images.mean((1, 2), keepdims=True), images.std((1, 2), keepdims=True)
        moved = mean + jitter.brightness * brightness * deviation
        images = moved + (1 + jitter.contrast * contrast) * (images - mean)
    linear, shift = jnp.tile(jnp.eye(2), (count, 1, 1)), jnp.zeros((count, 2))
    if affine := augmentation.affine:
        warped = jax.random.uniform(keys[1], (count, 1)) < augmentation.warped
        rotation, scale, skew, across, down = (warped * jax.random.uniform(keys[2], (count, 5), minval=-1.0)).T
        angle, lean = jnp.deg2rad(affine.rotation * rotation), jnp.tan(jnp.deg2rad(affine.skew * skew))
        sin, cos = jnp.sin(angle), jnp.cos(angle)
        rows = [[cos, lean * cos - sin], [sin, lean * sin + cos]]
        linear = jnp.stack([jnp.stack(row, 1) for row in rows], 1) / (1 + affine.scale * scale)[:, None, None]
        shift = affine.translation * jnp.stack([across * width, down * height], 1)
    if crop := augmentation.flip_crop:
        shift += jax.random.randint(keys[3], (count, 2), -crop.pad, crop.pad + 1)
        if crop.flip:
            flipped = turn % 2 == 1 if crop.alternating else jax.random.uniform(keys[4], (count,)) < 0.5
            linear *= jnp.stack([jnp.where(flipped, -1.0, 1.0), jnp.ones(count)], 1)[:, None]
    return warp(images, linear, shift, augmentation.fill) if affine or crop else images


class Program:
    """The compiled training of one network by one recipe, for any initial weights, learning rates and data."""

    def __init__(self, spec: ModelSpec, recipe: Recipe, shape: tuple, classes: int) -> None:
        self.recipe = recipe
        self.preprocessing = preprocessing_for(spec, shape)
        self.network = build(spec, shape, classes, 0, recipe)
        self.optimizer = make_optimizer(recipe)
        self.optimizer.build(self.network.trainable_variables)
        self.rate_index = [id(one) for one in self.optimizer.variables].index(id(self.optimizer._learning_rate))
        keys = {id(variable): key for key, variable in named_weights(self.network).items()}
        self.trained = [keys[id(variable)] for variable in self.network.trainable_variables]
        self.fixed = [keys.get(id(variable)) for variable in self.network.non_trainable_variables]
        self.loss = classification_loss(recipe.loss, recipe.options.label_smoothing)  # type: ignore[attr-defined]
        self.epoch = jax.jit(self._epoch, static_argnames="steps")
        self.evaluate = jax.jit(functools.partial(self._evaluate, views=False))
        self.average = jax.jit(functools.partial(self._evaluate, views=True))

    def state(self, weights: Weights, seed: int) -> tuple:
        """Trained and fixed variables, those of the optimizer, and slow weights."""
        keys = zip(self.fixed, self.network.non_trainable_variables, strict=True)
        fixed = [weights[key] if key else variable.value + seed for key, variable in keys]  # the latter draws numbers
        trained = [weights[key] for key in self.trained]
        optimizer = [variable.value for variable in self.optimizer.variables]
        if self.recipe.ema:
            optimizer = self._with_averages(optimizer, trained)
        state = (trained, fixed, optimizer, trained if self.recipe.lookahead else [])
        return jax.tree.map(lambda array: jnp.array(array), state)

    def _averages(self) -> list[int]:
        numbers = {id(one): number for number, one in enumerate(self.optimizer.variables)}
        return [numbers[id(one)] for one in self.optimizer._model_variables_moving_average]

    def _with_averages(self, optimizer: list, trained: list) -> list:
        averages = dict(zip(self._averages(), trained, strict=True))
        return [averages.get(number, value) for number, value in enumerate(optimizer)]

    def weights(self, state: tuple) -> Weights:
        """The weights to validate and to keep: averages where the optimizer keeps them."""
        trained, fixed, optimizer, _ = state
        if self.recipe.ema:
            trained = [optimizer[number] for number in self._averages()]
        weights = dict(zip(self.trained, trained, strict=True))
        return weights | {key: value for key, value in zip(self.fixed, fixed, strict=True) if key}

    def _epoch(
        self, images: Any, labels: Any, state: tuple, number: Any, key: Any, rates: Any, decays: Any, steps: int
    ) -> tuple:
        """One epoch: the state after it, and the means of loss and accuracy.

        Args:
            rates: the learning rate of each step.
            decays: the decay of the slow weights at each step: below 0 for no move, 1 for a move to them as they are.
        """
        augmentation, classes = self.recipe.augmentation, self.network.output_shape[-1]
        batch = min(self.recipe.batch_size, len(images))
        first = jax.random.randint(jax.random.fold_in(key, 10**6), (len(images),), 0, 2)
        key = jax.random.fold_in(key, number)
        order = jax.random.permutation(key, len(images))[: steps * batch].reshape(steps, batch)

        def loss_of(trained: list, fixed: list, inputs: Any, targets: Any) -> tuple:
            logits, fixed = self.network.stateless_call(trained, fixed, inputs, training=True)
            return self.loss(targets, logits), (fixed, (logits.argmax(-1) == targets.argmax(-1)).mean())

        def step(state: tuple, given: tuple) -> tuple:
            trained, fixed, optimizer, slow = state
            rows, rate, decay, step_key = given
            varied = augmented(images[rows], step_key, augmentation, first[rows] + number)
            inputs, targets = network_inputs(varied, self.preprocessing), jax.nn.one_hot(labels[rows], classes)
            gradient = jax.value_and_grad(loss_of, has_aux=True)
            (loss, (fixed, accuracy)), gradients = gradient(trained, fixed, inputs, targets)
            optimizer = [rate if i == self.rate_index else value for i, value in enumerate(optimizer)]
            trained, optimizer = self.optimizer.stateless_apply(optimizer, gradients, trained)
            if slow:
                slow = [
                    jnp.where(decay < 0, s, decay * s + (1 - decay) * t) for s, t in zip(slow, trained, strict=True)
                ]
                trained = [jnp.where(decay < 0, t, s) for s, t in zip(slow, trained, strict=True)]
            return (trained, fixed, optimizer, slow), (loss, accuracy)

        state, measured = jax.lax.scan(step, state, (order, rates, decays, jax.random.split(key, steps)))
        return state, *(one.mean() for one in measured)

    def _evaluate(self, images: Any, labels: Any, weights: Weights, views: bool) -> tuple:
        """Loss and accuracy; with `views` also the accuracies of averages over mirrored, and shifted, images."""
        preprocessing, classes = self.preprocessing, self.network.output_shape[-1]
        trained = [weights[key] for key in self.trained]
        random = self.network.non_trainable_variables
        fixed = [weights[key] if key else one.value for key, one in zip(self.fixed, random, strict=True)]

        def logits_of(images: Any) -> Any:
            return self.network.stateless_call(trained, fixed, network_inputs(images, preprocessing))[0]

        def mirrored(images: Any) -> Any:
            return (logits_of(images) + logits_of(images[:, :, ::-1])) / 2

        def part(given: tuple) -> tuple:
            images, labels = given
            logits = [logits_of(images)]
            if views:
                side = images.shape[1]
                padded = jnp.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="symmetric")
                shifted = (mirrored(padded[:, :side, :side]) + mirrored(padded[:, 2:, 2:])) / 2
                logits += [both := mirrored(images), (both + shifted) / 2]
            loss = self.loss(jax.nn.one_hot(labels, classes), logits[0])
            return loss, *((one.argmax(-1) == labels).mean() for one in logits)

        size = max(size for size in range(1, 1501) if len(images) % size == 0)
        parts = (images.reshape(-1, size, *images.shape[1:]), labels.reshape(-1, size))
        return tuple(one.mean() for one in jax.lax.map(part, parts))


def preprocessing_for(spec: ModelSpec, shape: tuple) -> Preprocessing:
    return spec.preprocessing if shape == spec.input_shape else dataclasses.replace(spec.preprocessing, size=shape[:2])


def build(spec: ModelSpec, shape: tuple, classes: int, seed: int, recipe: Recipe) -> keras.Model:
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(recipe.precision)
    return spec.build(shape, classes, **recipe.arguments)


PROGRAMS: dict[str, Program] = {}


def fit(
    spec: ModelSpec,
    recipe: Recipe,
    data: Mapping[str, Any],
    weights: Weights,
    seed: int,
    until: float,
    views: bool,
) -> tuple[list[dict[str, float]], int, Weights, dict[str, float]]:
    """The history of a training, its best epoch, the weights of that and their further scores."""
    shape, classes = input_shape(spec, data), classes_of(data)
    varying = {"epochs": 0, "learning_rate": 0, "schedule": 0, "deviations": 0, "targets": 0}
    signature = json.dumps([spec.name, shape, classes, {**dataclasses.asdict(recipe), **varying}], default=str)
    if signature not in PROGRAMS:
        PROGRAMS[signature] = Program(spec, recipe, shape, classes)
    program = PROGRAMS[signature]
    images, labels = data["train_inputs"], data["train_labels"]
    steps, epochs = len(images) // min(recipe.batch_size, len(images)), recipe.epochs
    number = np.arange(epochs * steps)
    position = number / steps if recipe.schedule.by_step else number // steps
    rates = recipe.learning_rate * np.array([recipe.schedule.factor(at, epochs) for at in position])
    decays = np.full(len(number), -1.0)
    if look := recipe.lookahead:
        moves = (number + 1) % look.every == 0
        decays[moves] = look.decay * ((number[moves] + 1) / len(number)) ** 3
        decays[-1] = decays[-1] if moves[-1] else 1.0
    rates, decays = (np.float32(one).reshape(epochs, steps) for one in (rates, decays))
    state, key = program.state(weights, seed), jax.random.key(seed)
    rows: list[dict[str, float]] = []
    best, kept = 0, weights
    for epoch in range(epochs):
        began = time.monotonic()
        state, loss, accuracy = program.epoch(
            images, labels, state, epoch, key, rates[epoch], decays[epoch], steps=steps
        )
        current = program.weights(state)
        val_loss, val_accuracy = program.evaluate(data["validation_inputs"], data["validation_labels"], current)
        scores = {"accuracy": accuracy, "loss": loss, "val_accuracy": val_accuracy, "val_loss": val_loss}
        scores = {name: float(score) for name, score in scores.items()}
        row = {"epoch": epoch + 1, "seconds": round(time.monotonic() - began, 2), "learning_rate": rates[epoch, -1]}
        rows.append({key: float(value) for key, value in row.items()} | {"epoch": epoch + 1} | scores)
        if epoch + 1 in {1, epochs} or (epoch + 1) % max(epochs // 8, 1) == 0:
            say("epoch", epoch + 1, {key: round(value, 4) for key, value in rows[-1].items()})
        if not np.isfinite(loss):
            break
        if not best or scores["val_accuracy"] > rows[best - 1]["val_accuracy"]:
            best, kept = epoch + 1, jax.tree.map(jnp.copy, current)
        if time.monotonic() - STARTED > until:
            say("no time for more epochs")
            break
    further = {}
    if views:
        _, *scores = program.average(data["validation_inputs"], data["validation_labels"], kept)
        further = dict(zip(("plain", "mirrored", "shifted"), map(float, scores), strict=True))
    return rows, best, kept, further


def input_shape(spec: ModelSpec, data: Mapping[str, Any]) -> tuple:
    """The network's input for the images of a file."""
    return spec.input_shape if spec.preprocessing.crop_to else tuple(data["train_inputs"].shape[1:])


def classes_of(data: Mapping[str, Any]) -> int:
    return int(data["train_labels"].max()) + 1


def train(job: Mapping[str, Any], data: Mapping[str, Any], out: Path, until: float) -> None:
    spec = zoo.get_spec(job["name"])
    recipe = tasks.with_options(spec.recipe(job.get("recipe")), tasks.get_task(spec.task), spec.task)
    recipe = recipe.replace(**job.get("set", {}))
    if unknown := [
        key
        for key, value in vars(recipe.augmentation).items()
        if key not in KNOWN and value != getattr(Augmentation(), key)
    ]:
        raise SystemExit(f"{spec.name}: augmentation by {', '.join(unknown)} is not written for JAX")
    seed, tag = job.get("seed", 0), job.get("tag", spec.name)
    network = build(spec, input_shape(spec, data), classes_of(data), seed, recipe)
    if spec.prepare is not None:
        few = np.random.default_rng(0).permutation(len(data["train_inputs"]))[:PREPARED]
        shown = network_inputs(data["train_inputs"][few], preprocessing_for(spec, network.input_shape[1:]))
        spec.prepare(network, np.asarray(shown))
    weights = {key: variable.value for key, variable in named_weights(network).items()}
    rows, best, weights, further = fit(spec, recipe, data, weights, seed, until, job.get("views", False))
    say("RESULT", json.dumps(job), json.dumps(rows[best - 1]), json.dumps(further))
    record = {
        "job": dict(job),
        "recipe": dataclasses.asdict(recipe),
        "rows": rows,
        "best_epoch": best,
        "further": further,
        "device": jax.devices()[0].device_kind,
        "versions": {"keras": keras.__version__, "jax": jax.__version__, "numpy": np.__version__},
    }
    (out / f"{tag}.json").write_text(json.dumps(record))
    if job.get("keep", True):
        arrays = {key: np.asarray(value, np.float32) for key, value in weights.items()}
        np.savez(out / f"{tag}.npz", record=np.array(json.dumps(record)), **arrays)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", type=Path)
    parser.add_argument("--out", type=Path, default=Path("trained"))
    parser.add_argument("--seconds", type=float, default=float("inf"), help="when to stop")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    loaded: dict[str, dict[str, Any]] = {}
    for job in json.loads(arguments.jobs.read_text()):
        if time.monotonic() - STARTED > arguments.seconds:
            say("no time for", job)
            continue
        try:
            if job["data"] not in loaded:
                loaded[job["data"]] = {key: jnp.asarray(array) for key, array in np.load(job["data"]).items()}
            train(job, loaded[job["data"]], arguments.out, arguments.seconds)
        except Exception as error:  # the next job may have none
            say("failed:", job, type(error).__name__, str(error)[:500])


if __name__ == "__main__":
    main()
