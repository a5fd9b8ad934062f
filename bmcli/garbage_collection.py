"""How often Python looks for garbage."""

from __future__ import annotations

import gc

_THRESHOLDS = (50_000, 20, 20)


def reduce_collections() -> None:
    """Has Python look for rings of unused objects less often than it would, in this process and its forks.

    Importing TensorFlow and building graphs make very many objects that stay, among which there is little to collect:
    looking takes a tenth of the time.
    """
    gc.set_threshold(*_THRESHOLDS)
