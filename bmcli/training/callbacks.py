"""Keras callbacks, called from the custom training loop."""

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
    """Refuse a metric of which neither more nor less is better."""
    if directions.get(metric, "min") is None:
        raise BmcliError(
            f"neither a higher nor a lower '{metric}' is better, so epochs cannot be compared by it.",
            path=path,
            suggestion=f"Name another metric, such as {metric.partition('/')[0]}/loss.",
        )


class KerasCallbacks:
    """The recipe's callbacks and TensorBoard, called after every epoch.

    They find each metric under its bmcli name (`validation/loss`) and under Keras' (`val_loss`).

    Args:
        events: Folder of TensorBoard's event files; None for a worker that writes none.
    """

    def __init__(
        self, train: TrainOptions, model: keras.Model, optimizer: Any, events: str | None, directions: Directions
    ) -> None:
        self._callbacks = [
            _make_callback(config, directions, f"train.callbacks.{i}") for i, config in enumerate(train.callbacks)
        ]
        # Callbacks read and change the learning rate through the one, and request a stop through the other; Keras sets
        # them in `compile` and `fit`, which are not used here.
        model.optimizer = optimizer
        model.stop_training = False
        self._model = model
        self._list = keras.callbacks.CallbackList(self._callbacks, add_history=False, model=model)
        self._events = events if train.tensorboard else None
        self._list.on_train_begin()

    @cached_property
    def _tensorboard(self) -> keras.callbacks.CallbackList:
        """TensorBoard's callback, imported only at the end of the first epoch, so that it does not delay the start."""
        board = [keras.callbacks.TensorBoard(self._events, write_graph=False)] if self._events else []
        callbacks = keras.callbacks.CallbackList(board, add_history=False, model=self._model)
        callbacks.on_train_begin()
        return callbacks

    def after_epoch(self, epoch: int, row: Mapping[str, float]) -> bool:
        """Call the callbacks with an epoch's metrics.

        Args:
            epoch: Counts from 1.

        Returns:
            Whether one of them stops the training.
        """
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
        """Counters and best values of the callbacks, as plain JSON values."""
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
    by_name = {**directions, **{_keras_name(name): direction for name, direction in directions.items()}}
    if monitor not in by_name:
        raise BmcliError(
            Fault(f"no metric '{monitor}'.", f"{path}.monitor", None, parts.did_you_mean(monitor, directions))
        )
    if "mode" not in options:
        # Keras would derive the mode from the names of compiled metrics, and there are none.
        require_direction(monitor, by_name, f"{path}.monitor")
        options["mode"] = by_name[monitor]
    return make_keras_object("callbacks", KerasObject(config.kind, options))


def _keras_name(name: str) -> str:
    """`validation/loss` is Keras' `val_loss`, `train/loss` its `loss`."""
    return name.replace("validation/", "val_").replace("train/", "")


# Keras derives these in the first epoch, and changes the sign of `min_delta`: doing it again after a resume would
# change the sign back.
_DERIVED_ATTRIBUTES = ("monitor_op", "min_delta")


def _is_state_value(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))
