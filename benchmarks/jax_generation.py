"""Generation: train by the recipes of the registry where only JAX has an accelerator.

    python benchmarks/jax_generation.py DATA OUT SECONDS JOBS

It needs Keras with JAX, no TensorFlow. The step is that of `zoo.tasks.adversarial`: the same networks, losses,
optimizers and moving averages; only the random numbers differ. An epoch is one compiled scan over data that stay on the
accelerator.

DATA is a file of `jax_training.py pack`. Beside it lies `features.npz`, the weights of the feature network of
`zoo.tasks.sample_metrics`, which `jax_training.py features` writes. JOBS is a JSON list of objects with the keys

    name     a network of the task "generation"
    tag      name of the result; of several jobs with one tag the best one is kept
    recipe   name of its recipe, its first one by default
    seed     0 by default
    set      recipe keys to change, such as {"epochs": 20, "options": {"r1": 2.0}, "arguments": {"latents": 32}}
    data     another data file in the folder of DATA
    half     whether kernels are written as float16

TAG.npz holds the weights of the best epoch under the keys of `zoo.weights.named_weights`, and the JSON text `record`.
"""

# ruff: noqa: E402 - the time limit counts the imports
from __future__ import annotations

import dataclasses
import functools
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

STARTED = time.monotonic()
os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp
import keras
import numpy as np
from scipy import optimize

import zoo
from zoo import layers as zoo_layers
from zoo import tasks
from zoo.training.optimizers import make_optimizer
from zoo.weights import assign, named_weights

GOOD_ENOUGH = 0.98  # accuracy of labels or codes from which on the Fréchet distance decides between jobs
NUMBERS = (
    "real_target",
    "r1",
    "information",
    "information_continuous",
)  # options that need no compilation of their own
LOSSES: dict[str, tuple[Callable, Callable, Callable]] = {  # of real images, of generated ones, of the generator
    "non_saturating": (
        lambda x, target: jax.nn.softplus(x) - target * x,
        jax.nn.softplus,
        lambda x: jax.nn.softplus(-x),
    ),
    "hinge": (lambda x, _: jax.nn.relu(1 - x), lambda x: jax.nn.relu(1 + x), lambda x: -x),
    "least_squares": (lambda x, target: (x - target) ** 2 / 2, lambda x: x**2 / 2, lambda x: (x - 1) ** 2 / 2),
}


def say(tag: str, *parts: Any) -> None:
    print(f"[{tag} {time.monotonic() - STARTED:.0f}s]", *parts, flush=True)


def built(spec: Any, recipe: Any, seed: int) -> tuple[keras.Model, list[Any]]:
    """The network with initial weights, and the optimizers of its generator and its discriminator."""
    keras.utils.set_random_seed(seed)
    keras.config.set_dtype_policy(recipe.precision)
    model = spec.build(**recipe.arguments)
    keras.config.set_dtype_policy("float32")
    optimizers = [make_optimizer(recipe), make_optimizer(recipe)]
    optimizers[1].use_ema = False
    for optimizer, name in zip(optimizers, ("generator", "discriminator"), strict=True):
        optimizer.build(model.get_layer(name).trainable_variables)
    return model, optimizers


