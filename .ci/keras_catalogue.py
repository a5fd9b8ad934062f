"""Writes bmcli/recipe/keras_catalogue.json, the names and options of Keras' objects.

With it recipes are checked without TensorFlow.

    python .ci/keras_catalogue.py            write it from the installed Keras
    python .ci/keras_catalogue.py --check    exit 1 if it differs from the installed Keras
"""

from __future__ import annotations

import inspect
import json
import sys
from pathlib import Path
from typing import Any

TARGET = Path(__file__).parent.parent / "bmcli" / "recipe" / "keras_catalogue.json"

# Left out: base classes; wrappers of foreign code, which a recipe may never reach; objects that need Python
# values (cells, vocabularies, adapt()); losses that mix the examples of a batch, so that it has no loss per
# example; callbacks whose work the training loop does itself.
LEFT_OUT = {
    "activations": {"deserialize", "serialize", "get"},
    "initializers": {"initializer", "stft"},
    "regularizers": {"regularizer"},
    "constraints": {"constraint"},
    "optimizers": {"optimizer", "optimizer_map", "multi_optimizer", "loss_scale_optimizer"},
    "schedules": {"learning_rate_schedule"},
    "losses": {"loss", "ctc", "circle", "dice", "tversky"},
    "metrics": {"metric", "mean", "mean_metric_wrapper", "sum", "accuracy"},
    "layers": {
        "layer", "wrapper", "lambda", "input_layer", "input_spec", "tfsm_layer",
        "torch_module_wrapper", "flax_layer", "jax_layer", "pipeline", "max_num_bounding_boxes",
        "rnn", "stacked_rnn_cells", "simple_rnn_cell", "lstm_cell", "gru_cell", "string_lookup",
        "integer_lookup", "text_vectorization", "hashing", "hashed_crossing", "discretization",
        "normalization", "mix_up", "cut_mix",
    },
    "callbacks": {
        "backup_and_restore", "csv_logger", "callback", "callback_list", "history",
        "lambda_callback", "learning_rate_scheduler", "model_checkpoint", "orbax_checkpoint",
        "progbar_logger", "remote_monitor", "swap_ema_weights", "tensor_board", "terminate_on_na_n",
    },
}  # fmt: skip

# Set by bmcli itself for the whole model or the whole run.
SET_BY_BMCLI = {
    "self", "name", "dtype", "reduction", "from_logits", "quantization_config", "loss_scale_factor",
    "initial_learning_rate",
}  # fmt: skip

# What the training loop does not do yet, or what only makes sense from Python.
NOT_OFFERED = {
    "lora_rank", "lora_alpha", "use_ema", "ema_momentum", "ema_overwrite_frequency", "weights",
    "return_state", "stateful", "sparse", "reverse_dtype", "gptq_unpacked_column_size",
    "verbose", "restore_best_weights", "gradient_accumulation_steps",
}  # fmt: skip

SPELLING = {
    "adam_w": "adamw",
    "rm_sprop": "rmsprop",
    "re_lu": "relu",
    "io_u": "iou",
    "l1l2": "l1_l2",
    "p_relu": "prelu",
}


def catalogue() -> dict[str, dict[str, Any]]:
    import keras

    rooms = {family: getattr(keras, family) for family in LEFT_OUT if family != "schedules"}
    rooms["schedules"] = keras.optimizers.schedules
    return {family: dict(_entries(family, room)) for family, room in sorted(rooms.items())}


def _entries(family: str, room: Any) -> Any:
    for attribute in dir(room):
        thing = getattr(room, attribute)
        name = _snake(attribute)
        callable_of_family = inspect.isfunction(thing) if family == "activations" else inspect.isclass(thing)
        alias = inspect.isclass(thing) and thing.__name__ != attribute and hasattr(room, thing.__name__)
        if callable_of_family and not alias and name not in LEFT_OUT[family]:
            yield name, {"object": attribute, **_signature(family, thing)}


def _signature(family: str, thing: Any) -> dict[str, Any]:
    import keras

    parameters = inspect.signature(thing.__init__ if inspect.isclass(thing) else thing).parameters.values()
    hidden = SET_BY_BMCLI | NOT_OFFERED
    positional = [p for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) and p.name not in hidden]
    if family == "activations":
        # A function with options could not be saved in a model; the layers of the same names take options.
        positional = []
    options = {p.name: None if p.default is p.empty else _plain(p.default) for p in positional}
    entry: dict[str, Any] = {
        "options": options,
        "required": [p.name for p in positional if p.default is p.empty],
    }
    if family == "layers":
        options.setdefault("trainable", True)
        # How several inputs reach call(): as one list, or as separate arguments.
        call = list(inspect.signature(thing.call).parameters)
        as_list = issubclass(thing, (keras.layers.Attention, keras.layers.Dot)) or (
            thing.__mro__[1].__name__ == "Merge"
        )
        entry["inputs"] = "list" if as_list else "several" if "query" in call else "one"
    if family in ("losses", "metrics"):
        every = inspect.signature(thing.__init__).parameters
        entry["from_logits"] = "from_logits" in every
    return entry


def _plain(default: Any) -> Any:
    return (
        default
        if isinstance(default, (bool, int, float, str, list, type(None)))
        else (list(default) if isinstance(default, tuple) else None)
    )


def _snake(name: str) -> str:
    from keras.src.utils.naming import to_snake_case

    text = to_snake_case(name)
    for wrong, right in SPELLING.items():
        text = text.replace(wrong, right)
    return text


def main() -> int:
    text = json.dumps(catalogue(), indent=1, sort_keys=True) + "\n"
    if "--check" in sys.argv:
        return int(TARGET.read_text() != text)
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
