"""Runs an artefact in a process of its own that knows nothing of bmcli: for verifying and measuring it.

    python runner.py ARTEFACT ENCODER

Orders come as JSON objects, one a line, on standard input, and answers go the same way to standard output. This file
imports NumPy, the runtime of the artefact, and the encoder that it is told.
"""

from __future__ import annotations

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
Tensors = Mapping[str, np.ndarray]
Function = Callable[[Tensors], Tensors]


class ArtefactRunner:
    """An artefact that is ready to predict.

    Args:
        folder: Where its `card.json` lies.
        encoder: The module that encodes what the artefact leaves to its user.
    """

    def __init__(self, folder: str | Path, encoder: Any) -> None:
        self.folder, self.encoder = Path(folder), encoder
        self.card = json.loads((self.folder / "card.json").read_text(encoding="utf-8"))
        self.signatures = {each["name"]: each for each in self.card["signatures"]}
        self.columns: dict[str, Any] = {}
        if any(given["form"] == "encoded" for given in self.card["signatures"][0]["inputs"]):
            described = json.loads((self.folder / "preprocessing.json").read_text(encoding="utf-8"))
            self.columns = {column["name"]: column for column in described["inputs"]}
        runtime, model = self.card["runtime"], str(self.folder / self.card["model"])
        prepare, load = RUNTIMES[runtime]
        module = prepare()
        start = time.perf_counter()
        self.functions = load(module, model, self.signatures)
        self.load_s = time.perf_counter() - start

    def make_tensors(self, raw: Mapping[str, Any], signature: str = SERVING) -> dict[str, np.ndarray]:
        """Tensors by name, from cells by column."""
        return {
            given["name"]: self._tensor(given, raw[given["column"]]) for given in self.signatures[signature]["inputs"]
        }

    def run(self, tensors: Tensors, signature: str = SERVING) -> Tensors:
        """Arrays by output, from tensors by name."""
        return self.functions[signature](tensors)

    def predict(self, raw: Mapping[str, Any], signature: str = SERVING) -> dict[tuple[str, str], np.ndarray]:
        """What is predicted of raw rows: arrays by target and role."""
        given = self.run(self.make_tensors(raw, signature), signature)
        return {(each["target"], each["role"]): given[each["name"]] for each in self.signatures[signature]["outputs"]}

    def _tensor(self, signature_input: Mapping[str, Any], cells: Any) -> np.ndarray:
        if signature_input["form"] == "encoded" and signature_input["column"] in self.columns:
            return self.encoder.encode(self.columns[signature_input["column"]], cells)
        if signature_input["dtype"] == "string":
            return np.asarray(cells, object)
        return np.asarray(cells, signature_input["dtype"])


def _import_tensorflow() -> Any:
    import tensorflow as tf

    return tf


def _load_saved_model(tf: Any, path: str, signatures: Mapping[str, Any]) -> dict[str, Function]:
    loaded = tf.saved_model.load(path)

    def function(name: str) -> Function:
        compute = loaded.signatures[name]

        def run(tensors: Tensors) -> Tensors:
            given = {key: tf.constant(v.tolist() if v.dtype == object else v) for key, v in tensors.items()}
            return {key: value.numpy() for key, value in compute(**given).items()}

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
    # The content and not its path, of which TensorFlow's interpreter does not check that all offsets lie inside.
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
    """Tensors in which text is text and not its bytes."""
    return {
        name: np.array([_decode_text(cell) for cell in v.reshape(-1)], object).reshape(v.shape)
        if v.dtype == object
        else v
        for name, v in tensors.items()
    }


def _decode_text(cell: Any) -> str:
    return cell.decode("utf-8", "replace") if isinstance(cell, bytes) else str(cell)


def _import_openvino() -> Any:
    import openvino

    return openvino


def _load_openvino(openvino: Any, path: str, signatures: Mapping[str, Any]) -> dict[str, Function]:
    # Else it computes in bfloat16 where the processor can, and differs by a percent from what was exported.
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    outputs = [each["name"] for each in signatures[SERVING]["outputs"]]

    def run(tensors: Tensors) -> Tensors:
        given = compiled(tensors)
        return {name: given[compiled.output(name)] for name in outputs}

    return {SERVING: run}


