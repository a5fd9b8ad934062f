"""Profile of some seconds of training, for TensorBoard."""

from __future__ import annotations

import time

import tensorflow as tf

FIRST_CALL = 3  # Earlier ones trace and compile.
TRACE_S = 3.0


class Profiler:
    """Recorder of a trace, from the third call of the compiled steps on."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._calls = 0
        self._started_at: float | None = None
        self.recorded = False

    def on_call(self) -> None:
        """Start or stop the recording if it is time; called before each call of the compiled steps."""
        self._calls += 1
        if self._calls == FIRST_CALL:
            tf.profiler.experimental.start(self._folder)
            self._started_at = time.monotonic()
            self.recorded = True
        elif self._started_at is not None and time.monotonic() - self._started_at > TRACE_S:
            self.stop()

    def stop(self) -> None:
        if self._started_at is not None:
            self._started_at = None
            tf.profiler.experimental.stop()
