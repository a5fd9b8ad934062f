"""The family of freely connected Keras layers. Faults that need no data are in tests/recipe/test_graph.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from bmcli.errors import BmcliError, Fault
from bmcli.models import layers
from bmcli.specs import Column
from tests.models.fakes import batch, build_network, category, column, number, spec

AGE = column("age", (3,))
SIZE = column("size", (3,))
IMAGE = column("image", (8, 8, 1))
DENSE = {"kind": "dense", "units": 3}


def build(
    nodes: tuple[Any, ...],
    columns: tuple[Column, ...] = (AGE,),
    targets: tuple[Column, ...] = (category(),),
    outputs: dict[str, str] | None = None,
) -> Any:
    data = spec(*columns, targets=targets)
    return build_network(layers, layers.Options(layers=nodes, outputs=outputs), data)


def faults(*arguments: Any, **named: Any) -> list[Fault]:
    with pytest.raises(BmcliError) as caught:
        build(*arguments, **named)
    return list(caught.value.faults)


def run(network: Any, *columns: Column, size: int = 4) -> dict[str, np.ndarray]:
    rows = {name: tf.constant(values) for name, values in batch(spec(*columns), size).items()}
    return {name: output.numpy() for name, output in network(rows).items()}


def test_a_residual_connection_adds() -> None:
    network = build(
        (
            {"kind": "dense", "units": 3, "name": "a", "kernel_initializer": "identity"},
            {"kind": "dense", "units": 3, "kernel_initializer": "identity"},
            {"kind": "add", "from": ("a", "dense_1", "age")},
        )
    )
    rows = batch(spec(AGE), 4)["age"]
    np.testing.assert_allclose(network({"age": tf.constant(rows)})["label"], 3 * rows, rtol=1e-6)


def test_a_shared_layer_has_one_set_of_weights() -> None:
    network = build(
        (
            {"kind": "dense", "units": 3, "name": "both", "from": "age"},
            {"kind": "shared", "layer": "both", "from": "size", "name": "again"},
            {"kind": "subtract", "from": ("both", "again")},
        ),
        (AGE, SIZE),
    )
    assert network.count_params() == 3 * 3 + 3
    rows = tf.constant(batch(spec(AGE), 4)["age"])
    np.testing.assert_array_equal(network({"age": rows, "size": rows})["label"], np.zeros((4, 3)))


def test_layers_may_be_written_in_any_order() -> None:
    network = build(
        ({**DENSE, "name": "last", "from": "first"}, {**DENSE, "name": "first", "from": "age"}),
        outputs={"label": "last"},
    )
    assert run(network, AGE)["label"].shape == (4, 3)
    assert network.count_params() == 24


def test_several_inputs_and_outputs() -> None:
    network = build(
        (
            {"kind": "concatenate", "from": ("age", "size"), "name": "all"},
            {**DENSE, "name": "which"},
            {"kind": "dense", "units": 1, "from": "all", "name": "much"},
        ),
        (AGE, SIZE),
        (category("label"), number("price")),
        {"label": "which", "price": "much"},
    )
    assert {name: output.shape for name, output in run(network, AGE, SIZE).items()} == {
        "label": (4, 3),
        "price": (4, 1),
    }


@pytest.mark.parametrize(
    "end",
    [
        ({**DENSE, "activation": "softmax"},),
        ({**DENSE, "activation": {"kind": "sigmoid"}},),
        (DENSE, {"kind": "softmax"}),
        (DENSE, "softmax"),
        (DENSE, {"kind": "activation", "activation": "sigmoid"}),
    ],
)
def test_the_last_softmax_or_sigmoid_is_left_to_the_objective(end: tuple[Any, ...]) -> None:
    network, plain = build(end), build((DENSE,))
    plain.set_weights(network.get_weights())
    np.testing.assert_array_equal(run(network, AGE)["label"], run(plain, AGE)["label"])


def test_probabilities_that_others_read_are_a_fault() -> None:
    nodes = (
        {**DENSE, "name": "gate", "activation": "sigmoid"},
        {"kind": "multiply", "from": ("gate", "age"), "name": "gated"},
        {"kind": "dense", "units": 1, "name": "much"},
    )
    found = faults(nodes, targets=(category(), number("price")), outputs={"label": "gate", "price": "much"})
    assert "feeds probabilities to 'gated' and to an output" in found[0].message
    assert found[0].path == "model.layers.0"


def test_one_output_serves_two_classes() -> None:
    network = build(
        ({"kind": "dense", "units": 1, "activation": "sigmoid"},), targets=(category(classes=("no", "yes")),)
    )
    rows = batch(spec(AGE), 5)["age"]
    logits = network({"age": tf.constant(rows)})["label"]
    kernel, bias = network.get_weights()
    np.testing.assert_array_equal(logits[:, 0], np.zeros(5))
    np.testing.assert_allclose(tf.nn.softmax(logits)[:, 1], tf.sigmoid(rows @ kernel + bias)[:, 0], rtol=1e-5)


def test_a_wrong_width_names_layer_and_widths() -> None:
    (fault,) = faults(({"kind": "dense", "units": 5, "name": "end"},))
    assert fault.message == "dense 'end' outputs 5 numbers, but 'label' needs 3."
    assert (fault.path, fault.suggestion) == ("model.layers.0", "Write units: 3.")


def test_an_output_that_is_no_vector_names_its_shape() -> None:
    (fault,) = faults(({"kind": "conv2d", "filters": 3, "kernel_size": 3},), (IMAGE,))
    assert "conv2d 'conv2d_0' outputs (6, 6, 3) per example, but 'label' needs 3 numbers" in fault.message
    assert "pooling" in fault.suggestion


def test_shapes_that_do_not_fit_name_layer_shapes_and_reason() -> None:
    nodes = ("flatten", {"kind": "conv2d", "filters": 3, "kernel_size": 3, "name": "look"}, "flatten", DENSE)
    (fault,) = faults(nodes, (IMAGE,))
    assert fault.message.startswith("conv2d 'look' does not accept (64): ")
    assert "\n" not in fault.message
    assert "expected min_ndim=4" in fault.message or "ndim" in fault.message
    assert fault.path == "model.layers.1"


def test_merged_shapes_must_fit() -> None:
    (fault,) = faults(({"kind": "add", "from": ("age", "size")}, DENSE), (AGE, column("size", (2,))))
    assert fault.message.startswith("add 'add_0' does not accept (3) and (2): ")


def test_options_that_keras_refuses_name_the_layer() -> None:
    (fault,) = faults(({"kind": "dropout", "rate": 7}, DENSE))
    assert fault.message.startswith("Keras refuses the options of dropout 'dropout_0': ")
    assert fault.path == "model.layers.0"


def test_an_unknown_source_names_the_nearest() -> None:
    (fault,) = faults(({**DENSE, "from": "agee"},))
    assert fault.message == "'agee' is neither a layer nor an input."
    assert (fault.path, fault.suggestion) == ("model.layers.0.from", "Did you mean 'age'?")


def test_all_wrong_links_are_reported_at_once() -> None:
    nodes = ({**DENSE, "name": "age"}, {**DENSE, "from": "siz"}, {"kind": "add", "from": ("age", "dense_1")})
    found = faults(nodes, (AGE, SIZE))
    assert [fault.path for fault in found] == ["model.layers.0.name", "model.layers.0", "model.layers.1.from"]
    assert "the inputs that it reads, of age, size" in found[1].message


def test_an_input_that_no_layer_reads_is_a_fault() -> None:
    (fault,) = faults(({**DENSE, "from": "age"},), (AGE, SIZE))
    assert fault.message == "no layer reads the input 'size'."


def test_several_targets_need_outputs() -> None:
    (fault,) = faults((DENSE,), targets=(category(), number("price")))
    assert fault.suggestion == "Write outputs: {label: NAME, price: NAME}."


def test_outputs_must_be_those_of_the_targets() -> None:
    found = faults(({**DENSE, "name": "end"},), outputs={"lable": "end"})
    assert [fault.message for fault in found] == [
        "there is no target 'lable'.",
        "target 'label' has no output layer.",
    ]
    assert found[0].suggestion == "Did you mean 'label'?"


def test_a_layer_may_be_called_as_keras_calls_its_own() -> None:
    network = build(({**DENSE, "name": "activation"}, {**DENSE, "name": "pad"}), targets=(category(),))
    assert run(network, AGE)["label"].shape == (4, 3)
