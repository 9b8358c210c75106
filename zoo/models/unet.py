"""U-Net: an encoder and a decoder joined at every scale, for the class of each pixel or several masks.

Commands, with the time on two CPU cores and the mean test IoU of the published weights:

    zoo train unet_small --data isbi_membrane   # 40 minutes, 0.8156
    zoo train unet_satellite --data scenes      # 4 minutes, 0.8903

Ronneberger, Fischer and Brox 2015, "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI,
arXiv 1505.04597: section 2 and figure 1 (the network), section 3 (training), section 3.1 (data augmentation).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from etils import epy

from zoo.errors import unknown
from zoo.options import Border, MultilabelOptions, SegmentationOptions
from zoo.recipe import Affine, Augmentation, ColorJitter, Elastic, Patches, Recipe, Schedule
from zoo.registry import register
from zoo.search_space import IntRange, LogRange
from zoo.spec import ModelSpec, ReportedScore, Stage

with epy.lazy_imports():
    import keras
    from keras import layers

    from zoo import layers as zoo_layers

PAPER = "Ronneberger, Fischer, Brox 2015, U-Net, arXiv 1505.04597"
SKIPS = ("concatenate", "add")

# For objects that touch each other, such as cells: the paper's border weights, and the threshold that separates them.
RECIPE = Recipe(
    epochs=100,
    batch_size=4,
    learning_rate=2e-3,
    optimizer="adam",
    schedule=Schedule("cosine", warmup_epochs=1),
    precision="mixed_bfloat16",
    augmentation=Augmentation(
        patches=Patches(size=256, per_image=16),
        affine=Affine(rotation=20.0, scale=0.15),
        dihedral=True,
        elastic=Elastic(alpha=60.0, sigma=8.0),
        color_jitter=ColorJitter(contrast=0.3, brightness=0.3),
        warped=0.5,
        fill="reflect",
    ),
    options=SegmentationOptions(
        border=Border(weight=10.0, sigma=2.5),  # the paper's 5 pixels reach across whole membranes and thicken them
        threshold_by="adapted_rand_error",
    ),
    deviations=(
        "Adam, not SGD with momentum 0.99",
        "random patches, not whole tiles; several in a batch for the smaller networks",
        "elastic distortion finer than the paper's grid of 3 x 3, scale, contrast and brightness by amounts that it "
        "does not state, and half of the images without any interpolation",
        "border weights of sigma 2.5, not 5 pixels, and no weights that balance the classes",
    ),
)
# For classes of any shape, such as land cover: the competition's metric in the loss, thresholds chosen by it.
MODERN = replace(
    RECIPE,
    epochs=40,
    batch_size=8,
    learning_rate=1e-3,
    loss="cross_entropy+jaccard",
    augmentation=Augmentation(patches=Patches(size=128, per_image=8), dihedral=True, fill="reflect"),
    options=SegmentationOptions(threshold_by="iou"),
    deviations=(),
)
OVERLAPPING = replace(MODERN, options=MultilabelOptions(threshold_by="iou"))

REPORTED = (
    f"{PAPER}, table 1: the paper's `unet`, 30 slices for training, by the challenge's own metrics on its hidden stack"
)
SPEC = ModelSpec(
    name="unet",
    task="segmentation",
    summary="U-Net as published: 64 to 1,024 channels, unpadded convolutions, cropped skips, dropout at the bottom",
    year=2015,
    references=(PAPER,),
    input_shape=(None, None, 1),
    classes=2,
    # A 3 x 3 convolution from a to b channels has 9ab + b parameters, an up-convolution of 2 x 2 4ab + b. 23 in all:
    # level1 640 + 36,928; level2 73,856 + 147,584; level3 295,168 + 590,080; level4 1,180,160 + 2,359,808;
    # bottom 4,719,616 + 9,438,208; up4 2,097,664 and 4,719,104 + 2,359,808; up3 524,544 and 1,179,904 + 590,080;
    # up2 131,200 and 295,040 + 147,584; up1 32,832 and 73,792 + 36,928; output 64 * 2 + 2 = 130
    params=31_030_658,
    head=("output",),
    features=("level1_relu2", "level2_relu2", "level3_relu2", "level4_relu2", "bottom_relu2"),
    arguments={"width": 64, "depth": 4, "padded": False, "dropout": 0.5},
    recipes={"paper": replace(RECIPE, batch_size=1)},
    reported=(
        ReportedScore("isbi_membrane", "pixel_accuracy", 1 - 0.0611, REPORTED),
        ReportedScore("isbi_membrane", "adapted_rand_error", 0.0382, REPORTED),
    ),
    stages=(
        Stage("head", ("output",), 1e-3, 5),
        Stage("decoder", ("up*", "output"), 1e-3, 5),
        Stage("all", ("*",), 3e-4, 10),
    ),
    notes=(
        "the paper's input of 572 pixels has an output of 388: here the image is mirrored at its edges by as much as "
        "the convolutions take off, as in its section 2, so that every pixel of any image gets its class",
        "the paper mentions dropout at the end of the contracting path but no rate: 0.5 is chosen here",
    ),
)


@register(
    SPEC,
    replace(
        SPEC,
        name="unet_small",
        summary="U-Net of 16 to 256 channels, padded, with batch normalization",
        references=(f"{PAPER}; width reduced, padded convolutions, batch normalization",),
        # as above with 16 channels, not 64: 1,940,834; without the 1,472 biases of the 3 x 3 convolutions, which
        # normalization makes idle, and with its 2 for each of their channels
        params=1_940_834 - 1_472 + 2 * 1_472,
        arguments={"width": 16, "depth": 4, "normalization": True},
        recipes={"paper": RECIPE, "modern": MODERN},
        notes=(),
    ),
    replace(
        SPEC,
        name="unet_satellite",
        task="multilabel_segmentation",
        summary="U-Net for scenes of many bands and classes that overlap, 16 to 256 channels",
        year=2017,
        references=(
            f"{PAPER}; width reduced, padded convolutions, batch normalization",
            "deepsense.ai 2017, Deep learning for satellite imagery via image segmentation (fourth in Kaggle's DSTL "
            "competition): U-Net over 20 bands, a mask a class",
            "Iglovikov, Mushinskiy, Osin 2017, arXiv 1706.06169: cross-entropy and soft Jaccard as the loss",
        ),
        input_shape=(None, None, 20),
        classes=4,
        # unet_small with 19 bands more in the first convolution and two masks more in the last
        params=1_942_306 + 19 * 9 * 16 + 2 * 17,
        arguments={"width": 16, "depth": 4, "normalization": True},
        search={"width": IntRange(8, 32), "depth": IntRange(2, 5), "learning_rate": LogRange(3e-4, 1e-2)},
        recipes={
            "modern": OVERLAPPING,
            "plain": replace(OVERLAPPING, augmentation=replace(OVERLAPPING.augmentation, dihedral=False)),
        },
        reported=(),
        notes=(),
    ),
    replace(
        SPEC,
        name="unet_tiny",
        summary="U-Net of two levels, padded, for small images and tests",
        references=(f"{PAPER}; width and depth reduced, padded convolutions",),
        # level1 80 + 584, level2 1,168 + 2,320, bottom 4,640 + 9,248, up2 2,064 with 4,624 + 2,320,
        # up1 520 with 1,160 + 584, output 18
        params=29_330,
        features=("level1_relu2", "level2_relu2", "bottom_relu2"),
        arguments={"width": 8, "depth": 2},
        recipes={
            "paper": replace(RECIPE, precision="float32", augmentation=replace(RECIPE.augmentation, patches=None))
        },
        reported=(),
        notes=(),
    ),
)
def unet(
    input_shape: tuple,
    classes: int,
    *,
    width: int,
    depth: int,
    padded: bool = True,
    normalization: bool = False,
    dropout: float = 0.0,
    skip: str = "concatenate",
) -> keras.Model:
    """Images [B, H, W, C] of any height and width to logits [B, H, W, classes].

    Args:
        width: channels of the first level; each level below has twice as many (64 in the paper).
        depth: how often the image is halved (4 in the paper).
        padded: convolutions keep the size; otherwise each takes a pixel off every side, and the image is mirrored
            at its edges first so that the output has its size.
        normalization: batch normalization between each 3 x 3 convolution and its ReLU.
        dropout: share of the features dropped at the end of the contracting path (section 3.1).
        skip: how a level joins the features from below, `concatenate` as in the paper or `add`.

    Raises:
        ZooError: for an unknown skip.
    """
    if skip not in SKIPS:
        raise unknown("skip", skip, SKIPS)

    def block(x: keras.KerasTensor, channels: int, name: str) -> keras.KerasTensor:
        """Two 3 x 3 convolutions, each with ReLU (figure 1), with initial weights by He's rule (section 3)."""
        for index in (1, 2):
            options: dict[str, Any] = {"padding": "same" if padded else "valid", "use_bias": not normalization}
            x = layers.Conv2D(channels, 3, kernel_initializer="he_normal", name=f"{name}_conv{index}", **options)(x)
            if normalization:
                # Keras' 0.99 lags in the few hundred steps of a small data set; 0.9 follows each batch's noise
                x = zoo_layers.BatchNormalization(momentum=0.97, name=f"{name}_norm{index}")(x)
            x = layers.ReLU(name=f"{name}_relu{index}")(x)
        return x

    x = inputs = keras.Input(input_shape, name="images")
    if not padded:
        x = zoo_layers.MirrorPadding2D(lost_by_convolutions(depth), 2**depth, -4 % 2**depth, name="mirror")(x)
    skips = []
    for level in range(1, depth + 1):
        x = block(x, width * 2 ** (level - 1), f"level{level}")
        skips.append(x)
        x = layers.MaxPooling2D(2, padding="same", name=f"level{level}_pool")(x)
    x = block(x, width * 2**depth, "bottom")
    if dropout:
        x = layers.Dropout(dropout, name="bottom_dropout")(x)
    for level in range(depth, 0, -1):
        channels = width * 2 ** (level - 1)
        x = layers.Conv2DTranspose(channels, 2, strides=2, kernel_initializer="he_normal", name=f"up{level}")(x)
        encoded = skips[level - 1]
        if padded:  # odd sizes were rounded up when halved
            x = zoo_layers.CropLike(name=f"up{level}_crop")([x, encoded])
        else:
            encoded = zoo_layers.CropLike("middle", name=f"level{level}_crop")([encoded, x])
        join = layers.Concatenate if skip == "concatenate" else layers.Add
        x = block(join(name=f"up{level}_join")([encoded, x]), channels, f"up{level}")
    if not padded:
        x = zoo_layers.CropLike(name="crop")([x, inputs])
    return keras.Model(inputs, layers.Conv2D(classes, 1, name="output")(x), name="unet")


def lost_by_convolutions(depth: int) -> int:
    """Pixels that unpadded convolutions take off every side of an image, 92 for the paper's depth of 4 (figure 1).

    A block takes off 2 pixels of its own level, each 2 ** (level - 1) pixels of the image: twice for each level, on the
    way down and up, and once at the bottom.
    """
    return sum(2 * 2 * 2**level for level in range(depth)) + 2 * 2**depth
