"""The model families: importing this package registers all of them."""

from zoo.models import (  # noqa: F401
    airbench,
    alexnet,
    catdog,
    characters,
    ciresan,
    dcgan,
    ensemble,
    gan,
    googlenet,
    infogan,
    lenet5,
    lstm,
    mlp,
    network3,
    simard,
    ssgan,
    unet,
)
