"""Keras callbacks driven from our loop."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

import keras

from bmcli import parts
from bmcli.errors import BmcliError, Fault
from bmcli.layers.keras_objects import make_keras_object
from bmcli.objectives import Direction
from bmcli.recipe.fields import KerasObject
from bmcli.recipe.train import TrainOptions

Directions = Mapping[str, Direction | None]


def require_direction(metric: str, directions: Directions, path: str) -> None:
    """Refuses a metric of which neither more nor less is better."""
    if directions.get(metric, "min") is None:
        raise BmcliError(
            f"neither more nor less of '{metric}' is better, so no epoch is the best by it.",
            path=path,
            suggestion=f"Name another, as {metric.partition('/')[0]}/loss.",
        )


class KerasCallbacks:
    """The recipe's callbacks and TensorBoard, called after every epoch.

    They see each metric under our name (`validation/loss`) and under Keras' (`val_loss`).

    Args:
        events: Folder of TensorBoard's events; None for a worker that writes none.
    """

    def __init__(
        self, train: TrainOptions, model: keras.Model, optimizer: Any, events: str | None, directions: Directions
    ) -> None:
        self._callbacks = [
            _make_callback(described, directions, f"train.callbacks.{i}") for i, described in enumerate(train.callbacks)
        ]
        model.optimizer = optimizer  # where callbacks look for the learning rate
        model.stop_training = False
        self._model = model
        self._list = keras.callbacks.CallbackList(self._callbacks, add_history=False, model=model)
        self._events = events if train.tensorboard else None
        self._list.on_train_begin()

    @cached_property
    def _tensorboard(self) -> keras.callbacks.CallbackList:
        """TensorBoard, which is imported with the first epoch's end: nobody has to wait for it before."""
        board = [keras.callbacks.TensorBoard(self._events, write_graph=False)] if self._events else []
        callbacks = keras.callbacks.CallbackList(board, add_history=False, model=self._model)
        callbacks.on_train_begin()
        return callbacks

    def after_epoch(self, epoch: int, row: Mapping[str, float]) -> bool:
        """Calls them with an epoch's metrics (`epoch` counts from 1); true if one of them wants to stop."""
        logs = {**row, **{_keras_name(name): value for name, value in row.items() if "/" in name}}
        self._list.on_epoch_end(epoch - 1, logs)
        self._tensorboard.on_epoch_end(
            epoch - 1, {_keras_name(name): value for name, value in row.items() if "/" in name}
        )
        return bool(self._model.stop_training)

    def finish(self) -> None:
        self._list.on_train_end()
        self._tensorboard.on_train_end()

    def state(self) -> list[dict[str, float | None]]:
        """Counters and best values, as plain JSON values."""
        return [
            {
                name: value
                for name, value in vars(callback).items()
                if name not in _DERIVED_ATTRIBUTES and _is_state_value(value)
            }
            for callback in self._callbacks
        ]

    def restore(self, state: list[dict[str, float | None]]) -> None:
        self._model.stop_training = False
        for callback, values in zip(self._callbacks, state, strict=True):
            vars(callback).update(values)


def _make_callback(config: KerasObject, directions: Directions, path: str) -> Any:
    options = dict(config.options)
    monitor = options.setdefault("monitor", "validation/loss" if "validation/loss" in directions else "train/loss")
    known = {**directions, **{_keras_name(name): way for name, way in directions.items()}}
    if monitor not in known:
        raise BmcliError(
            Fault(f"no metric '{monitor}'.", f"{path}.monitor", None, parts.did_you_mean(monitor, directions))
        )
    if "mode" not in options:
        require_direction(monitor, known, f"{path}.monitor")
        options["mode"] = known[monitor]
    return make_keras_object("callbacks", KerasObject(config.kind, options))


def _keras_name(name: str) -> str:
    """`validation/loss` is Keras' `val_loss`, `train/loss` its `loss`."""
    return name.replace("validation/", "val_").replace("train/", "")


# Keras finds these out with the first epoch; doing so twice would turn `min_delta` round.
_DERIVED_ATTRIBUTES = ("monitor_op", "min_delta")


def _is_state_value(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
