"""Clustering: a few values for each kernel."""

from __future__ import annotations

import keras
import numpy as np

from bmcli.compression.methods import cluster

from .conftest import examples, given, kernels


def test_every_value_becomes_the_mean_of_its_cluster() -> None:
    kernel = np.array([[1.0, 1.2], [5.0, 5.4], [-3.0, -3.4]], "float32")
    found = cluster.cluster_weights(kernel, 3)
    np.testing.assert_allclose(found, [[1.1, 1.1], [5.2, 5.2], [-3.2, -3.2]], atol=1e-6)


def test_means_are_a_fixed_point_of_the_algorithm_of_lloyd() -> None:
    kernel = np.random.default_rng(1).normal(size=(40, 50)).astype("float32")
    found = cluster.cluster_weights(kernel, 8)
    means = np.unique(found)
    assert len(means) == 8
    nearest = np.abs(kernel.ravel()[:, None] - means).argmin(axis=1)
    moved = [kernel.ravel()[nearest == number].mean() for number in range(8)]
    np.testing.assert_allclose(moved, means, atol=2e-2)


def test_zeros_stay_and_are_one_of_the_values() -> None:
    kernel = np.random.default_rng(1).normal(size=(20, 20)).astype("float32")
    kernel[::2] = 0
    found = cluster.cluster_weights(kernel, 4)
    assert ((found == 0) == (kernel == 0)).all()
    assert len(np.unique(found)) == 4


def test_a_kernel_with_few_values_stays_as_it_is() -> None:
    kernel = np.array([[1.0, 2.0], [0.0, 1.0]], "float32")
    assert np.array_equal(cluster.cluster_weights(kernel, 16), kernel)


def test_kernels_alone_are_clustered(trained: keras.Model) -> None:
    found = cluster.apply(cluster.Options(clusters=5), trained, given(examples()))
    assert all(len(np.unique(kernel)) <= 5 for kernel in kernels(found))
    assert all(len(np.unique(kernel)) > 5 for kernel in kernels(trained))
    for layer, other in zip(trained.layers, found.layers, strict=True):
        if hasattr(layer, "bias") and layer.bias is not None:
            assert np.array_equal(layer.bias.numpy(), other.bias.numpy())
