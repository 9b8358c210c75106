"""The contract that every registered model keeps, for the tests of other packages too:

@pytest.mark.parametrize("name", ["my_model"])
def test_my_model(name, tmp_path):
    zoo.testing.check_spec(name)
    zoo.testing.check_workflow(name, tmp_path)
"""

from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import zoo
from zoo import tasks
from zoo.data import Dataset, Split
from zoo.training.normalization import flat_layers
from zoo.training.randomness import seeded
from zoo.weights import named_weights

WORDS = {"bad": "dull gray poor weak flat", "good": "bright warm rich fine sharp"}


def check_spec(name: str) -> keras.Model:
    """Check a spec against the network that its builder builds: parameters, head, features, stages, scores, recipes;
    and that every trainable variable gets a gradient.

    Returns:
        The network with initial weights.
    """
    spec = zoo.get_spec(name)
    model = spec.build()
    layers = [layer.name for layer in flat_layers(model)]
    trainable = sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)
    assert trainable == spec.params, f"{name} declares {spec.params} parameters and has {trainable}"
    assert bool(spec.recipes) != spec.ensemble, f"{name} is an ensemble or has a recipe, not both"
    assert spec.references, f"{name} names no reference"
    for pattern in spec.head + tuple(p for stage in spec.stages for p in stage.layers):
        assert fnmatch.filter(layers, pattern), f"{name}: no layer is called {pattern}"
    for feature in spec.features:
        assert feature in [*layers, *(layer.name for layer in model.layers)], f"{name}: no layer is called {feature}"
    if not spec.ensemble:
        assert spec.stages[-1].layers == ("*",), f"{name}: the last stage of fine-tuning trains all layers"
        kind = tasks.get_task(spec.task)
        for recipe in spec.recipes.values():
            tasks.with_options(recipe, kind, spec.task)  # raises for another task's options
        for score in spec.reported:
            assert score.recipe in spec.recipes, f"{name}: {score.reference} names the unknown recipe {score.recipe}"
        check_gradients(name)
    named_weights(model)  # raises where two weights share a key
    rebuilt = type(model).from_config(model.get_config())
    assert [v.shape for v in rebuilt.weights] == [v.shape for v in model.weights], f"{name} does not survive its config"
    return model


@seeded(0, deterministic=False)  # a saturated start, one in 400 of `mlp_784_10`, has no gradient in float32
def check_gradients(name: str) -> None:
    """Check that one training step by the first recipe changes every trainable variable of the network, by a finite
    amount.

    Args:
        name: a model that is not an ensemble.
    """
    spec = zoo.get_spec(name)
    data = example_data(spec.task)
    recipe = tasks.with_options(spec.recipe(), tasks.get_task(spec.task), spec.task)
    recipe = recipe.replace(precision="float32", weight_decay=0.0, ema=None, batch_size=4)
    task = tasks.get_task(spec.task).from_data(spec, data, **recipe.arguments)
    model = task.build()
    for initial in [variable for variable in model.trainable_variables if not np.any(variable.numpy())]:
        # a head that starts at zero passes nothing back: any network is judged away from such a point
        initial.assign(np.random.default_rng(0).normal(0, 0.05, initial.shape))
    before = {key: variable.numpy() for key, variable in named_weights(model).items() if variable.trainable}
    trainer = task.compile(model, recipe, lambda: keras.optimizers.SGD(1.0, clipnorm=1.0))
    examples = task.examples(data.splits["train"], recipe.options)
    trainer.train_on_batch(*task.network_batch(*(tf.constant(array[:4]) for array in examples)))
    for key, variable in named_weights(model).items():
        if variable.trainable:
            after = variable.numpy()
            assert np.isfinite(after).all(), f"{name}: the gradient of {key} is not finite"
            assert not np.array_equal(after, before[key]), f"{name}: {key} gets no gradient"


def check_workflow(name: str, directory: Path, *, epochs: int = 1, **arguments: Any) -> Path:
    """Check the whole workflow: train on a few examples, export (which verifies), load, predict, and fine-tune on other
    classes.

    Args:
        arguments: builder arguments that make a large network small for the test.

    Returns:
        The exported directory.
    """
    spec = zoo.get_spec(name)
    data = example_data(spec.task)
    run = zoo.train(name, data, out=directory / "run", epochs=epochs, batch_size=8, arguments=arguments)
    path = zoo.export(run, directory / f"{name}.example")
    predictor = zoo.load(path)
    for key, variable in named_weights(run.model).items():
        np.testing.assert_array_equal(named_weights(predictor.model)[key].numpy(), variable.numpy(), err_msg=key)
    golden = run.task.golden_inputs(3)["serving_default"]
    outputs = predictor(*golden.values())
    for key, value in zoo.load(run)(*golden.values()).items():
        np.testing.assert_array_equal(outputs[key], value, err_msg=key)
    if "probabilities" in outputs and not run.task.overlapping:
        np.testing.assert_allclose(outputs["probabilities"].sum(-1), 1.0, atol=1e-5)

    tuned = zoo.fine_tune(
        path, example_data(spec.task, classes=3), out=directory / "tuned", epochs=epochs, batch_size=8
    )
    zoo.export(tuned, directory / f"{name}.tuned")
    assert len(tuned.history) == epochs * len(spec.stages)
    return path


def example_data(task: str, classes: int = 2, count: int = 24) -> Dataset:
    """A few examples that the task can learn: images of bars, masks of them, texts from word lists, a repeated text."""
    random = np.random.default_rng(classes)
    labels = np.arange(count, dtype=np.int64) % classes
    images = random.integers(0, 60, (count, 12, 12, 1), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[3 * label : 3 * label + 3] += 150
    names = tuple(f"class{number}" for number in range(classes))
    if task == "segmentation":
        bars = np.maximum(labels, 1) if classes > 2 else np.ones_like(labels)
        return _dataset("bars", images, (images[..., 0] > 100) * bars[:, None, None], names)
    if task == "multilabel_segmentation":
        bars = images > 100
        masks = np.concatenate([bars, np.broadcast_to(np.arange(12) < 6, bars[..., 0].shape)[..., None]], axis=-1)
        masks = np.concatenate([masks, ~bars], axis=-1)[..., :classes]
        return _dataset("bars", images, masks.astype(np.uint8), names)
    if task == "text_classification":
        vocabularies = [words.split() for words in [*WORDS.values(), "odd strange quaint weird rum"]]
        texts = [" ".join(random.choice(vocabularies[label], 5)) for label in labels]
        return _dataset("words", np.array(texts, dtype=object), labels, names)
    if task == "language_model":
        text = np.array(["the quick brown fox jumps over the lazy dog. " * 100], dtype=object)
        return _dataset("fox", text, None, (), repeat=True)
    return _dataset("bars", images, labels, names)


def _dataset(
    name: str, inputs: np.ndarray, targets: np.ndarray | None, classes: tuple, repeat: bool = False
) -> Dataset:
    thirds = [slice(None)] * 3 if repeat else [slice(0, 16), slice(16, 20), slice(20, None)]
    splits = {
        split: Split(inputs[part], None if targets is None else targets[part])
        for split, part in zip(("train", "validation", "test"), thirds, strict=True)
    }
    return Dataset(name, splits, classes, fingerprint=f"example {name} {len(classes)}")
