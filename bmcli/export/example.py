"""Example of an artefact's card: a Python program from a raw row to its answers, and a request to TensorFlow Serving.

The kind of an input makes the cell, and the answers of an objective write how they follow from a prediction. Both use
what was fitted alone, so that no row of the data is in the card.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bmcli import inputs as input_kinds
from bmcli.export import Runtime, Signature, SignatureInput, WrittenModel
from bmcli.export.runner import GENERATE
from bmcli.objectives import open_answers

if TYPE_CHECKING:
    from bmcli.answers import Answers
    from bmcli.specs import DataSpec

_MAX_LISTED = 32
"""Numbers of a cell that are listed one by one."""


@dataclass(frozen=True)
class _RuntimeCode:
    """How a runtime is used in Python.

    Args:
        imports: Lines that import it.
        run: Lines from `tensors`, arrays by name, to `outputs`, arrays by name. `{model}` is the file or folder,
            `{signature}` the name of the function, and `{outputs}` the list of its outputs, as literals.
    """

    imports: tuple[str, ...]
    run: tuple[str, ...]


_CODE: Mapping[Runtime, _RuntimeCode] = {
    "tensorflow": _RuntimeCode(
        ("import tensorflow as tf",),
        (
            "model = tf.saved_model.load({model})",
            "predict = model.signatures[{signature}]",
            "results = predict(**{{name: tf.constant(value) for name, value in tensors.items()}})",
            "outputs = {{name: value.numpy() for name, value in results.items()}}",
        ),
    ),
    "litert": _RuntimeCode(
        (
            "",
            "try:",
            "    from ai_edge_litert.interpreter import Interpreter",
            "except ImportError:",
            "    from tensorflow import lite",
            "",
            "    Interpreter = lite.Interpreter",
        ),
        ("predict = Interpreter({model}).get_signature_runner({signature})", "outputs = predict(**tensors)"),
    ),
    "onnx": _RuntimeCode(
        ("import onnxruntime",),
        (
            'session = onnxruntime.InferenceSession({model}, providers=["CPUExecutionProvider"])',
            "names = {outputs}",
            "outputs = dict(zip(names, session.run(names, tensors)))",
        ),
    ),
    "openvino": _RuntimeCode(
        ("import openvino",),
        (
            'model = openvino.Core().compile_model({model}, "CPU", {{"INFERENCE_PRECISION_HINT": "f32"}})',
            "results = model(tensors)",
            "outputs = {{name: results[model.output(name)] for name in {outputs}}}",
        ),
    ),
    "keras": _RuntimeCode(
        ("import keras", "import tensorflow as tf", "from bmcli import layers"),
        (
            "layers.register()",
            "model = keras.saving.load_model({model})",
            "results = model({{name: tf.constant(value) for name, value in tensors.items()}}, training=False)",
            "outputs = {{name: keras.ops.convert_to_numpy(value) for name, value in results.items()}}",
        ),
    ),
}


def write_program(spec: DataSpec, written: WrittenModel) -> str:
    """Write a program that answers one row, to be run in the folder of the artefact.

    It needs NumPy and the runtime of the artefact, and no bmcli, unless the artefact itself needs it.
    """
    signature, code = written.signatures[0], _CODE[written.runtime]
    answers = [_write_answer(each, signature) for each in open_answers(spec).values()]
    cells = {each.column: _write_cell(_make_cell(spec, each)) for each in signature.inputs}
    literals = {
        "model": format_literal(written.model),
        "signature": format_literal(signature.name),
        "outputs": f"[{', '.join(format_literal(each.name) for each in signature.outputs)}]",
    }
    body = [
        "row = {",
        *(f"    {format_literal(column)}: {cell}," for column, cell in cells.items()),
        "}",
        *_write_tensors(signature, written.runtime),
        *(line.format(**literals) for line in code.run),
        *_write_class_names(answers),
        "print({",
        *(f"    {answer}," for answer in answers),
        "})",
    ]
    return "\n".join([*_list_imports("\n".join(body), code), "", *body]) + "\n"


def write_generation_program(written: WrittenModel) -> str | None:
    """Write a program that continues a text, to be run in the folder of the artefact; None if it cannot."""
    if written.writing is None or not written.writing.generates:
        return None
    lines = [
        *_CODE[written.runtime].imports,
        *(f"import {name}  # operations of the model" for name in written.modules),
        "",
        f"model = tf.saved_model.load({format_literal(written.model)})",
        f"generate = model.signatures[{format_literal(GENERATE)}]",
        "results = generate(",
        '    prompt=tf.constant(["The "]), tokens=tf.constant(40), seed=tf.constant(0),',
        "    temperature=tf.constant(0.8), top_k=tf.constant(0), top_p=tf.constant(1.0),",
        "    repetition_penalty=tf.constant(1.0),",
        ")",
        'print(results["text"].numpy()[0].decode())',
    ]
    return "\n".join(lines) + "\n"


def _list_imports(body: str, code: _RuntimeCode) -> Iterator[str]:
    """List the imports, those of the standard library first."""
    yield from (f"import {name}" for name in ("base64", "json") if f"{name}." in body)
    if "Path(" in body:
        yield "from pathlib import Path"
    yield from ("", "import numpy as np", *code.imports)
    if "encode(" in body:
        yield "from encoder import encode"


def _write_tensors(signature: Signature, runtime: Runtime) -> Iterator[str]:
    if any(each.form == "encoded" for each in signature.inputs):
        yield 'inputs = json.loads(Path("preprocessing.json").read_text(encoding="utf-8"))["inputs"]'
        yield 'columns = {each["name"]: each for each in inputs}'
    yield "tensors = {"
    for each in signature.inputs:
        column = format_literal(each.column)
        # The tensors of a Keras model have the names of the columns.
        name = column if runtime == "keras" else format_literal(each.name)
        if each.form == "encoded":
            yield f"    {name}: encode(columns[{column}], [row[{column}]]),"
        else:
            dtype = "object" if each.dtype == "string" else format_literal(each.dtype)
            yield f"    {name}: np.array([row[{column}]], {dtype}),"
    yield "}"


def _write_answer(answers: Answers, signature: Signature) -> str:
    """Write the item of one target in the printed answers."""
    target = format_literal(answers.name)
    names = {each.role: each.name for each in signature.outputs if each.target == answers.name}
    if "decision" in names:
        return f"{target}: outputs[{format_literal(names['decision'])}][0].decode()"
    prediction = f"outputs[{format_literal(names[answers.served_prediction])}][0]"
    return f"{target}: {answers.write_answer(prediction, f'classes[{target}]')}"


def _write_class_names(answers: list[str]) -> Iterator[str]:
    if any("classes[" in each for each in answers):
        yield 'targets = json.loads(Path("card.json").read_text(encoding="utf-8"))["targets"]'
        yield 'classes = {each["name"]: each["classes"] for each in targets}'


def make_request(spec: DataSpec, written: WrittenModel) -> str:
    """Make the JSON of a request to TensorFlow Serving in its row format, between single quotes of a shell.

    Bytes are `{"b64": "..."}`. Cells of many numbers are cut to `...`.
    """
    row = {each.name: _to_json(_make_cell(spec, each)) for each in written.signatures[0].inputs}
    # Signs of HTML and of the shell are written as JSON allows.
    text = json.dumps(row).replace("<", "\\u003c").replace("'", "\\u0027").replace(f'"{_CUT}"', "...")
    return f'{{"instances": [{text}]}}'


_CUT = "\0"
_MAX_TEXT = 200  # characters of a cell


def _make_cell(spec: DataSpec, signature_input: SignatureInput) -> Any:
    """Make the example cell of an input; a long text, such as a category of foreign data, is cut."""
    cell = input_kinds.get_traits(spec.input(signature_input.column)).make_example_cell()
    return cell[:_MAX_TEXT] if isinstance(cell, str) else cell


def _to_json(cell: Any) -> Any:
    import numpy as np

    if isinstance(cell, bytes):
        return {"b64": base64.b64encode(cell).decode()}
    if isinstance(cell, str):
        return cell
    return np.asarray(cell).tolist() if np.size(cell) <= _MAX_LISTED else _CUT


def _write_cell(cell: Any) -> str:
    """Write a cell as a Python expression; many numbers as even steps from the least to the largest."""
    import numpy as np

    if isinstance(cell, bytes):
        return f'base64.b64decode("{base64.b64encode(cell).decode()}")'
    if isinstance(cell, str):
        return format_literal(cell)
    values = np.asarray(cell)
    if values.size <= _MAX_LISTED:
        return repr(values.tolist())
    low, high, shape = float(values.min()), float(values.max()), tuple(values.shape)
    return f'np.linspace({low:g}, {high:g}, {values.size}).reshape({shape}).astype("{values.dtype}")'


def format_literal(text: str) -> str:
    """Format foreign text as a Python literal without `<`, which could begin an HTML tag."""
    return repr(text).replace("<", "\\x3c")
