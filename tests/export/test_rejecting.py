"""Artefacts that differ from the model are rejected, and are not stored among the others."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

import pytest

from bmcli.commands import export as command
from bmcli.commands.export import ExportResult
from bmcli.errors import ArtefactRejected, BmcliError, RunFailed
from bmcli.export import ExportableModel, FormatOptions, WrittenModel, artefacts, card, require_installed
from bmcli.export.agreement import Limits, RoundingLimit, resolve_limits
from bmcli.export.conversion import run_converter
from bmcli.export.formats import litert, saved_model
from bmcli.recipe.export import VerifyOptions
from bmcli.runs import Run
from bmcli.specs import DataSpec
from tests.commands.conftest import Bmcli, bmcli
from tests.inputs.test_laws import CASES

__all__ = ["bmcli"]  # the fixture


def rejected(bmcli: Bmcli, run: Run) -> Mapping[str, Any]:
    """The only artefact of a call that must reject it."""
    before = set(run.exports.iterdir()) if run.exports.exists() else set()
    done = bmcli("export", run.folder, "--formats", "litert", "--json")
    assert done.code == 4, done.err
    assert set(run.exports.iterdir()) - before <= {run.exports / "rejected"}
    (artefact,) = done.json()["artefacts"]
    assert not artefact["verified"]
    assert Path(artefact["path"]).parent == run.exports / "rejected"
    assert artefact["failures"][0] in done.err
    described = json.loads((Path(artefact["path"]) / card.CARD).read_text())
    assert described["verification"]["verified"] is False
    return artefact  # type: ignore[no-any-return]


@pytest.fixture
def write_again(of_table: ExportResult, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Let the format write its former file, up to the given size."""
    before = of_table.run.exports / "litert"

    def patch(share: float) -> None:
        def writing(subject: ExportableModel, options: Any, folder: Path) -> WrittenModel:
            written = card.parse_written_model(card.read(before))
            content = (before / written.model).read_bytes()
            (folder / written.model).write_bytes(content[: int(share * len(content))])
            return written

        monkeypatch.setattr(litert, "export", writing)

    return patch


def test_a_damaged_file_is_rejected(bmcli: Bmcli, table_run: Run, write_again: Callable[[float], None]) -> None:
    write_again(0.5)
    assert "cannot be loaded" in rejected(bmcli, table_run)["failures"][0]


