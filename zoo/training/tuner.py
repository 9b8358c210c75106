"""keras-tuner as the engine of a search: it chooses the trials, alone or as the chief of several workers."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from etils import epy

from zoo.errors import ZooError
from zoo.files import write_json
from zoo.metrics import Metric
from zoo.search_space import Choice, IntRange, Range

with epy.lazy_imports():
    import grpc
    import keras
    import keras_tuner

ADDRESS = ("KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")
CHIEF_SECONDS = 300  # until the chief must answer
MOST_STARTS = 2  # of a trial that ends the process before its first epoch

Strategy = Literal["random", "hyperband", "bayesian"]


@dataclasses.dataclass(frozen=True)
class Trial:
    """One training of a search.

    Attributes:
        values: by argument or recipe key.
        score: on the validation split, or the mean of the folds; None for a trial that failed.
        message: why it failed.
    """

    number: int
    values: Mapping[str, Any]
    score: float | None
    message: str = ""


def is_worker() -> bool:
    """Whether another process hands out the trials; raises ZooError where keras-tuner's variables are incomplete."""
    role = os.environ.get("KERASTUNER_TUNER_ID")
    missing = [name for name in ADDRESS if role and name not in os.environ]
    if missing:
        raise ZooError(f"KERASTUNER_TUNER_ID is set without {' and '.join(missing)}: set all three, or none")
    return role not in (None, "chief")


def chief_address() -> str:
    return ":".join(os.environ[name] for name in ADDRESS)


def hand_out(tuner: Any) -> None:
    """Train all trials, or hand them out to the workers as their chief."""
    for number in tuner.oracle.trials.keys() - set(tuner.oracle.start_order):
        del tuner.oracle.trials[number]  # killed after its own file was written, before the oracle's
    try:
        tuner.search()
    except RuntimeError as error:
        if "bind" not in str(error):  # gRPC's, of the chief
            raise
        raise ZooError(f"the chief cannot listen at {chief_address()}: {str(error).partition(chr(10))[0]}") from None


def follow_chief(tuner: Any) -> None:
    """Train the trials that the chief hands out, until there are no more."""
    address = chief_address()
    try:
        with grpc.insecure_channel(address) as channel:
            grpc.channel_ready_future(channel).result(timeout=CHIEF_SECONDS)
        tuner.search()
    except (grpc.FutureTimeoutError, grpc.RpcError):
        raise ZooError(
            f"the chief of the search does not answer at {address}: start it, or repeat the command"
        ) from None


def make_tuner(
    strategy: Strategy,
    space: Mapping[str, Range],
    metric: Metric,
    trials: int | None,
    epochs: int,
    directory: Path,
    seed: int,
    run_trial: Callable[[Mapping[str, Any], Path, int | None], float],
    after: Callable[[Any], None],
) -> Any:
    """keras-tuner's engine, whose trials are runs."""

    class Tuner(keras_tuner.Tuner):
        def run_trial(self, trial: Any) -> dict[str, float]:
            folder = Path(self.get_trial_dir(trial.trial_id))
            folder.mkdir(parents=True, exist_ok=True)
            hyperparameters = trial.hyperparameters.values
            values = _values(hyperparameters, space)
            _count_start(folder)
            try:
                with (folder / "log.txt").open("a") as log, contextlib.redirect_stdout(log):
                    return {metric.name: run_trial(values, folder, hyperparameters.get("tuner/epochs"))}
            except keras_tuner.errors.FailedTrialError:
                raise
            except Exception as error:  # an error of ours, not of this trial's values
                raise keras_tuner.errors.FatalError(f"trial {trial.trial_id}: {error}") from error
            finally:
                keras.backend.clear_session()

        def on_trial_end(self, trial: Any) -> None:
            super().on_trial_end(trial)
            after(self.oracle)

    options = {
        "objective": keras_tuner.Objective(metric.name, "min" if metric.lower_is_better else "max"),
        "hyperparameters": _hyperparameters(space),
        "seed": seed + 1,  # 0 would be drawn anew each time
        "max_consecutive_failed_trials": 10**6,  # failed trials are counted, and none ends the search
    }
    oracles = {
        "random": lambda: keras_tuner.oracles.RandomSearchOracle(max_trials=trials, **options),
        "bayesian": lambda: keras_tuner.oracles.BayesianOptimizationOracle(max_trials=trials, **options),
        "hyperband": lambda: keras_tuner.oracles.HyperbandOracle(max_epochs=epochs, **options),
    }
    keras_tuner.src.utils.save_json = _save_json
    with contextlib.redirect_stdout(io.StringIO()):  # that it resumes
        tuner = Tuner(oracle=oracles[strategy](), directory=str(directory.absolute()), project_name="trials")
    tuner.oracle.max_trials = trials  # which keras-tuner's hyperband cannot be given, and more when it is continued
    if strategy == "hyperband":
        tuner.oracle.hyperband_iterations = 1 if trials is None else math.inf
    tuner.oracle.verbose = 0
    keras_tuner.src.config.DEBUG = False  # or it prints the traceback of each failed trial, whose message is recorded
    return tuner


def _save_json(path: str, content: Any) -> str:
    """In place of keras-tuner's, which a kill can leave with half of a file."""
    write_json(Path(path), content)
    return json.dumps(content)


def _count_start(folder: Path) -> None:
    """Raises FailedTrialError for a trial that has ended the process, such as by its use of memory, each time before
    the first epoch was over."""
    starts = folder / "starts"
    with starts.open("a") as file:
        file.write("\n")
    if len(starts.read_text()) > MOST_STARTS and not any(folder.rglob("history.csv")):
        raise keras_tuner.errors.FailedTrialError(f"it ended the process {MOST_STARTS} times before its first epoch")


def _hyperparameters(space: Mapping[str, Range]) -> Any:
    found = keras_tuner.HyperParameters()
    for key, values in space.items():
        if isinstance(values, Choice):
            found.Choice(key, [json.dumps(value) for value in values.values])
        elif isinstance(values, IntRange):
            found.Int(key, values.low, values.high)
        else:
            found.Float(key, values.low, values.high, sampling="log")
    return found


def _values(hyperparameters: Mapping[str, Any], space: Mapping[str, Range]) -> dict[str, Any]:
    """The values of a trial as the space has them."""
    return {
        key: next(one for one in values.values if json.dumps(one) == hyperparameters[key])
        if isinstance(values, Choice)
        else hyperparameters[key]
        for key, values in space.items()
    }


def ended_trials(oracle: Any, space: Mapping[str, Range], metric: Metric) -> list[Trial]:
    ended = [oracle.trials[number] for number in oracle.end_order]
    found = [
        Trial(
            int(trial.trial_id),
            _values(trial.hyperparameters.values, space),
            trial.score if trial.status == "COMPLETED" else None,
            (trial.message or "").strip().rpartition("FailedTrialError: ")[2],
        )
        for trial in ended
    ]
    return sorted(found, key=lambda trial: -np.inf if trial.score is None else metric.rank(trial.score), reverse=True)
