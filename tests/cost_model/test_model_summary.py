"""Summaries of networks."""

from __future__ import annotations

import keras

from bmcli.cost_model import model_summary
from bmcli.cost_model.model_summary import LayerSummary
from tests.trainers import MakeTrainer


def test_models_inside_are_flattened() -> None:
    inner = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.Dense(2)], name="inner")
    outer = keras.Input((4,))
    model = keras.Model(outer, keras.layers.Dense(1)(inner(outer)))
    found = model_summary.summarize_layers(model)
    assert [(layer.shape, layer.parameters) for layer in found] == [((3,), 15), ((2,), 8), ((1,), 3)]
    assert sum(layer.parameters for layer in found) == model.count_params()


def test_a_layer_of_layers_is_one_line() -> None:
    steps = keras.Input((5, 4))
    model = keras.Model(steps, keras.layers.MultiHeadAttention(2, 2)(steps, steps))
    (layer,) = model_summary.summarize_layers(model)
    assert (layer.kind, layer.shape) == ("MultiHeadAttention", (5, 4))
    assert layer.parameters == model.count_params()


def test_the_middle_of_a_long_network_becomes_one_line() -> None:
    long = [LayerSummary(f"layer{number}", "Dense", (4,), number) for number in range(30)]
    short = model_summary.shorten_layers(long, 9)
    assert [layer.name for layer in short] == [
        *(f"layer{number}" for number in range(4)), "... 22 more", *(f"layer{number}" for number in range(26, 30)),
    ]  # fmt: skip
    assert sum(layer.parameters for layer in short) == sum(range(30))
    assert model_summary.shorten_layers(long[:9], 9) == long[:9]


def test_averages_take_memory_beside_the_slots_of_the_optimizer(make_trainer: MakeTrainer) -> None:
    plain, moving, free = (
        model_summary.estimate_memory(make_trainer("runtime.jit=false", *more).steps)
        for more in ((), ("train.ema=0.9",), ("train.schedule_free=true",))
    )
    assert moving.optimizer == plain.optimizer + plain.gradients
    assert free.optimizer == plain.optimizer + 2 * plain.gradients + 8, "two copies of the weights, and a sum"
