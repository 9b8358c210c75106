"""Search for builder arguments and recipe keys by the validation score."""

from __future__ import annotations

import dataclasses
import functools
import importlib.util
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

from etils import epy

from zoo import registry, tasks
from zoo.errors import ZooError, note, unknown
from zoo.files import read_json, write_json
from zoo.metrics import Metric
from zoo.recipe import Recipe, plain
from zoo.search_space import Range
from zoo.spec import ModelSpec, check_keras
from zoo.training.batches import load_for
from zoo.training.devices import strategy as device_strategy
from zoo.training.folds import cross_validate, spread
from zoo.training.optimizers import make_optimizer
from zoo.training.randomness import check_seed
from zoo.training.runs import RUN_FILE, SEARCH_FILE, Run
from zoo.training.trainer import train
from zoo.training.tuner import Strategy, Trial, ended_trials, follow_chief, hand_out, is_worker, make_tuner
from zoo.training.workers import check_alone

with epy.lazy_imports():
    import keras_tuner
    import tensorflow as tf
    from tensorboard.plugins.hparams import api as hparams

    from zoo.training import plots

TRIALS = 20
BEST_SHARE = 0.1  # of the trials, whose values at a limit of a range are remarked on
AT_LIMIT = 0.02  # distance from the end of a range, as a share of it


@dataclasses.dataclass(frozen=True)
class Search:
    """A search and what it found.

    Attributes:
        metric: the one that trials are compared by.
        trials: the best ones first, the failed ones last.
        run: the best trial, trained by the whole recipe; None for a worker of a search on several machines.
    """

    directory: Path
    space: Mapping[str, Range]
    metric: Metric
    trials: list[Trial]
    run: Run | None = None

    @property
    def done(self) -> list[Trial]:
        """The trials with a score."""
        return [trial for trial in self.trials if trial.score is not None]

    def remarks(self) -> list[str]:
        """One line for each range at a limit of which the best tenth of the trials lie; none for a lower limit of 0."""
        best = self.done[: int(len(self.trials) * BEST_SHARE)]
        if not best:
            return []
        lines = []
        for key, values in self.space.items():
            if not values.is_ordered():
                continue
            places = [values.place(trial.values[key]) for trial in best]
            low = values.ends()[0] != 0 and max(places) <= AT_LIMIT
            for limit, at in (("lower", low), ("upper", min(places) >= 1 - AT_LIMIT)):
                if at:
                    lines.append(f"best trials sit at the {limit} limit of {key}: widen it with --set-range")
        return lines