def _import_networks() -> Any:
    from bmcli.networks import network  # the layers of a .keras file have to be known

    return network


def _load_keras(networks: Any, path: str, signatures: Mapping[str, Any]) -> dict[str, Function]:
    import warnings

    import keras

    warnings.filterwarnings("ignore", message="When providing `inputs` as a dict")
    model = networks.load_serving_model(Path(path))
    inputs = {each["name"]: each["column"] for each in signatures[SERVING]["inputs"]}
    outputs = {each["name"]: each["target"] for each in signatures[SERVING]["outputs"]}

    def run(tensors: Tensors) -> Tensors:
        given = {
            inputs[name]: keras.ops.convert_to_tensor(v.tolist() if v.dtype == object else v)
            for name, v in tensors.items()
        }
        found = model(given, training=False)
        return {name: keras.ops.convert_to_numpy(found[target]) for name, target in outputs.items()}

    return {SERVING: run}


RUNTIMES: dict[str, tuple[Callable[[], Any], Callable[..., dict[str, Function]]]] = {
    "tensorflow": (_import_tensorflow, _load_saved_model),
    "litert": (_import_litert, _load_litert),
    "onnx": (_import_onnxruntime, _load_onnx),
    "openvino": (_import_openvino, _load_openvino),
    "keras": (_import_networks, _load_keras),
}


def write_arrays(path: str | Path, arrays: Mapping[str, Any]) -> None:
    """Arrays by name into one file; text and bytes as their bytes and lengths, so that nothing is pickled."""
    held: dict[str, np.ndarray] = {}
    names: list[Any] = []
    for place, (name, values) in enumerate(arrays.items()):
        values = np.asarray(values)
        names.append([name, "text" if values.dtype == object else "array", list(values.shape)])
        if values.dtype == object:
            texts = [each if isinstance(each, bytes) else str(each).encode() for each in values.reshape(-1)]
            held[f"{place}-lengths"] = np.array([len(each) for each in texts], "int64")
            values = np.frombuffer(b"".join(texts), "uint8")
        held[str(place)] = values
    held["names"] = np.frombuffer(json.dumps(names).encode(), "uint8")
    np.savez(path, **held)  # type: ignore[arg-type]  # names are no options


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """What `write_arrays` wrote; texts come as bytes."""
    with np.load(path, allow_pickle=False) as held:
        names = json.loads(held["names"].tobytes().decode())
        return {name: _read_array(held, place, form, shape) for place, (name, form, shape) in enumerate(names)}


def _read_array(held: Any, place: int, form: str, shape: list[int]) -> np.ndarray:
    values = held[str(place)]
    if form == "array":
        return values
    ends, content = np.cumsum(held[f"{place}-lengths"]).tolist(), values.tobytes()
    texts = [content[start:end] for start, end in zip([0, *ends[:-1]], ends, strict=True)]
    found = np.empty(len(texts), object)
    found[:] = texts
    return found.reshape(shape)


def _answer_request(artefact: ArtefactRunner, request: Mapping[str, Any]) -> dict[str, Any]:
    if request["do"] == "predict":
        given = artefact.predict(read_arrays(request["rows"]), request["signature"])
        write_arrays(request["into"], {json.dumps(key): value for key, value in given.items()})
        return {}
    if request["do"] == "time":
        return {
            "seconds": _time_predictions(artefact, read_arrays(request["rows"]), request["calls"], request["at_most_s"])
        }
    return {"peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024, "alien": "bmcli" in sys.modules}


def _time_predictions(artefact: ArtefactRunner, raw: Mapping[str, Any], calls: int, at_most_s: float) -> list[float]:
    """Seconds of each call, from raw rows to arrays."""
    taken: list[float] = []
    while len(taken) < calls and sum(taken) < at_most_s:
        start = time.perf_counter()
        artefact.predict(raw)
        taken.append(time.perf_counter() - start)
    return taken


def main() -> None:
    """Answers orders until standard input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # Libraries may print.
    spec = importlib.util.spec_from_file_location("encoder", sys.argv[2])
    encoder = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(encoder)  # type: ignore[union-attr]
    artefact = ArtefactRunner(sys.argv[1], encoder)
    print(json.dumps({"load_s": artefact.load_s}), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(_answer_request(artefact, json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
