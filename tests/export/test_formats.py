"""Every format predicts like the model, from raw cells, in a process without bmcli."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bmcli import parts
from bmcli.commands.export import ExportResult
from bmcli.export import card
from bmcli.run_data import read_data_spec
from bmcli.runs import Run

from .conftest import PICTURES, exported, trained

CLASSES = ("early", "late", "never", "yes", "no")


@pytest.fixture(scope="module")
def of_pictures(picture_run: Run, cache: Path) -> ExportResult:
    return exported(picture_run, cache, "saved_model,litert:int8")


@pytest.fixture(scope="module")
def written(of_table: ExportResult) -> Any:
    """The SavedModel of the table."""
    import tensorflow as tf

    return tf.saved_model.load(str(of_table.run.exports / "saved_model" / "1"))


def by_format(found: ExportResult) -> Mapping[str, Any]:
    return {each.format_name: each for each in found.artefacts}


def require_alike(found: Any) -> None:
    assert found.verification.failures == ()
    assert found.verification.agreement == 1
    assert found.verification.max_difference < 1e-4


@pytest.mark.parametrize("format", ["saved_model", "litert"])
def test_a_table_of_every_kind_is_predicted_alike(of_table: ExportResult, format: str) -> None:
    found = by_format(of_table)[format]
    require_alike(found)
    assert found.path == of_table.run.exports / format
    edge_cases = "; ".join(found.verification.edge_cases)
    for description in (
        "a batch of 1",
        "a missing value in 'weight'",
        "an unknown text in 'colour'",
        "only spaces in 'note'",
    ):
        assert description in edge_cases


@pytest.mark.slow
def test_a_keras_file_predicts_a_table_alike(table_run: Run, cache: Path) -> None:
    (found,) = exported(table_run, cache, "keras").artefacts
    require_alike(found)


@pytest.mark.slow
def test_pictures_keep_their_classes_in_integers(of_pictures: ExportResult) -> None:
    found = by_format(of_pictures)
    assert found["litert-int8"].verification.agreement >= 0.99  # a row of 180
    assert found["litert-int8"].verification.failures == ()
    assert found["litert-int8"].verification.limits.agreement == 0.995
    assert found["saved_model"].verification.max_difference < 1e-4
    assert "a picture of 17 x 11 in 'image'" in found["saved_model"].verification.edge_cases
    skipped = "Not compared, since the artefact takes one size of pictures: a picture of 17 x 11 in 'image'; "
    assert any(sentence.startswith(skipped) for sentence in found["litert-int8"].verification.summary)
    assert "or all but 1 row" in found["litert-int8"].verification.summary[0]
    assert found["litert-int8"].bytes < found["saved_model"].bytes


@pytest.mark.slow
def test_a_saved_model_names_classes_and_takes_files(of_pictures: ExportResult) -> None:
    described = json.loads((of_pictures.run.exports / "saved_model" / card.CARD).read_text())
    usual, features, files = described["signatures"]
    assert [each["role"] for each in usual["outputs"]] == ["decision", "classes", "probabilities"]
    assert usual["inputs"][0]["shape"] == [None, None, 1]
    assert (features["name"], features["inputs"][0]["form"]) == ("features", "encoded")
    assert (files["name"], files["inputs"][0]["dtype"]) == ("encoded_images", "string")


def test_text_is_outside_of_what_holds_none(of_table: ExportResult) -> None:
    folder = of_table.run.exports / "litert"
    described = json.loads((folder / card.CARD).read_text())
    where = {column["name"]: column["preprocessing"] for column in described["columns"]}
    assert where["weight"] == "inside"
    assert where["note"] == where["colour"] == "outside, by encoder"
    assert "from encoder import encode" in (folder / card.CARD_TEXT).read_text()
    assert "from encoder import encode" not in (of_table.run.exports / "saved_model" / card.CARD_TEXT).read_text()
    modules = sorted(file.stem for file in (folder / card.ENCODER).glob("*.py"))
    assert modules == ["__init__", "_cells", "boolean", "category", "date", "text"]
    assert not (of_table.run.exports / "saved_model" / card.ENCODER).exists()


def test_thresholds_and_temperatures_are_inside(of_table: ExportResult, written: Any) -> None:
    described = card.read(of_table.run.exports / "saved_model")
    (lost,) = (target for target in described["targets"] if target["name"] == "lost")
    assert lost["decision"] == "'yes' if its probability is at least 0.55"
    output = read_data_spec(of_table.run).output("lost")
    assert lost["state"]["temperature"] == output.state["temperature"] != 1
    found = written.signatures["serving_default"](**requested(written, INSTANCES))
    chances = found["lost_probabilities"].numpy()[:, 1]
    assert found["lost"].numpy().tolist() == [b"yes" if chance >= 0.55 else b"no" for chance in chances]
    assert ((chances > 0.5) != (chances >= 0.55)).any(), "the most probable class is another somewhere"


INSTANCES = (
    '[{"weight": 2.5, "colour": "red", "fragile": "yes", "sent": "2024-03-11", "note": "handle with care"},'
    ' {"weight": NaN, "colour": "", "fragile": "", "sent": "", "note": ""}]'
)


def requested(written: Any, instances: str) -> dict[str, Any]:
    """Tensors of TensorFlow Serving's row format: an object an instance, its values by the names of the inputs."""
    import tensorflow as tf

    rows = json.loads(instances)
    (_, expected) = written.signatures["serving_default"].structured_input_signature
    assert all(set(row) == set(expected) for row in rows)
    found = {name: tf.constant([row[name] for row in rows], spec.dtype) for name, spec in expected.items()}
    for name, tensor in found.items():
        assert expected[name].shape.is_compatible_with(tensor.shape), name
    return found