def tune(
    name: str,
    data: Any = "digits",
    *,
    trials: int | None = None,
    strategy: Strategy = "random",
    ranges: Mapping[str, Range] | None = None,
    max_parameters: int | None = None,
    folds: int | None = None,
    recipe: str | None = None,
    out: str | os.PathLike | None = None,
    devices: str = "auto",
    seed: int = 0,
    input_shape: tuple | None = None,
    progress: Callable[[Search], None] | None = None,
    **changes: Any,
) -> Search:
    """Search for the builder arguments and recipe keys with the best validation score, and train the best ones.

    Each trial is a run of its own under `out`, trained by `train`. An interrupted search is resumed. On several
    machines it follows keras-tuner's environment variables (`KERASTUNER_TUNER_ID`, `KERASTUNER_ORACLE_IP`,
    `KERASTUNER_ORACLE_PORT`), with `out` on a file system that they share: the chief hands out the trials.

    Args:
        trials: how many, failed ones included; 20 by default, for hyperband those of one pass over its brackets.
        strategy: `random`, `bayesian` (Gaussian process), or `hyperband` (Li et al. 2018, JMLR 18(185): many trials of
            few epochs, of which the best are trained longer, each time from the beginning).
        ranges: by argument or recipe key, beside the spec's own and in place of them.
        max_parameters: networks with more parameters are not trained: their trials fail.
        folds: for data of few examples: each trial trains so many times, and its score is the mean on the parts of
            train and validation that are held out, see `cross_validate`. The best one is trained as usual.
        recipe: a recipe of the spec by name.
        out: `runs/NAME.DATA.search-SEED` by default.
        progress: is called with the search so far before the first trial and after each one.
        changes: recipe keys to change for all trials, which are then not searched for.

    Raises:
        ZooError: for a space that is empty or that the builder or the recipe cannot have, a directory that contains
            another search, and a search of which all trials fail.
    """
    check_keras()
    check_alone("a search")
    if importlib.util.find_spec("keras_tuner") is None:
        raise ZooError("a search needs the package keras-tuner: pip install 'zoo[tune]'")
    device_strategy(devices)  # before TensorFlow starts
    spec = registry.get_spec(name)
    kind = tasks.get_task(spec.task)
    basis = tasks.with_options(spec.recipe(recipe), kind, spec.task).replace(**changes)
    space = {**{key: values for key, values in spec.search.items() if key not in changes}, **(ranges or {})}
    if both := sorted(changes.keys() & space.keys()):
        raise ZooError(f"{', '.join(both)} has both a value and a range: give one")
    _check_space(spec, basis, space, input_shape)
    dataset = load_for(spec, input_shape, basis, data)
    task = kind.from_data(spec, dataset, input_shape, **basis.arguments)
    monitor = task.monitor
    if monitor is None:
        raise ZooError(f"a search needs a validation score, which {spec.task} has not")
    if strategy not in get_args(Strategy):
        raise unknown("strategy", str(strategy), get_args(Strategy))
    if trials is not None and trials < 1:
        raise ZooError(f"a search needs at least 1 trial, not {trials}")
    if strategy == "hyperband" and "epochs" in space:
        raise ZooError("hyperband chooses the epochs of its trials: leave the range of epochs out")
    worker = is_worker()  # the chief alone knows all trials
    check_seed(seed)
    if folds is not None:
        dataset.fold(1, folds)
    directory = Path(out or Path("runs") / f"{spec.name}.{dataset.name}.search-{seed}")
    described = {
        "model": spec.name,
        "data": {"name": dataset.name, "fingerprint": dataset.fingerprint},
        "recipe": dataclasses.asdict(basis),
        "strategy": strategy,
        "seed": seed,
        "max_parameters": max_parameters,
        "folds": folds,
        "input_shape": input_shape,
        "space": {key: {type(values).__name__: dataclasses.asdict(values)} for key, values in space.items()},
    }
    _open_search(directory, described)

    def training(values: Mapping[str, Any], **more: Any) -> Callable[..., Run]:
        keys, arguments = _divided(basis, values)
        return functools.partial(
            train, recipe=basis.replace(**keys, **more), devices=devices, seed=seed, input_shape=input_shape,
            arguments=arguments,
        )  # fmt: skip

    def score_of(values: Mapping[str, Any], folder: Path, **more: Any) -> float:
        trained = training(values, **more)
        if folds is None:
            return trained(name, dataset, out=folder).metrics["validation"][monitor.name]
        return spread(cross_validate(trained, name, dataset, folds=folds, out=folder))["mean"]

    def run_trial(values: Mapping[str, Any], folder: Path, epochs: int | None) -> float:
        arguments = {**basis.arguments, **_divided(basis, values)[1]}
        try:
            parameters = dataclasses.replace(task, arguments=arguments).build().count_params()
            if max_parameters is not None and parameters > max_parameters:
                raise ZooError(f"{parameters:,} parameters are more than {max_parameters:,}")
            score = score_of(values, folder / "run", **({} if epochs is None else {"epochs": epochs}))
        except (ZooError, MemoryError, tf.errors.ResourceExhaustedError) as error:
            raise keras_tuner.errors.FailedTrialError(str(error).partition("\n")[0]) from error
        _write_hparams(folder / "run" / "tensorboard", values, monitor.name, score)
        return score

    def so_far(oracle: Any) -> Search:
        return Search(directory, space, monitor, ended_trials(oracle, space, monitor))

    tuner = make_tuner(
        strategy, space, monitor, TRIALS if trials is None and strategy != "hyperband" else trials, basis.epochs,
        directory, seed,
        run_trial, lambda oracle: progress(so_far(oracle)) if progress and not worker else None,
    )  # fmt: skip
    if worker:
        follow_chief(tuner)
        return Search(directory, space, monitor, [])
    if progress:
        progress(so_far(tuner.oracle))
    hand_out(tuner)
    found = so_far(tuner.oracle)
    if not found.done:
        raise ZooError(f"all {len(found.trials)} trials failed, the last one because: {found.trials[-1].message}")
    plots.search(found.done, space, monitor, directory / "search.png")
    best = found.done[0]
    run = training(best.values)(name, dataset, out=directory / f"best-{best.number}")  # more trials may find another
    run.record["search"] = {**described, "trials": [dataclasses.asdict(trial) for trial in found.trials]}
    write_json(run.directory / RUN_FILE, run.record)
    for line in found.remarks():
        note(line)
    return dataclasses.replace(found, run=run)


def _divided(recipe: Recipe, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Recipe keys and builder arguments."""
    keys = {field.name for part in (recipe, recipe.options) for field in dataclasses.fields(part)}
    return (
        {key: value for key, value in values.items() if key in keys},
        {key: value for key, value in values.items() if key not in keys},
    )


def _check_space(spec: ModelSpec, recipe: Recipe, space: Mapping[str, Range], input_shape: tuple | None) -> None:
    if not space:
        raise ZooError(
            f"{spec.name} declares no space to search: give one, such as --set-range learning_rate=1e-4..1e-2"
        )
    keys, arguments = _divided(recipe, space)
    for key in arguments:
        if key not in spec.builder_arguments:
            known = [*spec.builder_arguments, *dataclasses.asdict(recipe)]
            raise unknown(f"argument of {spec.name} or recipe key", key, known)
    for key, values in space.items():
        if not isinstance(values, Range):
            raise ZooError(f"the range of {key} must be a zoo.IntRange, LogRange or Choice, not {values!r}")
        for value in values.ends():
            try:
                if key in keys:
                    make_optimizer(recipe.replace(**{key: value}))
                else:
                    spec.build(input_shape, **{**recipe.arguments, key: value})
            except ZooError as error:
                raise ZooError(f"the range of {key} contains {value!r}: {error}") from None


def _open_search(directory: Path, described: Mapping[str, Any]) -> None:
    """Make the directory of a search, or find the same search in it."""
    path, described = directory / SEARCH_FILE, json.loads(json.dumps(plain(described)))
    if (directory / RUN_FILE).exists():
        raise ZooError(f"{directory} contains a run: choose another --out")
    if path.exists():
        found = read_json(path)
        if changed := [key for key in described if found.get(key) != described[key]]:
            raise ZooError(
                f"{directory} contains another search (different {', '.join(changed)}): choose another --out or "
                "remove it"
            )
        return
    try:
        directory.mkdir(parents=True, exist_ok=True)
        write_json(path, described)
    except OSError as error:
        raise ZooError(f"cannot write the search to {directory}: {error.strerror}") from None


def _write_hparams(folder: Path, values: Mapping[str, Any], metric: str, score: float) -> None:
    """What TensorBoard's HParams page shows."""
    with tf.summary.create_file_writer(str(folder)).as_default():
        hparams.hparams({key: value if isinstance(value, int | float) else str(value) for key, value in values.items()})
        tf.summary.scalar(metric, score, step=0)
