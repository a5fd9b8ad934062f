"""Padding: what stands in its steps changes nothing, and a sequence of padding alone is no fault."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from bmcli import parts
from bmcli.recipe.fields import PartField
from tests.models.fakes import build_network, category, column, spec

TEXT = column("text", (6, 4), padding=0.0)
READ = {
    "kind": "layers",
    "layers": (
        {"kind": "bidirectional", "layer": {"kind": "gru", "units": 4}},
        {"kind": "dense", "units": 3},
    ),
}
ATTEND = {
    "kind": "layers",
    "layers": (
        {"kind": "multi_head_attention", "num_heads": 2, "key_dim": 4},
        {"kind": "global_average_pooling1d"},
        {"kind": "dense", "units": 3},
    ),
}

masked = pytest.mark.parametrize(
    "options",
    [
        {"kind": "mlp"},
        {"kind": "mlp", "sequences": "max"},
        *(
            {"kind": "rnn", "cell": "gru", "units": (5, 4), "bidirectional": True, "pooling": p}
            for p in ("last", "mean", "max", "attention")
        ),
        *(
            {"kind": "rnn", "cell": "gru", "units": (4, 4), "share": True, "bidirectional": b, "pooling": "last"}
            for b in (False, True)
        ),
        {"kind": "linear"},
        {"kind": "table_resnet", "width": 8, "normalization": "layer"},
        *(
            {"kind": "cnn", "filters": (4, 4), "convolutions": 2, "pooling": p, "pool_kind": k}
            for p in ("flatten", "average", "max")
            for k in ("average", "max")
        ),
        {"kind": "cnn", "filters": (4,), "strides": 2, "pool": 1, "kernel_size": 4},
        {"kind": "cnn", "filters": (4,), "strides": 2, "padding": "valid", "normalization": "layer"},
        {"kind": "rnn", "normalization": "layer"},
        *({"kind": "transformer", "width": 8, "pooling": p} for p in ("mean", "max", "token")),
        {"kind": "transformer", "width": 8, "norm_first": False},
        {"kind": "transformer", "width": 8, "share": True},
        READ,
        ATTEND,
    ],
    ids=lambda options: "-".join(str(value) for value in options.values() if isinstance(value, str)),
)


def _outputs(options: dict[str, Any], *batches: np.ndarray) -> list[np.ndarray]:
    data = spec(TEXT, targets=(category(),))
    network = build_network(parts.load("models", options["kind"]), PartField("models").check(options), data)
    return [network({"text": tf.constant(rows)})["label"].numpy() for rows in batches]


@masked
def test_padding_is_not_read(options: dict[str, Any]) -> None:
    random = np.random.default_rng(0)
    rows = random.normal(size=(3, 6, 4)).astype("float32")
    rows[:, 4:, 0] = 0.0
    changed = rows.copy()
    changed[:, 4:, 1:] = random.normal(size=(3, 2, 3)) * 100
    first, second = _outputs(options, rows, changed)
    np.testing.assert_allclose(first, second, rtol=0, atol=1e-6)


@masked
def test_a_sequence_without_steps_gives_finite_outputs(options: dict[str, Any]) -> None:
    rows = np.random.default_rng(0).normal(size=(2, 6, 4)).astype("float32")
    rows[0, :, 0] = 0.0
    assert np.isfinite(_outputs(options, rows)[0]).all()
