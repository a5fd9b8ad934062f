"""Low-rank factorisation: a dense layer or convolution becomes two thin ones, by a singular value decomposition.

Convolutions as in Zhang, Zou, He and Sun 2016, section 3.1: fewer filters, then a 1x1 convolution.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from bmcli.compression.methods import Examples, clone_model
from bmcli.errors import BmcliError
from bmcli.recipe.fields import Kind

if TYPE_CHECKING:
    import keras


class Options(Kind):
    """Low-rank factorisation: kernels become products of two thin matrices where that needs fewer weights."""

    kind: Literal["low_rank"] = Field(default="low_rank", description="Kernels as products of thin matrices.")
    energy: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.9, description="Fraction of the sum of squared singular values of each kernel that is kept."
    )


def apply(options: Options, model: keras.Model, examples: Examples) -> keras.Model:
    """The network with thin layers.

    Raises:
        BmcliError: No layer would become smaller.
    """
    factors = {layer.name: found for layer in model.layers if (found := _factorize_kernel(layer, options.energy))}
    if not factors:
        raise BmcliError("no layer becomes smaller as a product of two.", suggestion="Leave less `energy`.")
    found = clone_model(
        model, lambda layer: _build_thin_layers(layer, factors[layer.name][0]) if layer.name in factors else None
    )
    for name, (first, second) in factors.items():
        layer = model.get_layer(name)
        bias = [layer.bias.numpy()] if layer.use_bias else []
        found.get_layer(name).set_weights([first, second, *bias])
    return found


def _factorize_kernel(layer: Any, energy: float) -> tuple[np.ndarray, np.ndarray] | None:
    """The kernels of the two layers, or None if they are no smaller than the one."""
    import keras

    if not isinstance(layer, (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D)):
        return None
    if getattr(layer, "groups", 1) != 1:
        return None
    kernel = layer.kernel.numpy()
    matrix = kernel.reshape(-1, kernel.shape[-1])
    left, values, right = np.linalg.svd(matrix.astype("float64"), full_matrices=False)
    rank = choose_rank(values, energy)
    if rank * sum(matrix.shape) >= matrix.size:
        return None
    root = np.sqrt(values[:rank])  # shared, so that both kernels are of one size
    first, second = left[:, :rank] * root, root[:, None] * right[:rank]
    around = (1,) * (kernel.ndim - 2)
    return (
        first.reshape(*kernel.shape[:-1], rank).astype(kernel.dtype),
        second.reshape(*around, rank, kernel.shape[-1]).astype(kernel.dtype),
    )


def choose_rank(values: np.ndarray, energy: float) -> int:
    """How many of the singular values, from the largest on, have a share of the sum of their squares."""
    shares = np.cumsum(values**2) / max(np.sum(values**2), 1e-30)
    return min(int(np.searchsorted(shares, energy - 1e-12)) + 1, len(values))


def _build_thin_layers(layer: Any, first: np.ndarray) -> Any:
    """Two layers in the place of one, their weights yet to be set."""
    import keras

    config, rank = layer.get_config(), first.shape[-1]
    narrow = {**config, "name": f"{layer.name}_first", "use_bias": False, "activation": "linear"}
    wide = {**config, "name": f"{layer.name}_second"}
    for each in (narrow, wide):  # penalties and constraints are of training
        each.update(kernel_regularizer=None, kernel_constraint=None)
    if isinstance(layer, keras.layers.Dense):
        narrow["units"] = rank
    else:
        narrow["filters"] = rank
        ones = tuple(1 for _ in layer.kernel_size)
        wide.update(kernel_size=ones, strides=ones, dilation_rate=ones, padding="valid")
    kind = type(layer)
    return keras.Sequential([kind.from_config(narrow), kind.from_config(wide)], name=layer.name)
