"""Digits from ten labels a class: train ssgan where only JAX has an accelerator, several networks at a time.

    python benchmarks/jax_few_labels.py DATA OUT SECONDS JOBS

It needs Keras with JAX, no TensorFlow. The networks' weights are those that the registry builds, the step is that of
`zoo.tasks.feature_matching`: the same losses, optimizer and moving average; only the random numbers differ. All jobs
train side by side in one compiled scan over an epoch. The labels are those that `labels_seed` draws in any training.

DATA is a file of `jax_training.py pack` for a network that takes all labels, such as `dcgan_conditional`. JOBS is a
JSON list of objects, which agree in their epochs, with the keys

    name     "ssgan", the default
    tag      name of the result
    recipe   name of its recipe, its first one by default
    seed     of the initial weights and of the order of the images, 0 by default
    set      recipe keys to change, such as {"labels_seed": 1, "ema_power": 0.7}
    half     whether kernels are written as float16; true by default

TAG.npz holds the weights of the best epoch under the keys of `zoo.weights.named_weights` and the JSON text `record`.
Training stops before SECONDS are over, counted from the
start of the program; what is written every tenth of the epochs is then as good as it got.
"""
# ruff: noqa: E402 - the time limit counts the imports

from __future__ import annotations

import dataclasses
import functools
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

STARTED = time.monotonic()
os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp
import keras
import numpy as np

import zoo
from zoo import tasks
from zoo.data import Dataset, Split
from zoo.recipe import Recipe
from zoo.weights import named_weights

Weights = dict[str, jax.Array]
DECAY = 0.999  # Keras' beta_2 of Adam
MOMENTUM, EPSILON = 0.99, 1e-3  # Keras' of batch normalization
PARTS = ("labeled", "unlabeled", "generated", "matched", "wanted")  # batches that the discriminator sees in a step


def dense(weights: Weights, name: str, x: jax.Array) -> jax.Array:
    """`zoo.layers.WeightNormalizedDense` of the sub-model and layer `name`."""
    kernel = weights[f"{name}/kernel"]
    lengths = jnp.sqrt(jnp.sum(kernel**2, 0) + 1e-12)
    return x @ (kernel * (weights[f"{name}/scale"] / lengths)) + weights[f"{name}/bias"]


def layer_names(weights: Weights) -> list[str]:
    """The discriminator's layers with weights, in order."""
    return [key.rsplit("/", 1)[0] for key in weights if key.startswith("discriminator") and key.endswith("/kernel")]


def judged(weights: Weights, images: jax.Array, noise: list[jax.Array] | None) -> tuple[jax.Array, jax.Array]:
    """The discriminator's logits [B, K] and last features [B, F] of images [B, D], with the noise before each layer."""
    x = features = images
    for number, name in enumerate(layer_names(weights)):
        x = dense(weights, name, x if noise is None else x + noise[number])
        if not name.endswith("output"):
            x = features = jax.nn.relu(x)
    return x, features


def generated(weights: Weights, latents: jax.Array) -> tuple[jax.Array, Weights]:
    """Images [B, D] of standard normal latents [B, Z], and the moving moments after them."""
    x, moments = (jax.lax.erf(latents / np.sqrt(2)) + 1) / 2, {}
    for number in (1, 2):
        norm = f"generator/norm{number}"
        x = x @ weights[f"generator/dense{number}/kernel"]
        for key, value in (("mean", x.mean(0)), ("variance", x.var(0))):
            moments[f"{norm}/moving_{key}"] = MOMENTUM * weights[f"{norm}/moving_{key}"] + (1 - MOMENTUM) * value
        x = (x - x.mean(0)) * jax.lax.rsqrt(x.var(0) + EPSILON)
        x = jax.nn.softplus(x * weights[f"{norm}/gamma"] + weights[f"{norm}/beta"])
    return jax.nn.sigmoid(dense(weights, "generator/pixels", x)), jax.lax.stop_gradient(moments)


def initialize(weights: Weights, images: jax.Array, noise: list[jax.Array]) -> Weights:
    """Scales and biases of the discriminator by a batch, as `zoo.tasks.feature_matching.initialize` sets them."""
    x, weights = images, dict(weights)
    for number, name in enumerate(layer_names(weights)):
        x = x + noise[number]
        scale, bias = f"{name}/scale", f"{name}/bias"
        weights |= {scale: jnp.ones_like(weights[scale]), bias: jnp.zeros_like(weights[bias])}
        outputs = dense(weights, name, x)
        deviation = outputs.std(0) + 1e-8
        weights |= {scale: 1 / deviation, bias: -outputs.mean(0) / deviation}
        x = jax.nn.relu(dense(weights, name, x))
    return weights


