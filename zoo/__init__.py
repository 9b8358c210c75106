"""The classic neural networks for Keras 3 on TensorFlow: exact, trained, verified, servable."""

import importlib
import importlib.metadata

import wrapt
from etils import epy

from zoo.errors import ZooError
from zoo.listing import list_models
from zoo.metrics import Metric
from zoo.options import ClassificationOptions, GenerationOptions, MultilabelOptions, SegmentationOptions
from zoo.recipe import Augmentation, Recipe
from zoo.registry import get_spec, register
from zoo.search_space import Choice, IntRange, LogRange
from zoo.spec import ModelSpec, Preprocessing, ReportedScore, Stage

with epy.lazy_api_imports(globals()):  # none of these is imported, TensorFlow least of all, before it is used
    from zoo import data as data
    from zoo import layers as layers
    from zoo.artifacts.verification import verify
    from zoo.exporting.ensembles import create_ensemble
    from zoo.exporting.saved_model import export
    from zoo.language import Score, draw_scores, generate, score
    from zoo.loading import Predictor, create_model, embed, features, load, load_weights, predict
    from zoo.sampling import sample
    from zoo.tiling.segmenting import Segmented, segment
    from zoo.tiling.tiles import predict_tiled
    from zoo.training.attacks import adversarial, adversarial_accuracy
    from zoo.training.evaluation import evaluate
    from zoo.training.fine_tuning import fine_tune
    from zoo.training.folds import cross_validate
    from zoo.training.reproduction import Reproduction, reproduce
    from zoo.training.runs import Run, load_run
    from zoo.training.search import Search, tune
    from zoo.training.trainer import train
    from zoo.weights import LoadReport

# A .keras file names zoo's own layers, and Keras knows only those that are registered: with Keras, not before it.
wrapt.when_imported("keras")(lambda keras: importlib.import_module("zoo.layers"))

__version__ = importlib.metadata.version("zoo")

__all__ = [
    "Augmentation",
    "Choice",
    "ClassificationOptions",
    "GenerationOptions",
    "IntRange",
    "LoadReport",
    "LogRange",
    "Metric",
    "ModelSpec",
    "MultilabelOptions",
    "Predictor",
    "Preprocessing",
    "Recipe",
    "ReportedScore",
    "Reproduction",
    "Run",
    "Score",
    "Search",
    "SegmentationOptions",
    "Segmented",
    "Stage",
    "ZooError",
    "adversarial",
    "adversarial_accuracy",
    "create_ensemble",
    "create_model",
    "cross_validate",
    "draw_scores",
    "embed",
    "evaluate",
    "export",
    "features",
    "fine_tune",
    "generate",
    "get_spec",
    "list_models",
    "load",
    "load_run",
    "load_weights",
    "predict",
    "predict_tiled",
    "register",
    "reproduce",
    "sample",
    "score",
    "segment",
    "train",
    "tune",
    "verify",
]
