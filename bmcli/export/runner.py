"""Runner of an artefact in a separate process without bmcli, for verification and benchmarks.

    python runner.py ARTEFACT ENCODER

It reads requests from standard input and writes answers to standard output, as JSON objects, one in each line. This
file imports only NumPy, the runtime of the artefact, and the given encoder.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import resource
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

SERVING = "serving_default"
GENERATE, STEP = "generate", "step"
"""Functions that write a text, and that compute a step of one, of an artefact that has them."""
OPERATIONS = ("tensorflow_text",)
"""Modules with operations that a model may have beside those of its runtime."""

Tensors = Mapping[str, np.ndarray]
Function = Callable[[Tensors], Tensors]


class ArtefactRunner:
    """A loaded artefact.

    Args:
        folder: With its `card.json`.
        encoder: The module for preprocessing outside the artefact.
    """

    def __init__(self, folder: str | Path, encoder: Any) -> None:
        self.folder, self.encoder = Path(folder), encoder
        self.card = json.loads((self.folder / "card.json").read_text(encoding="utf-8"))
        self.signatures = {each["name"]: each for each in self.card["signatures"]}
        self.columns: dict[str, Any] = {}
        if any(tensor["form"] == "encoded" for tensor in self.card["signatures"][0]["inputs"]):
            preprocessing = json.loads((self.folder / "preprocessing.json").read_text(encoding="utf-8"))
            self.columns = {column["name"]: column for column in preprocessing["inputs"]}
        runtime, model = self.card["runtime"], str(self.folder / self.card["model"])
        prepare, load = RUNTIMES[runtime]
        module = prepare()
        for name in self.card["modules"]:
            _import_operations(name)
        writing = self.card["writing"] or {"generates": False, "caches": None}
        self.caches = writing["caches"]
        more = {GENERATE: writing["generates"], STEP: self.caches is not None}
        start = time.perf_counter()
        self.functions = load(module, model, {**self.signatures, **{name: {} for name, has in more.items() if has}})
        self.load_s = time.perf_counter() - start

    def make_tensors(self, raw: Mapping[str, Any], signature: str = SERVING) -> dict[str, np.ndarray]:
        """Make tensors by name from cells by column."""
        return {
            tensor["name"]: self._tensor(tensor, raw[tensor["column"]])
            for tensor in self.signatures[signature]["inputs"]
        }

    def run(self, tensors: Tensors, signature: str = SERVING) -> Tensors:
        """Run the model: arrays by output name from tensors by name."""
        return self.functions[signature](tensors)

    def predict(self, raw: Mapping[str, Any], signature: str = SERVING) -> dict[tuple[str, str], np.ndarray]:
        """Predict raw rows: arrays by target and role."""
        outputs = self.run(self.make_tensors(raw, signature), signature)
        return {(each["target"], each["role"]): outputs[each["name"]] for each in self.signatures[signature]["outputs"]}

    def run_steps(self, ids: np.ndarray) -> np.ndarray:
        """Compute texts step by step: logits of the token after each, `(batch, steps, tokens)`, from ids."""
        caches = {each["name"]: np.zeros((len(ids), *each["shape"]), each["dtype"]) for each in self.caches}
        logits = []
        for position in range(ids.shape[1]):
            step = {"token": ids[:, position], "position": np.array(position, "int32")}
            outputs = self.run({**step, **caches}, STEP)
            logits.append(outputs["logits"])
            caches = {name: outputs[name] for name in caches}
        return np.stack(logits, axis=1)

    def _tensor(self, signature_input: Mapping[str, Any], cells: Any) -> np.ndarray:
        if signature_input["form"] == "encoded" and signature_input["column"] in self.columns:
            return self.encoder.encode(self.columns[signature_input["column"]], cells)
        if signature_input["dtype"] == "string":
            return np.asarray(cells, object)
        return np.asarray(cells, signature_input["dtype"])


def _import_tensorflow() -> Any:
    import tensorflow as tf

    return tf


def _import_operations(name: str) -> None:
    """Import a module whose operations a model has; no other one, since a card may come from anywhere."""
    if name not in OPERATIONS:
        raise ValueError(f"no module with operations: {name[:80]!r}")
    importlib.import_module(name)


def _load_saved_model(tf: Any, path: str, signatures: Mapping[str, Any]) -> dict[str, Function]:
    loaded = tf.saved_model.load(path)

    def function(name: str) -> Function:
        compute = loaded.signatures[name]

        def run(tensors: Tensors) -> Tensors:
            inputs = {
                key: tf.constant(value.tolist() if value.dtype == object else value) for key, value in tensors.items()
            }
            return {key: value.numpy() for key, value in compute(**inputs).items()}

        return run

    return {name: function(name) for name in signatures}


def _import_litert() -> Any:
    if importlib.util.find_spec("ai_edge_litert"):
        from ai_edge_litert.interpreter import Interpreter

        return Interpreter
    import warnings

    import tensorflow as tf

    warnings.filterwarnings("ignore", message=r"\s*Warning: tf.lite.Interpreter is deprecated")
    return tf.lite.Interpreter


def _load_litert(interpreter_class: Any, path: str, signatures: Mapping[str, Any]) -> dict[str, Function]:
    # By content, since TensorFlow's interpreter does not verify that the offsets of a file by path lie inside it.
    content = Path(path).read_bytes()
    interpreter = interpreter_class(model_content=content, num_threads=len(os.sched_getaffinity(0)))
    interpreter.allocate_tensors()
    return {name: _make_litert_function(interpreter, name) for name in signatures}


def _make_litert_function(interpreter: Any, name: str) -> Function:
    runner = interpreter.get_signature_runner(name)
    return lambda tensors: runner(**tensors)


def _import_onnxruntime() -> Any:
    import onnxruntime

    return onnxruntime


def _load_onnx(onnxruntime: Any, path: str, signatures: Mapping[str, Any]) -> dict[str, Function]:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return {SERVING: lambda tensors: dict(zip(names, session.run(names, _decode_texts(tensors)), strict=True))}


def _decode_texts(tensors: Tensors) -> Tensors:
    """Decode the bytes of text tensors, since ONNX Runtime takes strings."""
    return {
        name: np.array([_decode_text(cell) for cell in values.reshape(-1)], object).reshape(values.shape)
        if values.dtype == object
        else values
        for name, values in tensors.items()
    }


def _decode_text(cell: Any) -> str:
    return cell.decode("utf-8", "replace") if isinstance(cell, bytes) else str(cell)


def _import_openvino() -> Any:
    import openvino

    return openvino


def _load_openvino(openvino: Any, path: str, signatures: Mapping[str, Any]) -> dict[str, Function]:
    # By default it computes in bfloat16 on processors that support it, with errors of about a percent.
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    outputs = [each["name"] for each in signatures[SERVING]["outputs"]]

    def run(tensors: Tensors) -> Tensors:
        results = compiled(tensors)
        return {name: results[compiled.output(name)] for name in outputs}

    return {SERVING: run}


def _import_networks() -> Any:
    from bmcli.networks import network  # registers the layers of a .keras file

    return network


def _load_keras(networks: Any, path: str, signatures: Mapping[str, Any]) -> dict[str, Function]:
    import warnings

    import keras

    warnings.filterwarnings("ignore", message="When providing `inputs` as a dict")
    model = networks.load_serving_model(Path(path))
    inputs = {each["name"]: each["column"] for each in signatures[SERVING]["inputs"]}
    outputs = {each["name"]: each["target"] for each in signatures[SERVING]["outputs"]}

    def run(tensors: Tensors) -> Tensors:
        tensors_by_column = {
            inputs[name]: keras.ops.convert_to_tensor(value.tolist() if value.dtype == object else value)
            for name, value in tensors.items()
        }
        predictions = model(tensors_by_column, training=False)
        return {name: keras.ops.convert_to_numpy(predictions[target]) for name, target in outputs.items()}

    return {SERVING: run}


RUNTIMES: dict[str, tuple[Callable[[], Any], Callable[..., dict[str, Function]]]] = {
    "tensorflow": (_import_tensorflow, _load_saved_model),
    "litert": (_import_litert, _load_litert),
    "onnx": (_import_onnxruntime, _load_onnx),
    "openvino": (_import_openvino, _load_openvino),
    "keras": (_import_networks, _load_keras),
}


def write_arrays(path: str | Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays by name to one file, text as bytes with lengths, so that nothing is pickled."""
    contents: dict[str, np.ndarray] = {}
    names: list[Any] = []
    for index, (name, values) in enumerate(arrays.items()):
        values = np.asarray(values)
        names.append([name, "text" if values.dtype == object else "array", list(values.shape)])
        if values.dtype == object:
            texts = [each if isinstance(each, bytes) else str(each).encode() for each in values.reshape(-1)]
            contents[f"{index}-lengths"] = np.array([len(each) for each in texts], "int64")
            values = np.frombuffer(b"".join(texts), "uint8")
        contents[str(index)] = values
    contents["names"] = np.frombuffer(json.dumps(names).encode(), "uint8")
    np.savez(path, **contents)  # type: ignore[arg-type]  # NumPy's stub reads any name as `allow_pickle`


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Read the file of `write_arrays`; texts are bytes."""
    with np.load(path, allow_pickle=False) as contents:
        names = json.loads(contents["names"].tobytes().decode())
        return {name: _read_array(contents, index, form, shape) for index, (name, form, shape) in enumerate(names)}


def _read_array(contents: Any, index: int, form: str, shape: list[int]) -> np.ndarray:
    values = contents[str(index)]
    if form == "array":
        return values
    ends, content = np.cumsum(contents[f"{index}-lengths"]).tolist(), values.tobytes()
    texts = [content[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    array = np.empty(len(texts), object)
    array[:] = texts
    return array.reshape(shape)


def _answer_request(artefact: ArtefactRunner, request: Mapping[str, Any]) -> dict[str, Any]:
    if request["request"] == "predict":
        predictions = artefact.predict(read_arrays(request["rows"]), request["signature"])
        write_arrays(request["output"], {json.dumps(key): value for key, value in predictions.items()})
        return {}
    if request["request"] == "write":
        write_arrays(request["output"], artefact.run(read_arrays(request["inputs"]), GENERATE))
        return {}
    if request["request"] == "steps":
        logits = artefact.run_steps(read_arrays(request["inputs"])["ids"])
        write_arrays(request["output"], {"logits": logits})
        return {}
    if request["request"] == "time":
        return {
            "seconds": _time_predictions(artefact, read_arrays(request["rows"]), request["calls"], request["at_most_s"])
        }
    return {
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "bmcli_loaded": "bmcli" in sys.modules,
    }


def _time_predictions(artefact: ArtefactRunner, raw: Mapping[str, Any], calls: int, at_most_s: float) -> list[float]:
    """Measure the seconds of each call, from raw rows to arrays."""
    seconds: list[float] = []
    while len(seconds) < calls and sum(seconds) < at_most_s:
        start = time.perf_counter()
        artefact.predict(raw)
        seconds.append(time.perf_counter() - start)
    return seconds


def main() -> None:
    """Answer requests until the end of standard input."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries may print to standard output, which would break the answers
    package = str(Path(sys.argv[2]).parent)
    module_spec = importlib.util.spec_from_file_location("encoder", sys.argv[2], submodule_search_locations=[package])
    encoder = importlib.util.module_from_spec(module_spec)  # type: ignore[arg-type]  # a .py file always has a spec
    sys.modules["encoder"] = encoder  # so that it finds its modules
    module_spec.loader.exec_module(encoder)  # type: ignore[union-attr]  # and a loader
    artefact = ArtefactRunner(sys.argv[1], encoder)
    print(json.dumps({"load_s": artefact.load_s}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(_answer_request(artefact, json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