def adam(state: dict, gradients: Weights, job: Mapping[str, jax.Array]) -> dict:
    """Keras' Adam for the weights that have a gradient; returns the changed part of the state."""
    step = state["step"] + 1.0
    rate = job["rate"] * jnp.sqrt(1 - DECAY**step) / (1 - job["beta_1"] ** step)
    changed: dict = {"weights": dict(state["weights"]), "first": dict(state["first"]), "second": dict(state["second"])}
    for key, gradient in gradients.items():
        first = state["first"][key] + (gradient - state["first"][key]) * (1 - job["beta_1"])
        second = state["second"][key] + (gradient**2 - state["second"][key]) * (1 - DECAY)
        changed["weights"][key] = state["weights"][key] - rate * first / (jnp.sqrt(second) + job["epsilon"])
        changed["first"][key], changed["second"][key] = first, second
    return changed


def train_step(state: dict, batch: dict, noise: dict, job: Mapping[str, jax.Array]) -> tuple[dict, dict]:
    """One step of one network, and its measures.

    Args:
        batch: `unlabeled` and `labeled` images [B, D], and the classes `targets` [B] of the last.
        noise: two `latents` [B, Z]; by the names of `PARTS`, what is added before each layer.
    """
    state = dict(state)
    fake, moments = generated(state["weights"], noise["latents"][0])
    state["weights"] = state["weights"] | moments
    trained = state["average"].keys()  # of the discriminator
    own, others = ({k: state["weights"][k] for k in keys} for keys in (trained, state["first"].keys() - trained))

    def discriminator_loss(own: Weights) -> tuple[jax.Array, jax.Array]:
        images = jnp.concatenate([batch["labeled"], batch["unlabeled"], fake])
        added = [jnp.concatenate(each) for each in zip(*(noise[key] for key in PARTS[:3]), strict=True)]
        logits, real, false = jnp.split(judged(state["weights"] | own, images, added)[0], 3)
        likely = jnp.take_along_axis(jax.nn.log_softmax(logits), batch["targets"][:, None], 1)
        real, false = (jax.nn.logsumexp(one, -1) for one in (real, false))
        loss = -likely.mean() + 0.5 * jax.nn.softplus(-real).mean() + 0.5 * jax.nn.softplus(false).mean()
        return loss, (logits.argmax(-1) == batch["targets"]).mean()

    (loss, accuracy), gradients = jax.value_and_grad(discriminator_loss, has_aux=True)(own)
    state |= adam(state, gradients, job)
    momentum = jnp.where(state["step"] > 0, jnp.minimum(job["ema"], 1 - (1.0 + state["step"]) ** -job["power"]), 0.0)
    average = {k: momentum * value + (1 - momentum) * state["weights"][k] for k, value in state["average"].items()}

    def generator_loss(others: Weights) -> tuple[jax.Array, Weights]:
        fake, moments = generated(state["weights"] | others, noise["latents"][1])
        matched = judged(state["weights"], fake, noise["matched"])[1]
        wanted = judged(state["weights"], batch["unlabeled"], noise["wanted"])[1]
        return jnp.mean((matched.mean(0) - wanted.mean(0)) ** 2), moments

    (matching, moments), gradients = jax.value_and_grad(generator_loss, has_aux=True)(others)
    state |= adam(state, gradients, job)
    state |= {"weights": state["weights"] | moments, "average": average, "step": state["step"] + 1}
    return state, {"loss": loss, "generator_loss": matching, "accuracy": accuracy}


def draw(key: jax.Array, count: int, latents: int, widths: list[int]) -> dict:
    """The random numbers of a step of `count` networks, see `train_step`."""
    keys = jax.random.split(key, len(widths) + 1)
    noise: dict = {name: [] for name in PARTS}
    for number, width in enumerate(widths):
        deviation = 0.5 if number else 0.3
        drawn = deviation * jax.random.normal(keys[number], (len(PARTS), count, 100, width))
        for name, part in zip(PARTS, drawn, strict=True):
            noise[name].append(part)
    return noise | {"latents": jax.random.normal(keys[-1], (count, 2, 100, latents))}


