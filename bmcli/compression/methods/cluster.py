"""Weight clustering: each kernel has only a few distinct values (Han, Mao and Dally 2016, section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from bmcli.compression.methods import Examples, clone_model, is_kernel
from bmcli.recipe.compression import MethodOptions

if TYPE_CHECKING:
    import keras
    import numpy as np


class Options(MethodOptions):
    """Weight clustering: the values of each kernel are replaced by the nearest of a few k-means centroids.

    Compressed files shrink: 16 centroids need 4 bits per weight. Weights of 0 stay 0, and 0 is then one of the
    centroids.
    """

    kind: Literal["cluster"] = Field(default="cluster", description="A few values for each kernel.")
    clusters: Annotated[int, Field(ge=2, le=256)] = Field(
        default=16, description="Number of distinct values per kernel."
    )


def apply(options: Options, model: keras.Model, examples: Examples) -> keras.Model:
    compressed = clone_model(model)
    for weight in compressed.trainable_variables:
        if is_kernel(weight):
            weight.assign(cluster_weights(weight.numpy(), options.clusters))
    return compressed


def cluster_weights(kernel: np.ndarray, clusters: int) -> np.ndarray:
    """Replace the values of a kernel by at most `clusters` distinct ones."""
    import numpy as np
    from sklearn.cluster import KMeans

    clustered = kernel.copy()
    nonzero = clustered != 0  # pruned weights stay 0, which then is one of the values
    values = clustered[nonzero].astype("float64")
    count = clusters - (not nonzero.all())
    if len(np.unique(values)) <= count:
        return clustered
    # The first centroids are evenly spaced from the smallest to the largest value: random ones would lie among the many
    # small weights, and the few large ones matter more (section 3.2).
    first = np.linspace(values.min(), values.max(), count)[:, None]
    means = KMeans(count, init=first, n_init=1).fit(values[:, None])
    clustered[nonzero] = means.cluster_centers_[means.labels_, 0]
    return clustered
