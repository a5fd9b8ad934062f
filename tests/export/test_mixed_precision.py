"""A network that was trained in mixed precision is exported in float32, from its float32 weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from .conftest import PICTURES, exported, trained

MODELS = {
    "mlp": "{kind: mlp, hidden: [32]}",
    "cnn": "{kind: cnn, filters: [8, 8], dense: [16]}",
    "rnn": "{kind: rnn, units: 12}",
    "transformer": "{kind: transformer, depth: 1, width: 16, patch: 4}",
}


def require_verified(name: str, precision: str, formats: str, folder: Path, cache: Path) -> None:
    recipe = PICTURES.replace("model: {kind: mlp, hidden: [32]}", f"model: {MODELS[name]}")
    assert MODELS[name] in recipe
    run = trained(recipe.replace("train: {", f"train: {{precision: {precision}, "), folder, cache)
    found = exported(run, cache, formats)
    assert [artefact.format_name for artefact in found.artefacts] == formats.split(",")
    for artefact in found.artefacts:
        verification = artefact.verification
        assert verification.failures == ()
        assert verification.agreement == 1
        assert verification.max_difference is not None
        assert verification.max_difference < 1e-4


@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.slow
def test_a_network_of_mixed_precision_is_exported(precision: str, tmp_path: Path, cache: Path) -> None:
    require_verified("mlp", precision, "saved_model,litert", tmp_path, cache)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("name", MODELS)
def test_every_family_of_mixed_precision_is_exported(name: str, precision: str, tmp_path: Path, cache: Path) -> None:
    require_verified(name, precision, "saved_model,litert", tmp_path, cache)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_family_of_mixed_precision_is_exported_to_onnx(name: str, tmp_path: Path, cache: Path) -> None:
    pytest.importorskip("tf2onnx", reason="needs pip install 'bmcli[onnx]'", exc_type=ImportError)
    require_verified(name, "mixed_bfloat16", "onnx", tmp_path, cache)
