"""Every format says what the model says, from raw cells, in a process that knows nothing of bmcli."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bmcli import parts
from bmcli.commands.export import Exported, export
from bmcli.export import card
from bmcli.runs import Run

FORMATS = "saved_model,litert,keras"


def silent(text: str) -> None:
    pass


def exported(run: Run, cache: Path, formats: str, *overrides: str) -> Exported:
    return export(str(run.folder), overrides, formats, run.folder.parent.parent, cache, silent)


@pytest.fixture(scope="module")
def of_table(table_run: Run, cache: Path) -> Exported:
    return exported(table_run, cache, FORMATS, "export.licence=CC-BY-4.0")


@pytest.fixture(scope="module")
def of_pictures(picture_run: Run, cache: Path) -> Exported:
    return exported(picture_run, cache, "saved_model,litert:int8")


def by_format(found: Exported) -> Mapping[str, Any]:
    return {each.format: each for each in found.artefacts}


@pytest.mark.parametrize("format", FORMATS.split(","))
def test_a_table_of_every_kind_is_predicted_alike(of_table: Exported, format: str) -> None:
    found = by_format(of_table)[format]
    assert found.verification.failures == ()
    assert found.verification.agreement == 1
    assert found.verification.max_difference < 1e-4
    assert found.path == of_table.run.exports / format
    awkward = "; ".join(found.verification.hard)
    for what in ("a batch of 1", "nothing in 'weight'", "an unknown text in 'colour'", "only spaces in 'note'"):
        assert what in awkward


def test_pictures_keep_their_classes_in_integers(of_pictures: Exported) -> None:
    found = by_format(of_pictures)
    assert found["litert-int8"].verification.agreement >= 0.99
    assert found["saved_model"].verification.max_difference < 1e-4
    assert "a picture of 17 x 11 in 'image'" in found["saved_model"].verification.hard
    assert found["litert-int8"].bytes < found["saved_model"].bytes


def test_a_saved_model_names_classes_and_takes_files(of_pictures: Exported) -> None:
    described = json.loads((of_pictures.run.exports / "saved_model" / card.CARD).read_text())
    usual, features, files = described["signatures"]
    assert [each["role"] for each in usual["outputs"]] == ["decision", "classes", "probabilities"]
    assert usual["inputs"][0]["shape"] == [None, None, 1]
    assert (features["name"], features["inputs"][0]["form"]) == ("features", "encoded")
    assert (files["name"], files["inputs"][0]["dtype"]) == ("encoded_images", "string")


def test_text_is_outside_of_what_holds_none(of_table: Exported) -> None:
    folder = of_table.run.exports / "litert"
    described = json.loads((folder / card.CARD).read_text())
    where = {column["name"]: column["preprocessing"] for column in described["columns"]}
    assert where["weight"] == "inside"
    assert where["note"] == where["colour"] == "outside, by encoder.py"
    assert "from encoder import encode" in (folder / card.CARD_TEXT).read_text()
    assert (folder / card.ENCODER).is_file()
    assert not (of_table.run.exports / "saved_model" / card.ENCODER).exists()


def test_the_card_tells_where_it_comes_from(of_table: Exported) -> None:
    folder = of_table.run.exports / "saved_model"
    described = card.read(folder)
    assert described["licence"] == "CC-BY-4.0"
    assert described["lineage"]["data_fingerprint"] == json.loads(of_table.run.data.read_text())["fingerprint"]
    assert set(described["evaluation"]["test"]["metrics"]) >= {"arrived/accuracy", "price/r2"}
    assert described["versions"]["bmcli"]
    listed = {file["path"] for file in described["files"]}
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert there - listed == {card.CARD, card.CARD_TEXT}
    text = (folder / card.CARD_TEXT).read_text()
    for words in ("## Verification: passed", "docker run", "CC-BY-4.0", "## Lineage"):
        assert words in text


def test_warm_up_requests_are_what_tensorflow_serving_reads(of_table: Exported) -> None:
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
def test_an_artefact_predicts_like_its_run(of_table: Exported, format: str, cache: Path, tmp_path: Path) -> None:
    from bmcli.commands.predict import Asked, predict

    root, data = of_table.run.folder.parent.parent, of_table.run.folder.parent.parent.parent / "parcels.csv"
    outputs = [tmp_path / "run.csv", tmp_path / "artefact.csv"]
    for target, output in zip((of_table.run.folder, of_table.run.exports / format), outputs, strict=True):
        done = predict(str(target), Asked(data, output, None, (), False), root, cache)
        assert done.rows == 150
    first, second = (output.read_text().splitlines() for output in outputs)
    assert first[0] == second[0]
    for one, other in zip(first[1:], second[1:], strict=True):
        left, right = one.split(","), other.split(",")
        assert left[0] == right[0]
        np.testing.assert_allclose([float(c) for c in left[1:]], [float(c) for c in right[1:]], rtol=1e-4, atol=1e-5)


def test_every_format_is_exported_by_a_test() -> None:
    assert set(parts.names("export.formats")) == {"keras", "litert", "onnx", "openvino", "saved_model"}


@pytest.mark.parametrize("format", ["onnx", "openvino"])
def test_formats_of_extras_predict_a_table_alike(table_run: Run, cache: Path, format: str) -> None:
    for module in parts.load("export.formats", format).Options.EXTRA:
        pytest.importorskip(module, reason=f"needs pip install 'bmcli[{format}]'", exc_type=ImportError)
    (found,) = exported(table_run, cache, format).artefacts
    assert found.verification.failures == ()
    assert found.verification.max_difference < 1e-4
    if format == "onnx":
        described = {each["name"]: each["preprocessing"] for each in card.read(found.path)["columns"]}
        assert described["colour"] == "inside"


@pytest.mark.slow
def test_what_is_compressed_says_what_it_weighs(picture_run: Run, cache: Path) -> None:
    formats = "export.formats=[{kind: saved_model, compress: [{kind: cluster, clusters: 16}]}]"
    override = ("export.verify.agreement=0.5", "export.verify.metric_drop=none", formats)
    (found,) = export(
        str(picture_run.folder), override, None, picture_run.folder.parent.parent, cache, silent
    ).artefacts
    assert found.path.name == "saved_model-cluster"
    weights = card.read(found.path)["weights"]
    assert weights["artefact"]["gzip_bytes"] < weights["model"]["gzip_bytes"]
    assert weights["artefact"]["parameters"] == weights["model"]["parameters"]