@functools.partial(jax.jit, donate_argnums=0)
def train_epoch(states: dict, key: jax.Array, jobs: dict, images: jax.Array) -> tuple[dict, dict]:
    """An epoch of all networks [J, ...] on images uint8 [N, D] without a label; returns the means of the measures."""
    keys = jax.vmap(lambda seed: jax.random.fold_in(key, seed))(jobs["seed"])
    steps, count = len(images) // 100, len(jobs["seed"])
    orders = jax.vmap(lambda one: jax.random.permutation(one, len(images))[: steps * 100])(keys)
    orders = orders.reshape(count, steps, 100).transpose(1, 0, 2)
    latents = states["weights"]["generator/dense1/kernel"].shape[1]
    widths = [states["weights"][f"{name}/kernel"].shape[1] for name in layer_names(states["weights"])]
    noisy = jax.random.wrap_key_data(jnp.resize(jax.random.key_data(key), 4), impl="rbg")  # the fastest to draw

    def batch_of(rows: jax.Array, job: dict) -> dict:
        own = rows % 100
        labeled = {"labeled": job["labeled"][own] / 255.0, "targets": job["targets"][own]}
        return {"unlabeled": images[rows] / 255.0, **labeled}

    def step(states: dict, inputs: tuple) -> tuple[dict, dict]:
        number, rows = inputs
        noise = draw(jax.random.fold_in(noisy, number), count, latents, widths)
        return jax.vmap(train_step)(states, jax.vmap(batch_of)(rows, jobs), noise, jobs)

    states, measures = jax.lax.scan(step, states, (jnp.arange(steps), orders))
    return states, {name: one.mean(0) for name, one in measures.items()}


@functools.partial(jax.jit, donate_argnums=1)
def validate(states: dict, best: dict, images: jax.Array, labels: jax.Array) -> tuple[dict, dict]:
    """The scores of the averaged weights, and the best epoch's weights and accuracy up to now."""

    def one(state: dict, best: dict) -> tuple[dict, dict]:
        weights = state["weights"] | state["average"]
        logits = judged(weights, images / 255.0, None)[0]
        loss = -jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], 1).mean()
        now = {"weights": weights, "accuracy": (logits.argmax(-1) == labels).mean()}
        best = jax.tree.map(lambda new, old: jnp.where(now["accuracy"] > best["accuracy"], new, old), now, best)
        return {"val_loss": loss, "val_accuracy": now["accuracy"]}, best

    return jax.vmap(one)(states, best)


def begin(job: Mapping[str, Any], data: Dataset) -> tuple[Recipe, dict, dict]:
    """The recipe of a job, its first state, and what its step needs."""
    spec = zoo.get_spec(job["name"])
    task = tasks.get_task(spec.task)
    recipe = tasks.with_options(spec.recipe(job.get("recipe")), task, spec.task).replace(**job.get("set", {}))
    adam_only = recipe.optimizer == "adam" and recipe.ema and set(recipe.optimizer_arguments) <= {"beta_1", "epsilon"}
    if recipe.batch_size != 100 or not adam_only or recipe.options.labels_per_class != 10:
        raise ValueError("only batches of 100, Adam with an average, and ten labels a class are implemented")
    seed = job.get("seed", 0)
    keras.utils.set_random_seed(seed)
    model = spec.build()
    weights = {key: jnp.array(variable.value) for key, variable in named_weights(model).items()}
    trained = {key: weights[key] for key, variable in named_weights(model).items() if variable.trainable}
    train = data.with_labels(10, recipe.options.labels_seed).splits["train"]
    few = train.labeled()
    start = train.inputs[np.random.default_rng(seed).permutation(len(train))[:100]]
    widths = [weights[f"{name}/kernel"].shape[0] for name in layer_names(weights)]
    noise = [
        (0.5 if number else 0.3) * jax.random.normal(jax.random.key(seed * 10 + number), (len(start), width))
        for number, width in enumerate(widths)
    ]
    weights = initialize(weights, start.reshape(len(start), -1) / 255.0, noise)
    state = {
        "weights": weights,
        "average": {key: weights[key] for key in trained if key.startswith("discriminator")},
        **{moment: {key: jnp.zeros_like(one) for key, one in trained.items()} for moment in ("first", "second")},
        "step": jnp.zeros((), jnp.int32),
    }
    numbers = {"beta_1": 0.9, "epsilon": 1e-7, **recipe.optimizer_arguments, "ema": recipe.ema, "rate": 0.0}
    numbers |= {"power": recipe.ema_power}
    constants = {name: jnp.float32(value) for name, value in numbers.items()} | {"seed": jnp.int32(seed)}
    constants |= {"labeled": jnp.array(few.inputs.reshape(100, -1)), "targets": jnp.array(few.targets, jnp.int32)}
    return recipe, state, constants