class Trainer:
    """The functions of a training, compiled once for all jobs that differ only in numbers.

    A state holds lists of arrays for the generator and the discriminator: `trained` and `other` weights, the variables
    of the `optimizers`, and the number of the `step`.
    """

    def __init__(self, spec: Any, recipe: Any, features: Callable) -> None:
        self.spec, self.options, self.features = spec, recipe.options, features
        self.model, self.optimizers = built(spec, recipe, 0)
        self.networks = [self.model.get_layer(name) for name in ("generator", "discriminator")]
        generator, discriminator = self.networks
        self.loss, self.has_average = LOSSES[recipe.loss], bool(recipe.ema)
        self.latents, self.batch_size = generator.inputs[0].shape[-1], recipe.batch_size
        self.categories = generator.inputs[1].shape[-1] if len(generator.inputs) > 1 else 0
        self.is_conditional = len(discriminator.inputs) > 1
        self.epoch, self.validate, self.draw = map(jax.jit, (self._epoch, self._validate, self._draw))

    def initial(self, recipe: Any, seed: int) -> dict[str, Any]:
        model, optimizers = built(self.spec, recipe, seed)
        networks = [model.get_layer(network.name) for network in self.networks]
        return {
            "trained": [[variable.value for variable in one.trainable_variables] for one in networks],
            "other": [[variable.value for variable in one.non_trainable_variables] for one in networks],
            "optimizers": [[variable.value for variable in one.variables] for one in optimizers],
            "step": jnp.int32(0),
        }

    def kept(self, state: dict[str, Any]) -> dict[str, Any]:
        """The weights that are validated and kept: of the generator the moving averages, if the recipe has them."""
        generator, discriminator = state["trained"]
        if self.has_average:
            numbers = {id(variable): number for number, variable in enumerate(self.optimizers[0].variables)}
            averages = self.optimizers[0]._model_variables_moving_average
            generator = [state["optimizers"][0][numbers[id(variable)]] for variable in averages]
        return {"trained": [generator, discriminator], "other": state["other"]}

    def inputs(self, images: Any) -> Any:
        pre = self.spec.preprocessing
        return images.astype(jnp.float32) * ((pre.high - pre.low) / pre.full_scale) + pre.low

    def pixels(self, images: Any) -> Any:
        pre = self.spec.preprocessing
        scaled = jnp.round((images.astype(jnp.float32) - pre.low) * (pre.full_scale / (pre.high - pre.low)))
        return jnp.clip(scaled, 0.0, pre.full_scale)

    def generated(self, trained: list, other: list, noise: Any, labels: Any, training: bool) -> tuple[Any, list]:
        given = noise if labels is None else [noise, labels]
        return self.networks[0].stateless_call(trained, other, given, training=training)

    def judged(self, trained: list, other: list, images: Any, labels: Any, training: bool) -> tuple[list, list]:
        given = [images, labels] if self.is_conditional else images
        outputs, other = self.networks[1].stateless_call(trained, other, given, training=training)
        outputs = outputs if isinstance(outputs, list | tuple) else [outputs]
        return [one.astype(jnp.float32) for one in outputs], other

    def losses_of(
        self, trained: list, other: list, images: Any, labels: Any, noise: Any, numbers: dict, training: bool
    ) -> tuple[Any, Any, list, Any]:
        """The losses of the generator and of the discriminator, the other weights afterwards, and the images."""
        of_real, of_generated, of_generator = self.loss
        (real, *_), judge = self.judged(trained[1], other[1], images, labels, training)
        made, maker = self.generated(trained[0], other[0], noise, labels, training)
        (fake, *recognized), judge = self.judged(trained[1], judge, made, labels, training)
        generator_loss = of_generator(fake).mean()
        discriminator_loss = of_real(real, numbers["real_target"]).mean() + of_generated(fake).mean()
        if recognized:
            logits, values = recognized
            category = -(labels * jax.nn.log_softmax(logits)).sum(-1).mean()
            squares = ((zoo_layers.to_uniform(noise[:, : values.shape[-1]]) - values) ** 2).sum(-1).mean() / 2
            information = numbers["information"] * category + numbers["information_continuous"] * squares
            generator_loss, discriminator_loss = generator_loss + information, discriminator_loss + information
        return generator_loss, discriminator_loss, jax.lax.stop_gradient([maker, judge]), made

    def penalty(self, trained: list, other: list, images: Any, labels: Any, step: Any, numbers: dict) -> Any:
        """R1 in every `r1_every`-th step, of the discriminator in inference mode."""

        def value() -> Any:
            gradients = jax.grad(lambda x: self.judged(trained, other, x, labels, False)[0][0].sum())(images)
            squares = (gradients**2).sum(axis=range(1, images.ndim))
            return numbers["r1"] / 2 * self.options.r1_every * squares.mean()

        return jax.lax.cond(step % self.options.r1_every == 0, value, lambda: jnp.float32(0.0))

    def gradients(
        self, state: dict, images: Any, labels: Any, noise: Any, step: Any, numbers: dict
    ) -> tuple[list, list, Any]:
        """The gradients of both networks before any update, the other weights afterwards, and the two losses."""
        generator, discriminator = state["trained"]

        def of_generator(trained: list) -> Any:
            return self.losses_of([trained, discriminator], state["other"], images, labels, noise, numbers, True)[0]

        def of_discriminator(trained: list) -> tuple[Any, Any]:
            both = [generator, trained]
            first, second, other, _ = self.losses_of(both, state["other"], images, labels, noise, numbers, True)
            extra = self.penalty(trained, other[1], images, labels, step, numbers) if self.options.r1 else 0.0
            return second + extra, (other, (first, second))

        slopes, (other, losses) = jax.grad(of_discriminator, has_aux=True)(discriminator)
        return [jax.grad(of_generator)(generator), slopes], other, losses

    def step(
        self, state: dict, images: Any, labels: Any, noise: Any, numbers: dict, rates: Any
    ) -> tuple[dict, tuple[Any, Any]]:
        """One step on images [B, H, W, C] in the networks' range, labels [B, K] or None, and noise [B, Z]."""
        parts, losses = self.options.discriminator_steps, (jnp.float32(0.0), jnp.float32(0.0))
        state = {key: list(value) if isinstance(value, list) else value for key, value in state.items()}
        count = len(images) // parts
        for number in range(parts):
            rows = slice(number * count, (number + 1) * count)
            own = None if labels is None else labels[rows]
            numbered = state["step"] * parts + number
            slopes, state["other"], losses = self.gradients(state, images[rows], own, noise[rows], numbered, numbers)
            for index in (0, 1) if number == parts - 1 else (1,):
                optimizer, variables = self.optimizers[index], list(state["optimizers"][index])
                place = [variable is optimizer._learning_rate for variable in optimizer.variables].index(True)
                variables[place] = rates[index]
                state["trained"][index], state["optimizers"][index] = optimizer.stateless_apply(
                    variables, slopes[index], state["trained"][index]
                )
        state["step"] = state["step"] + 1
        return state, losses

    def codes(self, key: Any, count: int) -> Any:
        return jax.random.randint(key, (count,), 0, self.categories)

    def one_hot(self, labels: Any) -> Any:
        return jax.nn.one_hot(labels, self.categories) if self.categories else None

    def _epoch(
        self, state: dict, images: Any, labels: Any, key: Any, numbers: dict, rates: Any
    ) -> tuple[dict, tuple[Any, Any]]:
        """An epoch with the rates [S, 2] of its steps; the mean losses."""
        size = min(self.batch_size, len(images))
        order = jax.random.permutation(key, len(images))[: len(rates) * size].reshape(-1, size)

        def one(state: dict, given: tuple) -> tuple[dict, tuple[Any, Any]]:
            index, rate, number = given
            for_noise, for_codes = jax.random.split(jax.random.fold_in(key, number))
            drawn = labels[index] if self.is_conditional else self.codes(for_codes, size) if self.categories else None
            noise = jax.random.normal(for_noise, (size, self.latents))
            return self.step(state, self.inputs(images[index]), self.one_hot(drawn), noise, numbers, rate)

        state, losses = jax.lax.scan(one, state, (order, rates, jnp.arange(len(rates))))
        return state, jax.tree.map(jnp.mean, losses)

    def _validate(self, kept: dict, images: Any, labels: Any, noise: Any, numbers: dict) -> tuple[Any, Any, Any, Any]:
        """The losses, and the features [N, 84] and digits [N] of as many samples as there are images."""
        size = next(size for size in range(min(1_000, len(images)), 0, -1) if len(images) % size == 0)

        def one(_: None, given: tuple) -> tuple[None, Any]:
            x, y, z = given
            *losses, _, made = self.losses_of(
                kept["trained"], kept["other"], self.inputs(x), self.one_hot(y), z, numbers, False
            )
            return None, (*losses, *self.features(self.pixels(made)))

        parts = jax.tree.map(lambda array: array.reshape(-1, size, *array.shape[1:]), (images, labels, noise))
        _, (first, second, features, digits) = jax.lax.scan(one, None, parts)
        return first.mean(), second.mean(), features.reshape(len(images), -1), digits.reshape(-1)

    def _draw(self, kept: dict, noise: Any, labels: Any) -> Any:
        made, _ = self.generated(kept["trained"][0], kept["other"][0], noise, self.one_hot(labels), False)
        return self.pixels(made)

    def measured(self, kept: dict, key: Any, count: int = 1_000) -> dict:
        """With the statistics of the generator's batch normalization measured on samples, as after a training."""
        layers = [one for one in self.networks[0].layers if isinstance(one, keras.layers.BatchNormalization)]
        momenta = [layer.momentum for layer in layers]
        for layer in layers:
            layer.momentum = 0.0
        labels = self.one_hot(jnp.arange(count) % max(self.categories, 1))
        noise = jax.random.normal(key, (count, self.latents))
        _, other = self.generated(kept["trained"][0], kept["other"][0], noise, labels, True)
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
        return {**kept, "other": [other, kept["other"][1]]}


