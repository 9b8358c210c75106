"""A small convolutional network for photographs of cats and dogs.

Commands, with the time that Keras' JAX backend took on one H100 GPU and the test accuracy of the published weights:

    zoo train catdog_cnn --data cats_dogs                      # 22 seconds, 0.6267
    zoo train catdog_cnn --data cats_dogs --recipe augmented   # 22 seconds, 0.7400

Ankit Sachan, "Tensorflow Tutorial 2: image classifier using convolutional neural network" (cv-tricks.com, 2017), with
its programs `train.py` and `dataset.py`.
"""

from __future__ import annotations

from dataclasses import replace

from etils import epy

from zoo.recipe import Affine, Augmentation, ColorJitter, FlipCrop, Recipe
from zoo.registry import register
from zoo.spec import ModelSpec, Preprocessing, Stage

with epy.lazy_imports():
    import keras
    from keras import layers

TUTORIAL = "Sachan 2017, Tensorflow Tutorial 2: image classifier using convolutional neural network, cv-tricks.com"

PAPER = Recipe(
    epochs=60,
    batch_size=32,
    learning_rate=1e-4,
    optimizer="adam",
    deviations=("60 epochs, of which the best on validation is kept; the tutorial stops by hand",),
)
AUGMENTED = replace(
    PAPER,
    epochs=120,
    augmentation=Augmentation(
        affine=Affine(rotation=15.0, translation=0.1, scale=0.15),
        flip_crop=FlipCrop(pad=0),
        color_jitter=ColorJitter(contrast=0.2, brightness=0.3),
        fill="reflect",
    ),
    deviations=("distorted photographs, twice as many epochs",),
)


@register(
    ModelSpec(
        name="catdog_cnn",
        task="classification",
        summary="conv 32, conv 32, conv 64, each with max-pooling and ReLU, hidden 128, softmax",
        year=2017,
        references=(TUTORIAL,),
        input_shape=(128, 128, 3),
        classes=2,
        # conv1 3*3*3*32 + 32; conv2 3*3*32*32 + 32; conv3 3*3*32*64 + 64; hidden 16*16*64*128 + 128; output 128*2 + 2
        params=896 + 9_248 + 18_496 + 2_097_280 + 258,
        head=("output",),
        features=("relu1", "relu2", "relu3", "hidden"),
        preprocessing=Preprocessing(size=(128, 128)),
        recipes={"paper": PAPER, "augmented": AUGMENTED},
        stages=(Stage("head", ("output",), 1e-3, 5), Stage("all", ("*",), 1e-4, 15)),
    )
)
def catdog_cnn(input_shape: tuple, classes: int) -> keras.Model:
    """Images [B, H, W, C] in 0..1 to logits [B, classes]."""
    # weights from a truncated normal of standard deviation 0.05, biases of 0.05 (the tutorial's create_weights)
    initial = {
        "kernel_initializer": keras.initializers.TruncatedNormal(stddev=0.05),
        "bias_initializer": keras.initializers.Constant(0.05),
    }
    inputs = keras.Input(input_shape, name="images")
    x = inputs
    for number, filters in enumerate((32, 32, 64), start=1):
        x = layers.Conv2D(filters, 3, padding="same", name=f"conv{number}", **initial)(x)
        x = layers.MaxPooling2D(2, padding="same", name=f"pool{number}")(x)
        x = layers.Activation("relu", name=f"relu{number}")(x)
    x = layers.Flatten(name="flatten")(x)
    x = layers.Dense(128, activation="relu", name="hidden", **initial)(x)
    outputs = layers.Dense(classes, name="output", **initial)(x)
    return keras.Model(inputs, outputs, name="catdog_cnn")
