"""Distribution strategies by words such as `cpu:2`."""

from __future__ import annotations

import functools
import re

from etils import epy

from zoo.errors import ZooError

with epy.lazy_imports():
    import tensorflow as tf


@functools.cache  # collectives of a second MirroredStrategy in one process collide with those of the first
def strategy(devices: str = "auto") -> tf.distribute.Strategy:
    """The strategy for `auto` (all GPUs, else the CPU), `cpu`, `cpu:N` (N logical CPUs) or `gpu:I,J` (GPUs by
    number): `MirroredStrategy` for more than one device.

    Raises:
        ZooError: for another word, a GPU that is not there, or logical CPUs requested after TensorFlow has started.
    """
    match = re.fullmatch(r"auto|cpu(?::([1-9]\d*))?|gpu:(\d+(?:,\d+)*)", devices)
    if match is None:
        raise ZooError(f"unknown devices {devices!r}: use auto, cpu, cpu:2 (logical CPUs) or gpu:0,1")
    gpus = tf.config.list_physical_devices("GPU")
    if devices.startswith("cpu"):
        count = int(match[1] or 1)
        _make_logical_cpus(count)
        names = [f"CPU:{index}" for index in range(count)]
    elif devices == "auto":
        names = [f"GPU:{index}" for index in range(len(gpus))] or ["CPU:0"]
    else:
        names = [f"GPU:{index}" for index in match[2].split(",")]
        missing = [name for name in names if int(name[4:]) >= len(gpus)]
        if missing:
            raise ZooError(f"no {' or '.join(missing)} on this machine: it has {len(gpus)} GPUs")
    if len(names) > 1:
        return tf.distribute.MirroredStrategy(names)
    default = "GPU:0" if gpus else "CPU:0"
    return tf.distribute.get_strategy() if names == [default] else tf.distribute.OneDeviceStrategy(names[0])


def _make_logical_cpus(count: int) -> None:
    """Split the CPU into `count` logical devices, unless it already has as many or more."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    configured = tf.config.get_logical_device_configuration(cpu) or [None]
    if count <= len(configured):
        return
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError:
        raise ZooError(f"cpu:{count} must be requested before TensorFlow has started in this process") from None