def feature_function(path: Path) -> Callable:
    """A function from images [B, H, W, C] of 0..255 to features [B, 84] and digits [B], those of
    `zoo.tasks.sample_metrics`."""
    spec = zoo.get_spec("lenet5")
    network = spec.build()
    with np.load(path) as arrays:
        assign(named_weights(network), dict(arrays))
    both = keras.Model(network.input, [network.get_layer(spec.features[-1]).output, network.output])
    pre = spec.preprocessing

    def features(images: Any) -> tuple[Any, Any]:
        images = images.astype(jnp.float32)
        with jax.default_matmul_precision("highest"):
            if images.shape[-1] == 3:
                images = images @ jnp.array([[0.2989], [0.5870], [0.1140]])
            images = jax.image.resize(images, (len(images), *pre.size, 1), "linear")
            margin = (pre.pad_to[0] - pre.size[0]) // 2
            images = jnp.pad(images, ((0, 0), (margin, margin), (margin, margin), (0, 0)))
            found, distances = both(images * ((pre.high - pre.low) / pre.full_scale) + pre.low, training=False)
        return found, distances.argmin(-1)

    return features


def frechet(real: np.ndarray, generated: np.ndarray) -> float:
    """The Fréchet distance between features, as in `zoo.tasks.sample_metrics`; in float64, which it needs: the features
    hardly vary in many directions."""
    (mean, covariance), (other_mean, other) = (
        (rows.mean(0), np.cov(rows, rowvar=False)) for rows in (np.float64(real), np.float64(generated))
    )
    values, vectors = np.linalg.eigh(covariance)
    root = vectors * np.sqrt(np.maximum(values, 0)) @ vectors.T
    shared = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ other @ root), 0)).sum()
    return max(float(((mean - other_mean) ** 2).sum() + np.trace(covariance) + np.trace(other) - 2 * shared), 0.0)


