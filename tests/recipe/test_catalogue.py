from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bmcli.recipe import catalogue

SCRIPT = Path(__file__).parents[2] / ".ci" / "keras_catalogue.py"


def test_the_file_is_that_of_the_installed_keras() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True)
    assert done.returncode == 0, f"Run python .ci/keras_catalogue.py\n{done.stderr}"


def test_known_names_are_there_in_the_spelling_of_keras() -> None:
    assert {"adam", "adamw", "rmsprop", "sgd"} <= set(catalogue.list_kinds("optimizers"))
    assert {"relu", "lstm", "conv2d", "multi_head_attention", "prelu"} <= set(catalogue.list_kinds("layers"))
    assert {"l1", "l2", "l1_l2"} <= set(catalogue.list_kinds("regularizers"))
    assert {"cosine_decay"} <= set(catalogue.list_kinds("schedules"))


@pytest.mark.parametrize("kind", ["lambda", "tfsm_layer", "torch_module_wrapper", "jax_layer", "flax_layer", "rnn"])
def test_layers_that_run_foreign_code_are_not(kind: str) -> None:
    assert kind not in catalogue.list_kinds("layers")


@pytest.mark.parametrize(
    ("option", "family"),
    [
        ("kernel_initializer", "initializers"),
        ("recurrent_activation", "activations"),
        ("bias_constraint", "constraints"),
        ("activity_regularizer", "regularizers"),
        ("layer", "layers"),
        ("units", None),
    ],
)
def test_an_option_name_gives_the_family_of_its_objects(option: str, family: str | None) -> None:
    assert catalogue.get_option_family(option) == family


@pytest.mark.parametrize(
    ("family", "kind", "options"),
    [
        ("layers", "dense", {"units": 3}),
        (
            "layers",
            "dense",
            {"units": 3, "activation": "relu", "kernel_initializer": {"kind": "he_normal", "seed": 1}},
        ),
        ("layers", "conv2d", {"filters": 3, "kernel_size": (3, 5), "strides": (1, 2), "padding": "same"}),
        ("layers", "bidirectional", {"layer": {"kind": "lstm", "units": 3, "return_sequences": True}}),
        ("layers", "reshape", {"target_shape": (-1, 2)}),
        ("layers", "lstm", {"units": 3, "use_cudnn": False}),
        ("layers", "gru", {"units": 3, "use_cudnn": "auto"}),
        ("layers", "random_rotation", {"factor": (-0.1, 0.1)}),
        ("optimizers", "adam", {"learning_rate": 1, "clipnorm": 1.0}),
        ("metrics", "auc", {"thresholds": (0.1, 0.5)}),
    ],
)
def test_right_options_pass(family: str, kind: str, options: dict[str, Any]) -> None:
    assert catalogue.find_option_problems(family, kind, options) == []


@pytest.mark.parametrize(
    ("kind", "options", "problem"),
    [
        ("dense", {}, ((), "dense needs 'units'.", "Write {kind: dense, units: ...}.")),
        (
            "conv2d",
            {},
            (
                (),
                "conv2d needs 'filters' and 'kernel_size'.",
                "Write {kind: conv2d, filters: ..., kernel_size: ...}.",
            ),
        ),
        (
            "dense",
            {"units": 3, "actvation": "relu"},
            (("actvation",), "dense has no option 'actvation'.", "Did you mean 'activation'?"),
        ),
        ("dense", {"units": "3"}, (("units",), "expected a whole number of at least 1, received '3'.", "")),
        ("dense", {"units": 0}, (("units",), "expected a whole number of at least 1, received 0.", "")),
        ("dense", {"units": True}, (("units",), "expected a whole number of at least 1, received true.", "")),
        (
            "lstm",
            {"units": 3, "use_cudnn": "yes"},
            (("use_cudnn",), "expected true, false or auto, received 'yes'.", "Keras' default is 'auto'."),
        ),
        ("dropout", {"rate": "x"}, (("rate",), "expected a number, received 'x'.", "")),
        (
            "flatten",
            {"trainable": 1},
            (("trainable",), "expected true or false, received 1.", "Keras' default is true."),
        ),
        (
            "dense",
            {"units": 3, "activation": "rely"},
            (("activation",), "no activation 'rely'.", "Did you mean 'relu'?"),
        ),
        (
            "dense",
            {"units": 3, "kernel_regularizer": {"kind": "l2", "l": 0.1}},
            (("kernel_regularizer", "l"), "l2 has no option 'l'.", "Did you mean 'l2'?"),
        ),
        (
            "bidirectional",
            {"layer": {"kind": "lstn", "units": 3}},
            (("layer", "kind"), "no layer 'lstn'.", "Did you mean 'lstm'?"),
        ),
        ("lstm", {"units": 3, "activation": None}, (("activation",), "'activation' needs a value.", "")),
        (
            "conv2d",
            {"filters": 3, "kernel_size": 3, "padding": 1},
            (("padding",), "expected text, received 1.", "Keras' default is 'valid'."),
        ),
        # A mapping could describe an object that Keras would then make.
        (
            "reshape",
            {"target_shape": {"class_name": "Lambda"}},
            (("target_shape",), "expected a plain value, received {class_name: Lambda}.", ""),
        ),
    ],
)
def test_wrong_options_are_named(kind: str, options: dict[str, Any], problem: Any) -> None:
    assert catalogue.find_option_problems("layers", kind, options) == [problem]


def test_all_problems_are_found_at_once() -> None:
    assert len(catalogue.find_option_problems("layers", "dense", {"unit": 3, "activation": 4, "use_bias": "no"})) == 4
