"""Artefacts of other users execute no code without this user's trust, whatever their cards contain."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bmcli import inputs, parts, records
from bmcli.column_records import ColumnRecord, validate_record
from bmcli.commands.export import ExportResult
from bmcli.data import targets
from bmcli.errors import ArtefactRejected
from bmcli.export import artefacts, card, operators, schema
from bmcli.records import validate_as
from bmcli.runs import Run
from bmcli.specs import Column, DataSpec
from tests.commands.conftest import Bmcli, bmcli
from tests.inputs.test_laws import CASES, text

from .conftest import exported
from .forging import DEEP, forge, forge_preprocessing, places, put, value_at, wrong_type

__all__ = ["bmcli"]  # the fixture

ROWS = "weight,colour,fragile,sent,note\n1,red,yes,2024-01-11,hello\n"


@pytest.fixture
def own(of_table: ExportResult, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of an artefact of this user, and rows beside it."""
    (tmp_path / "rows.csv").write_text(ROWS)

    def copy(format: str) -> Path:
        return Path(shutil.copytree(of_table.run.exports / format, tmp_path / format))

    return copy


def write_program(folder: Path, described: Path, marker: Path) -> None:
    """A SavedModel with the usual signature of an artefact, which writes a file on being run."""
    import tensorflow as tf

    signature = card.parse_written_model(card.read(described)).signatures[0]
    dtypes = {each.name: each.dtype for each in signature.inputs}

    class Program(tf.Module):
        @tf.function(input_signature=[{name: tf.TensorSpec((None,), kind, name=name) for name, kind in dtypes.items()}])
        def serve(self, tensors: dict[str, Any]) -> dict[str, Any]:
            count = tf.shape(tensors["weight"])[0]
            with tf.control_dependencies([tf.raw_ops.WriteFile(filename=str(marker), contents="harm")]):
                return {
                    each.name: tf.fill([count, *each.shape], "a" if each.dtype == "string" else 0.5)
                    for each in signature.outputs
                }

    program = Program()
    tf.saved_model.save(program, str(folder), signatures={"serving_default": program.serve.get_concrete_function()})


