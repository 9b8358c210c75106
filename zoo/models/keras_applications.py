"""Networks that `keras.applications` builds, with the weights that Keras publishes for ImageNet.

    zoo list --origin keras.applications
    zoo fine-tune keras_mobilenet_v3_small.imagenet --data FOLDER

The weights are fetched by Keras' own download, which checks their hash, into Keras' folder for models. This module is
loaded by the entry-point group that other packages use.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import re
import socket
import urllib.error
import urllib.request
import warnings
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from etils import epy

from zoo.errors import ZooError
from zoo.files import is_offline
from zoo.recipe import Augmentation, FlipCrop, Recipe
from zoo.registry import register
from zoo.spec import ModelSpec, Preprocessing, ReportedScore, Stage

with epy.lazy_imports():
    import keras

    from zoo import weights

if TYPE_CHECKING:
    import numpy as np

KERAS_TABLE = "https://keras.io/api/applications/"
CLASS_NAMES = "https://storage.googleapis.com/download.tensorflow.org/data/imagenet_class_index.json"
CLASS_NAMES_MD5 = "c2c37ea517e94d9795004a39431a14cb"  # that of keras.applications.imagenet_utils
TIMEOUT = 10  # seconds to connect, and between two parts of an answer

RAW = Preprocessing(size=(224, 224), fit="crop", high=255.0)  # the network scales its input itself
AROUND_ZERO = Preprocessing(size=(224, 224), fit="crop", low=-1.0)
# The mean color of ImageNet in the order of RGB; the first networks of this kind take BGR.
MEAN_COLOR = Preprocessing(size=(224, 224), fit="crop", mean=(123.68, 116.779, 103.939), std=(1.0, 1.0, 1.0))


@dataclasses.dataclass(frozen=True)
class Row:
    """A network of the table.

    Args:
        builder: its name in `keras.applications`.
        params: trainable parameters.
        accuracy: top-1 accuracy on ImageNet's validation images, as `reference` reports it.
        features: layers whose outputs are useful as features.
        head: the layer that depends on the classes.
        flipped: whether it takes BGR.
    """

    builder: str
    year: int
    params: int
    accuracy: float
    paper: str
    preprocessing: Preprocessing
    features: tuple[str, ...]
    head: str = "predictions"
    reference: str = KERAS_TABLE
    flipped: bool = False


MOBILENET_V3 = "Howard et al. 2019, Searching for MobileNetV3, arXiv 1905.02244"
TABLE = {
    "keras_mobilenet_v2": Row(
        "MobileNetV2", 2018, 3_504_872, 0.713, "Sandler et al. 2018, MobileNetV2, arXiv 1801.04381", AROUND_ZERO,
        ("block_6_project_BN", "block_13_project_BN", "out_relu"),
    ),
    "keras_mobilenet_v3_small": Row(
        "MobileNetV3Small", 2019, 2_542_856, 0.681, MOBILENET_V3, RAW,
        ("conv_1", "conv_2"), head="logits", reference="documentation of keras.applications.MobileNetV3Small",
    ),
    "keras_mobilenet_v3_large": Row(
        "MobileNetV3Large", 2019, 5_483_032, 0.756, MOBILENET_V3, RAW,
        ("conv_1", "conv_2"), head="logits", reference="documentation of keras.applications.MobileNetV3Large",
    ),
    "keras_efficientnet_v2_b0": Row(
        "EfficientNetV2B0", 2021, 7_139_704, 0.787, "Tan and Le 2021, EfficientNetV2, arXiv 2104.00298", RAW,
        ("top_activation", "avg_pool"),
    ),
    "keras_convnext_tiny": Row(
        "ConvNeXtTiny", 2022, 28_589_128, 0.813, "Liu et al. 2022, A ConvNet for the 2020s, arXiv 2201.03545", RAW,
        ("convnext_tiny_head_layernorm",), head="convnext_tiny_head_dense",
    ),
    "keras_resnet50_v2": Row(
        "ResNet50V2", 2016, 25_568_360, 0.760,
        "He et al. 2016, Identity Mappings in Deep Residual Networks, arXiv 1603.05027", AROUND_ZERO,
        ("conv3_block4_out", "conv4_block6_out", "post_relu", "avg_pool"),
    ),
    "keras_densenet121": Row(
        "DenseNet121", 2017, 7_978_856, 0.750,
        "Huang et al. 2017, Densely Connected Convolutional Networks, arXiv 1608.06993",
        Preprocessing(
            size=(224, 224), fit="crop", mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375)
        ),
        ("relu", "avg_pool"),
    ),
    "keras_vgg16": Row(
        "VGG16", 2014, 138_357_544, 0.713,
        "Simonyan and Zisserman 2015, Very Deep Convolutional Networks, arXiv 1409.1556", MEAN_COLOR,
        ("block4_pool", "block5_pool", "fc1", "fc2"), flipped=True,
    ),
}  # fmt: skip

# For photographs of one's own: the new head first, then everything at a small rate. The choice is ours, not Keras'.
RECIPE = Recipe(
    epochs=30,
    batch_size=32,
    learning_rate=1e-3,
    optimizer="adam",
    augmentation=Augmentation(flip_crop=FlipCrop(pad=16), fill="reflect"),
    deviations=("a training for photographs of one's own; the one of the paper needs ImageNet",),
)


def _spec(name: str, row: Row) -> ModelSpec:
    return ModelSpec(
        name=name,
        task="classification",
        summary=f"{row.builder} of keras.applications",
        year=row.year,
        references=(row.paper, KERAS_TABLE),
        input_shape=(224, 224, 3),
        classes=1000,
        params=row.params,
        head=(row.head,),
        features=row.features,
        preprocessing=row.preprocessing,
        recipes={"photographs": RECIPE},
        reported=(ReportedScore("imagenet2012", "accuracy", row.accuracy, row.reference, recipe="photographs"),),
        stages=(Stage("head", (row.head,), 1e-3, 5), Stage("all", ("*",), 1e-5, 10)),
        arguments={"network": row.builder, "flipped": row.flipped},
        origin="keras.applications",
        pretrained={"imagenet": functools.partial(fetch, row.builder)},
    )


def fetch(network: str) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """The weights for ImageNet that Keras publishes, by key, and the names of their classes.

    Raises:
        ZooError: where they are neither in Keras' folder nor can be fetched, or have another hash.
    """
    with _downloads():
        model = _build(network, weights="imagenet", input_shape=(224, 224, 3))
        index = Path(
            keras.utils.get_file(Path(CLASS_NAMES).name, CLASS_NAMES, cache_subdir="models", file_hash=CLASS_NAMES_MD5)
        )
    names = [tuple(entry) for _, entry in sorted(json.loads(index.read_text()).items(), key=lambda item: int(item[0]))]
    count = Counter(name for _, name in names)
    classes = tuple(name if count[name] == 1 else f"{name} {number}" for number, name in names)  # two are crane
    return {key: variable.numpy() for key, variable in weights.named_weights(model).items()}, classes


@contextlib.contextmanager
def _downloads() -> Iterator[None]:
    """Keras' downloads with a time limit, and none of them if ZOO_OFFLINE forbids them; their errors in one line."""
    opener, timeout = getattr(urllib.request, "_opener", None), socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)
    if is_offline():
        urllib.request.install_opener(urllib.request.build_opener(_Refused))
    try:
        yield
    except Exception as error:  # Keras raises a bare one
        text = " ".join(str(error).split())
        address = re.search(r"https?://\S+?(?=:? |$)", text)
        folder = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"
        if address is None:
            raise ZooError(f"the weights of keras.applications cannot be loaded from {folder}: {text[:300]}") from None
        reason = "ZOO_OFFLINE forbids downloads" if is_offline() else text.rpartition("--")[2].strip()
        raise ZooError(
            f"{Path(address[0]).name} is not in {folder} and could not be downloaded ({reason}): "
            f"put the file of {address[0]} there"
        ) from None
    finally:
        socket.setdefaulttimeout(timeout)
        if is_offline():
            urllib.request.install_opener(opener)


class _Refused(urllib.request.BaseHandler):
    handler_order = 0

    def default_open(self, request: urllib.request.Request) -> None:
        raise urllib.error.URLError("ZOO_OFFLINE forbids downloads")


@register(*(_spec(name, row) for name, row in TABLE.items()))
def keras_application(input_shape: tuple, classes: int, network: str, flipped: bool) -> keras.Model:
    """Images [B, H, W, C], scaled as the network takes them, RGB, to logits [B, classes].

    Args:
        network: its name in `keras.applications`.
        flipped: whether that takes BGR.
    """
    if not flipped:
        return _build(network, weights=None, input_shape=input_shape, classes=classes)
    inputs = keras.Input(input_shape, name="images")
    return _build(network, weights=None, input_tensor=keras.ops.flip(inputs, axis=-1), classes=classes)


def _build(network: str, **options: Any) -> keras.Model:
    """The network of that name with logits, without Keras' warnings of other sizes than 224 pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return getattr(keras.applications, network)(classifier_activation=None, **options)
