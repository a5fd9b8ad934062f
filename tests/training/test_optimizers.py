"""Learning rates of single layers."""

from __future__ import annotations

import numpy as np
import pytest

from bmcli.errors import BmcliError
from bmcli.training.optimizers import resolve_layer_rates
from tests.trainers import MakeTrainer, Silent, weights_of

NAMES = ("dense/kernel", "dense/bias", "head/kernel", "head/bias")
ONE_STEP = ("model.dropout=0", "runtime.jit=false", "train.stop.steps=1", "train.select.metric=last")


def test_a_pattern_sets_the_rate_of_each_weight_it_matches() -> None:
    assert resolve_layer_rates({"dense/*": 0.1}, NAMES) == {0: 0.1, 1: 0.1}
    assert resolve_layer_rates({"*/bias": 2.0, "head/kernel": 0.0}, NAMES) == {1: 2.0, 2: 0.0, 3: 2.0}


def test_the_last_pattern_that_fits_decides() -> None:
    assert resolve_layer_rates({"*": 0.1, "head/*": 1.0}, NAMES) == {0: 0.1, 1: 0.1}


def test_a_pattern_that_fits_no_weight_is_a_fault_that_names_the_nearest() -> None:
    with pytest.raises(BmcliError, match=r"no weight is called 'heads/bias'") as caught:
        resolve_layer_rates({"*": 0.5, "heads/bias": 0.1}, NAMES)
    (fault,) = caught.value.faults
    assert (fault.path, fault.suggestion) == ("train.layer_rates.heads/bias", "Did you mean 'head/bias'?")


@pytest.mark.parametrize(
    "optimizer",
    [
        pytest.param("{kind: sgd, learning_rate: 0.1, momentum: 0.9}", marks=pytest.mark.slow),
        pytest.param("{kind: adam, learning_rate: 0.01}", marks=pytest.mark.slow),
        "{kind: adamw, learning_rate: 0.01, weight_decay: 0.5}",
        pytest.param("{kind: adam, learning_rate: 0.01, global_clipnorm: 0.01}", marks=pytest.mark.slow),
    ],
)
def test_the_change_of_a_weight_is_scaled_and_no_other(make_trainer: MakeTrainer, optimizer: str) -> None:
    settings = (*ONE_STEP, f"train.optimizer={optimizer}")
    plain, scaled = make_trainer(*settings), make_trainer(*settings, "train.layer_rates={'*/kernel': 0.25}")
    names = [weight.path for weight in plain.network.model.weights]
    before = weights_of(plain)
    assert before[0].any()
    plain.train(Silent())
    scaled.train(Silent())
    kernels = [name.endswith("/kernel") for name in names]
    assert any(kernels)
    assert not all(kernels)
    for first, usual, found, is_kernel in zip(before, weights_of(plain), weights_of(scaled), kernels, strict=True):
        np.testing.assert_allclose(found - first, (usual - first) * (0.25 if is_kernel else 1), atol=1e-7)
        assert np.abs(usual - first).max() > 1e-4


def test_a_rate_of_0_leaves_weights_as_they_are_at_first(make_trainer: MakeTrainer) -> None:
    trainer = make_trainer("train.layer_rates={'*/bias': 0.0}", "runtime.jit=false")
    names = [weight.path for weight in trainer.network.model.trainable_weights]
    before = [weight.numpy() for weight in trainer.network.model.trainable_weights]
    trainer.train(Silent())
    for name, first, weight in zip(names, before, trainer.network.model.trainable_weights, strict=True):
        assert np.array_equal(first, weight.numpy()) == name.endswith("/bias")


@pytest.mark.slow
def test_rates_are_the_same_with_xla(make_trainer: MakeTrainer) -> None:
    settings = ("model.dropout=0", "train.layer_rates={'*/kernel': 0.25}")
    plain, compiled = (make_trainer(*settings, f"runtime.jit={jit}") for jit in ("false", "true"))
    plain.train(Silent())
    compiled.train(Silent())
    for first, second in zip(weights_of(plain), weights_of(compiled), strict=True):
        np.testing.assert_allclose(first, second, atol=1e-4)
