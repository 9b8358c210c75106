"""TensorFlow's import without its messages."""

from __future__ import annotations

import os
import sys


def import_tensorflow() -> None:
    """Import TensorFlow without the lines about its build, which it writes to standard error past every setting."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:  # noqa: PTH123  devnull is no path to speak of
        os.dup2(nowhere.fileno(), 2)
    try:
        import tensorflow

        tensorflow.get_logger().setLevel("ERROR")  # its advice on retracing is for programmers
    finally:
        os.dup2(kept, 2)
        os.close(kept)