def test_the_requests_of_the_card_are_what_the_signature_takes(of_table: ExportResult, written: Any) -> None:
    text = (of_table.run.exports / "saved_model" / card.CARD_TEXT).read_text()
    (command,) = (line for line in text.splitlines() if "curl" in line)
    row = re.search(r'"instances": \[(.*?)\]', command)
    assert row
    instance = json.loads(row[1])
    assert set(instance) == set(json.loads(INSTANCES)[0])
    answered = written.signatures["serving_default"](**requested(written, f"[{json.dumps(instance)}]"))
    assert answered["arrived"].numpy()[0].decode() in CLASSES
    assert "/v1/models/parcels:predict" in command
    assert '-v "$PWD:/models/parcels" -e MODEL_NAME=parcels' in text
    # The server answers with an object an instance, so that each output has a row for each of them.
    found = written.signatures["serving_default"](**requested(written, INSTANCES))
    assert {name: tensor.shape[0] for name, tensor in found.items()} == dict.fromkeys(found, 2)
    assert set(found) == {
        each["name"] for each in card.read(of_table.run.exports / "saved_model")["signatures"][0]["outputs"]
    }


def test_the_card_has_the_lineage(of_table: ExportResult) -> None:
    folder = of_table.run.exports / "saved_model"
    described = card.read(folder)
    assert described["license"] == "CC-BY-4.0"
    assert described["lineage"]["data_fingerprint"] == json.loads(of_table.run.data.read_text())["fingerprint"]
    assert set(described["evaluation"]["test"]["metrics"]) >= {"arrived/accuracy", "price/r2"}
    assert described["versions"]["bmcli"]
    listed = {file["path"] for file in described["files"]}
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert there - listed == {card.CARD, card.CARD_TEXT}
    text = (folder / card.CARD_TEXT).read_text()
    for words in ("## Verification: passed", "docker run", "CC-BY-4.0", "## Lineage"):
        assert words in text


def test_warm_up_requests_are_what_tensorflow_serving_reads(of_table: ExportResult) -> None:
    import tensorflow as tf

    file = of_table.run.exports / "saved_model" / "1" / "assets.extra" / "tf_serving_warmup_requests"
    logs = [_prediction_log().FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(file))]
    assert [len(_tensor(log, "weight")) for log in logs] == [1, 8, 32]
    request = logs[0].predict_log.request
    assert (request.model_spec.name, request.model_spec.signature_name) == ("parcels", "serving_default")
    assert {entry.key for entry in request.inputs} == {"weight", "colour", "fragile", "sent", "note"}


def _tensor(log: Any, name: str) -> np.ndarray:
    import tensorflow as tf

    content = next(entry.value for entry in log.predict_log.request.inputs if entry.key == name)
    proto = tf.make_tensor_proto(0)
    proto.ParseFromString(content)
    return np.asarray(tf.make_ndarray(proto))