def frechet_floor(real: np.ndarray, halvings: int = 20) -> float:
    orders = (np.random.default_rng(seed).permutation(len(real)) for seed in range(halvings))
    return float(np.mean([frechet(*np.array_split(real[order], 2)) for order in orders]))


@functools.partial(jax.jit, static_argnames="k")
def coverage(real: Any, generated: Any, k: int = 5) -> Any:
    """Naeem et al. 2020, equation (4): the share of real features whose k-th real neighbor is not nearer than the
    nearest generated one."""

    def is_covered(row: Any) -> Any:
        to_real, to_generated = (((rows - row) ** 2).sum(-1) for rows in (real, generated))
        return to_generated.min() <= -jax.lax.top_k(-to_real, min(k + 1, len(real)))[0][-1]

    return jax.lax.map(is_covered, real, batch_size=100).mean()


def scores_of(trainer: Trainer, real: np.ndarray, features: Any, digits: Any, labels: Any) -> dict[str, float]:
    """The scores of samples by their features [N, 84], the digits they show and the labels that they were asked for."""
    digits, classes = np.asarray(digits), 10
    shares = np.bincount(digits, minlength=classes) / len(digits)
    distance, floor = frechet(real, np.asarray(features)), frechet_floor(real)
    scores = {"frechet_distance": distance, "frechet_floor": floor, "ratio": distance / floor}
    scores["coverage"] = float(coverage(jnp.asarray(real), features))
    scores |= {"least_class_share": float(shares.min()), "largest_class_share": float(shares.max())}
    if trainer.is_conditional:
        scores["label_accuracy"] = float((digits == np.asarray(labels)).mean())
    elif trainer.categories:
        table = np.zeros((trainer.categories, classes), int)
        np.add.at(table, (np.asarray(labels), digits), 1)
        scores["code_accuracy"] = float(table[optimize.linear_sum_assignment(-table)].sum() / len(digits))
    return scores


