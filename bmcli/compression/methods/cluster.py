"""Weight clustering: each kernel gets along with a few different values (Han, Mao and Dally 2016, section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import Field

from bmcli.compression.methods import Examples, clone_model, is_kernel
from bmcli.recipe.fields import Kind

if TYPE_CHECKING:
    import keras


class Options(Kind):
    """Weight clustering: the values of each kernel are replaced by the nearest of a few k-means centroids.

    Compressed files shrink: 16 centroids need 4 bits per weight. Weights of 0 stay 0, and 0 is then one of the
    centroids.
    """

    kind: Literal["cluster"] = Field(default="cluster", description="A few values for each kernel.")
    clusters: Annotated[int, Field(ge=2, le=256)] = Field(
        default=16, description="Number of distinct values per kernel."
    )


def apply(options: Options, model: keras.Model, examples: Examples) -> keras.Model:
    found = clone_model(model)
    for weight in found.trainable_variables:
        if is_kernel(weight):
            weight.assign(cluster_weights(weight.numpy(), options.clusters))
    return found


def cluster_weights(kernel: np.ndarray, clusters: int) -> np.ndarray:
    """A kernel with so many different values at most.

    The first means lie at equal distances from the smallest to the largest value, since the few large weights matter
    more than their number tells (section 3.2).
    """
    from sklearn.cluster import KMeans

    found = kernel.copy()
    used = found != 0
    values = found[used].astype("float64")
    count = clusters - (not used.all())
    if len(np.unique(values)) <= count:
        return found
    first = np.linspace(values.min(), values.max(), count)[:, None]
    means = KMeans(count, init=first, n_init=1).fit(values[:, None])
    found[used] = means.cluster_centers_[means.labels_, 0]
    return found