def test_a_broken_constant_of_preprocessing_is_rejected(
    bmcli: Bmcli, table_run: Run, write_again: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_again(1)
    honest = card.describe_preprocessing

    def breaking(*arguments: Any) -> dict[str, Any]:
        values = honest(*arguments)
        colour = next(column for column in values["inputs"] if column["name"] == "colour")
        colour["classes"] = colour["classes"][::-1]
        return values

    monkeypatch.setattr(card, "describe_preprocessing", breaking)
    found = rejected(bmcli, table_run)
    assert found["max_difference"] > 1e-4


def test_exporting_again_overwrites_nothing(tmp_path: Path) -> None:
    places = []
    for _ in range(2):
        with command._make_temporary_folder(tmp_path, "litert") as folder:
            (folder / "model").touch()
            places.append(command._move_artefact(folder, tmp_path, "litert"))
    assert places == [tmp_path / "litert", tmp_path / "litert-2"]
    assert sorted(tmp_path.iterdir()) == places


def test_a_file_that_was_changed_is_not_opened(bmcli: Bmcli, of_table: ExportResult, tmp_path: Path) -> None:
    folder = tmp_path / "litert"
    shutil.copytree(of_table.run.exports / "litert", folder)
    assert artefacts.open_artefact(folder).card["format"] == "litert"
    file = folder / "preprocessing.json"
    file.write_text(file.read_text().replace("red", "rad"))
    with pytest.raises(ArtefactRejected, match="changed, its SHA-256 differs from the card"):
        artefacts.open_artefact(folder)
    (tmp_path / "new.csv").write_text("weight,colour,fragile,sent,note\n1,red,yes,2024-01-11,hello\n")
    assert bmcli("predict", folder, "new.csv").code == 4
    assert bmcli("benchmark", folder).code == 4
    file.unlink()
    with pytest.raises(ArtefactRejected, match="missing"):
        artefacts.open_artefact(folder)


def test_a_format_that_fails_does_not_stop_the_others(
    bmcli: Bmcli, table_run: Run, write_again: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(subject: ExportableModel, options: Any, folder: Path) -> WrittenModel:
        raise RunFailed("no such operation.")

    write_again(1)
    monkeypatch.setattr(saved_model, "export", failing)
    done = bmcli("export", table_run.folder, "--formats", "saved_model,litert", "--json")
    assert done.code == 1
    result = done.json()
    assert result["failed"] == [{"format": "saved_model", "message": "no such operation."}]
    (artefact,) = result["artefacts"]
    assert artefact["verified"]
    assert "saved_model: NOT WRITTEN, no such operation." in done.err
    assert list(table_run.exports.glob(".*")) == []


def test_the_text_of_a_converter_is_in_a_log_and_one_line_of_it_is_told(
    bmcli: Bmcli, table_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(converter: Any, options: Any) -> bytes:
        os.write(2, b"loc(fused<callsite>) of the compiler\n" * 500)
        raise ValueError(
            "loc(somewhere)\n" * 100 + "x.cc: error: 'tf.Odd' op is neither custom nor flex\n" + "more\n" * 100
        )

    monkeypatch.setattr(litert, "_convert", failing)
    done = bmcli("export", table_run.folder, "--formats", "litert")
    assert done.code == 1
    assert "error: 'tf.Odd' op is neither custom nor flex." in done.err
    assert "callsite" not in done.err
    assert "more" not in done.err
    log = table_run.exports / "litert-conversion.log"
    assert log.name in done.err
    assert log.read_text().count("callsite") == 500
    assert log.read_text().count("more") == 100
    log.unlink()


def test_a_converter_that_succeeds_leaves_no_log(tmp_path: Path) -> None:
    with run_converter("onnx", tmp_path / "folder"):
        os.write(2, b"a warning\n")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["litert", "onnx", "openvino"])
def test_every_format_of_a_converter_runs_it_with_a_log(kind: str) -> None:
    source = Path(litert.__file__).with_name(f"{kind}.py").read_text()
    assert source.count("with run_converter(options.name, folder):") == 1


def test_a_recipe_sets_the_limits() -> None:
    options = VerifyOptions(agreement=0.9, max_difference="none", model_r2=0.5, metric_drop=0.2)
    table, pictures = (DataSpec((CASES[name].fit(),), (), {}, "", "") for name in ("category", "image"))
    rounding = RoundingLimit(1e-5, 1e-4, 0.01)
    assert resolve_limits(options, "float32", table) == Limits(0.9, None, 0.2, 0.5)
    assert resolve_limits(VerifyOptions(), "float32", table) == Limits(1.0, rounding, 0.001, 0.9999)
    assert resolve_limits(VerifyOptions(max_difference=0.5), "float32", table).limit_difference(1e6) == 0.5
    assert resolve_limits(VerifyOptions(), "reduced", pictures) == Limits(0.99, None, 0.01, 0.99, 0.1, allowed_rows=1)
    assert resolve_limits(options, "int8", table) == Limits(0.9, None, 0.2, 0.5, 0.1)
    assert [resolve_limits(VerifyOptions(), "int8", spec).agreement for spec in (table, pictures)] == [0.99, 0.995]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--formats", "lite"], "no kind 'lite'. Did you mean 'litert'?"),
        (["--formats", "litert:int7"], "quantize"),
        (["--formats", "litert,litert"], "the artefact 'litert' is there twice"),
        (["train.epochs=3"], "cannot change after training"),
        (["export.verify.samples=0"], "samples"),
    ],
)
def test_faults_come_before_anything_is_written(
    bmcli: Bmcli, table_run: Run, arguments: list[str], message: str
) -> None:
    before = sorted(table_run.exports.iterdir()) if table_run.exports.exists() else []
    done = bmcli("export", table_run.folder, *arguments)
    assert done.code == 2
    assert message in done.err
    assert (sorted(table_run.exports.iterdir()) if table_run.exports.exists() else []) == before


def test_a_format_that_is_not_installed_names_the_extra(
    bmcli: Bmcli, table_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(litert.Options, "EXTRA", ("no_such_module",))
    done = bmcli("export", table_run.folder, "--formats", "litert")
    assert done.code == 2
    assert "pip install 'bmcli[litert]'" in done.err


def test_a_format_that_is_not_installed_does_not_stop_the_others(
    bmcli: Bmcli, table_run: Run, write_again: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_again(1)
    monkeypatch.setattr(saved_model.Options, "EXTRA", ("no_such_module",))
    done = bmcli("export", table_run.folder, "--formats", "saved_model,litert", "--json")
    assert done.code == 2
    (failed,) = done.json()["failed"]
    assert failed["format"] == "saved_model"
    assert "no_such_module" in failed["message"]
    assert "pip install 'bmcli[saved_model]'" in done.err
    (artefact,) = done.json()["artefacts"]
    assert artefact["verified"]
    assert Path(artefact["path"]).is_dir()


def test_the_modules_of_a_format_of_others_are_installed_by_their_names() -> None:
    class Options(FormatOptions):
        EXTRA = ("no_such_module",)
        kind: Literal["tape"] = "tape"

    with pytest.raises(BmcliError, match="tape needs packages that are not installed: no_such_module") as raised:
        require_installed(Options())
    assert raised.value.faults[0].suggestion == "Install it: pip install no_such_module."


def test_the_formats_of_the_command_line() -> None:
    assert command._parse_formats("saved_model, litert:int8") == "[saved_model, {kind: litert, quantize: int8}]"
