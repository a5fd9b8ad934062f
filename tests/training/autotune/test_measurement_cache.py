"""Measurements are cached, and repeated if their file is damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bmcli.cost_model import measurement
from bmcli.cost_model.prediction import Link
from bmcli.training.autotune import measurement_cache


def test_what_is_kept_is_recalled(tmp_path: Path) -> None:
    measurement_cache.write_values(tmp_path / "jit", "key", {"way": 1, "seconds": {"plain": 0.1}})
    assert measurement_cache.read_value(tmp_path / "jit", "key", "way") == 1
    assert measurement_cache.read_value(tmp_path / "jit", "key", "seconds") == {"plain": 0.1}
    assert measurement_cache.read_value(tmp_path / "jit", "key", "other") is None
    assert measurement_cache.read_value(tmp_path / "jit", "other", "way") is None


@pytest.mark.parametrize("content", ["", "[" * 100_000, "[1]", '{"way": 2}', '{"way": NaN}', "another digit"])
def test_what_is_damaged_is_not_recalled(content: str, tmp_path: Path) -> None:
    measurement_cache.write_values(tmp_path, "key", {"way": 1})
    file = tmp_path / "key.json"
    file.write_text(file.read_text().replace('"way": 1', '"way": 2') if content == "another digit" else content)
    assert measurement_cache.read_value(tmp_path, "key", "way") is None


SECONDS = {"4096": 1e-4, "65536": 2e-4, "524288": 1e-3}


@pytest.mark.parametrize(
    "known",
    [None, [1.0], {}, {"4096": 1e-4}, {**SECONDS, "a": 1.0}, {**SECONDS, "9": "1"}, {**SECONDS, "9": -1.0},
     {**SECONDS, "9": None}, {**SECONDS, "9": True}, {**SECONDS, "\N{SUPERSCRIPT TWO}": 1.0}],
)  # fmt: skip
def test_a_network_that_is_remembered_wrongly_is_measured_again(
    known: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measurement, "measure_exchange_seconds", lambda: SECONDS)
    first = measurement.measure_network(tmp_path)
    assert first.bandwidth > 0
    (file,) = (tmp_path / "network").iterdir()
    measurement_cache.write_values(file.parent, file.stem, {"seconds": known})
    assert measurement.measure_network(tmp_path) == first
    assert measurement_cache.read_value(file.parent, file.stem, "seconds") == SECONDS


def test_a_network_is_measured_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measurement, "measure_exchange_seconds", lambda: SECONDS)
    first: Link = measurement.measure_network(tmp_path)
    monkeypatch.setattr(measurement, "measure_exchange_seconds", lambda: pytest.fail("measured again"))
    assert measurement.measure_network(tmp_path) == first
    assert json.loads(next((tmp_path / "network").iterdir()).read_text())["seconds"] == SECONDS