@pytest.fixture(scope="module")
def program(of_table: ExportResult, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A SavedModel that does harm, and the file that it writes."""
    folder = tmp_path_factory.mktemp("program")
    write_program(folder / "1", of_table.run.exports / "saved_model", folder / "marker")
    return folder / "1", folder / "marker"


def _listed(values: dict[str, Any], folder: Path) -> None:
    """List all files and the only signature of the program, as an honest card does."""
    values["signatures"] = values["signatures"][:1]
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in (card.CARD, "card.md")]
    values["files"] = [card._describe_file(folder, path) for path in files]


HIDING: dict[str, Callable[[dict[str, Any], Path], Any]] = {
    "all is listed": _listed,
    "no seal": lambda values, folder: (_listed(values, folder), values.update(seal=None)),
    "lists nothing": lambda values, folder: values.update(files=[]),
    "lists something else": lambda values, folder: values.update(files=values["files"][-1:]),
    "lies beside": lambda values, folder: values.update(model="../program/1"),
    "lies elsewhere": lambda values, folder: values.update(model=str(folder.parent / "program" / "1")),
    "is below another name": lambda values, folder: (os.rename(folder / "1", folder / "2"), values.update(model="2"),
                                                     _listed(values, folder)),
    "pretends to be ONNX": lambda values, folder: (values.update(runtime="onnx"), _listed(values, folder)),
}  # fmt: skip


@pytest.mark.parametrize("how", HIDING)
def test_a_program_of_somebody_else_never_runs(
    bmcli: Bmcli, own: Callable[[str], Path], program: tuple[Path, Path], tmp_path: Path, how: str
) -> None:
    folder, (content, marker) = own("saved_model"), program
    for place in (folder / "1", tmp_path / "program" / "1"):
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(content, place)
    forge(folder, lambda values: HIDING[how](values, folder))
    for command in (("predict", folder, "rows.csv"), ("benchmark", folder, "--repeats", 1)):
        done = bmcli(*command)
        assert done.code == 4, done.err
        assert not marker.exists()
        assert "Traceback" not in done.err
        assert str(folder) in done.err
    if how == "all is listed":
        assert "a SavedModel is a program" in done.err
        assert "--trust-artefact" in done.err


def test_an_option_trusts_whoever_made_an_artefact(
    bmcli: Bmcli, own: Callable[[str], Path], program: tuple[Path, Path], tmp_path: Path
) -> None:
    folder, (content, marker) = own("saved_model"), program
    shutil.rmtree(folder / "1")
    shutil.copytree(content, folder / "1")
    forge(folder, lambda values: _listed(values, folder))
    done = bmcli("predict", folder, "rows.csv", "--trust-artefact")
    assert done.code == 0, done.err
    assert marker.exists()
    marker.unlink()


def test_a_copy_of_an_own_artefact_is_opened_and_another_users_is_not(
    own: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = own("saved_model")
    assert artefacts.open_artefact(folder).card["seal"]
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "another"))
    with pytest.raises(ArtefactRejected, match=r"saved_model: a SavedModel is a program.*another/bmcli/key"):
        artefacts.open_artefact(folder)
    assert artefacts.open_artefact(folder, trust_artefact=True)
    assert artefacts.open_artefact(own("litert")).card["format"] == "litert", "it can but compute"


@pytest.mark.parametrize("kind", ["keras", "openvino"])
def test_other_programs_need_a_seal_too(own: Callable[[str], Path], kind: str) -> None:
    folder = own("litert")
    (folder / card.MODEL_PATHS[kind]).write_bytes(b"anything")  # type: ignore[index]
    forge(folder, lambda values: (values.update(runtime=kind, model=card.MODEL_PATHS[kind]), _listed(values, folder)))  # type: ignore[index]
    with pytest.raises(ArtefactRejected, match="is a program"):
        artefacts.open_artefact(folder)


@pytest.mark.slow
def test_what_is_exported_where_no_key_can_be_kept_is_verified_with_a_warning(
    bmcli: Bmcli, table_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", os.devnull)
    copy = shutil.copytree(table_run.folder, tmp_path / "runs" / "parcels" / "copy", symlinks=True)
    done = bmcli("export", copy, "--formats", "litert", "--json")
    assert done.code == 0, done.err
    assert "has no seal, since no key can be kept at /dev/null/bmcli/key" in done.err
    (found,) = done.json()["artefacts"]
    assert found["verified"]
    assert not card.is_sealed_by_user(card.read(Path(found["path"])))


def test_a_saved_model_holds_no_file_or_link_that_its_card_does_not_list(own: Callable[[str], Path]) -> None:
    folder = own("saved_model")
    (folder / "1" / "assets").mkdir(exist_ok=True)
    (folder / "1" / "assets" / "more").write_text("")
    with pytest.raises(ArtefactRejected, match="1/assets/more: the card does not list it"):
        artefacts.open_artefact(folder)
    (folder / "1" / "assets" / "more").unlink()
    (folder / "1" / "link").symlink_to(folder.parent)
    with pytest.raises(ArtefactRejected, match="1/link: the card does not list it"):
        artefacts.open_artefact(folder)


@pytest.mark.parametrize("place", ["1", "1/variables", "1/saved_model.pb", "preprocessing.json"])
def test_no_file_of_an_artefact_is_reached_through_a_link(
    own: Callable[[str], Path], tmp_path: Path, place: str
) -> None:
    folder = own("saved_model")
    (folder / place).rename(tmp_path / "moved")
    (folder / place).symlink_to(tmp_path / "moved")
    with pytest.raises(ArtefactRejected, match=r"a symbolic link|does not list it"):
        artefacts.open_artefact(folder)


PATHS = ["../rows.csv", "/etc/hostname", "a/../b", "./model.tflite", "", "a//b", "a\\b", "a\0b", "a\nb", ".."]


@pytest.mark.parametrize("path", PATHS)
def test_listed_files_lie_inside(own: Callable[[str], Path], path: str) -> None:
    folder = own("litert")
    forge(folder, lambda values: values["files"].append({"path": path, "bytes": 1, "sha256": "0" * 64}))
    with pytest.raises(ArtefactRejected, match=r"card\.json: files\.\d+\.path: .*not a path inside"):
        artefacts.open_artefact(folder)


def test_a_listed_file_that_is_a_pipe_is_not_read(own: Callable[[str], Path]) -> None:
    folder = own("litert")
    os.mkfifo(folder / "pipe")
    forge(folder, lambda values: values["files"].append({"path": "pipe", "bytes": 1, "sha256": "0" * 64}))
    with pytest.raises(ArtefactRejected, match="pipe: not a regular file"):
        artefacts.open_artefact(folder)


OPTIONAL = {
    "threshold", "temperature", "quantiles", "warm_up", "count", "metrics", "intervals", "pooled", "notation",
    "missing_cells", "marked", "spelling", "spellings", "converted", "derivation", "unseen_share",
    "positive", "weight",
}  # fmt: skip
NULLABLE = {"license", "seal", "quantize", "limits", "agreement", "max_difference", "metric_drop", "stratified_by",
            "weight", "weights", "dimension", "low", "high", "rounding", "model_r2", "difference", "limit", "r2",
            "request", "compressed"}  # fmt: skip
FREE = {"options", "trained_with", "versions", "counts", "groups", "rows", "evaluation", "invalid_cells", "source",
        "metrics", "intervals", "outputs", "positive"}  # fmt: skip
"""Fields by free names, any of which may be gone."""


@pytest.mark.parametrize("name", [card.CARD, card.PREPROCESSING])
def test_every_field_has_to_be_what_it_is(own: Callable[[str], Path], name: str) -> None:
    folder = own("litert")
    content = (folder / name).read_bytes()
    values = json.loads(content)
    del values["sha256"]
    found = list(places(values))
    assert len(found) > 50
    for path in found:
        old = value_at(values, path)
        changes = [wrong_type(old), DEEP]
        if old is not None and path[-1] not in NULLABLE and path[-2:-1] not in (("shape",), ("metrics",)):
            changes.append(None)
        if path[:-1] == ("source",) or "trained_with" in path[:-1]:
            changes = [DEEP]  # of many types
        for change in changes:
            _require_rejected(folder, name, values, functools.partial(put, path=path, what=change), path)
        if isinstance(path[-1], str) and not (set(path[-2:-1]) & FREE or path[-1] in OPTIONAL or _of_target(path)):
            _require_rejected(folder, name, values, functools.partial(_remove, path=path), path)


def _of_target(path: tuple[Any, ...]) -> bool:
    """Whether a field is one that only some kinds of target have."""
    return path[0] == "targets" and "state" in path[:-1]


def _remove(values: Any, path: tuple[Any, ...]) -> None:
    del value_at(values, path[:-1])[path[-1]]


def _require_rejected(
    folder: Path, name: str, values: dict[str, Any], change: Callable[[Any], None], path: tuple[Any, ...]
) -> None:
    changed = json.loads(json.dumps(values))
    change(changed)
    records.write_record(folder / name, changed)
    if name == card.PREPROCESSING:
        forge(folder)
    with pytest.raises(ArtefactRejected) as caught:
        artefacts.open_artefact(folder)
    assert f"{folder / name}: " in str(caught.value), path


DAMAGES: dict[str, str | bytes] = {
    "empty": "", "a list": "[]", "a number": "1", "no JSON": "{", "deep": "[" * 100_000, "deep objects": '{"a":' * 5000,
    "not a number": '{"bytes": NaN}', "no text": b"\xff\xfe\x00", "an empty object": "{}", "many digits": "9" * 5000,
}  # fmt: skip


@pytest.mark.parametrize("name", [card.CARD, card.PREPROCESSING])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_a_fault_to_every_command(bmcli: Bmcli, own: Callable[[str], Path], name: str, damage: str) -> None:
    folder, content = own("litert"), DAMAGES[damage]
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    if name != card.CARD:
        forge(folder)
    for command in (("predict", folder, "rows.csv"), ("benchmark", folder)):
        done = bmcli(*command)
        assert done.code == 4, done.err
        assert name in done.err
        assert "Traceback" not in done.err


@pytest.mark.parametrize("field", ["targets", "files", "signatures", "verification", "runtime"])
def test_a_card_with_null_is_a_fault_to_every_command(bmcli: Bmcli, own: Callable[[str], Path], field: str) -> None:
    folder = own("litert")
    forge(folder, lambda values: values.update({field: None}))
    for command in (("predict", folder, "rows.csv"), ("benchmark", folder)):
        done = bmcli(*command)
        assert done.code == 4, done.err
        assert f"card.json: {field}: " in done.err
        assert "Traceback" not in done.err


def test_a_card_larger_than_any_is_not_read(own: Callable[[str], Path]) -> None:
    folder = own("litert")
    os.truncate(folder / card.CARD, 2**30)
    with pytest.raises(ArtefactRejected, match="larger than 16,777,216 bytes"):
        artefacts.open_artefact(folder)


def _state_of(values: dict[str, Any], name: str) -> dict[str, Any]:
    (column,) = (each for each in values["inputs"] if each["name"] == name)
    return column["state"]  # type: ignore[no-any-return]


MISFITS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "expressions that take exponential time": (
        lambda values: _state_of(values, "sent").update(patterns=[["iso", "(a+)+$", ["year"]]]), "patterns: they do not"
    ),
    "no such format": (lambda values: _state_of(values, "sent").update(formats=["%Q"]), "patterns: they do not"),
    "cells that fill the memory": (lambda values: values["inputs"][0].update(shape=[2**20, 2**20]), "a cell of more"),
    "shapes below zero": (lambda values: values["inputs"][0].update(shape=[-1]), "inputs.0.shape.0"),
    "infinite numbers": (lambda values: _state_of(values, "weight").update(fill=["Infinity"]), "fill.0"),
    "another column": (lambda values: values["inputs"][0].update(name="height"), "its columns differ from"),
    "a column twice": (lambda values: values["inputs"].append(values["inputs"][0]), "its columns differ from"),
    "a kind of source that is none": (lambda values: values["source"].update(kind="../csv"), "source.kind: no kind"),
    "a file of the user": (lambda values: values["source"].update(table="/etc/passwd"), "source.table: no option"),
    "options that no source has": (lambda values: values["source"].update(command="rm"), "source.command"),
    "a threshold of three classes": (
        lambda values: values["outputs"][0]["state"].update(threshold=0.5),
        "a threshold or a positive class without two classes",
    ),
    "text in place of a threshold": (
        lambda values: values["outputs"][0]["state"].update(temperature="1"), "is not that of classification"
    ),
    "an output of classes that the target has not": (
        lambda values: values["outputs"][0]["names"].append("sometimes"), "are not those of its target"
    ),
    "an objective that is none": (lambda values: values["outputs"][0].update(objective="os"), "no objective 'os'"),
    "classes of a number": (lambda values: values["targets"][1].update(classes=["a"]), "do not fit the output"),
}  # fmt: skip


@pytest.mark.parametrize("name", MISFITS)
def test_preprocessing_that_does_not_fit_is_rejected(own: Callable[[str], Path], name: str) -> None:
    folder, (change, message) = own("litert"), MISFITS[name]
    forge_preprocessing(folder, change)
    with pytest.raises(ArtefactRejected) as caught:
        artefacts.open_artefact(folder)
    assert message in str(caught.value)
    assert str(folder / card.PREPROCESSING) in str(caught.value)


@pytest.mark.parametrize("command", ["predict", pytest.param("benchmark", marks=pytest.mark.slow)])
def test_what_only_running_shows_is_rejected_without_a_traceback(
    bmcli: Bmcli, own: Callable[[str], Path], command: str
) -> None:
    folder = own("litert")
    forge_preprocessing(folder, lambda values: _state_of(values, "note").update(length=3))
    done = bmcli(command, folder, *(["rows.csv"] if command == "predict" else []))
    assert done.code == 4, done.err
    assert "cannot be run: " in done.err
    assert "Traceback" not in done.err


def test_write_returns_whether_the_card_has_a_seal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert card.write(tmp_path, {"name": "a"})
    assert card.is_sealed_by_user(records.read_record(tmp_path / card.CARD))
    assert not card.is_sealed_by_user({**records.read_record(tmp_path / card.CARD), "name": "b"})
    monkeypatch.setenv("XDG_CONFIG_HOME", os.devnull)
    assert not card.write(tmp_path, {"name": "a"})
    assert not card.is_sealed_by_user(records.read_record(tmp_path / card.CARD))


def test_a_card_holds_no_number_that_json_does_not_know(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        card.write(tmp_path, {"difference": float("nan")})
    assert list(tmp_path.iterdir()) == []


def test_answers_of_another_shape_are_rejected(bmcli: Bmcli, own: Callable[[str], Path]) -> None:
    folder = own("litert")

    def rename(values: dict[str, Any]) -> None:
        values["targets"][0]["classes"].append("sometimes")
        values["outputs"][0]["names"].append("sometimes")
        values["outputs"][0]["shape"] = [4]

    forge_preprocessing(folder, rename)
    done = bmcli("predict", folder, "rows.csv")
    assert done.code == 4
    assert "expected float32 of shape (1, 4) for 'arrived', received float32 of shape (1, 3)" in done.err


@pytest.mark.parametrize("name", CASES)
def test_what_every_kind_of_column_fits_is_what_an_artefact_may_hold(name: str) -> None:
    column = CASES[name].fit()
    values = json.loads(json.dumps({"inputs": DataSpec((column,), (), {}, "", "").to_json()["inputs"]}))
    with pytest.raises(ValueError, match=r"^targets: "):  # the first fault is what is left out
        validate_record(schema.PreprocessingRecord, values)
    inputs.get_traits(validate_as(Column, values["inputs"][0])).check_state()


@pytest.mark.parametrize("kind", parts.names("data.sources"))
def test_every_source_of_training_rows_is_one_of_an_artefact(kind: str) -> None:
    artefacts._check_source({"kind": kind, **({"name": "iris"} if kind == "builtin" else {})})


TARGETS: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "category": ("category", text("a", "b"), {}),
    "count": ("count", np.array([1, 2]), {}),
    "labels": ("labels", text("a;b", "a"), {}),
    "labels of an array": ("labels", np.array([[1, 0], [1, 1]]), {}),
    "number": ("number", np.array([1.0, 2.0]), {}),
    "number, logarithm": ("number", text("1", "2"), {"scale": "log"}),
    "ordered": ("ordered", text("low", "high"), {"classes": ("low", "high")}),
}


@pytest.mark.parametrize("name", TARGETS)
def test_every_kind_of_target_is_one_of_an_artefact(name: str) -> None:
    kind, rows, options = TARGETS[name]
    part = parts.load("data.targets", kind)
    column = part.fit("y", rows, part.Options(**options))
    values = json.loads(json.dumps(vars(column)))
    assert validate_record(ColumnRecord, values).name == "y"
    targets.check_state(column)
    for name in column.state:
        with pytest.raises(ValueError, match=rf"^state\.{name}"):
            targets.check_state(replace(column, state={**column.state, name: {"": 0}}))


@pytest.mark.slow
def test_damaged_litert_models_never_crash_the_process(of_table: ExportResult, tmp_path: Path) -> None:
    """TensorFlow's interpreter trusts the offsets of a file that it is given by its path."""
    (tmp_path / "model.tflite").write_bytes((of_table.run.exports / "litert" / "model.tflite").read_bytes())
    script = """\
import contextlib, pathlib, random
import tensorflow as tf
from bmcli.export import runner

file = pathlib.Path("model.tflite")
content, dice = file.read_bytes(), random.Random(1)
for _ in range(40):
    damaged = bytearray(content)
    for _ in range(20):
        damaged[dice.randrange(len(damaged))] = dice.randrange(256)
    file.write_bytes(damaged)
    with contextlib.suppress(Exception):
        runner._load_litert(tf.lite.Interpreter, str(file), {})
print("done")
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_operators_of_litert_itself_are_no_program(of_table: ExportResult) -> None:
    assert operators.find_custom_operators((of_table.run.exports / "litert" / "model.tflite").read_bytes()) == []


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"\xff" * 64, b"TFL3" * 20])
def test_what_is_no_litert_model_has_no_operators(content: bytes) -> None:
    with contextlib.suppress(ValueError):
        assert operators.find_custom_operators(content) == []


def test_a_litert_model_with_operators_of_tensorflow_is_a_program(own: Callable[[str], Path], tmp_path: Path) -> None:
    import tensorflow as tf

    @tf.function(input_signature=[tf.TensorSpec((None,), "float32")])
    def writing(values: Any) -> Any:
        with tf.control_dependencies([tf.raw_ops.WriteFile(filename=str(tmp_path / "marker"), contents="harm")]):
            return tf.identity(values) * 2

    converter = tf.lite.TFLiteConverter.from_concrete_functions([writing.get_concrete_function()])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS, tf.lite.OpsSet.SELECT_TF_OPS]
    folder = own("litert")
    (folder / "model.tflite").write_bytes(converter.convert())
    forge(folder)
    with pytest.raises(ArtefactRejected, match=r"custom operators \(FlexWriteFile\) is a program"):
        artefacts.open_artefact(folder)


def test_onnx_reads_no_weights_from_outside(table_run: Run, cache: Path, tmp_path: Path) -> None:
    for module in ("onnx", "onnxruntime", "tf2onnx"):
        pytest.importorskip(module, reason="needs pip install 'bmcli[onnx]'", exc_type=ImportError)
    import onnx

    (found,) = exported(table_run, cache, "onnx").artefacts
    folder = Path(shutil.copytree(found.path, tmp_path / "onnx"))
    model = onnx.load(str(folder / "model.onnx"))
    secret = next(each for each in model.graph.initializer if each.data_type == onnx.TensorProto.FLOAT)
    (tmp_path / "secret").write_bytes(secret.raw_data)
    secret.ClearField("raw_data")
    secret.data_location = onnx.TensorProto.EXTERNAL
    secret.external_data.add(key="location", value="../secret")
    (folder / "model.onnx").write_bytes(model.SerializeToString())
    forge(folder)
    with pytest.raises(ArtefactRejected, match="cannot be loaded"):
        artefacts.open_artefact(folder).start()


def test_trusting_what_is_no_artefact_is_a_fault(bmcli: Bmcli) -> None:
    done = bmcli("predict", "digits", "rows.csv", "--trust-artefact")
    assert done.code == 2
    assert "--trust-artefact has no effect: digits is no artefact." in done.err
