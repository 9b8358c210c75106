"""Seeds and determinism for the time of a training; the caller's own random state is put back afterwards.

Neither Keras nor TensorFlow has a public way to read the state back, so that their own attributes are read here.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
from etils import epy

from zoo.errors import ZooError

with epy.lazy_imports():
    import keras
    import tensorflow as tf
    from keras.src.backend.common import global_state
    from tensorflow.python.eager import context as eager_context
    from tensorflow.python.framework import config as tf_config

TF_STATE = ("_seed", "_rng")  # the latter only once a seed has been set
KERAS_STATE = ("global_random_seed", "global_seed_generator")


def check_seed(seed: int) -> None:
    """Raises ZooError for a seed outside 0 .. 2**30 - 1."""
    if not 0 <= seed < 2**30:  # TensorFlow's seeds are int32, and each stage of fine-tuning adds one
        raise ZooError(f"the seed must be from 0 to 2**30 - 1, not {seed}")


@contextlib.contextmanager
def seeded(seed: int, deterministic: bool) -> Iterator[None]:
    """Everything random within depends on the seed alone; with `deterministic` every operation repeats to the bit.

    Raises:
        ZooError: as `check_seed`.
    """
    check_seed(seed)
    tf_context = eager_context.context()
    state = random.getstate(), np.random.get_state()
    tf_state = {name: vars(tf_context)[name] for name in TF_STATE if name in vars(tf_context)}
    keras_state = [global_state.get_global_attribute(name) for name in KERAS_STATE]
    was_deterministic = tf_config.is_op_determinism_enabled()
    try:
        keras.utils.set_random_seed(seed)
        if deterministic:
            tf.config.experimental.enable_op_determinism()
        yield
    finally:
        random.setstate(state[0])
        np.random.set_state(state[1])
        for name in TF_STATE:
            vars(tf_context).pop(name, None)
        vars(tf_context).update(tf_state)
        for name, value in zip(KERAS_STATE, keras_state, strict=True):
            global_state.set_global_attribute(name, value)
        if deterministic and not was_deterministic:
            tf_config.disable_op_determinism()


@contextlib.contextmanager
def dtype_policy(name: str) -> Iterator[None]:
    """Layers built within compute by this Keras policy; their weights are float32 under the mixed policies too."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def separate_replicas(strategy: tf.distribute.Strategy, model: keras.Model) -> None:
    """Give the random generators of a model's layers another seed on each replica but the first: Keras draws the same
    dropout mask on all of them. In a resumed training it follows upon restoring the state, which is the first one's.
    """
    known = {id(variable) for variable in model.weights}
    known |= {id(variable) for metric in model.metrics for variable in metric.variables}
    states = [variable for variable in model.variables if id(variable) not in known]

    @tf.function(autograph=False)
    def separate() -> None:
        strategy.run(shift)

    def shift() -> None:
        replica = tf.distribute.get_replica_context().replica_id_in_sync_group
        for state in states:  # int64 [2]: the seed, and how often was drawn
            state.assign(state + tf.cast(tf.stack([replica, 0]), state.dtype))

    if strategy.num_replicas_in_sync > 1:
        separate()
