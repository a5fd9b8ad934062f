"""Windows of one array are rows like any others, without copies."""

from __future__ import annotations

import numpy as np
import pytest

from bmcli.windows import WindowedArray, concatenate_rows, count_row_bytes

STARTS = np.array([4, 0, 7, 4])


def make(shape: tuple[int, ...] = (10,)) -> tuple[WindowedArray, np.ndarray]:
    """Make windows of three steps, and the same rows as an array."""
    base = np.arange(np.prod(shape)).reshape(shape).astype("float32")
    return WindowedArray(base, STARTS, 3), np.stack([base[start : start + 3] for start in STARTS])


@pytest.mark.parametrize("shape", [(10,), (10, 2), (10, 2, 5)])
def test_windows_are_the_rows_of_an_array(shape: tuple[int, ...]) -> None:
    windows, rows = make(shape)
    assert (len(windows), windows.shape, windows.ndim, windows.dtype) == (4, rows.shape, rows.ndim, rows.dtype)
    assert count_row_bytes(windows) == count_row_bytes(rows) == rows[0].nbytes
    np.testing.assert_array_equal(windows, rows)
    assert np.asarray(windows, "float64").dtype == "float64"
    for chosen in (slice(1, 3), [3, 0], np.array([True, False, True, False]), np.array([], int)):
        assert windows[chosen].base is windows.base
        np.testing.assert_array_equal(windows[chosen], rows[chosen])
    np.testing.assert_array_equal(windows[2], rows[2])
    assert np.shares_memory(windows[2], windows.base)


def test_windows_lie_in_their_base() -> None:
    for starts in ([-1, 2], [0, 8]):
        with pytest.raises(ValueError, match="windows of 3 steps within 10, received starts from"):
            WindowedArray(np.zeros(10), np.array(starts), 3)


def test_the_unused_ends_of_a_base_can_be_cropped() -> None:
    windows, rows = make()
    cropped = windows[:2][:1].crop()
    assert cropped.base.tolist() == [4, 5, 6]
    assert np.shares_memory(cropped.base, windows.base)
    np.testing.assert_array_equal(cropped, rows[:1])
    assert len(windows[:0].crop().base) == 0


def test_the_used_steps_are_those_of_any_window() -> None:
    windows, _ = make()
    assert windows.find_used_steps().tolist() == [True] * 3 + [False] + [True] * 6
    assert windows[:1].find_used_steps().nonzero()[0].tolist() == [4, 5, 6]


def test_windows_of_one_base_and_of_several_can_be_concatenated() -> None:
    (windows, rows), (others, other_rows) = make(), make()
    same = concatenate_rows([windows, windows[1:3]])
    assert same.base is windows.base
    np.testing.assert_array_equal(same, np.concatenate([rows, rows[1:3]]))
    joined = concatenate_rows([windows, others[:1], windows[3:]])
    assert len(joined.base) == 20
    np.testing.assert_array_equal(joined, np.concatenate([rows, other_rows[:1], rows[3:]]))
    np.testing.assert_array_equal(concatenate_rows([rows, rows]), np.concatenate([rows, rows]))
    with pytest.raises(ValueError, match="expected windows of 3 steps"):
        concatenate_rows([windows, rows])
