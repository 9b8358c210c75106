"""U-Net: Ronneberger, Fischer and Brox 2015, "U-Net: Convolutional Networks for Biomedical Image Segmentation"."""

from __future__ import annotations

from etils import epy

from zoo.recipe import Augmentation, Elastic, Recipe
from zoo.registry import register
from zoo.spec import ModelSpec, Preprocessing, Stage

with epy.lazy_imports():
    import keras
    from keras import layers

    from zoo import layers as zoo_layers

VARIANTS = {"unet_tiny": {"width": 8, "depth": 2}}


def conv_block(x: keras.KerasTensor, width: int, name: str) -> keras.KerasTensor:
    """Two 3 x 3 convolutions with ReLU (figure 1), padded so that an image and its mask have one size."""
    for index in (1, 2):
        x = layers.Conv2D(
            width, 3, padding="same", activation="relu", kernel_initializer="he_normal", name=f"{name}_conv{index}"
        )(x)
    return x


@register(
    *(
        ModelSpec(
            name=name,
            task="segmentation",
            summary="U-Net of two levels, padded, for small pictures and tests",
            year=2015,
            sources=("Ronneberger, Fischer, Brox 2015, figure 1; width and depth reduced, padded convolutions",),
            input_shape=(None, None, 1),
            classes=2,
            # level1 80 + 584, level2 1,168 + 2,320, bottom 4,640 + 9,248, up2 2,064 with 4,624 + 2,320,
            # up1 520 with 1,160 + 584, output 18
            params=29_330,
            head=("output",),
            features=("level1_conv2", "level2_conv2", "bottom_conv2"),
            preprocessing=Preprocessing(),
            arguments=arguments,
            recipes={
                "paper": Recipe(
                    epochs=40,
                    batch_size=4,
                    learning_rate=1e-3,
                    optimizer="adam",
                    augmentation=Augmentation(dihedral=True, elastic=Elastic(alpha=60.0, sigma=8.0), fill="reflect"),
                    deviations=("Adam in place of SGD with momentum 0.99", "no border weights"),
                )
            },
            stages=(
                Stage("head", ("output",), 1e-3, 5),
                Stage("decoder", ("up*", "output"), 1e-3, 5),
                Stage("all", ("*",), 3e-4, 10),
            ),
        )
        for name, arguments in VARIANTS.items()
    )
)
def unet(input_shape: tuple, classes: int, *, width: int, depth: int) -> keras.Model:
    """Images [B, H, W, C] of any height and width to logits [B, H, W, classes].

    Args:
        width: channels of the first level; each level below has twice as many (64 in the paper).
        depth: how often the image is halved (4 in the paper). Odd sizes are halved upwards, and what is upsampled
            is cropped to the skip that it joins.
    """
    x = inputs = keras.Input(input_shape, name="images")
    skips = []
    for level in range(1, depth + 1):
        x = conv_block(x, width * 2 ** (level - 1), f"level{level}")
        skips.append(x)
        x = layers.MaxPooling2D(2, padding="same", name=f"level{level}_pool")(x)
    x = conv_block(x, width * 2**depth, "bottom")
    for level in range(depth, 0, -1):
        channels = width * 2 ** (level - 1)
        x = layers.Conv2DTranspose(channels, 2, strides=2, name=f"up{level}")(x)
        x = zoo_layers.CropLike(name=f"up{level}_crop")([x, skips[level - 1]])
        x = layers.Concatenate(name=f"up{level}_join")([skips[level - 1], x])
        x = conv_block(x, channels, f"up{level}")
    return keras.Model(inputs, layers.Conv2D(classes, 1, name="output")(x), name="unet")
