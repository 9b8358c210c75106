"""The few layers that Keras lacks, written with `keras.ops`, channels last."""

from zoo.layers.activations import EuclideanRBF, Gelu, ScaledTanh, probabilities
from zoo.layers.convolutions import ConnectionTableConv2D, Dirac, FixedKernelConv2D, LocallyConnected2D, Subsampling2D
from zoo.layers.latents import ToUniform, to_uniform
from zoo.layers.normalization import BatchNormalization, LocalResponseNormalization, WeightNormalizedDense
from zoo.layers.sequences import LSTM, GlobalMaxPooling1D, TokenDropout, WordDropout
from zoo.layers.sides import CropLike, MirrorPadding2D

__all__ = [
    "LSTM",
    "BatchNormalization",
    "ConnectionTableConv2D",
    "CropLike",
    "Dirac",
    "EuclideanRBF",
    "FixedKernelConv2D",
    "Gelu",
    "GlobalMaxPooling1D",
    "LocalResponseNormalization",
    "LocallyConnected2D",
    "MirrorPadding2D",
    "ScaledTanh",
    "Subsampling2D",
    "ToUniform",
    "TokenDropout",
    "WeightNormalizedDense",
    "WordDropout",
    "probabilities",
    "to_uniform",
]
