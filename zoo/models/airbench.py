"""Two plain networks that learn CIFAR-10 in a few epochs.

Commands, with the time that Keras' JAX backend took on one H100 GPU and the test accuracy of the published weights:

    zoo train airbench93 --data cifar10   # 23 seconds, 0.8821 (mean of 3 runs 0.8827)
    zoo train airbench94 --data cifar10   # 27 seconds, 0.8979 (mean of 3 runs 0.8955)

Keller Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (arXiv 2404.00498, 2024), with its programs
`airbench94.py` and `lib_airbench93.py`. Both networks are convolution, pooling, batch normalization and GELU without
residuals; their first layer whitens patches of 2 x 2 pixels and is computed from the training images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from etils import epy

from zoo.options import ClassificationOptions
from zoo.recipe import Augmentation, FlipCrop, Lookahead, Recipe, Schedule
from zoo.registry import register
from zoo.spec import ModelSpec, Preprocessing, ReportedScore, Stage

with epy.lazy_imports():
    import keras
    import numpy as np
    from keras import layers

    from zoo import layers as zoo_layers

if TYPE_CHECKING:
    import numpy.typing as npt

PAPER = "Jordan 2024, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, arXiv 2404.00498"
PROGRAM = "https://github.com/KellerJordan/cifar10-airbench"

# The program states the learning rate 11.5 and the weight decay 0.0153 for 1,024 examples, apart from the momentum m:
# its SGD takes both divided by 1 + 1 / (1 - m) = 7.667, on the loss summed over the batch. On the mean loss the rate is
# 11.5 / 7.667 = 1.5. The decay adds 0.0153 / 7.667 / 1.5 times the weight to its gradient, which Nesterov momentum
# multiplies by 1 / (1 - m); here it is subtracted apart from the momentum.
MOMENTUM = 0.85
RATE = 11.5 / (1 + 1 / (1 - MOMENTUM))
DECAY = 0.0153 / 11.5 / (1 - MOMENTUM)

PAPER_RECIPE = Recipe(
    epochs=16,
    batch_size=1024,
    learning_rate=RATE,
    optimizer_arguments={"momentum": MOMENTUM, "nesterov": True},
    schedule=Schedule("triangle", first=0.2, peak=0.23, last=0.07),
    weight_decay=DECAY,
    lookahead=Lookahead(),
    rate_factors={"beta": 64.0},
    augmentation=Augmentation(flip_crop=FlipCrop(pad=2, alternating=True), fill="reflect"),
    options=ClassificationOptions(label_smoothing=0.2),
    deviations=(
        "16 epochs of the training split, not 11 (airbench93) and 9.9 (airbench94) of all 50,000 images",
        "reflected edges repeat the edge pixel",
        "the bias of the first layer is trained in all epochs, not in the first three alone",
        "biases of batch normalization do not decay",
        "the slow weights leave out the statistics of batch normalization, which are measured after training",
        "float32",
    ),
)


def whiten(model: keras.Model, images: npt.NDArray[np.float32]) -> None:
    """Set the first layer's kernel to the eigenvectors of the patches' covariance, divided by the square root of their
    eigenvalues, and to the negative of them (section 3.2; the constant is that of the program).

    Args:
        images: network inputs [N, H, W, 3].
    """
    layer = model.get_layer("whiten")
    size, _, channels, _ = layer.kernel.shape
    count, products = 0, np.zeros((size * size * channels,) * 2)
    for first in range(0, len(images), 256):  # the patches of a part at a time: each pixel is in four of them
        part = images[first : first + 256]
        windows = np.lib.stride_tricks.sliding_window_view(part, (size, size), axis=(1, 2))  # [N, H', W', C, k, k]
        patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, size * size * channels).astype(np.float64)
        products, count = products + patches.T @ patches, count + len(patches)
    values, vectors = np.linalg.eigh(products / count)
    whitening = (vectors / np.sqrt(values + 5e-4))[:, ::-1].reshape(size, size, channels, -1)
    layer.kernel.assign(np.concatenate([whitening, -whitening], axis=-1))


def _airbench(name: str, widths: tuple[int, int, int], *, params: int, reported: float, reference: str) -> ModelSpec:
    """The spec of a variant.

    Trainable parameters: 24 biases of the whitening layer; for each group from c to w channels the kernels 9cw and 9ww
    and the biases 2w of batch normalization, which has no scale; the head without bias 10w.
    """
    return ModelSpec(
        name=name,
        task="classification",
        summary=f"whitening, three groups of two convolutions of {widths[0]}, {widths[1]}, {widths[2]}, softmax; GELU",
        year=2024,
        references=(PAPER, f"{PROGRAM}, {reference}"),
        input_shape=(32, 32, 3),
        classes=10,
        params=params,
        head=("output",),
        features=("group1", "group2", "group3", "flatten"),
        # means and standard deviations of CIFAR-10, 0.4914 to 0.2616 in the program, times 255
        preprocessing=Preprocessing(size=(32, 32), mean=(125.307, 122.961, 113.8575), std=(62.985, 62.0925, 66.708)),
        recipes={"paper": PAPER_RECIPE},
        reported=(ReportedScore("cifar10", "accuracy", reported, f"{PROGRAM}, {reference}, averaged over six views"),),
        stages=(Stage("head", ("output",), 0.1, 5, batch_size=64), Stage("all", ("*",), 0.01, 15, batch_size=64)),
        arguments={"widths": widths},
        prepare=whiten,
    )


@register(
    _airbench(
        "airbench93",
        (64, 128, 128),
        # 24 + (24*64 + 64*64) * 9 + 128 + (64*128 + 128*128) * 9 + 256 + (128*128 + 128*128) * 9 + 256 + 1280
        params=24 + 50_688 + 128 + 221_184 + 256 + 294_912 + 256 + 1_280,
        reported=0.93,
        reference="airbench/lib_airbench93.py",
    ),
    _airbench(
        "airbench94",
        (64, 256, 256),
        # 24 + (24*64 + 64*64) * 9 + 128 + (64*256 + 256*256) * 9 + 512 + (256*256 + 256*256) * 9 + 512 + 2560
        params=24 + 50_688 + 128 + 737_280 + 512 + 1_179_648 + 512 + 2_560,
        reported=0.9401,
        reference="legacy/airbench94.py",
    ),
)
def airbench(input_shape: tuple, classes: int, widths: tuple[int, int, int]) -> keras.Model:
    """Images [B, H, W, C], normalized, to logits [B, classes]; H and W are at least 25 pixels."""
    inputs = keras.Input(input_shape, name="images")
    x = zoo_layers.FixedKernelConv2D(2 * 4 * input_shape[-1], 2, name="whiten")(inputs)
    x = zoo_layers.Gelu(name="whiten_gelu")(x)
    for number, width in enumerate(widths, start=1):
        x = _conv(width, f"conv{number}a")(x)
        x = layers.MaxPooling2D(2, name=f"pool{number}")(x)
        x = _normalization(f"norm{number}a")(x)
        x = zoo_layers.Gelu(name=f"gelu{number}a")(x)
        x = _conv(width, f"conv{number}b")(x)
        x = _normalization(f"norm{number}b")(x)
        x = zoo_layers.Gelu(name=f"group{number}")(x)
    x = layers.MaxPooling2D(3, name="pool4")(x)
    x = layers.Flatten(name="flatten")(x)
    # PyTorch's initialization of linear layers; the logits are scaled by 1/9
    uniform = keras.initializers.VarianceScaling(1 / 3, "fan_in", "uniform")
    x = layers.Dense(classes, use_bias=False, kernel_initializer=uniform, name="output")(x)
    outputs = layers.Rescaling(1 / 9, name="logits")(x)
    return keras.Model(inputs, outputs, name="airbench")


def _conv(width: int, name: str) -> keras.layers.Layer:
    return layers.Conv2D(width, 3, padding="same", use_bias=False, kernel_initializer=zoo_layers.Dirac(), name=name)


def _normalization(name: str) -> keras.layers.Layer:
    return zoo_layers.BatchNormalization(momentum=0.6, epsilon=1e-12, scale=False, name=name)
