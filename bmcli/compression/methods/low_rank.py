"""Low-rank factorisation: a dense layer or convolution becomes two thin ones, by a singular value decomposition.

Convolutions are factorised as in Zhang, Zou, He and Sun 2016, section 3.1: fewer filters, then a 1x1 convolution.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from bmcli.compression.methods import Examples, clone_model
from bmcli.errors import BmcliError
from bmcli.recipe.compression import MethodOptions

if TYPE_CHECKING:
    import keras
    import numpy as np


class Options(MethodOptions):
    """Low-rank factorisation: kernels become products of two thin matrices where that needs fewer weights."""

    kind: Literal["low_rank"] = Field(default="low_rank", description="Kernels as products of thin matrices.")
    energy: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.9, description="Fraction of the sum of squared singular values of each kernel that is kept."
    )


def apply(options: Options, model: keras.Model, examples: Examples) -> keras.Model:
    """Replace layers by pairs of thin layers.

    Raises:
        BmcliError: No layer would become smaller.
    """
    factors = {layer.name: pair for layer in model.layers if (pair := _factorize_kernel(layer, options.energy))}
    if not factors:
        raise BmcliError("no layer becomes smaller as a product of two.", suggestion="Lower `energy`.")
    compressed = clone_model(
        model, lambda layer: _build_thin_layers(layer, factors[layer.name][0]) if layer.name in factors else None
    )
    for name, (first, second) in factors.items():
        layer = model.get_layer(name)
        bias = [layer.bias.numpy()] if layer.use_bias else []
        compressed.get_layer(name).set_weights([first, second, *bias])
    return compressed


def _factorize_kernel(layer: Any, energy: float) -> tuple[np.ndarray, np.ndarray] | None:
    """Compute the kernels of two thin layers; None if they have no fewer weights than the layer."""
    import keras
    import numpy as np

    if not isinstance(layer, (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D)):
        return None
    if getattr(layer, "groups", 1) != 1:
        return None  # each group of a convolution has a separate kernel
    kernel = layer.kernel.numpy()
    matrix = kernel.reshape(-1, kernel.shape[-1])
    left, values, right = np.linalg.svd(matrix.astype("float64"), full_matrices=False)
    rank = choose_rank(values, energy)
    if rank * sum(matrix.shape) >= matrix.size:
        return None
    root = np.sqrt(values[:rank])  # the singular values are shared out, so that both kernels are of one magnitude
    first, second = left[:, :rank] * root, root[:, None] * right[:rank]
    ones = (1,) * (kernel.ndim - 2)
    return (
        first.reshape(*kernel.shape[:-1], rank).astype(kernel.dtype),
        second.reshape(*ones, rank, kernel.shape[-1]).astype(kernel.dtype),
    )


def choose_rank(values: np.ndarray, energy: float) -> int:
    """Number of the largest singular values that have at least the share `energy` of the sum of squares."""
    import numpy as np

    shares = np.cumsum(values**2) / max(np.sum(values**2), 1e-30)  # of a kernel of zeros the sum is 0
    return min(int(np.searchsorted(shares, energy - 1e-12)) + 1, len(values))  # the last share may round below 1


def _build_thin_layers(layer: Any, first: np.ndarray) -> Any:
    """Build the pair of layers that replaces a layer; their weights are set afterwards."""
    import keras

    config, rank = layer.get_config(), first.shape[-1]
    narrow = {**config, "name": f"{layer.name}_first", "use_bias": False, "activation": "linear"}
    wide = {**config, "name": f"{layer.name}_second"}
    for each in (narrow, wide):  # penalties and constraints matter only in training
        each.update(kernel_regularizer=None, kernel_constraint=None)
    if isinstance(layer, keras.layers.Dense):
        narrow["units"] = rank
    else:
        narrow["filters"] = rank
        ones = tuple(1 for _ in layer.kernel_size)
        wide.update(kernel_size=ones, strides=ones, dilation_rate=ones, padding="valid")
    kind = type(layer)
    return keras.Sequential([kind.from_config(narrow), kind.from_config(wide)], name=layer.name)
