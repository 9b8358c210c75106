"""What all tests share: two logical CPUs, no chatter, and the real data where they are."""

import os
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest
import tensorflow as tf

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """Each test works in a folder of its own: nothing is written to the checkout."""
    monkeypatch.chdir(tmp_path)


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: "slow" not in item.keywords)  # or the last of them would run while all else is done
    folder = os.environ.get("ZOO_DATA_DIR")
    if not folder or not Path(folder, "mnist.npz").is_file():
        for item in items:
            if "real_data" in item.keywords:
                item.add_marker(pytest.mark.skip(reason="needs the real data sets: set ZOO_DATA_DIR"))