def rank(scores: dict[str, float]) -> tuple[float, float]:
    accuracy = scores.get("label_accuracy", scores.get("code_accuracy", 1.0))
    return min(accuracy, GOOD_ENOUGH), -scores["ratio"]


def epochs(trainer: Trainer, recipe: Any, state: dict, data: dict, job: dict, until: float) -> Iterator[tuple]:
    """Rows of the history, with the weights after each epoch and the features of the samples that were validated."""
    options = dataclasses.asdict(recipe.options)
    numbers = {name: jnp.float32(options[name]) for name in NUMBERS}
    steps = len(data["train_inputs"]) // min(recipe.batch_size, len(data["train_inputs"]))
    rates = recipe.learning_rate * np.array([1.0, recipe.options.discriminator_rate])
    key = jax.random.key(job.get("seed", 0))
    for epoch in range(recipe.epochs):
        started = time.monotonic()
        places = epoch + (np.arange(steps) / steps if recipe.schedule.by_step else np.zeros(steps))
        factors = np.array([recipe.schedule.factor(place, recipe.epochs) for place in places])
        own = jnp.asarray(factors[:, None] * rates, jnp.float32)
        state, losses = trainer.epoch(
            state, data["train_inputs"], data["train_labels"], jax.random.fold_in(key, epoch), numbers, own
        )
        kept = trainer.kept(state)
        given = (data["validation_inputs"], data["validation_labels"], data["noise"], numbers)
        *val_losses, features, _ = trainer.validate(kept, *given)
        row: dict[str, Any] = {"epoch": epoch + 1, "seconds": 0.0, "learning_rate": float(own[-1, 0])}
        for prefix, (first, second) in (("", losses), ("val_", val_losses)):
            both = {"loss": first + second, "generator_loss": first, "discriminator_loss": second}
            row |= {f"{prefix}{name}": float(value) for name, value in both.items()}
        row["val_frechet_distance"] = frechet(data["features"], np.asarray(features))
        row["seconds"] = round(time.monotonic() - started, 2)
        if not (math.isfinite(row["loss"]) and math.isfinite(row["val_loss"])):
            say(job["tag"], f"loss at epoch {epoch + 1} is not finite")
            return
        yield row, kept
        if time.monotonic() - STARTED > until:
            say(job["tag"], f"time is up after epoch {epoch + 1}")
            return


def loaded(path: Path, features: Callable) -> dict[str, Any]:
    """The data on the accelerator, with the features of the validation images."""
    with np.load(path) as arrays:
        data: dict[str, Any] = {name: jnp.asarray(array) for name, array in arrays.items()}
    extract, parts = jax.jit(features), range(0, len(data["validation_inputs"]), 1_000)
    data["features"] = np.concatenate([extract(data["validation_inputs"][at : at + 1_000])[0] for at in parts])
    return data


def with_noise(data: dict[str, Any], trainer: Trainer) -> dict[str, Any]:
    """The data with the noise of the validation, and the labels or codes that the network takes."""
    for_noise, for_codes = jax.random.split(jax.random.key(1))
    count = len(data["validation_inputs"])
    data = {**data, "noise": jax.random.normal(for_noise, (count, trainer.latents))}
    if trainer.is_conditional:
        return data
    codes = trainer.codes(for_codes, count) if trainer.categories else None
    return {**data, "train_labels": None, "validation_labels": codes}


def result(trainer: Trainer, kept: dict, half: bool) -> dict[str, np.ndarray]:
    """The weights by their keys; kernels as float16 with `half`."""
    for network, trained, other in zip(trainer.networks, kept["trained"], kept["other"], strict=True):
        for variables, values in ((network.trainable_variables, trained), (network.non_trainable_variables, other)):
            for variable, value in zip(variables, values, strict=True):
                variable.assign(value)
    named = {key: np.asarray(variable.value, np.float32) for key, variable in named_weights(trainer.model).items()}
    return {key: array.astype(np.float16) if half and array.ndim > 1 else array for key, array in named.items()}