def _prediction_log() -> Any:
    """The message PredictionLog of TensorFlow Serving, as far as it is written; tensors stay bytes."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    text, message, content = 9, 11, 12
    file = descriptor_pb2.FileDescriptorProto(name="log.proto", package="test", syntax="proto3")
    fields = {
        "Spec": [("name", 1, text, "", 1), ("signature_name", 3, text, "", 1)],
        "Entry": [("key", 1, text, "", 1), ("value", 2, content, "", 1)],
        "Request": [("model_spec", 1, message, ".test.Spec", 1), ("inputs", 2, message, ".test.Entry", 3)],
        "Predict": [("request", 1, message, ".test.Request", 1)],
        "Log": [("predict_log", 6, message, ".test.Predict", 1)],
    }
    for name, each in fields.items():
        described = file.message_type.add(name=name)
        for field, number, kind, of, label in each:
            described.field.add(name=field, number=number, type=kind, type_name=of or None, label=label)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("test.Log"))


@pytest.mark.parametrize("format", ["saved_model", "litert"])
def test_an_artefact_predicts_like_its_run(of_table: ExportResult, format: str, cache: Path, tmp_path: Path) -> None:
    from bmcli.commands.predict import PredictionRequest, predict

    root, data = of_table.run.folder.parent.parent, of_table.run.folder.parent.parent.parent / "parcels.csv"
    outputs = [tmp_path / "run.csv", tmp_path / "artefact.csv"]
    for target, output in zip((of_table.run.folder, of_table.run.exports / format), outputs, strict=True):
        done = predict(str(target), PredictionRequest(data, output, None, (), False, False), root, cache)
        assert done.rows == 150
    first, second = (list(csv.reader(output.read_text(encoding="utf-8").splitlines())) for output in outputs)
    assert first[0] == second[0]
    for one, other in zip(first[1:], second[1:], strict=True):
        classes, numbers = zip(*((_classes(row), _numbers(row)) for row in (one, other)), strict=True)
        assert classes[0] == classes[1]
        np.testing.assert_allclose(*numbers, rtol=1e-4, atol=1e-5)


def _classes(row: list[str]) -> list[str]:
    return [cell for cell in row if cell in CLASSES]


def _numbers(row: list[str]) -> list[float]:
    return [float(cell) for cell in row if cell not in CLASSES]


def test_every_format_is_exported_by_a_test() -> None:
    assert set(parts.names("export.formats")) == {"keras", "litert", "onnx", "openvino", "saved_model"}


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_formats_of_extras_predict_a_table_alike(table_run: Run, cache: Path, format: str) -> None:
    for module in parts.load("export.formats", format).Options.EXTRA:
        pytest.importorskip(module, reason=f"needs pip install 'bmcli[{format}]'", exc_type=ImportError)
    (found,) = exported(table_run, cache, format).artefacts
    require_alike(found)
    if format == "onnx":
        described = {each["name"]: each["preprocessing"] for each in card.read(found.path)["columns"]}
        assert described["colour"] == "outside, by encoder"  # texts have several spellings


@pytest.mark.slow
def test_a_compressed_artefact_has_its_sizes(picture_run: Run, cache: Path) -> None:
    formats = "export.formats=[{kind: saved_model, compress: [{kind: cluster, clusters: 16}]}]"
    override = ("export.verify.agreement=0.5", "export.verify.metric_drop=none", formats)
    (found,) = exported(picture_run, cache, None, *override).artefacts
    assert found.path.name == "saved_model-cluster"
    weights = card.read(found.path)["weights"]
    assert weights["compressed"]["gzip_bytes"] < weights["model"]["gzip_bytes"]
    assert weights["compressed"]["parameters"] == weights["model"]["parameters"]


@pytest.mark.slow
@pytest.mark.parametrize("format", ["litert", "litert:int8"])
def test_a_recurrent_network_goes_to_litert(tmp_path: Path, cache: Path, format: str) -> None:
    model = "model: {kind: rnn, cell: gru, units: 12, bidirectional: true, pooling: mean}"
    run = trained(PICTURES.replace("model: {kind: mlp, hidden: [32]}", model), tmp_path, cache)
    (found,) = exported(run, cache, format).artefacts
    assert found.verification.failures == ()
