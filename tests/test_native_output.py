"""What C++ libraries write while they start is hidden, wherever they are imported."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

_NOISY = """
import os
os.write(2, b"a line of C++")
FAILS = {fails}
if FAILS:
    raise ValueError("no such device")
"""


def run_python(folder: Path, *lines: str) -> subprocess.CompletedProcess[str]:
    code = "\n".join([f"import sys; sys.path.insert(0, {str(folder)!r})", "from bmcli import native_output", *lines])
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_the_first_import_of_a_module_is_quiet_whoever_imports_it(tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text(_NOISY.format(fails=False))
    (tmp_path / "user.py").write_text("import noisy")
    done = run_python(
        tmp_path,
        "native_output.quiet_import('noisy')",
        "import user, noisy, inspect",
        "assert noisy.FAILS is False and noisy.__spec__.loader is noisy.__loader__",
        "assert 'a line of C++' in inspect.getsource(noisy)",
        "print('after', file=sys.stderr)",
    )
    assert (done.returncode, done.stderr) == (0, "after\n")


def test_an_import_that_fails_shows_what_was_written(tmp_path: Path) -> None:
    (tmp_path / "noisy.py").write_text(_NOISY.format(fails=True))
    done = run_python(tmp_path, "native_output.quiet_import('noisy')", "import noisy")
    assert done.returncode == 1
    assert "a line of C++" in done.stderr
    assert "no such device" in done.stderr


def test_hiding_needs_no_writable_folder(tmp_path: Path) -> None:
    done = run_python(
        tmp_path,
        "import os, resource",
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))",
        "with native_output.hide_native_stderr(): os.write(1, b'body')",
        "os.write(2, b'after')",
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "body", "after")


def test_dropped_lines_stay_dropped_when_the_body_fails(tmp_path: Path) -> None:
    done = run_python(
        tmp_path,
        "import os",
        "try:",
        "    with native_output.drop_native_stderr():",
        "        os.write(2, b'a remark')",
        "        raise ValueError",
        "except ValueError:",
        "    os.write(2, b'after')",
    )
    assert (done.returncode, done.stderr) == (0, "after")


@pytest.mark.slow
def test_keras_imports_tensorflow_without_a_line(tmp_path: Path) -> None:
    done = run_python(tmp_path, "native_output.quiet_import('tensorflow')", "import keras")
    assert (done.returncode, done.stderr) == (0, "")
