"""The model families: importing this package registers all of them."""

from zoo.models import (
    airbench,
    alexnet,
    catdog,
    ciresan,
    ensemble,
    gan,
    googlenet,
    lenet5,
    lstm,
    mlp,
    network3,
    simard,
    ssgan,
    unet,
)

__all__ = [
    "airbench",
    "alexnet",
    "catdog",
    "ciresan",
    "ensemble",
    "gan",
    "googlenet",
    "lenet5",
    "lstm",
    "mlp",
    "network3",
    "simard",
    "ssgan",
    "unet",
]
