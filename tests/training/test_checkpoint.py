"""Checkpoints: all or nothing, checked when read, two kept."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from bmcli.errors import RunFailed
from bmcli.training import checkpoint
from bmcli.training.checkpoint import Checkpoint


def state(value: float) -> Checkpoint:
    arrays = [
        np.full((2, 3), value, np.float32),
        np.array(7, np.int64),
        np.ones(4, ml_dtypes.bfloat16) * value,
    ]
    return Checkpoint({"variables": arrays, "selected": []}, {"step": value})


def test_a_checkpoint_comes_back_bit_for_bit(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c", 3, state(1.5))
    back, _ = checkpoint.restore(tmp_path / "c")
    assert back.values == {"step": 1.5}
    for ours, original in zip(back.groups["variables"], state(1.5).groups["variables"], strict=True):
        assert ours.dtype == original.dtype
        assert ours.shape == original.shape
        assert ours.tobytes() == original.tobytes()


def test_two_are_kept_and_the_newest_is_taken(tmp_path: Path) -> None:
    for step in (9, 10, 100):
        checkpoint.save(tmp_path / "c", step, state(step))
    assert len(list((tmp_path / "c").iterdir())) == 2
    assert checkpoint.restore(tmp_path / "c")[0].values == {"step": 100}


@pytest.mark.parametrize("damage", ["truncate", "flip", "remove", "no_state"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path: Path, damage: str) -> None:
    checkpoint.save(tmp_path / "c", 1, state(1))
    newest = checkpoint.save(tmp_path / "c", 2, state(2))
    arrays = newest / "variables.npz"
    content = bytearray(arrays.read_bytes())
    if damage == "truncate":
        arrays.write_bytes(content[: len(content) // 2])
    elif damage == "flip":
        content[len(content) // 2] ^= 1
        arrays.write_bytes(content)
    else:
        (arrays if damage == "remove" else newest / "state.json").unlink()
    assert checkpoint.restore(tmp_path / "c")[0].values == {"step": 1}


def test_without_a_whole_checkpoint_resuming_is_a_fault(tmp_path: Path) -> None:
    with pytest.raises(RunFailed, match="no usable checkpoint"):
        checkpoint.restore(tmp_path / "c")


def test_a_failed_write_leaves_the_old_checkpoint_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save(tmp_path / "c", 1, state(1))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match=r"(?i)no space left"):
        checkpoint.save(tmp_path / "c", 2, state(2))
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["step-000000001"]


def test_a_changed_digit_of_the_progress_gives_way_to_the_checkpoint_before(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c", 1, state(1))
    newest = checkpoint.save(tmp_path / "c", 2, state(2)) / "state.json"
    newest.write_bytes(newest.read_bytes().replace(b'"step": 2', b'"step": 7'))
    assert checkpoint.restore(tmp_path / "c")[0].values == {"step": 1}


def test_numbers_that_are_not_finite_come_back(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "c", 1, Checkpoint({"variables": []}, {"callbacks": [{"best": float("inf")}]}))
    assert checkpoint.restore(tmp_path / "c")[0].values == {"callbacks": [{"best": float("inf")}]}


def test_checkpoints_are_neither_written_nor_removed_through_links(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "marker").touch()
    (tmp_path / "link").symlink_to(outside)
    with pytest.raises(RunFailed, match="symbolic link"):
        checkpoint.save(tmp_path / "link", 1, state(1))
    (tmp_path / "c").mkdir()
    for name in ("step-000000000", "step-000000001", ".aside-1"):
        (tmp_path / "c" / name).symlink_to(outside)
    checkpoint.CheckpointWriter(tmp_path / "c").close()
    for step in (1, 2, 3):
        checkpoint.save(tmp_path / "c", step, state(step))
    assert [path.name for path in outside.iterdir()] == ["marker"]


def test_a_checkpoint_of_another_run_gives_way_to_the_one_before(tmp_path: Path) -> None:
    for step, run_id in ((1, "own"), (2, "other")):
        checkpoint.save(tmp_path / "c", step, Checkpoint({"variables": []}, {"run_id": run_id}))
    found, damaged = checkpoint.restore(tmp_path / "c", "own")
    assert (found.values, damaged) == ({"run_id": "own"}, ("step-000000002",))
