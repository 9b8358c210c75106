"""Several trained networks as one: the mean of their probabilities, or their vote; or the masks of all.

Commands, with the time on two CPU cores and the test accuracy of the published weights; five runs of network3_dropout
come first, for seeds 0 to 4:

    zoo train network3_dropout --data mnist --recipe modern --seed 0 --out runs/dropout-0   # 65 minutes
    zoo ensemble runs/dropout-* --data mnist --name network3_dropout_ensemble               # 0.9969

Michael Nielsen, "Neural Networks and Deep Learning" (2015), chapter 6, section "Convolutional neural networks in
practice", "using an ensemble of networks": five networks with dropout vote. Iglovikov and Mushinskiy, third in Kaggle's
DSTL competition of 2017: a U-Net for each class of satellite images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from etils import epy

from zoo import registry
from zoo.errors import ZooError, unknown
from zoo.recipe import from_dict
from zoo.spec import ModelSpec, Preprocessing, ReportedScore

with epy.lazy_imports():
    import keras
    import numpy as np
    from keras import layers, ops

    from zoo import layers as zoo_layers

BOOK = "Nielsen 2015, Neural Networks and Deep Learning, chapter 6"
METHODS = ("mean", "vote")
COMMON = Preprocessing(size=(28, 28))  # of the images that all members read; each member has its own range


@registry.register(
    ModelSpec(
        name="ensemble",
        task="classification",
        summary="trained networks joined by create_ensemble; three of mlp_784_30_10 by default",
        year=2015,
        references=(BOOK,),
        input_shape=(28, 28, 1),
        classes=10,
        params=3 * 23_860,
        preprocessing=COMMON,
        arguments={"members": ({"spec": "mlp_784_30_10"},) * 3, "method": "mean"},
        ensemble=True,
    ),
    ModelSpec(
        name="network3_dropout_ensemble",
        task="classification",
        summary="five of network3_dropout, joined",
        year=2015,
        references=(BOOK,),
        input_shape=(28, 28, 1),
        classes=10,
        params=5 * 1_672_570,
        preprocessing=COMMON,
        reported=(ReportedScore("mnist", "accuracy", 0.9967, f"{BOOK}: five networks, voting"),),
        arguments={"members": ({"spec": "network3_dropout"},) * 5, "method": "vote"},
        ensemble=True,
    ),
)
def ensemble(
    input_shape: tuple, classes: int, *, members: Sequence[Mapping[str, Any]], method: str = "mean"
) -> keras.Model:
    """Images [B, H, W, C] in 0..1 to the logarithms [B, classes] of the members' joint probabilities.

    Args:
        members: for each network its `spec` by name and, where they differ from the spec's, its `input_shape`,
            `arguments` and `preprocessing`. Each is a sub-model, `member1` and so on.
        method: `mean` of the members' probabilities, or `vote`: the share of members that predict a class.

    Raises:
        ZooError: for an unknown method or member.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    inputs = keras.Input(input_shape, name="images")
    predictions = []
    for number, member in enumerate(members, start=1):
        spec, network = _network(number, member, member.get("input_shape"), classes)
        preprocessing = from_dict(Preprocessing, member["preprocessing"]) if "preprocessing" in member else None
        x = _own_range(inputs, preprocessing or spec.preprocessing)
        probabilities = zoo_layers.probabilities(network(x), spec.outputs)
        if method == "vote":
            winner = ops.top_k(probabilities, 1)[1][..., 0]  # Keras' argmax casts bits, which OpenVINO does not know
            probabilities = ops.one_hot(winner, classes)
        predictions.append(probabilities)
    joined = layers.Average(name="joined")(predictions)
    # without the bound, a class that gets no vote would have the logarithm of 0
    return keras.Model(inputs, ops.log(ops.maximum(joined, 1e-7)), name="ensemble")


@registry.register(
    ModelSpec(
        name="mask_ensemble",
        task="multilabel_segmentation",
        summary="networks with masks of their own joined by create_ensemble; two of one class by default",
        year=2017,
        references=(
            "Iglovikov, Mushinskiy 2017, Deep Learning for Satellite Imagery Feature Detection (slides on the third "
            "place in Kaggle's DSTL competition): a U-Net a class",
        ),
        input_shape=(None, None, 20),
        classes=2,
        # unet_satellite of 2 and 4 channels without biases where it normalizes: level1 360 + 36 and 2 * 4, bottom
        # 72 + 144 and 2 * 8, up1 34 with 72 + 36 and 2 * 4, output 3
        params=2 * (404 + 232 + 34 + 116 + 3),
        arguments={
            "members": (
                {"spec": "unet_satellite", "classes": ("1",), "arguments": {"width": 2, "depth": 1}},
                {"spec": "unet_satellite", "classes": ("2",), "arguments": {"width": 2, "depth": 1}},
            )
        },
        ensemble=True,
    )
)
def mask_ensemble(input_shape: tuple, classes: int, *, members: Sequence[Mapping[str, Any]]) -> keras.Model:
    """Images [B, H, W, C], as all members read them, to the logits [B, H, W, classes] of the masks of all members.

    Args:
        members: for each network its `spec` by name, the names of its `classes`, and its `arguments` where they differ
            from the spec's. Each is a sub-model, `member1` and so on.

    Raises:
        ZooError: for members that together have another number of classes.
    """
    counts = [len(member["classes"]) for member in members]
    if sum(counts) != classes:
        raise ZooError(f"the members of mask_ensemble have {sum(counts)} classes, not {classes}")
    inputs = keras.Input(input_shape, name="images")
    logits = []
    for number, (member, count) in enumerate(zip(members, counts, strict=True), start=1):
        _, network = _network(number, member, input_shape, count)
        logits.append(network(inputs))
    return keras.Model(inputs, layers.Concatenate(name="joined")(logits), name="mask_ensemble")


def _network(
    number: int, member: Mapping[str, Any], input_shape: tuple | None, classes: int
) -> tuple[ModelSpec, keras.Model]:
    """A member's spec, and its network as a sub-model."""
    spec = registry.get_spec(member["spec"])
    network = spec.build(input_shape, classes, **member.get("arguments", {}))
    network.name = f"member{number}"
    return spec, network


def _own_range(images: keras.KerasTensor, preprocessing: Preprocessing) -> keras.KerasTensor:
    """Images in 0..1, of the size that all members read, with a member's own margin, and its range or normalization."""
    if preprocessing.pad_to is not None and preprocessing.size is not None:
        margins = [whole - inner for whole, inner in zip(preprocessing.pad_to, preprocessing.size, strict=True)]
        images = layers.ZeroPadding2D([(margin // 2, margin - margin // 2) for margin in margins])(images)
    if preprocessing.mean:
        stddevs = np.array(preprocessing.std)
        return layers.Rescaling(COMMON.full_scale / stddevs, -np.array(preprocessing.mean) / stddevs)(images)
    scale = (preprocessing.high - preprocessing.low) * COMMON.full_scale / preprocessing.full_scale
    return images if (scale, preprocessing.low) == (1.0, 0.0) else layers.Rescaling(scale, preprocessing.low)(images)
