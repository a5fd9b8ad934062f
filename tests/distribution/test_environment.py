"""The record of a run's machine: enough to repeat it, and no secrets."""

from __future__ import annotations

import json
import sys

import pytest

from bmcli.distribution import environment, strategy
from bmcli.recipe.runtime import RuntimeOptions


def test_a_record_holds_no_variable_that_is_not_known_to_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "TF_VAR_password", "XLA_SECRET"):
        monkeypatch.setenv(name, "canary")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setattr(sys, "argv", ["bmcli", "train", "r.yaml", "vars.token=canary"])
    recorded = environment.describe_environment(strategy.create_placement(RuntimeOptions()))
    assert "canary" not in json.dumps(recorded)
    assert recorded["variables"]["OMP_NUM_THREADS"] == "2"


def test_a_record_names_versions_and_devices() -> None:
    recorded = environment.describe_environment(strategy.create_placement(RuntimeOptions()))
    assert recorded["tensorflow"].startswith("2.")
    assert any(device.startswith("CPU") for device in recorded["devices"])