def write(folder: Path, jobs: list[dict], recipes: list[Recipe], rows: list[list[dict]], weights: dict) -> None:
    """The weights, and how each network was trained."""
    for number, (job, recipe) in enumerate(zip(jobs, recipes, strict=True)):
        scores = [row["val_accuracy"] for row in rows[number]]
        record = {
            "job": job,
            "recipe": dataclasses.asdict(recipe),
            "rows": rows[number],
            "best_epoch": int(np.argmax(scores)) + 1,
            "device": jax.devices()[0].device_kind,
            "versions": {module.__name__: module.__version__ for module in (keras, jax, np)},
        }
        arrays = {key: np.asarray(one[number]) for key, one in weights.items()}
        if job.get("half", True):
            arrays = {key: one.astype(np.float16) if one.ndim == 2 else one for key, one in arrays.items()}
        np.savez(folder / "partial.npz", record=np.array(json.dumps(record)), **arrays)
        (folder / "partial.npz").replace(folder / f"{job['tag']}.npz")


def main() -> None:
    folder, seconds = Path(sys.argv[2]), float(sys.argv[3])
    jobs = [{"name": "ssgan", **job} for job in json.loads(sys.argv[4])]
    folder.mkdir(parents=True, exist_ok=True)
    with np.load(sys.argv[1]) as arrays:
        parts = {
            name: Split(arrays[f"{name}_inputs"], arrays[f"{name}_labels"].astype(np.int64))
            for name in ("train", "validation")
        }
    data = Dataset("mnist", parts, tuple(map(str, range(10))), whole=True)
    recipes, states, constants = zip(*(begin(job, data) for job in jobs), strict=True)
    states, constants = (jax.tree.map(lambda *ones: jnp.stack(ones), *each) for each in (states, constants))
    images, held_out = (jnp.array(part.inputs.reshape(len(part), -1)) for part in parts.values())
    labels = jnp.array(parts["validation"].targets, jnp.int32)
    best = {"weights": jax.tree.map(jnp.copy, states["weights"]), "accuracy": -jnp.ones(len(jobs))}
    rows: list[list[dict]] = [[] for _ in jobs]
    key, epochs, begun = jax.random.key(0), recipes[0].epochs, time.monotonic()
    for epoch in range(epochs):
        rates = [recipe.learning_rate * recipe.schedule.factor(epoch, epochs) for recipe in recipes]
        constants["rate"] = jnp.array(rates, jnp.float32)
        states, measures = train_epoch(states, jax.random.fold_in(key, epoch), constants, images)
        scores, best = validate(states, best, held_out, labels)
        measured = {name: np.asarray(one) for name, one in (measures | scores).items()}
        took, begun = time.monotonic() - begun, time.monotonic()
        for number, own in enumerate(rows):
            row = {"epoch": epoch + 1, "seconds": round(took, 2), "learning_rate": rates[number]}
            own.append(row | {name: float(one[number]) for name, one in measured.items()})
        over = begun - STARTED + 2 * took + 8 > seconds and epoch > 0
        if epoch < 2 or (epoch + 1) % max(epochs // 10, 1) == 0 or epoch + 1 == epochs or over:
            for job, own in zip(jobs, rows, strict=True):
                text = "  ".join(f"{name} {value:.4g}" for name, value in own[-1].items())
                top = max(row["val_accuracy"] for row in own)
                print(f"[{job['tag']} {begun - STARTED:.0f}s] {text}  best {top:.4f}", flush=True)
            write(folder, jobs, list(recipes), rows, best["weights"])
        if over:
            print(f"stopped after epoch {epoch + 1}: {seconds:.0f} s are nearly over", flush=True)
            break


if __name__ == "__main__":
    main()
