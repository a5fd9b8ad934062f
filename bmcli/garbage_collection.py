"""Thresholds of Python's garbage collector."""

from __future__ import annotations

import gc

_THRESHOLDS = (50_000, 20, 20)


def reduce_collections() -> None:
    """Run Python's collector of reference cycles less often, in this process and its forks.

    Importing TensorFlow and building graphs create many objects that stay alive, so there is little to collect; with
    the default thresholds the collector takes a tenth of the time.
    """
    gc.set_threshold(*_THRESHOLDS)
