"""TensorFlow finds devices without lines that mean nothing on a machine without GPUs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tensorflow as tf

from bmcli import machine
from bmcli.distribution.strategy import create_placement
from bmcli.recipe.runtime import RuntimeOptions

_LINE = "failed call to cuInit\n"
START = """
import sys
from pathlib import Path
from bmcli import training
from bmcli.recipe.load import load_recipe
training.place_on_devices(load_recipe("digits").recipe, Path(sys.argv[1]))
"""


@pytest.mark.skipif(machine.has_gpu_driver(), reason="a failure of this machine's driver is shown")
@pytest.mark.parametrize("level", ["2", "3"])
def test_a_start_without_gpus_writes_nothing(level: str, tmp_path: Path) -> None:
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": level}
    environment.pop("CUDA_VISIBLE_DEVICES", None)
    done = subprocess.run(
        [sys.executable, "-c", START, str(tmp_path)], env=environment, capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")


@pytest.mark.parametrize(("has_driver", "shown"), [(True, 2 * _LINE), (False, "")])
def test_failures_of_a_driver_are_shown_where_there_is_one(
    has_driver: bool, shown: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def list_no_devices(kind: str) -> list[object]:
        os.write(2, _LINE.encode())
        return []

    monkeypatch.setattr(machine, "has_gpu_driver", lambda: has_driver)
    monkeypatch.setattr(tf.config, "list_physical_devices", list_no_devices)
    assert create_placement(RuntimeOptions(strategy="one_device")).kind == "one_device"
    assert capfd.readouterr().err == shown