class Jobs:
    """Runs jobs one after another; trainers and results are kept from one to the next."""

    def __init__(self, data: Path, out: Path, seconds: float) -> None:
        self.data, self.out, self.seconds = data, out, seconds
        self.features = feature_function(data.with_name("features.npz"))
        self.loaded: dict[Path, dict[str, Any]] = {}
        self.trainers: dict[str, Trainer] = {}
        self.ranks: dict[str, tuple[float, float]] = {}

    def trainer(self, spec: Any, recipe: Any) -> Trainer:
        plain = dataclasses.asdict(recipe)
        plain["options"] = {key: value for key, value in plain["options"].items() if key not in NUMBERS}
        plain["options"] |= {"has_r1": recipe.options.r1 > 0, "discriminator_rate": 0}
        for key in ("epochs", "learning_rate", "schedule", "patience", "targets", "deviations"):
            del plain[key]
        signature = json.dumps([spec.name, plain])
        if signature not in self.trainers:
            self.trainers[signature] = Trainer(spec, recipe, self.features)
        return self.trainers[signature]

    def run(self, job: dict[str, Any]) -> None:
        spec = zoo.get_spec(job["name"])
        recipe = tasks.with_options(spec.recipe(job.get("recipe")), tasks.get_task(spec.task), spec.task)
        recipe = recipe.replace(**job.get("set", {}))
        trainer = self.trainer(spec, recipe)
        path = self.data.with_name(job.get("data", self.data.name))
        if path not in self.loaded:
            self.loaded[path] = loaded(path, self.features)
        data = with_noise(self.loaded[path], trainer)
        state = trainer.initial(recipe, job.get("seed", 0))
        rows: list[dict[str, Any]] = []
        best, best_epoch = None, 0
        for row, kept in epochs(trainer, recipe, state, data, job, self.seconds):
            rows.append(row)
            if all(row["val_frechet_distance"] < one["val_frechet_distance"] for one in rows[:-1]):
                best, best_epoch = kept, len(rows)
            if len(rows) % max(recipe.epochs // 10, 1) == 0 or len(rows) == 1:
                say(job["tag"], *(f"{key} {value:.5g}" for key, value in row.items()))
            if recipe.patience is not None and len(rows) - best_epoch >= recipe.patience:
                break
        if best is None:
            return
        measured, labels = trainer.measured(best, jax.random.key(3)), data["validation_labels"]
        numbers = {name: jnp.float32(0) for name in NUMBERS}
        *_, features, digits = trainer.validate(measured, data["validation_inputs"], labels, data["noise"], numbers)
        scores = scores_of(trainer, data["features"], features, digits, labels)
        spent = sum(row["seconds"] for row in rows)
        say(job["tag"], f"seed {job.get('seed', 0)} set {json.dumps(job.get('set', {}))}: best epoch {best_epoch} of",
            f"{len(rows)}, {spent:.0f} s,", *(f"{key} {value:.4f}" for key, value in scores.items()))  # fmt: skip
        if rank(scores) <= self.ranks.get(job["tag"], (-1.0, 0.0)):
            return
        self.ranks[job["tag"]] = rank(scores)
        record = {
            "job": job,
            "recipe": dataclasses.asdict(recipe),
            "rows": rows,
            "best_epoch": best_epoch,
            "scores": scores,
            "device": jax.devices()[0].device_kind,
            "versions": {"keras": keras.__version__, "jax": jax.__version__, "numpy": np.__version__},
        }
        arrays = result(trainer, best, job.get("half", False))
        np.savez_compressed(self.out / f"{job['tag']}.npz", record=np.array(json.dumps(record)), **arrays)


def main() -> None:
    data, out, seconds, jobs = sys.argv[1:]
    Path(out).mkdir(parents=True, exist_ok=True)
    runner = Jobs(Path(data), Path(out), float(seconds))
    for job in json.loads(jobs):
        if time.monotonic() - STARTED > runner.seconds:
            say(job["tag"], "not begun: time is up")
            continue
        try:
            runner.run(job)
        except Exception as error:  # the next job may be sound
            say(job["tag"], f"failed: {type(error).__name__}: {str(error)[:500]}")


if __name__ == "__main__":
    main()
