"""Worker processes that run artefacts without bmcli."""

from __future__ import annotations

import contextlib
import json
import selectors
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bmcli import encoder
from bmcli.export import runner

if TYPE_CHECKING:
    import numpy as np

ENCODER_FILE = Path(encoder.__file__)
_ANSWER_TIMEOUT_S = 600.0


class WorkerFailed(Exception):
    """The process ended or did not answer; the message is the last line of its standard error."""


class ArtefactWorker:
    """Client of a `runner` process, for one request at a time."""

    def __init__(self, process: subprocess.Popen[bytes], folder: Path) -> None:
        self._process, self._folder, self._rows = process, folder, 0
        self.load_s: float = self._read_answer()["load_s"]
        """Seconds to load the artefact, without the import of its runtime."""

    def predict(
        self, raw: Mapping[str, np.ndarray], signature: str = runner.SERVING
    ) -> dict[tuple[str, str], np.ndarray]:
        """Predict raw rows, by target and role."""
        output = self._folder / "predictions.npz"
        self._request(request="predict", rows=str(self.write_rows(raw)), signature=signature, output=str(output))
        return {tuple(json.loads(key)): values for key, values in runner.read_arrays(output).items()}

    def write_texts(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Continue texts with the function `generate`, by its inputs and outputs."""
        output = self._folder / "texts.npz"
        self._request(request="write", inputs=str(self.write_rows(inputs)), output=str(output))
        return runner.read_arrays(output)

    def compute_steps(self, ids: np.ndarray) -> np.ndarray:
        """Compute the logits after each of some ids with the function `step`, `(batch, steps, tokens)`."""
        output = self._folder / "steps.npz"
        self._request(request="steps", inputs=str(self.write_rows({"ids": ids})), output=str(output))
        return runner.read_arrays(output)["logits"]

    def write_rows(self, raw: Mapping[str, np.ndarray]) -> Path:
        """Write raw rows to a file, for requests."""
        self._rows += 1
        path = self._folder / f"rows-{self._rows}.npz"
        runner.write_arrays(path, raw)
        return path

    def time_calls(self, rows: Path, calls: int, at_most_s: float) -> list[float]:
        """Measure the seconds of each call, until the number of calls or the total time is reached."""
        seconds: list[float] = self._request(request="time", rows=str(rows), calls=calls, at_most_s=at_most_s)[
            "seconds"
        ]
        return seconds

    def read_state(self) -> dict[str, Any]:
        """Read `peak_bytes`, the peak of its memory, and `bmcli_loaded`, whether it imported bmcli."""
        return self._request(request="state")

    def _request(self, **request: Any) -> dict[str, Any]:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # reported by the missing answer
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        return self._read_answer()

    def _read_answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            line = self._process.stdout.readline() if selector.select(_ANSWER_TIMEOUT_S) else b""
        if not line:
            raise WorkerFailed(self._describe_failure())
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _describe_failure(self) -> str:
        if self._process.poll() is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
        if self._process.returncode is None:
            return f"no answer within {_ANSWER_TIMEOUT_S:.0f} s"
        lines = (self._folder / "stderr").read_text(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else f"ended with code {self._process.returncode}"


@contextlib.contextmanager
def start_worker(artefact: Path, encoder_file: Path = ENCODER_FILE) -> Iterator[ArtefactWorker]:
    """Start a process and load an artefact in it.

    Args:
        encoder_file: The package for preprocessing outside the artefact.

    Raises:
        WorkerFailed: It cannot be loaded.
    """
    with tempfile.TemporaryDirectory(prefix="bmcli-") as scratch:
        folder = Path(scratch)
        with (folder / "stderr").open("wb") as stderr:
            process = subprocess.Popen(
                # -P keeps the runner's folder, a part of bmcli, off the import path; -B leaves the artefact as it is.
                [sys.executable, "-P", "-B", runner.__file__, str(artefact), str(encoder_file)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
            )
        try:
            yield ArtefactWorker(process, folder)
        finally:
            for stream in (process.stdin, process.stdout):
                assert stream is not None
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
