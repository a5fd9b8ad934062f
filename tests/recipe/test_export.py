"""The `export` section: valid and invalid options."""

from __future__ import annotations

from pathlib import Path

import pytest

from bmcli.errors import BmcliError
from bmcli.recipe.load import load_recipe

SMALL = "name: small\ndata: {source: {kind: builtin, name: iris}}\nmodel: mlp\n"


def written(tmp_path: Path, section: str) -> Path:
    (tmp_path / "recipe.yaml").write_text(SMALL + section)
    return tmp_path / "recipe.yaml"


def test_without_a_section_a_saved_model_is_meant(tmp_path: Path) -> None:
    found = load_recipe(str(written(tmp_path, ""))).recipe.export
    assert [each.name for each in found.formats] == ["saved_model"]
    assert found.verify.samples == 500


def test_every_artefact_has_a_folder_of_its_own(tmp_path: Path) -> None:
    section = (
        "export: {formats: [saved_model, {kind: litert, quantize: int8}, litert, "
        "{kind: keras, quantize: int4, compress: [cluster]}]}\n"
    )
    found = load_recipe(str(written(tmp_path, section))).recipe.export.formats
    assert [each.name for each in found] == ["saved_model", "litert-int8", "litert", "keras-cluster-int4"]
    assert [each.precision for each in found] == ["float32", "int8", "float32", "reduced"]
    assert [way.kind for way in found[3].list_compressions()] == ["cluster", "quantize"]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ("export: {formats: []}\n", "expected at least one value"),
        ("export: {formats: [tflite]}\n", "no kind 'tflite'"),
        ("export: {formats: [litert, litert]}\n", "is there twice"),
        ("export: {formats: [{kind: litert, quantize: int4}]}\n", "'float16', 'dynamic', 'int8' or 'full_int8'"),
        ("export: {formats: [{kind: keras, compress: [shrink]}]}\n", "no compression 'shrink'"),
        ("export: {verify: {agreement: 2}}\n", "expected a number of at most 1"),
        ("export: {verify: {max_difference: much}}\n", "max_difference"),
    ],
)
def test_a_wrong_section_is_reported_with_its_place(tmp_path: Path, section: str, message: str) -> None:
    with pytest.raises(BmcliError) as caught:
        load_recipe(str(written(tmp_path, section)))
    assert any(message in f"{fault.path} {fault.message}" for fault in caught.value.faults), caught.value.faults
    assert all(fault.place is not None and fault.place.line == 4 for fault in caught.value.faults)


def test_a_search_leaves_the_section_alone(tmp_path: Path) -> None:
    section = "tune: {space: {export.verify.samples: {int: [1, 9]}}}\n"
    with pytest.raises(BmcliError, match="cannot be searched"):
        load_recipe(str(written(tmp_path, section)))
