"""The classic neural networks for Keras 3 on TensorFlow: exact, trained, verified, servable."""

from etils import epy

from zoo.errors import ZooError
from zoo.recipe import Augmentation, Recipe
from zoo.registry import get_spec, list_models, register
from zoo.spec import ModelSpec, Preprocessing, Published, Stage

with epy.lazy_api_imports(globals()):  # none of these is imported, TensorFlow least of all, before it is used
    from zoo.artifacts import verify
    from zoo.ensemble import create_ensemble
    from zoo.fine_tuning import fine_tune
    from zoo.loading import Predictor, create_model, evaluate, load, load_weights, predict
    from zoo.reproduction import Reproduction, reproduce
    from zoo.runs import Run, load_run
    from zoo.saved_model import export
    from zoo.segmenting import Segmented, segment
    from zoo.tiling import predict_tiled
    from zoo.training import train
    from zoo.weights import LoadReport

__all__ = [
    "Augmentation",
    "LoadReport",
    "ModelSpec",
    "Predictor",
    "Preprocessing",
    "Published",
    "Recipe",
    "Reproduction",
    "Run",
    "Segmented",
    "Stage",
    "ZooError",
    "create_ensemble",
    "create_model",
    "evaluate",
    "export",
    "fine_tune",
    "get_spec",
    "list_models",
    "load",
    "load_run",
    "load_weights",
    "predict",
    "predict_tiled",
    "register",
    "reproduce",
    "segment",
    "train",
    "verify",
]
